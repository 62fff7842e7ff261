//! Upkeep of a store: connections that nobody uses, settings that may have changed, and what has
//! expired.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use prism_backends::{StoreError, UnixMillis, api::keyvalue::Sweep};

use super::Store;

/// Pause before the next sweep after one that failed, rows of one, and the time for which expired
/// rows are kept, since a write may be judged that late.
const PAUSE_IN_TROUBLE: Duration = Duration::from_secs(10);
const STEP: usize = 1_000;
const MARGIN_MS: u64 = 60_000;

impl Store {
    /// Looks after the connections of this shard, unless it is at it. That the store was asked, and
    /// with what result, says nothing to the breaker: some kinds of server are not asked for it.
    pub(super) fn look_after_connections(self: &Rc<Self>) {
        if self.is_looking.replace(true) {
            return;
        }
        let store = self.clone();
        tokio::task::spawn_local(async move {
            // The next call meets what is wrong.
            let _ = store.server.look_after().await;
            store.is_looking.set(false);
        });
    }

    /// Looks after the connections, and for all shards after what has expired. Returns whether the
    /// store has answered.
    pub(super) async fn sweep(&self) -> bool {
        let before = UnixMillis(self.wall.unix_millis().0.saturating_sub(MARGIN_MS));
        let swept = match self.prepare().await {
            Ok(true) => self.look_after(before).await,
            Ok(false) => {
                self.next_sweep.set(Instant::now() + PAUSE_IN_TROUBLE);
                return true;
            }
            Err(error) => Err(error),
        };
        let answered = self.is_answer(&swept);
        match swept {
            Ok(sweep) if sweep.more => self.next_sweep.set(Instant::now()),
            Ok(_) => {}
            Err(error) => {
                self.next_sweep.set(Instant::now() + PAUSE_IN_TROUBLE);
                tracing::warn!(store = self.setup.name, %error, "cannot look after the store; trying again later");
            }
        }
        answered
    }

    async fn look_after(&self, before: UnixMillis) -> Result<Sweep, StoreError> {
        self.server.look_after().await?;
        self.stores.sweep(before, STEP).await
    }
}
