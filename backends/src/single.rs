//! The one connection of a shard to a server, on which many calls are under way: it is opened when
//! a call needs it, and after a failure not before a pause that doubles with each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::error::StoreError;

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection of a kind of server.
pub(crate) trait Connection {
    /// Whether it is of no use any more.
    fn is_closed(&self) -> bool;

    /// Ends what is under way on it, as another takes its place.
    fn give_up(&self) {}
}

/// The connection, or none.
#[derive(Debug)]
pub(crate) struct Single<C> {
    connection: RefCell<Option<Rc<C>>>,
    /// Held by whoever connects.
    connecting: Mutex<()>,
    failures: Cell<u32>,
    retry_at: Cell<Option<Instant>>,
    last_refusal: RefCell<Option<StoreError>>,
}

impl<C> Default for Single<C> {
    fn default() -> Self {
        Single {
            connection: RefCell::default(),
            connecting: Mutex::new(()),
            failures: Cell::new(0),
            retry_at: Cell::new(None),
            last_refusal: RefCell::default(),
        }
    }
}

impl<C: Connection> Single<C> {
    /// The connection, if there is one that is of use.
    pub(crate) fn current(&self) -> Option<Rc<C>> {
        let connection = self.connection.borrow();
        connection.as_ref().filter(|open| !open.is_closed()).cloned()
    }

    /// Connections that are open, and those in use.
    pub(crate) fn counts(&self) -> (usize, usize) {
        match &*self.connection.borrow() {
            Some(open) if !open.is_closed() => (1, usize::from(Rc::strong_count(open) > 1)),
            _ => (0, 0),
        }
    }

    /// The connection, which others use as well; one that `open` makes, if there is none.
    ///
    /// Errors: those of `open`, also without a call of it while the pause lasts.
    pub(crate) async fn acquire(
        &self,
        open: impl AsyncFnOnce() -> Result<C, StoreError>,
    ) -> Result<Rc<C>, StoreError> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let _alone = self.connecting.lock().await;
        // Somebody else may have connected meanwhile, or tried to.
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        if self.retry_at.get().is_some_and(|at| Instant::now() < at)
            && let Some(refusal) = &*self.last_refusal.borrow()
        {
            return Err(refusal.clone());
        }
        if let Some(old) = self.connection.take() {
            old.give_up();
        }
        match open().await {
            Ok(connection) => {
                let connection = Rc::new(connection);
                self.connection.replace(Some(connection.clone()));
                self.failures.set(0);
                self.retry_at.set(None);
                Ok(connection)
            }
            Err(error) => {
                let pause = pause_after(self.failures.get());
                self.failures.set(self.failures.get().saturating_add(1));
                self.retry_at.set(Some(Instant::now() + pause));
                self.last_refusal.replace(Some(error.clone()));
                Err(error)
            }
        }
    }
}

/// Pause before the next attempt to connect: it doubles with each failure.
fn pause_after(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause_after(0), BACKOFF_MIN);
        assert_eq!(pause_after(2), BACKOFF_MIN * 4);
        assert_eq!(pause_after(u32::MAX), BACKOFF_MAX);
    }
}
