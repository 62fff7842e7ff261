//! Effects of time on queues: deaths are written down, old messages and ids go. Several gateways
//! may sweep at once.

use tokio_postgres::types::ToSql;

use super::Queue;
use super::rows::millis;
use super::work::Work;
use crate::api::queue::Sweep;
use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::postgres::connect::{Fault, Link};
use crate::postgres::transaction::{DURABLE, End, in_transaction};

/// Messages of one step: the bodies that go with them may be large.
const STEP: usize = 256;

impl Queue {
    pub(super) async fn sweep_messages(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let now_ms = millis(now);
        let limit = budget.clamp(1, STEP) as i64;
        let rows_max = budget.max(1) as i64;
        in_transaction(&self.connections, DURABLE, async |link: &Link| {
            let mut done = Sweep::default();
            let rows = link.query(DUE, &[&now_ms, &limit]).await?;
            let (mut namespaces, mut ids) = (Vec::new(), Vec::new());
            for row in &rows {
                namespaces.push(row.try_get::<_, i64>(0)?);
                ids.push(row.try_get::<_, &[u8]>(1)?);
            }
            if !ids.is_empty() {
                let mut each = namespaces.clone();
                each.sort_unstable();
                each.dedup();
                let mut work = Work::begin(link, &each).await?;
                work.load(&namespaces, &ids).await?;
                for (namespace, id) in namespaces.iter().zip(&ids) {
                    work.look_over(*namespace, id, now);
                }
                work.flush().await?;
            }
            count(&mut done, ids.len() as u64, limit);
            let parameters: &[&(dyn ToSql + Sync)] = &[&now_ms, &rows_max];
            for forget in [FORGET_GONE, FORGET_CALLS] {
                count(&mut done, link.execute(forget, parameters).await?, rows_max);
            }
            Ok::<_, Fault>(End::Commit(done))
        })
        .await
    }
}

fn count(done: &mut Sweep, rows: u64, limit: i64) {
    done.examined += rows as usize;
    done.removed += rows as usize;
    done.more |= rows.cast_signed() >= limit;
}

static DUE: &str = "SELECT namespace, id FROM prism.queue_item WHERE look_at <= $1 ORDER BY look_at LIMIT $2";
static FORGET_GONE: &str = "DELETE FROM prism.queue_gone WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM prism.queue_gone WHERE forget_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
static FORGET_CALLS: &str = "DELETE FROM prism.queue_call WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM prism.queue_call WHERE forget_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
