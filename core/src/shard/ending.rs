//! Progress of a connection's end: a state that its tasks share, and that ends their waits.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
};

/// The state, which only moves forward.
#[derive(Default)]
pub(super) struct Ending {
    stage: Cell<Stage>,
    waiters: [RefCell<Option<Waker>>; 3],
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Open,
    /// Nothing more is received; pending output is sent, and the client gets time to read it.
    Ending,
    /// Over: no task waits any longer.
    Closed,
}

impl Ending {
    /// Ends the connection in order.
    pub(super) fn end(&self) {
        self.move_to(Stage::Ending);
    }

    /// Ends the connection at once.
    pub(super) fn close(&self) {
        self.move_to(Stage::Closed);
    }

    /// Whether the end has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.stage.get() > Stage::Open
    }

    fn move_to(&self, stage: Stage) {
        if stage <= self.stage.get() {
            return;
        }
        self.stage.set(stage);
        for waiter in &self.waiters {
            if let Some(waker) = waiter.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Runs `future` to its end, or drops it as soon as the connection's end begins. For the
    /// reader, at place 0.
    pub(super) async fn while_open<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.before(Stage::Ending, 0, future).await
    }

    /// Runs `future` to its end, or drops it as soon as the connection is closed. `place`
    /// identifies the waiting task: two simultaneous waits must not share it.
    pub(super) async fn unless_closed<T>(&self, place: usize, future: impl Future<Output = T>) -> Option<T> {
        self.before(Stage::Closed, place, future).await
    }

    async fn before<T>(&self, stage: Stage, place: usize, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.stage.get() >= stage {
                return Poll::Ready(None);
            }
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let mut waiter = self.waiters[place].borrow_mut();
            if !waiter
                .as_ref()
                .is_some_and(|known| known.will_wake(context.waker()))
            {
                *waiter = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
