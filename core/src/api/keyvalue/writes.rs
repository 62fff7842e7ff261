//! Writes: mutations in the stores' form, and the answers for their outcomes.

use prism_backends::{
    Expected, ItemRef, Mutation, NamespaceId, Operation, Outcome, PredicateRef, UnixMillis, Version,
};
use prism_codec::{
    grpc::Status,
    message::{
        common::{TokenView, WriteResultView},
        keyvalue::{self as wire, ExpectedView, ItemView, MutationOperation, PredicateView},
        receipt::encode_write_response,
    },
    method::{KeyValueMethod, Method},
};
use smallvec::SmallVec;

use super::{KeyValueRequest, digest::digest_of, reads::item_view};
use crate::{
    api::service::{Loggable, Request},
    call::{
        context::Context,
        error,
        job::PartOutcome,
        owner::key_hash,
        receipt::{self, LoggedItem, Receipt},
        record::{LoggedWrite, Part, Unreadable},
        ticket::Stamp,
    },
};

/// One mutation, with the arrays that it borrows.
pub(crate) struct Change<'a> {
    namespace: NamespaceId,
    pub(crate) id: &'a str,
    version: Version,
    /// Moment at which the call was taken.
    at: UnixMillis,
    digest: Option<u64>,
    /// Position in a Mutate; 0 otherwise.
    pub(crate) index: u32,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Put(SmallVec<[ItemRef<'a>; 1]>),
    DeleteAll,
    DeleteKeys(SmallVec<[&'a [u8]; 4]>),
    DeleteRange {
        start: &'a [u8],
        end: &'a [u8],
    },
    CompareAndSwap {
        key: &'a [u8],
        expected: Expected<'a>,
        replacement: Option<ItemRef<'a>>,
    },
}

/// Changes that a write asks for.
pub(crate) struct Writes<'a> {
    /// One, except for Mutate.
    pub(crate) changes: SmallVec<[Change<'a>; 1]>,
    /// Mutations of a Mutate that are invalid by themselves.
    pub(crate) refused: Vec<PartOutcome>,
}

impl Change<'_> {
    /// Turns a compare-and-swap that took place into a plain write of its item, at the item's new
    /// version.
    pub(crate) fn decide(&mut self, version: Version) {
        if let Kind::CompareAndSwap { key, replacement, .. } = self.kind {
            self.version = version;
            self.kind = match replacement {
                Some(item) => Kind::Put(SmallVec::from([ItemRef { key, ..item }])),
                None => Kind::DeleteKeys(SmallVec::from_iter([key])),
            };
        }
    }

    /// The mutation in the stores' form.
    pub(crate) fn mutation(&self) -> Mutation<'_> {
        let operation = match &self.kind {
            Kind::Put(items) => Operation::Put(items),
            Kind::DeleteAll => Operation::Delete(PredicateRef::All),
            Kind::DeleteKeys(keys) => Operation::Delete(PredicateRef::Keys(keys)),
            Kind::DeleteRange { start, end } => Operation::Delete(PredicateRef::Range { start, end }),
            Kind::CompareAndSwap {
                key,
                expected,
                replacement,
            } => Operation::CompareAndSwap {
                key,
                expected: *expected,
                replacement: *replacement,
            },
        };
        Mutation {
            namespace: self.namespace,
            id: self.id,
            version: self.version,
            at: self.at,
            digest: self.digest,
            operation,
        }
    }
}

/// The mutations of a write. `owns` selects the ids of a Mutate; usually all.
pub(crate) fn writes<'a>(
    request: &KeyValueRequest<'a>,
    context: &Context,
    owns: impl Fn(&str) -> bool,
) -> Writes<'a> {
    let version = version_of(request.token(), context.stamp);
    // Only swaps are remembered by stores.
    let digest = match request {
        KeyValueRequest::CompareAndSwap(_) => digest_of(request),
        _ => None,
    };
    let prepared = |id, index: u32, kind| Change {
        namespace: context.namespace,
        id,
        version,
        at: context.now,
        digest,
        index,
        kind,
    };
    let mut all = SmallVec::new();
    let mut refused = Vec::new();
    match request {
        KeyValueRequest::Put(view) => {
            all.push(prepared(
                view.id,
                0,
                Kind::Put(view.items.iter().map(|item| item_ref(&item, context)).collect()),
            ));
        }
        KeyValueRequest::Delete(view) => all.push(prepared(view.id, 0, delete_kind(&view.predicate))),
        KeyValueRequest::CompareAndSwap(view) => {
            let expected = match view.expected {
                ExpectedView::Absent => Expected::Absent,
                ExpectedView::Value(value) => Expected::Value(value),
                ExpectedView::Version(version) => Expected::Version(version),
            };
            let replacement = view.item.as_ref().map(|item| item_ref(item, context));
            all.push(prepared(
                view.id,
                0,
                Kind::CompareAndSwap {
                    key: view.key,
                    expected,
                    replacement,
                },
            ));
        }
        KeyValueRequest::Mutate(view) => {
            for (index, mutation) in view
                .mutations
                .iter()
                .enumerate()
                .filter(|(_, mutation)| owns(mutation.id))
            {
                let kind = match &mutation.operation {
                    Ok(MutationOperation::Put(items)) => {
                        Kind::Put(items.iter().map(|item| item_ref(&item, context)).collect())
                    }
                    Ok(MutationOperation::Delete(predicate)) => delete_kind(predicate),
                    Err(cause) => {
                        refused.push(PartOutcome {
                            index: index as u32,
                            outcome: Err(error::from_decode(cause)),
                            rest: Vec::new(),
                        });
                        continue;
                    }
                };
                let mut one = prepared(mutation.id, index as u32, kind);
                one.version = version.at_position(index);
                all.push(one);
            }
        }
        KeyValueRequest::Get(_) | KeyValueRequest::Scan(_) => {}
    }
    Writes {
        changes: all,
        refused,
    }
}

/// The mutations of a record; those of a Mutate that are invalid by themselves are left out.
pub(crate) fn writes_of<'a>(record: &LoggedWrite<'a>) -> Result<Writes<'a>, Unreadable> {
    let Method::KeyValue(method) = record.method else {
        return Err(Unreadable);
    };
    let request = KeyValueRequest::decode(method, record.body).map_err(|_| Unreadable)?;
    let (part, namespace) = (record.part, record.context.namespace);
    let owns = |id: &str| part.is_none_or(|part| part.owns(namespace, id));
    let mut writes = writes(&request, &record.context, owns);
    if !record.decided.is_empty() {
        let version = decided_version(record.decided)?;
        writes.changes.iter_mut().for_each(|one| one.decide(version));
    }
    Ok(writes)
}

/// The form in which a record keeps the new version of a swap's item.
pub(crate) fn decided(version: Version) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&version.generation_time_ns.to_le_bytes());
    bytes[8..].copy_from_slice(&version.token_hash.to_le_bytes());
    bytes
}

/// The version kept in a record by [`decided`].
pub(crate) fn decided_version(bytes: &[u8]) -> Result<Version, Unreadable> {
    let (halves, rest) = bytes.as_chunks::<8>();
    match (halves, rest) {
        ([time, hash], []) => Ok(Version {
            generation_time_ns: i64::from_le_bytes(*time),
            token_hash: u64::from_le_bytes(*hash),
        }),
        _ => Err(Unreadable),
    }
}

/// Prepares a write, or the part of one, for the log. A write that a store would refuse is refused
/// here, before anything is promised.
pub(crate) fn loggable(
    method: KeyValueMethod,
    request: &KeyValueRequest<'_>,
    context: &Context,
    part: Option<Part>,
) -> Result<Loggable, Box<Status>> {
    let namespace = context.namespace;
    let owns = |id: &str| part.is_none_or(|part| part.owns(namespace, id));
    let Writes { changes, mut refused } = writes(request, context, owns);
    let mut logged = Vec::new();
    let mut keys: SmallVec<[u64; 1]> = SmallVec::new();
    let is_batch = method == KeyValueMethod::Mutate;
    for change in &changes {
        match change.mutation().check() {
            Ok(()) => keys.push(key_hash(namespace, change.id)),
            Err(cause) if is_batch => {
                refused.push(PartOutcome {
                    index: change.index,
                    outcome: Err(error::from_store(&cause)),
                    rest: Vec::new(),
                });
                continue;
            }
            Err(cause) => return Err(error::from_store(&cause)),
        }
        if is_batch {
            logged.push(LoggedItem {
                index: change.index,
                rest: Vec::new(),
            });
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let receipt = match method {
        KeyValueMethod::Mutate => Receipt::Each {
            refused,
            logged,
            part: part.is_some(),
        },
        KeyValueMethod::CompareAndSwap => Receipt::Verdict,
        _ => Receipt::One { rest: Vec::new() },
    };
    Ok(Loggable { keys, receipt })
}

fn delete_kind<'a>(predicate: &PredicateView<'a>) -> Kind<'a> {
    match predicate {
        PredicateView::All => Kind::DeleteAll,
        PredicateView::Keys(keys) => Kind::DeleteKeys(keys.iter().collect()),
        PredicateView::Range { start, end } => Kind::DeleteRange { start, end },
    }
}

fn item_ref<'a>(item: &ItemView<'a>, context: &Context) -> ItemRef<'a> {
    let ttl_ms = item
        .ttl
        .map_or(context.default_ttl_ms, |ttl| ttl.as_millis_ceil());
    ItemRef {
        key: item.key,
        value: item.value,
        expires_at: ttl_ms.map(|ttl| context.now.plus(ttl)),
        // Unknown values of the open enum beyond a byte cannot be stored; the view refuses them.
        compression: u8::try_from(item.compression).unwrap_or(0),
    }
}

fn version_of(token: Option<TokenView<'_>>, stamp: Stamp) -> Version {
    match token {
        Some(token) => {
            let time_ns = token
                .generation_time
                .and_then(|time| time.as_unix_nanos())
                .unwrap_or(stamp.time_ns);
            Version::new(time_ns, token.token)
        }
        // Stamps of one shard never repeat; the numbers of shard and gateway separate those of
        // others.
        None => Version {
            generation_time_ns: stamp.time_ns,
            token_hash: (u64::from(stamp.gateway) << 26) | (u64::from(stamp.shard) << 10),
        },
    }
}

/// Writes the response message for the outcomes of a request's mutations; `result` is that of the
/// mutations that took effect.
pub(crate) fn encode_outcomes(
    method: KeyValueMethod,
    writes: Writes<'_>,
    outcomes: impl Iterator<Item = Outcome>,
    now: UnixMillis,
    result: &WriteResultView,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if method == KeyValueMethod::Mutate {
        receipt::encode_items(part_outcomes(writes, outcomes, result), out);
        return Ok(());
    }
    let outcome = outcomes.into_iter().next().unwrap_or(Outcome::Applied);
    encode_outcome(method, &outcome, now, result, out)
}

/// Writes the response message for the outcome of a single mutation.
pub(crate) fn encode_outcome(
    method: KeyValueMethod,
    outcome: &Outcome,
    now: UnixMillis,
    result: &WriteResultView,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    match (method, outcome) {
        (_, Outcome::Refused(cause)) => return Err(error::from_store(cause)),
        (KeyValueMethod::CompareAndSwap, Outcome::NotSwapped(current)) => {
            let version = current
                .as_ref()
                .and_then(|found| found.version)
                .map(Version::to_bytes);
            let version = version.as_ref().map_or(&[][..], |version| version);
            let current = current
                .as_ref()
                .map(|found| item_view(&found.item.as_ref(), version, now));
            wire::encode_compare_and_swap_response(out, false, current.as_ref(), None);
        }
        (KeyValueMethod::CompareAndSwap, _) => {
            wire::encode_compare_and_swap_response(out, true, None, Some(result));
        }
        _ => encode_write_response(out, result, &[]),
    }
    Ok(())
}

/// The outcomes of a Mutate's mutations, with their positions in the request.
pub(crate) fn part_outcomes(
    writes: Writes<'_>,
    outcomes: impl Iterator<Item = Outcome>,
    result: &WriteResultView,
) -> Vec<PartOutcome> {
    let Writes {
        changes,
        refused: mut parts,
    } = writes;
    parts.extend(changes.iter().zip(outcomes).map(|(change, outcome)| {
        let outcome = match outcome {
            Outcome::Refused(cause) => Err(error::from_store(&cause)),
            Outcome::Applied | Outcome::Swapped(_) | Outcome::NotSwapped(_) => Ok(*result),
        };
        PartOutcome {
            index: change.index,
            outcome,
            rest: Vec::new(),
        }
    }));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_one_moment_differ_by_shard_and_gateway() {
        let stamp = |shard, gateway| Stamp {
            time_ns: 7,
            shard,
            gateway,
        };
        let versions = [
            (0, 0),
            (1, 0),
            (u16::MAX, 0),
            (0, 1),
            (0, u32::MAX),
            (u16::MAX, u32::MAX),
        ]
        .map(|(shard, gateway)| version_of(None, stamp(shard, gateway)));
        for (at, version) in versions.iter().enumerate() {
            assert!(!versions[..at].contains(version), "{version:?}");
            // The positions of a batch have bits of their own.
            assert_eq!(version.at_position(0), *version);
        }
    }
}
