//! Groups of subscribers at the writer: asks of their members, many in one transaction, and those
//! that wait for news.

use std::time::Instant;

use prism_backends::{StoreError, api::groups::Outcome};

use super::{WriterThread, reply};
use crate::{
    api::pubsub::groups,
    call::{
        job::{Answer, Job, Work},
        messages::{GroupAsk, MemberAct},
        ticket::Ticket,
    },
};

/// Times that one call follows the changes that its own answers make; the rest waits for the next.
const ROUNDS_MAX: usize = 64;

impl WriterThread {
    /// Carries out the asks among these jobs; returns the other jobs.
    pub(super) fn serve_groups(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let (mut asks, mut others) = (Vec::new(), Vec::new());
        for job in jobs {
            match job.work {
                Work::Group(ask) => {
                    self.groups.forget(job.ticket);
                    asks.push((job.ticket, *ask));
                }
                work => others.push(Job { work, ..job }),
            }
        }
        self.ask_groups(asks);
        others
    }

    fn ask_groups(&mut self, asks: Vec<(Ticket, GroupAsk)>) {
        if asks.is_empty() {
            return;
        }
        let at = self.wall.unix_millis();
        let done: Result<Vec<Outcome>, StoreError> = self.writer.topics_at(&[], |transaction| {
            let each = |(_, ask): &(Ticket, GroupAsk)| groups::change_at(transaction, ask, at);
            asks.iter().map(each).collect()
        });
        let now = Instant::now();
        let mut done = done.map(Vec::into_iter);
        for (ticket, ask) in asks {
            let outcome = match &mut done {
                Ok(outcomes) => Ok(outcomes.next().unwrap_or(Outcome::Left)),
                Err(cause) => Err(cause.clone()),
            };
            if outcome
                .as_ref()
                .is_ok_and(|outcome| groups::is_no_news(&ask, outcome))
            {
                self.groups.keep(ticket, ask, now);
            } else if matches!(ask.act, MemberAct::Renew(_)) {
                let answer = groups::answer(&ask, outcome);
                reply(&self.shards.replies, ticket, Ok(Answer::Group(Box::new(answer))));
            }
        }
    }

    /// Answers the asks whose time is over, and those to which the changes since the last call are
    /// news.
    pub(super) fn wake_groups(&mut self, now: Instant) {
        let mut asks = match self.groups.is_empty() {
            true => Vec::new(),
            false => self.groups.take_ended(now),
        };
        for _ in 0..ROUNDS_MAX {
            self.ask_groups(std::mem::take(&mut asks));
            let changes = self.writer.take_group_changes();
            if changes.is_empty() {
                return;
            }
            asks = self.groups.take_changed(&changes);
        }
        // Few: a group settles after as many rounds as it has partitions to share out.
        self.ask_groups(asks);
    }
}
