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
    /// Looks after the connections of this shard, and on the first one after what has expired,
    /// unless it is at it. The result says nothing to the breaker: some kinds of server are not
    /// asked for it, and one that hangs would seem to answer.
    pub(super) fn upkeep(self: &Rc<Self>) {
        if self.is_looking.replace(true) {
            return;
        }
        let store = self.clone();
        tokio::task::spawn_local(async move {
            match store.setup.share.shard {
                0 => store.sweep().await,
                // The next call meets what is wrong.
                _ => drop(store.server.look_after().await),
            }
            store.is_looking.set(false);
            store.ended.notify_one();
        });
    }

    async fn sweep(&self) {
        let before = UnixMillis(self.wall.unix_millis().0.saturating_sub(MARGIN_MS));
        let swept = match self.prepare().await {
            Ok(true) => self.look_after(before).await,
            Ok(false) => {
                return self.next_sweep.set(Instant::now() + PAUSE_IN_TROUBLE);
            }
            Err(error) => Err(error),
        };
        match swept {
            Ok(sweep) if sweep.more => self.next_sweep.set(Instant::now()),
            Ok(_) => {}
            Err(error) => {
                self.next_sweep.set(Instant::now() + PAUSE_IN_TROUBLE);
                tracing::warn!(store = self.setup.name, %error, "cannot look after the store; trying again later");
            }
        }
    }

    async fn look_after(&self, before: UnixMillis) -> Result<Sweep, StoreError> {
        self.server.look_after().await?;
        self.stores.sweep(before, STEP).await
    }
}
