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
        job::{Answer, Job, PubSubWork, Work},
        messages::{Found, Place, Wanted},
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
            work: Work::PubSub(PubSubWork::Ask {
                wanted: waiting.wanted,
                place: Place::Next(waiting.next),
                number: waiting.number,
            }),
        })
    }

    /// Serves work for PubSub. `None`: there is no answer, or none yet.
    pub(super) fn serve(
        &mut self,
        reader: &Reader,
        ticket: Ticket,
        work: PubSubWork,
        now: UnixMillis,
    ) -> Option<Answer> {
        match work {
            PubSubWork::Ask {
                wanted,
                place,
                number,
            } => self.ask(reader, ticket, wanted, place, number, now),
            PubSubWork::TakeBack { .. } => {
                self.waiting.retain(|waiting| waiting.ticket != ticket);
                None
            }
            // Publishing is the writer's.
            PubSubWork::Publish { .. } => None,
        }
    }

    fn ask(
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
        loop {
            let found = reads::ask(
                &wanted,
                &mut place,
                |start| reader.open_messages(namespace, start, now),
                |next, sink| reader.read_messages(namespace, next, now, sink),
            );
            let chunk = match (found, place) {
                (Ok(Found::Nothing), Place::Next(next)) => {
                    self.waiting.push(Waiting {
                        ticket,
                        wanted,
                        next,
                        number,
                        head,
                    });
                    return None;
                }
                // Messages that it does not want were passed.
                (Ok(Found::More | Found::Nothing), _) => continue,
                (Ok(Found::Chunk(chunk)), _) => Ok(chunk),
                (Err(status), _) => Err(status),
            };
            return Some(Answer::Messages { number, chunk });
        }
    }
}
