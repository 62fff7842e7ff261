//! How far the end of a connection is: a state that its tasks share, and that ends what they wait for.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
};

/// The state, which only moves on.
#[derive(Default)]
pub(super) struct Ending {
    stage: Cell<Stage>,
    waiters: [RefCell<Option<Waker>>; 3],
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Open,
    /// Nothing more is received; what there is to send is sent, and the client gets time to read it.
    Ending,
    /// Over: no task waits any longer.
    Closed,
}

impl Ending {
    /// Ends the connection in order.
    pub(super) fn end(&self) {
        self.move_to(Stage::Ending);
    }

    /// Ends it at once.
    pub(super) fn close(&self) {
        self.move_to(Stage::Closed);
    }

    /// Whether its end has begun.
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

    /// Runs `future` to its end, or drops it as soon as the end begins. For the reader, whose place is 0.
    pub(super) async fn while_open<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.before(Stage::Ending, 0, future).await
    }

    /// Runs `future` to its end, or drops it as soon as the connection is closed. `place` names the waiting task: two waits
    /// at the same time must not share it.
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
