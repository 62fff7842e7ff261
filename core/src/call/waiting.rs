//! Calls that wait where their namespace's data is: each was answered with nothing, and asks again
//! when there may be something, until its time is over.
//!
//! A pure list; whoever owns it says when something has changed, looks when it is due, and answers.

use std::{collections::VecDeque, time::Instant};

use prism_backends::NamespaceId;
use prism_codec::method::Method;
use smallvec::SmallVec;

use super::{
    job::{Job, Work},
    ticket::Ticket,
};

/// Calls of one namespace that are tried again together.
const TRIED_TOGETHER: usize = 16;

/// The calls that wait at one place.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    namespaces: Vec<InNamespace>,
}

/// Those of one namespace, the one that has waited longest first.
#[derive(Debug)]
struct InNamespace {
    namespace: NamespaceId,
    jobs: VecDeque<Job>,
    /// When there may be something; `None`: not before somebody says so.
    look_at: Option<Instant>,
}

/// When a call gives up waiting; `None`: it does not wait.
pub(crate) fn until(job: &Job) -> Option<Instant> {
    match &job.work {
        Work::Unary { wait_until, .. } => *wait_until,
        _ => None,
    }
}

impl Waiting {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Keeps a call that found nothing.
    pub(crate) fn push(&mut self, job: Job) {
        let namespace = job.work.namespace();
        let known = self.namespaces.iter_mut().find(|one| one.namespace == namespace);
        match known {
            Some(known) => known.jobs.push_back(job),
            None => self.namespaces.push(InNamespace {
                namespace,
                jobs: VecDeque::from([job]),
                // Whether there is something already is looked at once.
                look_at: Some(Instant::now()),
            }),
        }
    }

    /// There may be something in a namespace at this time.
    pub(crate) fn look_at(&mut self, namespace: NamespaceId, at: Option<Instant>) {
        if let Some(one) = self.namespaces.iter_mut().find(|one| one.namespace == namespace) {
            one.look_at = at;
        }
    }

    /// There may be something in a namespace at this time already.
    pub(crate) fn look_no_later(&mut self, namespace: NamespaceId, at: Instant) {
        if let Some(one) = self.namespaces.iter_mut().find(|one| one.namespace == namespace) {
            one.look_at = Some(one.look_at.map_or(at, |known| known.min(at)));
        }
    }

    /// The method of the calls of a namespace: of one API, whose calls wait for the same.
    pub(crate) fn method(&self, namespace: NamespaceId) -> Option<Method> {
        let one = self.namespaces.iter().find(|one| one.namespace == namespace)?;
        match &one.jobs.front()?.work {
            Work::Unary { method, .. } => Some(*method),
            _ => None,
        }
    }

    /// The namespaces in which there may be something now.
    pub(crate) fn due(&self, now: Instant) -> SmallVec<[NamespaceId; 4]> {
        let due = |one: &&InNamespace| one.look_at.is_some_and(|at| at <= now);
        self.namespaces
            .iter()
            .filter(due)
            .map(|one| one.namespace)
            .collect()
    }

    /// When something is to be done here.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ends = self
            .namespaces
            .iter()
            .flat_map(|one| one.jobs.iter().filter_map(until));
        let looks = self.namespaces.iter().filter_map(|one| one.look_at);
        ends.chain(looks).min()
    }

    /// Takes the first calls of a namespace.
    pub(crate) fn take_some(&mut self, namespace: NamespaceId) -> Vec<Job> {
        let mut some = Vec::new();
        if let Some(one) = self.namespaces.iter_mut().find(|one| one.namespace == namespace) {
            some.extend(one.jobs.drain(..one.jobs.len().min(TRIED_TOGETHER)));
        }
        self.forget_empty();
        some
    }

    /// Takes the calls whose waiting is over, or that `which` names.
    pub(crate) fn take_where(&mut self, mut which: impl FnMut(&Job) -> bool) -> Vec<Job> {
        let mut taken = Vec::new();
        for one in &mut self.namespaces {
            // Asked often, and there are none nearly always.
            if !one.jobs.iter().any(&mut which) {
                continue;
            }
            let (out, stay): (VecDeque<Job>, _) = one.jobs.drain(..).partition(&mut which);
            one.jobs = stay;
            taken.extend(out);
        }
        self.forget_empty();
        taken
    }

    /// Takes the calls whose waiting is over.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Vec<Job> {
        self.take_where(|job| until(job).is_none_or(|until| until <= now))
    }

    /// Takes the call of a ticket.
    pub(crate) fn take_back(&mut self, ticket: Ticket) -> Vec<Job> {
        self.take_where(|job| job.ticket == ticket)
    }

    fn forget_empty(&mut self) {
        self.namespaces.retain(|one| !one.jobs.is_empty());
    }
}
