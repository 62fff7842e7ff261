//! A member as a machine: what it asks, and what it does with answers that come late or out of
//! turn.

use prism_backends::{
    NamespaceId, UnixMillis,
    api::groups::{Holding as Reported, Outcome},
};
use prism_codec::message::pubsub::{SubscribeOut, SubscribeResponseView, encode_subscribe_request};
use prism_codec::method::Api;

use super::*;
use crate::{
    call::messages::Delivered,
    namespace::{
        access::AccessList,
        spec::{Path, StoreId, Unapplied},
        state::NamespaceState,
    },
};

fn member(uncommitted_max: u32) -> Box<dyn Source> {
    let spec = NamespaceSpec {
        id: NamespaceId(7),
        name: "events".to_owned(),
        state: NamespaceState::Active,
        trouble: None,
        api: Api::PubSub,
        ttl_ms: None,
        value_bytes_max: 1 << 20,
        rates: [None, None],
        home: Home::Store(StoreId(0)),
        path: Path::StoreOnly,
        unapplied: Unapplied::Ignore,
        ordered: true,
        replay: true,
        groups: Some(Terms {
            lease_ms: 10_000,
            handover_ms: 30_000,
        }),
        access: AccessList::default(),
    };
    let mut request = Vec::new();
    let out = SubscribeOut {
        namespace: "events",
        group: "g",
        uncommitted_messages_max: uncommitted_max,
        ..SubscribeOut::default()
    };
    encode_subscribe_request(&mut request, &out);
    let view = SubscribeView::decode(&request).expect("a request");
    open(&view, &spec, 1).expect("a member").source
}

fn renewal(member: &mut dyn Source) -> (u32, Renewal) {
    match member.next_upkeep() {
        Some((Asked::Writer(_), Work::Group(ask))) => match ask.act {
            MemberAct::Renew(renewal) => (ask.number, renewal),
            MemberAct::Leave => panic!("it stays"),
        },
        other => panic!("{other:?}"),
    }
}

fn answer(member: &mut dyn Source, number: u32, outcome: Outcome) -> Option<Vec<u8>> {
    let answer = GroupAnswer {
        number,
        outcome: Ok(outcome),
    };
    match member.take(Answer::Group(Box::new(answer))).expect("it goes on") {
        Taken::Nothing => None,
        Taken::Message(message) => Some(message),
        Taken::Last(_) => panic!("it does not end"),
    }
}

/// A report of partitions at these places; `give_up` of those that others wait for.
fn report(moves: u64, held: &[(u16, u32, u64, bool)]) -> Outcome {
    let one = |(partition, epoch, place, give_up): &(u16, u32, u64, bool)| Reported {
        held: Held {
            partition: *partition,
            epoch: *epoch,
        },
        place: Start::Number(*place),
        give_up: *give_up,
    };
    Outcome::Renewed(Report {
        generation: 5,
        shape: 1,
        moves,
        now: UnixMillis(1),
        held: held.iter().map(one).collect(),
    })
}

fn ask(member: &mut dyn Source) -> (u16, Place, Share) {
    match member.next_ask() {
        Some((
            Asked::Reader(_),
            Work::Messages {
                wanted,
                place,
                number,
            },
        )) => (number, place, wanted.share.expect("a share")),
        other => panic!("{other:?}"),
    }
}

fn chunk(member: &mut dyn Source, number: u16, next: u64, delivered: &[(u16, u32)]) -> bool {
    let delivered: Vec<Delivered> = delivered
        .iter()
        .map(|(partition, messages)| Delivered {
            partition: *partition,
            messages: *messages,
            last: next - 1,
        })
        .collect();
    let messages = delivered.iter().map(|one| one.messages as usize).sum();
    let chunk = Chunk {
        next,
        // A gap, so that there is something to send.
        message: vec![0x1a, 0],
        messages,
        delivered,
    };
    let chunk = Ok(chunk);
    matches!(
        member
            .take(Answer::Messages { number, chunk })
            .expect("it goes on"),
        Taken::Message(_)
    )
}

#[test]
fn what_is_oldest_is_asked_for_first_and_up_to_the_next_place() {
    let mut member = member(0);
    let member = member.as_mut();
    let (number, joining) = renewal(member);
    assert!(joining.generation.is_none() && joining.making.is_none() && joining.wait.is_none());
    assert!(member.next_ask().is_none(), "nothing before it is a member");
    let first = answer(
        member,
        number,
        report(0, &[(0, 1, 50, false), (3, 1, 20, false), (4, 1, 20, false)]),
    );
    let first = first.expect("the first answer");
    assert!(
        SubscribeResponseView::decode(&first)
            .expect("an answer")
            .messages
            .is_empty()
    );
    let (at, place, share) = ask(member);
    assert_eq!(place, Place::Next(20));
    assert_eq!((share.partitions, share.below), (Partitions(0b1_1000), 50));
    assert!(member.next_ask().is_none(), "one ask at a place");
    // Nothing for it up to there: then all go on together.
    let empty = Chunk {
        next: 50,
        ..Chunk::default()
    };
    let taken = member.take(Answer::Messages {
        number: at,
        chunk: Ok(empty),
    });
    assert!(matches!(taken, Ok(Taken::Nothing)));
    let (_, place, share) = ask(member);
    assert_eq!((place, share.below), (Place::Next(50), u64::MAX));
    assert_eq!(share.partitions, Partitions(0b1_1001));
}

#[test]
fn a_partition_that_is_to_be_given_up_is_delivered_no_more_and_released_after_its_commit() {
    let mut member = member(0);
    let member = member.as_mut();
    let (number, _) = renewal(member);
    answer(member, number, report(0, &[(0, 1, 1, false), (1, 1, 1, false)]));
    let (number, waiting) = renewal(member);
    assert_eq!(
        waiting.wait.expect("it waits").moves,
        None,
        "commits do not matter"
    );
    let (at, ..) = ask(member);
    assert!(chunk(member, at, 9, &[(0, 2), (1, 3)]));
    let (late, ..) = ask(member);
    answer(member, number, report(0, &[(0, 1, 1, false), (1, 1, 1, true)]));
    // What was asked for both comes too late; it is taken back, and only the other goes on.
    assert!(!chunk(member, late, 20, &[(1, 1)]));
    let (_, place, share) = ask(member);
    assert_eq!((place, share.partitions), (Place::Next(9), Partitions(1)));
    let (number, waiting) = renewal(member);
    assert_eq!(waiting.wait.expect("it waits").moves, Some(0), "now they do");
    assert!(waiting.released.is_empty());
    answer(member, number, report(1, &[(0, 1, 9, false), (1, 1, 9, true)]));
    let (_, releasing) = renewal(member);
    let held = Held {
        partition: 1,
        epoch: 1,
    };
    assert_eq!(releasing.released, [held]);
}

#[test]
fn a_client_with_too_much_uncommitted_gets_no_more_until_it_commits() {
    let mut member = member(4);
    let member = member.as_mut();
    let (number, _) = renewal(member);
    answer(member, number, report(0, &[(0, 1, 1, false)]));
    let (parked, _) = renewal(member);
    let (at, ..) = ask(member);
    assert!(!chunk(member, at, 9, &[(0, 5)]), "more than it may have");
    let (at, place, _) = ask(member);
    assert_eq!(place, Place::Next(1), "again");
    assert!(chunk(member, at, 8, &[(0, 4)]));
    assert!(member.next_ask().is_none());
    let (number, urgent) = renewal(member);
    assert!(
        urgent.wait.is_none(),
        "whether something was committed is asked at once"
    );
    assert_eq!(
        answer(member, parked, report(0, &[])),
        None,
        "of an ask that was replaced"
    );
    let pause = answer(member, number, report(0, &[(0, 1, 1, false)])).expect("a pause");
    assert!(
        SubscribeResponseView::decode(&pause)
            .expect("an answer")
            .waiting_for_commit
    );
    let (number, waiting) = renewal(member);
    assert_eq!(waiting.wait.expect("it waits").moves, Some(0));
    assert_eq!(answer(member, number, report(1, &[(0, 1, 8, false)])), None);
    assert_eq!(ask(member).1, Place::Next(8), "it goes on");
    assert!(member.farewell().is_some());
}
