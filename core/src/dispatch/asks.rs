//! Asks of streams that this shard's memory answers: at once if there is something, else when there
//! is.

use std::sync::Arc;

use prism_backends::{NamespaceId, StoreError};

use super::Dispatcher;
use crate::{
    api::pubsub::reads,
    call::{
        error,
        job::{Answer, Reply},
        messages::{Asked, Place, Wanted},
        ticket::Ticket,
    },
};

/// An ask of a subscription that found nothing.
pub(super) struct Ask {
    ticket: Ticket,
    wanted: Arc<Wanted>,
    place: Place,
    number: u16,
}

impl Dispatcher {
    /// Answers an ask for messages that this shard holds, or keeps it until there are some.
    pub(super) fn execute_ask(&mut self, ticket: Ticket, wanted: Arc<Wanted>, place: Place, number: u16) {
        let mut ask = Ask {
            ticket,
            wanted,
            place,
            number,
        };
        if !self.serve_ask(&mut ask) {
            self.asks.push(ask);
        }
    }

    /// Drops the asks of a stream that has ended.
    pub(super) fn drop_asks_of(&mut self, ticket: Ticket) {
        self.asks.retain(|ask| ask.ticket != ticket);
    }

    /// Whether an ask could be answered.
    fn serve_ask(&self, ask: &mut Ask) -> bool {
        let (now, namespace) = (self.wall_millis(), ask.wanted.namespace);
        let messages = &self.places.memory.pubsub;
        let answer = reads::answer(
            &ask.wanted,
            &mut ask.place,
            |start| messages.open(namespace, start, now),
            |next, sink| messages.read(namespace, next, now, sink),
        );
        match answer {
            Ok(chunk) => {
                self.answer_ask(ask, chunk);
                true
            }
            Err(_) => false,
        }
    }

    fn answer_ask(&self, ask: &Ask, chunk: Asked) {
        self.send_reply(Reply {
            ticket: ask.ticket,
            result: Ok(Answer::Messages {
                number: ask.number,
                chunk,
            }),
        });
    }

    /// Answers the asks that wait for what a write in memory may have brought to a namespace, and
    /// those to which it was news about a group.
    #[inline]
    pub(super) fn serve_asks(&mut self, namespace: NamespaceId) {
        self.serve_group_waits();
        if !self.asks.is_empty() {
            self.serve_waiting_asks(namespace);
        }
    }

    fn serve_waiting_asks(&mut self, namespace: NamespaceId) {
        let next = self.places.memory.pubsub.next_number(namespace);
        let is_due = |ask: &Ask| match ask.place {
            Place::Next(waits_for) => ask.wanted.namespace == namespace && waits_for < next,
            Place::Before(_) => false,
        };
        let mut asks = std::mem::take(&mut self.asks);
        asks.retain_mut(|ask| !is_due(ask) || !self.serve_ask(ask));
        self.asks = asks;
    }

    /// Ends the asks about a namespace that is deleted.
    pub(super) fn refuse_asks(&mut self, namespace: NamespaceId) {
        self.refuse_groups(namespace);
        let mut asks = std::mem::take(&mut self.asks);
        asks.retain(|ask| {
            if ask.wanted.namespace != namespace {
                return true;
            }
            self.answer_ask(
                ask,
                Err(error::from_store(&StoreError::DroppedNamespace(namespace))),
            );
            false
        });
        self.asks = asks;
    }
}

#[cfg(test)]
impl Dispatcher {
    /// Streams that are open.
    pub(crate) fn streams_open(&self) -> usize {
        self.streams
    }

    /// Asks that wait for messages of this shard.
    pub(crate) fn asks_waiting(&self) -> usize {
        self.asks.len()
    }
}
