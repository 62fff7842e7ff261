//! Upkeep of a store: connections that nobody uses, settings that may have changed, and what has
//! expired.

use std::time::{Duration, Instant};

use prism_backends::{StoreError, UnixMillis, api::keyvalue::Sweep};

use super::Store;

/// Pause before the next sweep after one that failed, rows of one, and the time for which expired
/// rows are kept, since a write may be judged that late.
const PAUSE_IN_TROUBLE: Duration = Duration::from_secs(10);
const STEP: usize = 1_000;
const MARGIN_MS: u64 = 60_000;

impl Store {
    /// Looks after the connections of this shard, and for all shards the first one after what has
    /// expired. Returns whether the store has answered, or was not asked.
    pub(super) async fn sweep(&self) -> bool {
        if self.setup.share.shard > 0 {
            let looked = self.server.look_after().await;
            return self.is_answer(&looked);
        }
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
