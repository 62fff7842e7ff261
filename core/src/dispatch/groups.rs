//! Groups of subscribers that this shard keeps in its memory: asks of their members, and those that
//! wait for news.

use std::time::Instant;

use prism_backends::{NamespaceId, StoreError};

use super::Dispatcher;
use crate::{
    api::pubsub::groups,
    call::{
        error,
        job::{Answer, Reply},
        messages::{GroupAnswer, GroupAsk, MemberAct},
        ticket::Ticket,
    },
};

impl Dispatcher {
    /// Carries out an ask of a member, and answers it unless it waits.
    pub(super) fn execute_group(&mut self, ticket: Ticket, ask: GroupAsk) {
        self.group_waits.forget(ticket);
        self.serve_group(ticket, ask);
        self.serve_group_waits();
    }

    fn serve_group(&mut self, ticket: Ticket, ask: GroupAsk) {
        let now = self.wall_millis();
        let outcome = groups::change_in_memory(&mut self.places.memory.pubsub, &ask, now);
        if groups::is_no_news(&ask, &outcome) {
            self.group_waits.keep(ticket, ask, Instant::now());
            self.deadlines.notify();
            return;
        }
        if matches!(ask.act, MemberAct::Renew(_)) {
            self.answer_group(ticket, groups::answer(&ask, Ok(outcome)));
        }
    }

    fn answer_group(&self, ticket: Ticket, answer: GroupAnswer) {
        self.send_reply(Reply {
            ticket,
            result: Ok(Answer::Group(Box::new(answer))),
        });
    }

    /// Answers the asks to which the changes of groups since the last call are news.
    #[inline]
    pub(super) fn serve_group_waits(&mut self) {
        if self.places.memory.pubsub.has_group_changes() {
            self.serve_changed_groups();
        }
    }

    fn serve_changed_groups(&mut self) {
        loop {
            let changes = self.places.memory.pubsub.take_group_changes();
            let asks = self.group_waits.take_changed(&changes);
            if asks.is_empty() {
                return;
            }
            for (ticket, ask) in asks {
                self.serve_group(ticket, ask);
            }
        }
    }

    /// Answers the asks whose time is over.
    pub(super) fn serve_due_groups(&mut self, now: Instant) {
        if self.group_waits.is_empty() {
            return;
        }
        for (ticket, ask) in self.group_waits.take_ended(now) {
            self.serve_group(ticket, ask);
        }
        self.serve_group_waits();
    }

    /// Ends the streams of groups of a namespace that is deleted.
    pub(super) fn refuse_groups(&mut self, namespace: NamespaceId) {
        for (ticket, ask) in self.group_waits.take_namespace(namespace) {
            let cause = StoreError::DroppedNamespace(namespace);
            self.answer_group(
                ticket,
                GroupAnswer {
                    number: ask.number,
                    outcome: Err(error::from_store(&cause)),
                },
            );
        }
    }
}
