//! A signal for one waiter on one thread, by which the tasks of one shard wake each other.
//!
//! A signal given while no task waits is kept (once), so none is lost. Not for use between threads:
//! those use the mailbox.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// The signal. At most one task waits on it at a time; a second waiter replaces the first.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// Wakes the waiting task, or lets the next wait return at once.
    pub(crate) fn notify(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for the next signal and consumes it.
    pub(crate) async fn notified(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
