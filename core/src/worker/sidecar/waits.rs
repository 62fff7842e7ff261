//! Calls that found nothing in a server's store and wait for something.
//!
//! They look again when this thread has written to their namespace, when another process says that
//! it has, when something there becomes ready by itself, and now and then in any case, since the
//! word of others may be lost.

use std::{
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use prism_backends::{NamespaceId, StoreError, UnixMillis, server::Written};
use prism_codec::{
    grpc::Status,
    method::{Api, Effect},
};
use rustc_hash::FxHashSet;

use super::{Store, weight_of};
use crate::{
    api::StoreCall,
    call::{
        error,
        event::ApplyBatch,
        job::{Answer, Job, Work},
        record::LoggedWrite,
        ticket::Ticket,
        waiting::{self, Waiting},
    },
};

/// Longest time between two looks while calls wait.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Time until the next look after one that promised something which others have got.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Most calls under way whose clients have given up; they are few, and soon over.
const TAKEN_BACK_MAX: usize = 1_024;

/// The calls that wait, and what is said of namespaces.
#[derive(Default)]
pub(super) struct Waits {
    waiting: Waiting,
    /// Shards whose calls wait no longer.
    ended: Vec<u16>,
    /// Calls whose clients have given up while they were under way.
    taken_back: VecDeque<Ticket>,
    /// Queues and topics that were written to, which others do not know yet.
    queues: FxHashSet<NamespaceId>,
    topics: FxHashSet<NamespaceId>,
    is_announcing: bool,
}

impl Waits {
    /// When something is to be done for them.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.waiting.is_empty() {
            true => None,
            false => self.waiting.next(),
        }
    }

    /// Takes the queues and the topics that others do not know yet.
    fn take_written(&mut self) -> (Vec<NamespaceId>, Vec<NamespaceId>) {
        (self.queues.drain().collect(), self.topics.drain().collect())
    }

    fn may_wait(&mut self, job: &Job) -> bool {
        let is_given_up = self.taken_back.iter().position(|ticket| *ticket == job.ticket);
        if let Some(at) = is_given_up {
            self.taken_back.remove(at);
            return false;
        }
        !self.ended.contains(&job.ticket.shard)
            && waiting::until(job).is_some_and(|until| until > Instant::now())
    }
}

impl Store {
    /// Answers a call that was served, or lets it wait if there was nothing for it. Returns whether
    /// the store has answered.
    pub(super) fn finish_read(&self, job: Job, result: Result<Answer, Box<Status>>) -> bool {
        let is_nothing = matches!(&result, Ok(Answer::Message(message)) if message.is_empty());
        let mut waits = self.waits.borrow_mut();
        if is_nothing && waits.may_wait(&job) {
            waits.waiting.push(job);
            return true;
        }
        if !is_nothing && waiting::until(&job).is_some() {
            // There may be more for the others.
            waits.waiting.look_no_later(job.work.namespace(), Instant::now());
        }
        drop(waits);
        self.reply(&job, result)
    }

    /// Ends the waiting of a call whose client is gone.
    pub(super) fn take_back(&self, job: &Job) {
        let mut waits = self.waits.borrow_mut();
        let taken = waits.waiting.take_back(job.ticket);
        if taken.is_empty() {
            waits.taken_back.truncate(TAKEN_BACK_MAX - 1);
            waits.taken_back.push_front(job.ticket);
        }
        drop(waits);
        self.answer_nothing(taken);
    }

    /// Ends the waiting of the calls of a shard, or of all, for good.
    pub(super) fn end_waits(&self, shard: Option<u16>) {
        let mut waits = self.waits.borrow_mut();
        waits.ended.extend(shard);
        let is_of_it = |job: &Job| shard.is_none_or(|shard| job.ticket.shard == shard);
        let ended = waits.waiting.take_where(is_of_it);
        drop(waits);
        self.answer_nothing(ended);
    }

    /// Refuses all calls that wait: the store does not answer.
    pub(super) fn refuse_waits(&self, cause: &StoreError) {
        let all = self.waits.borrow_mut().waiting.take_where(|_| true);
        for job in all {
            self.reply(&job, Err(error::from_store(cause)));
        }
    }

    fn answer_nothing(&self, jobs: Vec<Job>) {
        for job in jobs {
            self.reply(&job, Ok(Answer::Message(Vec::new())));
        }
    }

    /// Notes the queues and topics that calls have changed.
    pub(super) fn note_calls(&self, calls: &[StoreCall<'_>]) {
        for call in calls {
            self.note_written(call.context.namespace, call.method.api());
        }
    }

    /// Notes the queue or topics that records have changed, if they are of one.
    pub(super) fn note_records(&self, batch: &ApplyBatch) {
        if !self.server.brings_news() {
            return;
        }
        let first = batch.records.first();
        let first = first.and_then(|(_, record)| LoggedWrite::decode(batch.namespace, record).ok());
        if let Some(record) = first {
            self.note_written(batch.namespace, record.method.api());
        }
    }

    /// Notes that a namespace was written to: who waits there looks again, at every gateway. At
    /// this one subscribers know it already, and the workers of the other sidecars do not.
    fn note_written(&self, namespace: NamespaceId, api: Api) {
        if !self.server.brings_news() {
            return;
        }
        let mut waits = self.waits.borrow_mut();
        match api {
            Api::Queue => {
                waits.waiting.look_no_later(namespace, Instant::now());
                waits.queues.insert(namespace);
            }
            Api::PubSub if self.setup.is_shared => drop(waits.topics.insert(namespace)),
            _ => {}
        }
    }

    /// Takes what others have said.
    pub(super) fn hear_news(&self, now: Instant) {
        for Written { namespace, head } in self.server.news() {
            match head {
                Some(head) => self.asks.hear(namespace, head),
                None => self.waits.borrow_mut().waiting.look_no_later(namespace, now),
            }
        }
    }

    /// Looks after the calls whose time has come, and lets others know what was written.
    pub(super) fn serve_waits(self: &Rc<Self>, now: Instant) {
        let mut waits = self.waits.borrow_mut();
        let has_news = !waits.queues.is_empty() || !waits.topics.is_empty();
        if has_news && !waits.is_announcing {
            waits.is_announcing = true;
            let store = self.clone();
            self.spawn(async move { store.announce().await });
        }
        if waits.waiting.is_empty() {
            return;
        }
        let ended = waits.waiting.take_ended(now);
        let due = waits.waiting.due(now);
        for namespace in &due {
            waits.waiting.look_at(*namespace, Some(now + LOOK_PAUSE));
        }
        drop(waits);
        self.answer_nothing(ended);
        for namespace in due {
            let store = self.clone();
            self.spawn(async move { store.look(namespace).await });
        }
    }

    /// Says what was written, once for all that is written while it does.
    async fn announce(&self) -> bool {
        loop {
            let (queues, topics) = self.waits.borrow_mut().take_written();
            if queues.is_empty() && topics.is_empty() {
                self.waits.borrow_mut().is_announcing = false;
                return true;
            }
            let said = self.server.announce(&queues, &topics).await;
            if !self.is_answer(&said) {
                // Those who wait look by themselves.
                self.waits.borrow_mut().is_announcing = false;
                return false;
            }
        }
    }

    /// Tries calls again that wait in a namespace, if there is something for them. Returns whether
    /// the store has answered.
    async fn look(self: &Rc<Self>, namespace: NamespaceId) -> bool {
        let now = self.wall.unix_millis();
        let ready = self.ready_at(namespace, now).await;
        let answered = self.is_answer(&ready);
        let mut waits = self.waits.borrow_mut();
        match ready {
            Ok(Some(at)) if at <= now => {
                let some = waits.waiting.take_some(namespace);
                let again = Instant::now() + LOOK_AGAIN;
                waits.waiting.look_no_later(namespace, again);
                drop(waits);
                for job in some {
                    let weight = weight_of(&job);
                    self.queue(&self.reads, namespace, weight, job);
                }
            }
            Ok(Some(at)) => {
                let left = Duration::from_millis(at.0 - now.0);
                waits.waiting.look_no_later(namespace, Instant::now() + left);
            }
            Ok(None) => {}
            Err(cause) => {
                let own = |job: &Job| job.work.namespace() == namespace;
                let refused = waits.waiting.take_where(own);
                drop(waits);
                for job in refused {
                    self.reply(&job, Err(error::from_store(&cause)));
                }
            }
        }
        answered
    }

    async fn ready_at(
        &self,
        namespace: NamespaceId,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, StoreError> {
        // First: what is written after the look is heard.
        self.server.keep_listening().await?;
        match &self.stores.queue {
            Some(queue) => queue.ready_at(namespace, now).await,
            None => Ok(None),
        }
    }
}

/// Whether it is a call that is never logged. Each has a place to itself, as reads have.
pub(super) fn is_direct(job: &Job) -> bool {
    match &job.work {
        Work::Unary { method, .. } => method.spec().effect == Effect::Direct,
        _ => false,
    }
}
