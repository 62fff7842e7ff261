//! Asks of members of groups that wait where their group is kept, until it changes or their time is
//! over. A pure list; whoever owns it says what has changed, and asks again for those it takes.

use std::time::Instant;

use prism_backends::{
    NamespaceId,
    api::groups::{Changed, GroupChange},
};

use super::{
    messages::{GroupAsk, GroupWait, MemberAct},
    ticket::Ticket,
};

/// The asks that wait at one place; at most one for each stream.
#[derive(Debug, Default)]
pub(crate) struct GroupWaits(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    ask: GroupAsk,
    wait: GroupWait,
    until: Instant,
}

impl GroupWaits {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps an ask to which there is no news. It is asked again as a plain sign of life: what it
    /// gave up has been given up.
    pub(crate) fn keep(&mut self, ticket: Ticket, mut ask: GroupAsk, now: Instant) {
        let MemberAct::Renew(renewal) = &mut ask.act else {
            return;
        };
        let Some(wait) = renewal.wait.take() else { return };
        renewal.released.clear();
        renewal.passed.clear();
        self.0.push(Waiting {
            ticket,
            ask,
            wait,
            until: now + wait.time,
        });
    }

    /// Drops the ask of a stream, since another one has come or the stream has ended.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.0.retain(|one| one.ticket != ticket);
    }

    /// Takes the asks whose time is over.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Vec<(Ticket, GroupAsk)> {
        self.take_where(|one| one.until <= now)
    }

    /// Takes the asks to which these changes are news.
    pub(crate) fn take_changed(&mut self, changes: &[GroupChange]) -> Vec<(Ticket, GroupAsk)> {
        self.take_where(|one| {
            changes.iter().any(|change| {
                let matters = change.changed >= Changed::Shape || one.wait.moves.is_some();
                matters && change.namespace == one.ask.namespace && *change.group == *one.ask.group
            })
        })
    }

    /// Takes the asks about a namespace.
    pub(crate) fn take_namespace(&mut self, namespace: NamespaceId) -> Vec<(Ticket, GroupAsk)> {
        self.take_where(|one| one.ask.namespace == namespace)
    }

    /// When the first one's time is over.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|one| one.until).min()
    }

    fn take_where(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<(Ticket, GroupAsk)> {
        let taken = self.0.extract_if(.., |one| which(one));
        taken.map(|one| (one.ticket, one.ask)).collect()
    }
}
