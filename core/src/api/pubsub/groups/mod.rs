//! Calls about groups of subscribers: commits, resets, deletes and lists; and the refusals that
//! they share with streams.

mod position;
pub(super) mod refusal;

use std::sync::Arc;

pub(super) use prism_backends::api::groups::Outcome;
use prism_backends::{
    Digest, StoreError,
    api::groups::{Act, Change, Done, Listed, Renew, To},
    memory::Messages,
    sqlite::{Reader, TopicTransaction},
};
use prism_codec::{
    grpc::Status,
    message::{
        common::WriteResultView,
        pubsub::{GroupOut, ListGroupsView, StartView, encode_group, encode_next_page_token},
        receipt::encode_write_response,
    },
    method::{Method, PubSubMethod},
};
use smallvec::smallvec;

pub(super) use self::position::{Place, Scope, decode as decode_position, encode as encode_position};
use super::{GROUPS_KEY, PARTITION_KEYS, PARTITIONS, PubSubRequest, position as plain, reads};
use crate::{
    api::{StoreCall, service::Loggable},
    call::{
        context::Context,
        error,
        messages::{GroupAnswer, GroupAsk, MemberAct},
        owner::{key_hash, owner_of},
        receipt::Receipt,
    },
    namespace::spec::NamespaceSpec,
};

/// Whether a request changes a group.
pub(super) fn is_change(request: &PubSubRequest<'_>) -> bool {
    matches!(
        request,
        PubSubRequest::Commit(_) | PubSubRequest::ResetGroup(_) | PubSubRequest::DeleteGroup(_)
    )
}

/// Refuses what the namespace, or its store, does not have.
pub(super) fn check(request: &PubSubRequest<'_>, spec: &NamespaceSpec) -> Result<(), Box<Status>> {
    if spec.groups.is_none() {
        return Err(refusal::no_groups());
    }
    match request {
        PubSubRequest::Subscribe(view) => reads::check_start(view.start, spec),
        PubSubRequest::Commit(view) => {
            let scope = Scope::new(spec.id, spec.home, view.group);
            match position::decode(&scope, view.position) {
                Some(_) => Ok(()),
                None => Err(refusal::position_invalid("position")),
            }
        }
        PubSubRequest::ResetGroup(view) => {
            reads::check_start(Some(view.start), spec)?;
            let StartView::Position(bytes) = view.start else {
                return Ok(());
            };
            let scope = Scope::new(spec.id, spec.home, view.group);
            match numbers_of(&scope, bytes) {
                Some(_) => Ok(()),
                None => Err(refusal::position_invalid("start.position")),
            }
        }
        PubSubRequest::ListGroups(view) => match std::str::from_utf8(view.page_token) {
            Ok(_) => Ok(()),
            Err(_) => Err(error::invalid(
                "page_token",
                "is not a token of this list; start again without one",
            )),
        },
        _ => Ok(()),
    }
}

/// The digest of the topics of a position, and its number for each partition. A group's own
/// position has those that its member held; one of a subscription without a group has all.
fn numbers_of(scope: &Scope, bytes: &[u8]) -> Option<(u64, Vec<(u16, u64)>)> {
    if let Some(place) = position::decode(scope, bytes) {
        let number = |done: &Done| (done.held.partition, done.next);
        return Some((place.topics, place.places.iter().map(number).collect()));
    }
    let (topics, numbers) = plain::decode_any(scope.namespace, scope.instance, bytes)?;
    let places = u16::try_from(numbers.len()).ok()?;
    let number = |(partition, key): (u16, &&str)| {
        let place = owner_of(scope.namespace, key, places);
        Some((partition, *numbers.get(usize::from(place))?))
    };
    let all: Option<Vec<_>> = (0..).zip(&PARTITION_KEYS).map(number).collect();
    Some((topics, all?))
}

/// A change that a call asks for, with what it borrows.
pub(super) struct Prepared<'a> {
    group: &'a str,
    act: Wanted,
    context: Context,
}

enum Wanted {
    Commit(Place),
    Reset {
        call: u64,
        topics: Vec<String>,
        to: ResetTo,
    },
    Delete,
}

enum ResetTo {
    Start(prism_backends::api::pubsub::Start),
    Numbers(Vec<(u16, u64)>, u64),
}

impl<'a> Prepared<'a> {
    /// The change of a request; `None` if it asks for none. `instance`: that of the store.
    ///
    /// # Errors
    /// Its position is not one of this namespace.
    pub(super) fn new(
        request: &PubSubRequest<'a>,
        context: &Context,
        instance: u64,
    ) -> Option<Result<Self, Box<Status>>> {
        let scope = |group| Scope::with_instance(context.namespace, instance, group);
        let (group, act) = match request {
            PubSubRequest::Commit(view) => {
                let place = position::decode(&scope(view.group), view.position);
                let place = place.ok_or_else(|| refusal::position_invalid("position"));
                (view.group, place.map(Wanted::Commit))
            }
            PubSubRequest::ResetGroup(view) => {
                let to = match view.start {
                    StartView::Position(bytes) => match numbers_of(&scope(view.group), bytes) {
                        Some((topics, numbers)) => Ok(ResetTo::Numbers(numbers, topics)),
                        None => Err(refusal::position_invalid("start.position")),
                    },
                    start => Ok(ResetTo::Start(reads::start_of(start))),
                };
                let call = view.token.map_or(0, |token| {
                    let mut digest = Digest::default();
                    digest.bytes(token.token);
                    digest.finish()
                });
                let topics = view.topics.iter().map(str::to_owned).collect();
                (view.group, to.map(|to| Wanted::Reset { call, topics, to }))
            }
            PubSubRequest::DeleteGroup(view) => (view.group, Ok(Wanted::Delete)),
            _ => return None,
        };
        Some(act.map(|act| Self {
            group,
            act,
            context: *context,
        }))
    }

    /// The change as a store takes it.
    pub(super) fn change(&self) -> Change<'_> {
        // Of a call after 1970.
        let stamp = self.context.stamp.time_ns.max(1).cast_unsigned();
        let act = match &self.act {
            Wanted::Commit(place) => Act::Commit {
                generation: place.generation,
                places: &place.places,
            },
            Wanted::Reset { call, topics, to } => Act::Reset {
                stamp,
                call: *call,
                partitions: PARTITIONS as u16,
                topics,
                to: match to {
                    ResetTo::Start(start) => To::Start(*start),
                    ResetTo::Numbers(numbers, of_topics) => To::Numbers(numbers, *of_topics),
                },
            },
            Wanted::Delete => Act::Delete { stamp },
        };
        Change {
            namespace: self.context.namespace,
            group: self.group,
            at: self.context.now,
            act,
        }
    }

    /// Writes the response message for the outcome; `result` is what it says that took place.
    ///
    /// # Errors
    /// Why it did not.
    pub(super) fn encode(
        &self,
        outcome: Outcome,
        result: &WriteResultView,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        refusal::judge(self.group, outcome)?;
        encode_write_response(out, result, &[]);
        Ok(())
    }
}

/// Prepares a reset or a delete for the log.
pub(super) fn loggable(context: &Context) -> Loggable {
    Loggable {
        keys: smallvec![key_hash(context.namespace, GROUPS_KEY)],
        receipt: Receipt::Verdict,
    }
}

/// Serves a list from a store.
pub(super) fn read(reader: &Reader, call: &StoreCall<'_>, out: &mut Vec<u8>) -> Result<(), Box<Status>> {
    let Method::PubSub(method @ PubSubMethod::ListGroups) = call.method else {
        return Err(error::not_served(call.method));
    };
    let PubSubRequest::ListGroups(view) = PubSubRequest::decode(method, call.body)? else {
        return Err(error::not_served(call.method));
    };
    let (namespace, now) = (call.context.namespace, call.context.now);
    list(&view, out, |after, limit| {
        reader.list_groups(namespace, after, limit, now)
    })
}

/// Serves a list from the memory of the shard that keeps the groups.
pub(super) fn read_memory(
    messages: &Messages,
    view: &ListGroupsView<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    let namespace = context.namespace;
    // Each shard holds the messages of the partitions that it owns.
    let shards = messages.shards() as u16;
    let owner = |partition: u16| {
        let key = PARTITION_KEYS
            .get(usize::from(partition))
            .copied()
            .unwrap_or_default();
        usize::from(owner_of(namespace, key, shards))
    };
    list(view, out, |after, limit| {
        messages.list_groups(namespace, after, limit, context.now, owner)
    })
}

fn list(
    view: &ListGroupsView<'_>,
    out: &mut Vec<u8>,
    list: impl FnOnce(&str, usize) -> Result<Vec<Listed>, StoreError>,
) -> Result<(), Box<Status>> {
    let after = std::str::from_utf8(view.page_token).unwrap_or_default();
    let limit = view.page_size as usize;
    let groups = list(after, limit).map_err(|cause| error::from_store(&cause))?;
    for group in &groups {
        encode_group(
            out,
            &GroupOut {
                name: &group.name,
                topics: &group.topics,
                subscribers: group.members as u32,
                partitions: group.partitions as u32,
                partitions_held: group.held as u32,
                messages_behind: group.behind,
                oldest_behind_time: group.oldest_behind.map(reads::timestamp),
                last_commit_time: group.last_commit.map(reads::timestamp),
            },
        );
    }
    if let Some(last) = groups.last().filter(|_| groups.len() == limit) {
        encode_next_page_token(out, last.name.as_bytes());
    }
    Ok(())
}

/// Carries out asks of members at the writer of a store, in one transaction. The outer error is
/// that of all.
pub(crate) fn change_at(
    transaction: &mut TopicTransaction<'_>,
    ask: &GroupAsk,
    at: prism_backends::UnixMillis,
) -> Result<Outcome, StoreError> {
    with_change(ask, at, |change| transaction.change(change))
}

/// Carries out an ask of a member in memory.
pub(crate) fn change_in_memory(
    messages: &mut Messages,
    ask: &GroupAsk,
    at: prism_backends::UnixMillis,
) -> Outcome {
    with_change(ask, at, |change| messages.change_group(change))
}

fn with_change<T>(ask: &GroupAsk, at: prism_backends::UnixMillis, then: impl FnOnce(&Change<'_>) -> T) -> T {
    let act = match &ask.act {
        MemberAct::Leave => Act::Leave {
            member: ask.member,
            terms: ask.terms,
        },
        MemberAct::Renew(renewal) => Act::Renew(Renew {
            member: ask.member,
            terms: ask.terms,
            topics: &renewal.topics,
            generation: renewal.generation,
            // A life begins at its time, in nanoseconds like the stamps of resets.
            making: renewal
                .making
                .as_ref()
                .map(|places| (at.0.saturating_mul(1_000_000).max(1), places.as_slice())),
            released: &renewal.released,
            passed: &renewal.passed,
        }),
    };
    then(&Change {
        namespace: ask.namespace,
        group: &ask.group,
        at,
        act,
    })
}

/// Whether the answer to an ask says nothing that its member does not know: then it may wait.
pub(crate) fn is_no_news(ask: &GroupAsk, outcome: &Outcome) -> bool {
    let (MemberAct::Renew(renewal), Outcome::Renewed(report)) = (&ask.act, outcome) else {
        return false;
    };
    renewal.wait.is_some_and(|wait| {
        report.shape == wait.shape && wait.moves.is_none_or(|moves| moves == report.moves)
    })
}

/// The answer to an ask.
pub(crate) fn answer(ask: &GroupAsk, outcome: Result<Outcome, StoreError>) -> GroupAnswer {
    GroupAnswer {
        number: ask.number,
        outcome: outcome
            .map_err(|cause| error::from_store(&cause))
            .and_then(|outcome| match outcome {
                Outcome::Refused(cause) => Err(error::from_store(&cause)),
                other => Ok(other),
            }),
    }
}

/// A name that threads share.
pub(super) fn shared(name: &str) -> Arc<str> {
    Arc::from(name)
}
