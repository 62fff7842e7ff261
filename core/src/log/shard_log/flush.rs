//! End of a lane: everything is applied and made durable in the store, and the lane is closed.

use prism_wal::pool::Durable;

use super::{Flushing, ShardLog};
use crate::log::{keeper::KeeperJob, links::Route};

impl ShardLog {
    /// Flushes, as no call is open any more: applies everything, makes it durable in the store,
    /// closes the lane.
    pub(crate) fn flush(&mut self) {
        if self.flushing == Flushing::No {
            self.flushing = Flushing::Wanted;
        }
    }

    /// Whether the lane is closing. Nothing may be appended after the clean-close marker: recovery
    /// does not read past it.
    pub(super) fn is_closing(&self) -> bool {
        self.keeper.is_none()
    }

    /// Whether the lane is closed.
    pub(crate) fn is_flushed(&self) -> bool {
        // A poisoned lane is never drained: the next start reads it.
        let is_given_up = || !self.is_healthy() || self.waits_for_servers_only();
        self.flushing == Flushing::Done || (self.flushing == Flushing::Wanted && is_given_up())
    }

    /// Whether only servers that are out of reach lack something, and nothing else is under way:
    /// the next start goes on.
    fn waits_for_servers_only(&self) -> bool {
        let is_of_server = |namespace| self.routes.known(namespace) != Route::File;
        !self.applier.is_empty()
            && self.applier.only_failing(is_of_server)
            && self.lane.commit().is_quiet()
            && self.lane.tail().unsynced().next().is_none()
    }

    pub(super) fn finish_flush(&mut self) {
        if self.flushing != Flushing::Wanted || !self.applier.is_empty() || !self.lane.is_drained() {
            return;
        }
        let Some(keeper) = &self.keeper else { return };
        let durable: Durable = self.lane.durable();
        if keeper.try_send(KeeperJob::Close(durable)).is_ok() {
            self.flushing = Flushing::Closing;
            self.keeper = None;
        }
    }
}
