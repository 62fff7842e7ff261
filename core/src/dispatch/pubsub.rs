//! Calls of PubSub: publishing goes where its partitions are owned, subscriptions become streams,
//! and asks that find nothing wait here, where this shard holds the messages.

use std::{sync::Arc, time::Instant};

use prism_backends::{NamespaceId, StoreError, memory::Messages};
use prism_codec::{grpc::Status, message::pubsub::SubscribeView, method::PubSubMethod};

use super::{
    Destination, Dispatcher, Progress,
    finish::{Pass, code_of},
    gate::Arrival,
    logged::ToLog,
    pending::Pending,
    stream::{Asked, Source, Stream},
    subscription::Subscription,
    way::{Shards, Way, way},
};
use crate::{
    api::pubsub::{
        self, Request, Rules, memory,
        position::{self, Scope},
        reads, writes,
    },
    call::{
        context::Context,
        error::{self, Stage},
        job::{Answer, PubSubWork, Reply, Work},
        messages::{Found, Place, Wanted},
        owner::owner_of,
        record::Part,
        ticket::{Stamp, Ticket},
    },
    namespace::spec::{Home, Path},
};

/// The messages of this shard's own partitions, and the asks that wait for more of them.
#[derive(Default)]
pub(super) struct Topics {
    pub(super) messages: Messages,
    asks: Vec<Ask>,
}

/// An ask of a subscription that found nothing.
struct Ask {
    ticket: Ticket,
    wanted: Arc<Wanted>,
    place: Place,
    number: u16,
}

impl Dispatcher {
    pub(super) fn start_pubsub(
        &mut self,
        method: PubSubMethod,
        mut ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        message: &[u8],
    ) -> Progress {
        let request = match Request::decode(method, message) {
            Ok(request) => request,
            Err(status) => return Progress::Done(Err(status)),
        };
        let arrival = Arrival {
            method: method.into(),
            bytes: message.len(),
            deadline,
        };
        let admitted = self.admit_if(&arrival, request.namespace(), |dispatcher, namespace| {
            let drift_max = dispatcher.limits.clock_drift_max;
            let drift_max_ns = i64::try_from(drift_max.as_nanos()).unwrap_or(i64::MAX);
            pubsub::check_token(&request, dispatcher.stamper.wall_ns(), drift_max_ns)?;
            pubsub::check(&request, rules_of(namespace))
        });
        let pass = match admitted {
            Ok(pass) => pass,
            Err(status) => return Progress::Done(Err(status)),
        };
        ticket.namespace = pass.namespace().spec.id;
        if let Request::Subscribe(view) = &request {
            return self.start_subscription(view, ticket, deadline, now, pass);
        }
        let spec = pass.namespace().spec.clone();
        let context = Context {
            namespace: spec.id,
            default_ttl_ms: spec.ttl_ms,
            now: self.stamper.wall_millis(),
            stamp: Stamp {
                time_ns: self.stamper.stamp(),
                shard: self.shard,
                gateway: self.stamper.gateway(),
            },
        };
        let owners = || self.owners_of_partitions(spec.id, &request);
        let effect = method.spec().effect;
        let way = way(spec.home, spec.path, spec.unapplied, effect, owners, self.shard);
        if way == Way::Inline {
            let topics = &mut self.topics;
            let result =
                memory::execute_in_memory(&mut topics.messages, method, &request, &context, &mut self.reply);
            self.finish(pass, code_of(&result), self.reply.len());
            self.serve_asks(context.namespace);
            return Progress::Done(result);
        }
        let mut pending = Box::new(Pending::new(ticket, now, deadline, Some(pass)));
        let work = |part| {
            Work::PubSub(PubSubWork::Publish {
                method,
                context,
                body: message.to_vec(),
                part,
                log: spec.path == Path::StoreThenLog,
            })
        };
        let result = match (way, spec.home) {
            (Way::Log, _) => self.take_place(&pending).and_then(|()| {
                let call = ToLog {
                    ticket,
                    method: method.into(),
                    part: None,
                };
                let result = self.log_publish(&call, &request, message, &context);
                if result.is_err() {
                    self.answer_received(&ticket);
                }
                result
            }),
            (Way::Store, Home::Store(store)) => {
                self.submit(Destination::Writer(store), &pending, work(false))
            }
            (Way::Peer(shard), _) => self.submit(Destination::Shard(shard), &pending, work(false)),
            (Way::Peers(shards), _) => self.send_parts(&shards, &mut pending, work),
            // Inline was served, and what lies on the shards has no other store.
            (Way::Inline | Way::Store, _) => Ok(()),
        };
        match result {
            Ok(()) => {
                self.watch_deadline(&mut pending);
                Progress::Waiting(pending)
            }
            Err(status) => {
                self.end(&mut pending, status.code, 0);
                Progress::Done(Err(status))
            }
        }
    }

    /// The shards that own the partitions of a request, in order, each once. With one shard there
    /// is nothing to ask.
    fn owners_of_partitions(&self, namespace: NamespaceId, request: &Request<'_>) -> Shards {
        let count = self.shard_count();
        let mut owners = Shards::new();
        if count > 1 {
            request.keys(|key| owners.push(owner_of(namespace, key, count)));
            owners.sort_unstable();
            owners.dedup();
        }
        owners
    }

    /// Appends a publishing call, or a part of one, to this shard's log. The answer comes as a
    /// reply.
    fn log_publish(
        &mut self,
        call: &ToLog,
        request: &Request<'_>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        let loggable = writes::loggable(request, context, call.part)?;
        let token = request.call_token();
        self.append_logged(call, loggable, token, body, context)
    }

    /// Executes work for PubSub that another shard, or a stream of this one, sent to this shard.
    pub(super) fn execute_pubsub(&mut self, ticket: Ticket, deadline: Option<Instant>, work: PubSubWork) {
        match work {
            PubSubWork::Ask {
                wanted,
                place,
                number,
            } => self.execute_ask(ticket, wanted, place, number),
            PubSubWork::TakeBack { .. } => self.topics.asks.retain(|ask| ask.ticket != ticket),
            PubSubWork::Publish {
                method,
                context,
                body,
                part,
                ..
            } => {
                let context = Context {
                    now: self.wall_millis(),
                    ..context
                };
                let part = part.then_some(Part {
                    shards: self.shard_count(),
                    shard: self.shard,
                });
                let result = match deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    true => Err(error::deadline_exceeded(Stage::Owner)),
                    false => self.publish_owned(ticket, method, &body, &context, part),
                };
                if let Some(result) = result.transpose() {
                    self.send_reply(Reply { ticket, result });
                }
            }
        }
    }

    /// Publishes as the owner of the partitions. `None`: the reply comes from the log.
    fn publish_owned(
        &mut self,
        ticket: Ticket,
        method: PubSubMethod,
        body: &[u8],
        context: &Context,
        part: Option<Part>,
    ) -> Result<Option<Answer>, Box<Status>> {
        let request = Request::decode(method, body)?;
        let Some(home) = self.namespaces.spec_of(context.namespace).map(|spec| spec.home) else {
            return Err(error::from_store(&StoreError::DroppedNamespace(
                context.namespace,
            )));
        };
        if let Home::Store(_) = home {
            let call = ToLog {
                ticket,
                method: method.into(),
                part,
            };
            return self.log_publish(&call, &request, body, context).map(|()| None);
        }
        let answer = self.publish_in_memory(method, &request, context, part);
        self.serve_asks(context.namespace);
        answer.map(Some)
    }

    fn publish_in_memory(
        &mut self,
        method: PubSubMethod,
        request: &Request<'_>,
        context: &Context,
        part: Option<Part>,
    ) -> Result<Answer, Box<Status>> {
        let store = &mut self.topics.messages;
        if let Some(part) = part {
            let owns = |key: &str| part.owns(context.namespace, key);
            return Ok(Answer::Part(memory::execute_part_in_memory(
                store, request, context, owns,
            )));
        }
        let mut message = Vec::new();
        memory::execute_in_memory(store, method, request, context, &mut message)
            .map(|()| Answer::Message(message))
    }

    // --- subscriptions ---------------------------------------------------------------------------

    fn start_subscription(
        &mut self,
        view: &SubscribeView<'_>,
        ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        pass: Pass,
    ) -> Progress {
        let spec = pass.namespace().spec.clone();
        // What numbers messages by itself: each shard, or the store that they share.
        let (instance, to): (u64, Vec<Asked>) = match spec.home {
            Home::Shards => (
                position::instance(),
                (0..self.shard_count()).map(Asked::Shard).collect(),
            ),
            Home::Store(store) => (0, vec![Asked::Reader(store)]),
        };
        let scope = Scope {
            namespace: spec.id,
            topics: position::topics_digest(view.topics.iter()),
            instance,
        };
        let begun = reads::places(&scope, view, to.len())
            .and_then(|places| self.enter_stream(spec.id).map(|()| places));
        let places = match begun {
            Ok(places) => places,
            Err(status) => {
                self.finish(pass, status.code, 0);
                return Progress::Done(Err(status));
            }
        };
        let barrier = match reads::begins_late(view) {
            true => self.barrier_of(spec.path),
            false => 0,
        };
        let wanted = reads::wanted(spec.id, view);
        let source = Subscription::new(wanted, scope, to.into_iter().zip(places));
        let pending = Pending::new(ticket, now, deadline, Some(pass));
        Progress::Stream(Box::new(Stream::new(
            pending,
            Source::Subscription(source),
            barrier,
        )))
    }

    /// Answers an ask for messages that this shard holds, or keeps it until there are some.
    fn execute_ask(&mut self, ticket: Ticket, wanted: Arc<Wanted>, place: Place, number: u16) {
        let mut ask = Ask {
            ticket,
            wanted,
            place,
            number,
        };
        if !self.serve_ask(&mut ask) {
            self.topics.asks.push(ask);
        }
    }

    /// Whether an ask could be answered.
    fn serve_ask(&self, ask: &mut Ask) -> bool {
        let (now, namespace) = (self.wall_millis(), ask.wanted.namespace);
        let messages = &self.topics.messages;
        let chunk = loop {
            let found = reads::ask(
                &ask.wanted,
                &mut ask.place,
                |start| messages.open(namespace, start, now),
                |next, sink| messages.read(namespace, next, now, sink),
            );
            match found {
                Ok(Found::Nothing) => return false,
                // It has passed messages that it does not want.
                Ok(Found::More) => {}
                Ok(Found::Chunk(chunk)) => break Ok(chunk),
                Err(status) => break Err(status),
            }
        };
        self.send_reply(Reply {
            ticket: ask.ticket,
            result: Ok(Answer::Messages {
                number: ask.number,
                chunk,
            }),
        });
        true
    }

    /// Answers the asks that wait for messages of a namespace.
    fn serve_asks(&mut self, namespace: NamespaceId) {
        if self.topics.asks.is_empty() {
            return;
        }
        let next = self.topics.messages.next_number(namespace);
        let is_due = |ask: &Ask| match ask.place {
            Place::Next(waits_for) => ask.wanted.namespace == namespace && waits_for < next,
            Place::Before(_) => false,
        };
        let mut asks = std::mem::take(&mut self.topics.asks);
        asks.retain_mut(|ask| !is_due(ask) || !self.serve_ask(ask));
        self.topics.asks = asks;
    }

    /// Ends the asks for messages of a namespace that is deleted, and drops its messages.
    pub(super) fn drop_topics(&mut self, namespace: NamespaceId) {
        self.topics.messages.drop_namespace(namespace);
        let mut asks = std::mem::take(&mut self.topics.asks);
        asks.retain(|ask| {
            if ask.wanted.namespace != namespace {
                return true;
            }
            self.send_reply(Reply {
                ticket: ask.ticket,
                result: Ok(Answer::Messages {
                    number: ask.number,
                    chunk: Err(error::from_store(&StoreError::DroppedNamespace(namespace))),
                }),
            });
            false
        });
        self.topics.asks = asks;
    }
}

fn rules_of(namespace: &super::namespaces::Namespace) -> Rules {
    Rules {
        ordered: namespace.spec.ordered,
        payload_bytes_max: namespace.spec.value_bytes_max,
        replay: namespace.spec.replay,
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
        self.topics.asks.len()
    }
}
