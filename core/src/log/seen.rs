//! Records of a lane as read by a start, in one pass: those to be applied, and the calls with a
//! token, from which the shards' windows are rebuilt.
//!
//! A call is remembered by every shard that owns one of its ids *now*, whichever lane has its
//! record, unless the record is only a part of it: see [`LaneCalls::owners`].

use std::collections::VecDeque;

use prism_backends::NamespaceId;
use prism_wal::{
    ids::{Epoch, LaneId, Lsn},
    lane::Replay,
    record::{Record, RecordKind},
    recovery::Visitor,
};
use smallvec::{SmallVec, smallvec};

use super::window::{CallHasher, Claims, ENTRIES_MAX, First, TokenCall, Window};
use crate::{
    api::{self, service::Service, with_service},
    call::{
        event::RecordId,
        footprint::Footprint,
        owner::{owner_of, owner_of_token},
        record::{LoggedWrite, Part},
    },
};

/// Collector of one lane's records during recovery: those to be applied, and the tokens seen.
pub(super) struct Collector {
    pub(super) replay: Replay,
    pub(super) calls: LaneCalls,
}

impl Visitor for Collector {
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>) {
        if matches!(record.kind, RecordKind::Strong | RecordKind::Eventual) {
            self.calls.note_stamp(record.payload);
        }
        if record.kind == RecordKind::Strong {
            self.calls.add(NamespaceId(record.target.0), lsn, record.payload);
        }
        self.replay.record(epoch, lsn, record);
    }
}

/// Calls with a token that one lane still holds, newest last. Each lane has its own bound, or the
/// calls of one would displace those of all others.
pub(super) struct LaneCalls {
    lane: LaneId,
    hasher: CallHasher,
    /// Number of shards now.
    shards: u16,
    calls_max: usize,
    calls: VecDeque<SeenCall>,
    /// The highest stamp of all its records.
    highest_stamp: i64,
}

struct SeenCall {
    call: TokenCall,
    first: First,
    /// The shards that remember it.
    owners: Owners,
    /// The shard that owns its token, if that names one call in the whole namespace.
    token_owner: Option<u16>,
}

type Owners = SmallVec<[u16; 1]>;

impl LaneCalls {
    fn note_stamp(&mut self, record: &[u8]) {
        if let Ok(logged) = LoggedWrite::decode(NamespaceId(0), record) {
            self.highest_stamp = self.highest_stamp.max(logged.context.stamp.time_ns);
        }
    }

    fn add(&mut self, namespace: NamespaceId, lsn: Lsn, record: &[u8]) {
        let Ok(logged) = LoggedWrite::decode(namespace, record) else {
            return;
        };
        let Ok(footprint) = api::footprint(&logged) else {
            return;
        };
        let Some(token) = &footprint.token else {
            return;
        };
        let call = self.hasher.call(namespace, token);
        let owners = self.owners(namespace, logged.part, &footprint);
        let spans_keys = with_service!(logged.method, S, _method => S::TOKENS_SPAN_KEYS, else false);
        let token_owner = spans_keys.then(|| owner_of_token(namespace, token.token, self.shards));
        if owners.is_empty() && token_owner.is_none() {
            return;
        }
        if self.calls.len() >= self.calls_max {
            self.calls.pop_front();
        }
        self.calls.push_back(SeenCall {
            call,
            first: First {
                record: RecordId { lane: self.lane, lsn },
                stamp: logged.context.stamp,
            },
            owners,
            token_owner,
        });
    }

    /// The shards that may answer a repeat of a call from this record: those that own its ids.
    ///
    /// The record of a part holds the whole request, and so has the digest of the whole call, but
    /// it does not show the other parts, which may have been refused or lost. So it is remembered
    /// by the shard for which it was cut only, and by none if the number of shards differed then:
    /// their parts are others, and a repeat answered from it could acknowledge a write that was
    /// never logged.
    fn owners(&self, namespace: NamespaceId, part: Option<Part>, footprint: &Footprint<'_>) -> Owners {
        let owner = |key: &&str| owner_of(namespace, key, self.shards);
        match part {
            Some(part) if part.shards == self.shards => smallvec![part.shard],
            Some(_) => Owners::new(),
            None => {
                let mut owners: Owners = footprint.keys.iter().map(owner).collect();
                owners.sort_unstable();
                owners.dedup();
                owners
            }
        }
    }
}

/// The calls with a token that the log still holds, for the shards' windows.
pub(super) struct Seen {
    hasher: CallHasher,
    /// Number of shards now.
    shards: u16,
    /// Most calls of one lane, and of one window.
    calls_max: usize,
    lanes: Vec<LaneCalls>,
}

impl Seen {
    /// Makes an empty collection for a gateway with this many shards.
    pub(super) fn new(shards: u16) -> Self {
        Self::with_calls_max(shards, ENTRIES_MAX)
    }

    fn with_calls_max(shards: u16, calls_max: usize) -> Self {
        Self {
            hasher: CallHasher::default(),
            shards,
            calls_max,
            lanes: Vec::new(),
        }
    }

    /// The collection of one lane's calls.
    pub(super) fn lane(&self, lane: LaneId) -> LaneCalls {
        LaneCalls {
            lane,
            hasher: self.hasher.clone(),
            shards: self.shards,
            calls_max: self.calls_max,
            calls: VecDeque::new(),
            highest_stamp: i64::MIN,
        }
    }

    /// The highest stamp in any lane; [`i64::MIN`] if there is none.
    pub(super) fn highest_stamp(&self) -> i64 {
        let stamps = self.lanes.iter().map(|lane| lane.highest_stamp);
        stamps.max().unwrap_or(i64::MIN)
    }

    /// Adds the calls of a lane.
    pub(super) fn add(&mut self, calls: LaneCalls) {
        self.lanes.push(calls);
    }

    /// The window of one shard. Its oldest calls are left out if there is no room, whichever lanes
    /// they are in.
    pub(super) fn window(&self, shard: u16) -> Window<First> {
        self.remembered(|call| call.owners.contains(&shard), |call| call.first)
    }

    /// The calls to which the tokens that one shard owns belong. A part of a call counts as well as
    /// the whole.
    pub(super) fn claims(&self, shard: u16) -> Claims {
        self.remembered(|call| call.token_owner == Some(shard), |_| ())
    }

    fn remembered<T: Copy>(
        &self,
        is_wanted: impl Fn(&SeenCall) -> bool,
        kept: impl Fn(&SeenCall) -> T,
    ) -> Window<T> {
        let calls = self.lanes.iter().flat_map(|lane| &lane.calls);
        let mut owned: Vec<&SeenCall> = calls.filter(|call| is_wanted(call)).collect();
        owned.sort_by_key(|call| call.first.stamp.time_ns);
        let mut window = Window::new(self.hasher.clone(), self.calls_max);
        for call in owned {
            window.remember(call.call, kept(call));
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use prism_backends::UnixMillis;
    use prism_codec::{
        method::{KeyValueMethod, Method, PubSubMethod},
        proto::prism::{
            common::v1::IdempotencyToken,
            keyvalue::v1::{MutateRequest, Mutation},
            pubsub::v1::{Message as Published, PublishRequest},
        },
    };
    use prost::Message;

    use super::*;
    use crate::{
        api::{
            keyvalue::KeyValue,
            service::{Request, Service},
        },
        call::{context::Context, footprint::CallToken, ticket::Stamp},
        log::lane_of,
    };

    const NAMESPACE: NamespaceId = NamespaceId(1);

    /// A Mutate with this token about ids owned by the given shards of `shards`.
    fn mutate(token: &str, owners: &[u16], shards: u16) -> Vec<u8> {
        let id_of = |owner: &u16| {
            let mut ids = (0..).map(|number| format!("id-{number}"));
            ids.find(|id| owner_of(NAMESPACE, id, shards) == *owner)
                .expect("an id")
        };
        let mutation = |owner| Mutation {
            id: id_of(owner),
            operation: None,
        };
        let request = MutateRequest {
            namespace: "ledger".to_owned(),
            idempotency_token: Some(IdempotencyToken {
                generation_time: None,
                token: token.as_bytes().to_vec(),
            }),
            mutations: owners.iter().map(mutation).collect(),
        };
        request.encode_to_vec()
    }

    /// Reads the record of a Mutate in the lane of `shard`, stamped with `time_ns`.
    fn add(seen: &mut Seen, shard: u16, lsn: u64, time_ns: i64, part: Option<Part>, body: &[u8]) {
        add_record(
            seen,
            KeyValueMethod::Mutate.into(),
            shard,
            lsn,
            time_ns,
            part,
            body,
        );
    }

    fn add_record(
        seen: &mut Seen,
        method: Method,
        shard: u16,
        lsn: u64,
        time_ns: i64,
        part: Option<Part>,
        body: &[u8],
    ) {
        let logged = LoggedWrite {
            method,
            part,
            decided: &[],
            context: Context {
                namespace: NAMESPACE,
                default_ttl_ms: None,
                now: UnixMillis(0),
                stamp: Stamp {
                    time_ns,
                    shard,
                    gateway: 0,
                },
            },
            body,
        };
        let lane = lane_of(shard);
        let at = seen.lanes.iter().position(|calls| calls.lane == lane);
        let at = at.unwrap_or_else(|| {
            seen.add(seen.lane(lane));
            seen.lanes.len() - 1
        });
        seen.lanes[at].add(NAMESPACE, Lsn(lsn), &logged.encode());
    }

    /// Shards with a Mutate in their window.
    fn known_by(seen: &Seen, body: &[u8]) -> Vec<u16> {
        let request = KeyValue::decode(KeyValueMethod::Mutate, body).expect("a request");
        let token = request.call_token().expect("it carries a token");
        let call = seen.hasher.call(NAMESPACE, &token);
        let knows = |shard: &u16| matches!(seen.window(*shard).first(call), Ok(Some(_)));
        (0..seen.shards).filter(knows).collect()
    }

    #[test]
    fn a_part_is_remembered_only_by_the_shard_for_which_it_was_cut() {
        let body = mutate("t1", &[0, 1], 2);
        for shard in [0, 1] {
            let part = Some(Part { shards: 2, shard });
            for (shards, expected) in [(1, vec![]), (2, vec![shard]), (3, vec![])] {
                let mut seen = Seen::new(shards);
                add(&mut seen, shard, 1, 1, part, &body);
                assert_eq!(
                    known_by(&seen, &body),
                    expected,
                    "part {shard} of 2, now {shards}"
                );
            }
        }
    }

    #[test]
    fn a_whole_mutate_is_remembered_by_every_shard_that_owns_ids_of_it_now() {
        let body = mutate("t1", &[0, 2], 3);
        let mut seen = Seen::new(3);
        add(&mut seen, 0, 1, 1, None, &body);
        assert_eq!(known_by(&seen, &body), [0, 2]);
    }

    #[test]
    fn the_calls_of_one_lane_do_not_push_out_those_of_another() {
        let mut seen = Seen::with_calls_max(2, 3);
        let bodies = [0, 1].map(|owner| [1, 2, 3, 4].map(|call| mutate(&format!("t{call}"), &[owner], 2)));
        for (shard, bodies) in (0..).zip(&bodies) {
            for (number, body) in (1..).zip(bodies) {
                add(&mut seen, shard, number, number.cast_signed(), None, body);
            }
        }
        for (shard, bodies) in (0..).zip(&bodies) {
            assert!(
                known_by(&seen, &bodies[0]).is_empty(),
                "its own lane has three newer ones"
            );
            for body in &bodies[1..] {
                assert_eq!(known_by(&seen, body), [shard]);
            }
        }
    }

    #[test]
    fn the_oldest_call_gives_way_whichever_lane_it_is_in() {
        let mut seen = Seen::with_calls_max(1, 3);
        let body = |time_ns: i64| mutate(&format!("t{time_ns}"), &[0], 1);
        // Two shards took them in turn.
        for (shard, times) in [(0, [10, 30, 50]), (1, [20, 40, 60])] {
            for (lsn, time_ns) in (1..).zip(times) {
                add(&mut seen, shard, lsn, time_ns, None, &body(time_ns));
            }
        }
        for (time_ns, known) in [
            (10, false),
            (20, false),
            (30, false),
            (40, true),
            (50, true),
            (60, true),
        ] {
            assert_eq!(!known_by(&seen, &body(time_ns)).is_empty(), known, "of {time_ns}");
        }
    }

    #[test]
    fn the_owner_of_a_token_knows_a_message_whichever_lane_has_its_record() {
        const SHARDS: u16 = 3;
        let mut seen = Seen::new(SHARDS);
        for topic in 0..12 {
            let publish = PublishRequest {
                namespace: "events".to_owned(),
                idempotency_token: Some(IdempotencyToken {
                    generation_time: None,
                    token: b"token".to_vec(),
                }),
                message: Some(Published {
                    topic: format!("topic.{topic}"),
                    ..Published::default()
                }),
            };
            let (body, lane) = (publish.encode_to_vec(), topic % SHARDS);
            let method = PubSubMethod::Publish.into();
            add_record(
                &mut seen,
                method,
                lane,
                u64::from(topic) + 1,
                i64::from(topic),
                None,
                &body,
            );
        }
        add(&mut seen, 0, 99, 99, None, &mutate("token", &[0], SHARDS));
        let token = |digest| CallToken {
            time: None,
            token: b"token",
            digest,
        };
        let owner = owner_of_token(NAMESPACE, b"token", SHARDS);
        for shard in 0..SHARDS {
            let claims = seen.claims(shard);
            let strange = claims.first(claims.hasher().call(NAMESPACE, &token(0)));
            assert_eq!(
                strange.is_err(),
                shard == owner,
                "shard {shard}: the first call has it"
            );
        }
    }
}
