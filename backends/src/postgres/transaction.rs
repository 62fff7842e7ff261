//! Transactions of several statements: begun on a leased connection, and ended in any case.

use std::rc::Rc;

use super::connect::{Fault, Link};
use super::connections::Connections;
use crate::error::StoreError;

/// Number of times that a transaction is tried when others make it impossible.
const ATTEMPTS: u32 = 4;

/// End of a transaction whose statements have all succeeded.
pub(super) enum End<T> {
    /// Commit: its changes stay.
    Commit(T),
    /// Rollback: it leaves no trace.
    RollBack(T),
}

/// Begins a transaction whose acknowledged commit is durable.
pub(super) const DURABLE: &str = "BEGIN";

/// Begins a transaction whose commit does not wait for the disk: a crash of the server may undo it,
/// never what a later durable one built on it.
pub(super) const FORGETFUL: &str = "BEGIN; SET LOCAL synchronous_commit = off";

/// Begins a transaction whose statements all read the state of one moment.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Runs `work` as one transaction, again if others made it impossible.
pub(super) async fn in_transaction<T>(
    connections: &Rc<Connections>,
    begin: &'static str,
    mut work: impl AsyncFnMut(&Link) -> Result<End<T>, Fault>,
) -> Result<T, StoreError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match once(connections, begin, &mut work).await {
            Err(fault) if fault.is_conflict() && attempts < ATTEMPTS => {}
            result => return Ok(result?),
        }
    }
}

async fn once<T>(
    connections: &Rc<Connections>,
    begin: &'static str,
    work: &mut impl AsyncFnMut(&Link) -> Result<End<T>, Fault>,
) -> Result<T, Fault> {
    let lease = connections.acquire().await?;
    let link = lease.begin();
    let done = async {
        link.run(begin).await?;
        // A transaction that the server has aborted answers COMMIT with success; but every
        // statement before it was awaited, and none failed.
        match work(link).await? {
            End::Commit(done) => link.run("COMMIT").await.map(|()| done),
            End::RollBack(done) => link.run("ROLLBACK").await.map(|()| done),
        }
        .map_err(Fault::from)
    }
    .await;
    let is_in_order = match &done {
        Ok(_) => true,
        Err(fault) if fault.is_of_connection() => false,
        Err(_) => link.run("ROLLBACK").await.is_ok(),
    };
    if is_in_order {
        lease.finish();
    }
    done
}
