//! Asks of subscriptions at a server's store: answered at once if there is a message, otherwise
//! kept until there is one.
//!
//! Messages of this gateway are known when they are stored: a count of each namespace is moved, and
//! the sidecars with asks that wait are woken. Those of other gateways are known by the server's
//! news, where it brings some, and by a look at the end of each namespace for which somebody waits.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prism_backends::{
    NamespaceId, StoreError,
    api::pubsub::{Opened, Reads, Start},
};
use prism_codec::{grpc::Code, method::Api};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Store, weight_of};
use crate::{
    api::{StoreCall, pubsub::reads},
    call::{
        error,
        job::{Answer, Job, Work},
        messages::{Place, Wanted},
        ticket::Ticket,
    },
    runtime::mailbox::Waker,
};

/// Pause between two looks for messages of others, and between two at a server that brings news.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const LOOK_PAUSE_WITH_NEWS: Duration = Duration::from_millis(200);

/// Messages of one store that this gateway has stored, for all of its sidecars.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// How often some came, by namespace.
    counts: Mutex<FxHashMap<u32, u64>>,
    /// Asks that wait, at all sidecars.
    waiting: AtomicUsize,
    wakers: Mutex<Vec<Arc<Waker>>>,
}

impl Arrivals {
    /// Has a sidecar woken when messages come that somebody waits for.
    pub(crate) fn wake(&self, waker: Arc<Waker>) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.push(waker);
    }

    /// Notes that messages have come, or that none will.
    pub(super) fn note(&self, NamespaceId(namespace): NamespaceId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(namespace).or_default() += 1;
        drop(counts);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.iter().for_each(|waker| waker.wake());
        }
    }

    fn count(&self, NamespaceId(namespace): NamespaceId) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&namespace).copied().unwrap_or(0)
    }
}

/// The asks of one store at one sidecar.
pub(super) struct Asks {
    arrivals: Arc<Arrivals>,
    /// Those that were neither answered nor taken back.
    open: RefCell<FxHashSet<Ticket>>,
    waiting: RefCell<Vec<Waiting>>,
    /// Messages of others, as looks and news say.
    others: RefCell<FxHashMap<NamespaceId, Others>>,
    look_pause: Duration,
    is_looking: Cell<bool>,
    next_look: Cell<Option<Instant>>,
}

/// Words about the messages of others in one namespace.
#[derive(Clone, Copy, Default)]
struct Others {
    /// How often there was word of some.
    words: u64,
    /// Largest number of the next message that was said.
    head: u64,
}

struct Waiting {
    ticket: Ticket,
    wanted: Arc<Wanted>,
    next: u64,
    number: u16,
    /// Counts of the arrivals, and of the words about others, before the last look at the store.
    seen: (u64, u64),
}

impl Asks {
    pub(super) fn new(arrivals: Arc<Arrivals>, brings_news: bool) -> Self {
        Self {
            arrivals,
            open: RefCell::default(),
            waiting: RefCell::default(),
            others: RefCell::default(),
            look_pause: match brings_news {
                true => LOOK_PAUSE_WITH_NEWS,
                false => LOOK_PAUSE,
            },
            is_looking: Cell::new(false),
            next_look: Cell::new(None),
        }
    }

    pub(super) fn open(&self, ticket: Ticket) {
        self.open.borrow_mut().insert(ticket);
    }

    pub(super) fn is_open(&self, ticket: Ticket) -> bool {
        self.open.borrow().contains(&ticket)
    }

    /// Drops the ask of a stream that has ended, wherever it is.
    pub(super) fn take_back(&self, ticket: Ticket) {
        if self.open.borrow_mut().remove(&ticket) {
            self.leave(|waiting| waiting.ticket == ticket);
        }
    }

    /// When the next look for messages of others is due, if somebody waits.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let waits = !self.waiting.borrow().is_empty() && !self.is_looking.get();
        self.next_look.get().filter(|_| waits)
    }

    /// Takes the asks to which there may be an answer.
    fn due(&self) -> Vec<Waiting> {
        if self.waiting.borrow().is_empty() {
            return Vec::new();
        }
        let others = self.others.borrow();
        self.leave(|one| {
            let namespace = one.wanted.namespace;
            let (arrivals, words) = one.seen;
            let others = others.get(&namespace).copied().unwrap_or_default();
            let is_behind = others.words != words && others.head > one.next;
            is_behind || self.arrivals.count(namespace) != arrivals
        })
    }

    /// Notes that the next message of a namespace has this number, at least.
    pub(super) fn hear(&self, namespace: NamespaceId, head: u64) {
        let mut others = self.others.borrow_mut();
        let others = others.entry(namespace).or_default();
        others.words += 1;
        others.head = others.head.max(head);
    }

    fn seen(&self, namespace: NamespaceId) -> (u64, u64) {
        let others = self.others.borrow();
        let words = others.get(&namespace).map_or(0, |others| others.words);
        (self.arrivals.count(namespace), words)
    }

    /// The namespaces for whose messages somebody waits.
    fn namespaces(&self) -> FxHashSet<NamespaceId> {
        let waiting = self.waiting.borrow();
        waiting.iter().map(|one| one.wanted.namespace).collect()
    }

    fn wait(&self, one: Waiting) {
        self.waiting.borrow_mut().push(one);
        self.arrivals.waiting.fetch_add(1, Ordering::SeqCst);
        let due = self.next_look.get();
        let due = due.unwrap_or_else(|| Instant::now() + self.look_pause);
        self.next_look.set(Some(due));
    }

    /// Takes those that wait no longer.
    fn leave(&self, ends: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let taken: Vec<_> = waiting.extract_if(.., |one| ends(one)).collect();
        self.arrivals.waiting.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }
}

impl Store {
    /// Serves an ask. Returns whether the store has answered.
    pub(super) async fn serve_ask(self: Rc<Self>, job: Job) -> bool {
        let Work::Messages {
            wanted,
            mut place,
            number,
        } = job.work
        else {
            return true;
        };
        let (ticket, namespace) = (job.ticket, wanted.namespace);
        let listening = self.listen_for_messages().await;
        // Taken before the look at the store: what is stored after it moves a count.
        let seen = self.asks.seen(namespace);
        let asked = match (&self.stores.pubsub, listening) {
            (_, Err(cause)) => Ok(Err(error::from_store(&cause))),
            (Some(store), Ok(())) => {
                reads::answer_later(store, &wanted, &mut place, self.wall.unix_millis()).await
            }
            (None, Ok(())) => Ok(Err(error::status(
                Code::Internal,
                "a store without messages was asked for some",
            ))),
        };
        match asked {
            Ok(chunk) => {
                let answered = chunk
                    .as_ref()
                    .err()
                    .is_none_or(|status| status.code != Code::Unavailable);
                if self.asks.open.borrow_mut().remove(&ticket) {
                    self.send(ticket, Ok(Answer::Messages { number, chunk }));
                }
                answered
            }
            Err(next) => {
                if self.asks.is_open(ticket) {
                    self.asks.wait(Waiting {
                        ticket,
                        wanted,
                        next,
                        number,
                        seen,
                    });
                }
                true
            }
        }
    }

    /// Queues the asks to which there may be an answer, and looks for messages of others.
    pub(super) fn attend_asks(self: &Rc<Self>, now: Instant) {
        for one in self.asks.due() {
            let job = Job {
                ticket: one.ticket,
                deadline: None,
                work: Work::Messages {
                    wanted: one.wanted,
                    place: Place::Next(one.next),
                    number: one.number,
                },
            };
            self.queue(&self.reads, job.ticket.namespace, weight_of(&job), job);
        }
        if self.asks.next_look().is_some_and(|at| now >= at) && !self.breaker.borrow().is_open(now) {
            self.asks.is_looking.set(true);
            let store = self.clone();
            self.spawn(async move {
                let answered = store.look_for_messages().await;
                let pause = store.asks.look_pause;
                store.asks.next_look.set(Some(Instant::now() + pause));
                store.asks.is_looking.set(false);
                answered
            });
        }
    }

    /// Finds out how far the namespaces have come for which somebody waits. Returns whether the
    /// store has answered.
    async fn look_for_messages(&self) -> bool {
        let Some(store) = &self.stores.pubsub else {
            return true;
        };
        if !self.is_answer(&self.listen_for_messages().await) {
            return false;
        }
        let namespaces = self.asks.namespaces();
        for namespace in namespaces {
            let opened = store
                .open(namespace, Start::Latest, self.wall.unix_millis())
                .await;
            if !self.is_answer(&opened) {
                return false;
            }
            match opened {
                Ok(Opened::At(head)) => self.asks.hear(namespace, head),
                // Whoever waits finds out why.
                _ => self.setup.arrivals.note(namespace),
            }
        }
        true
    }

    /// Begins to listen, if it does not, for what other gateways write, if there are some.
    async fn listen_for_messages(&self) -> Result<(), StoreError> {
        match self.setup.is_shared {
            true => self.server.keep_listening().await,
            false => Ok(()),
        }
    }

    /// Notes the messages that calls have stored.
    pub(super) fn note_arrivals(&self, calls: &[StoreCall<'_>]) {
        let mut last = None;
        for call in calls.iter().filter(|call| call.method.api() == Api::PubSub) {
            let namespace = call.context.namespace;
            if last.replace(namespace) != Some(namespace) {
                self.setup.arrivals.note(namespace);
            }
        }
    }
}
