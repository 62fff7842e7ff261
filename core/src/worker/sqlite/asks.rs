//! Asks of subscriptions at a reader: answered at once if there is a message, otherwise kept until
//! there is one.
//!
//! The writer moves a number for each namespace when it has committed messages, and wakes the
//! readers. An ask that waits costs a look at that number, and no query.

use std::sync::Arc;

use prism_backends::{
    UnixMillis,
    sqlite::{Head, Reader},
};

use crate::{
    api::pubsub::reads,
    call::{
        job::{Answer, Job, Work},
        messages::{Place, Wanted},
        ticket::Ticket,
    },
    runtime::mailbox::Waker,
};

/// The asks that wait at one reader.
pub(super) struct Asks {
    waiting: Vec<Waiting>,
}

struct Waiting {
    ticket: Ticket,
    wanted: Arc<Wanted>,
    next: u64,
    number: u16,
    head: Head,
}

impl Waiting {
    fn is_due(&self) -> bool {
        self.head.is_beyond(self.next)
    }
}

impl Asks {
    /// None yet. The reader's thread is woken whenever messages have come.
    pub(super) fn new(reader: &Reader, waker: Arc<Waker>) -> Self {
        reader.on_messages(move || waker.wake());
        Self { waiting: Vec::new() }
    }

    /// Whether there may be an answer to any.
    pub(super) fn any_due(&self) -> bool {
        self.waiting.iter().any(Waiting::is_due)
    }

    /// Takes those to which there may be an answer.
    pub(super) fn due(&mut self) -> impl Iterator<Item = Job> + use<> {
        let due: Vec<_> = self.waiting.extract_if(.., |waiting| waiting.is_due()).collect();
        due.into_iter().map(|waiting| Job {
            ticket: waiting.ticket,
            deadline: None,
            work: Work::Messages {
                wanted: waiting.wanted,
                place: Place::Next(waiting.next),
                number: waiting.number,
            },
        })
    }

    /// Drops the ask of a stream that has ended.
    pub(super) fn take_back(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// Serves an ask. `None`: there is nothing yet, and it waits.
    pub(super) fn ask(
        &mut self,
        reader: &Reader,
        ticket: Ticket,
        wanted: Arc<Wanted>,
        mut place: Place,
        number: u16,
        now: UnixMillis,
    ) -> Option<Answer> {
        let namespace = wanted.namespace;
        // Taken before the look at the store: what is committed after it moves the number.
        let head = reader.head(namespace);
        let answer = reads::answer(
            &wanted,
            &mut place,
            |start| reader.open_messages(namespace, start, now),
            |next, sink| reader.read_messages(namespace, next, now, sink),
        );
        match answer {
            Ok(chunk) => Some(Answer::Messages { number, chunk }),
            Err(next) => {
                self.waiting.push(Waiting {
                    ticket,
                    wanted,
                    next,
                    number,
                    head,
                });
                None
            }
        }
    }
}
