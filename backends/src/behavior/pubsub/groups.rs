//! Cases about groups of subscribers: through a gateway, whose streams are their members, and at a
//! store, which keeps their records.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cases::{payloads, sent};
use super::{Client, GroupClient, GroupSeen, Harness, Member, Received, Start, Subscription};
use crate::api::groups::{Act, Done, GROUPS_MAX, Held, Outcome, Renew, Report, Terms, To};
use crate::api::pubsub;
use crate::behavior::{Failure, FailureKind, WriteToken};

/// Bound of all waits.
const BOUND: Duration = Duration::from_secs(60);
/// Wait for one answer of one of many members.
const MOMENT: Duration = Duration::from_millis(20);
/// Wait after which a stream is taken for quiet.
const QUIET: Duration = Duration::from_millis(300);

async fn publish<C: Client>(client: &mut C, keys: usize, from: usize, to: usize) {
    for number in from..to {
        let message = sent("orders", &format!("k{}", number % keys), format!("{number:03}"));
        client.publish(None, &message).await.expect("published");
    }
}

/// Messages that members of a group have got, in the order in which it was read from them.
#[derive(Default)]
struct Got(Vec<(usize, Received)>);

impl Got {
    /// Reads from all members in turn, and commits each answer, until so many messages have come.
    async fn collect<C: GroupClient>(
        &mut self,
        client: &mut C,
        group: &str,
        members: &mut [C::Subscription],
        count: usize,
    ) {
        let begun = Instant::now();
        while self.0.len() < count {
            assert!(begun.elapsed() < BOUND, "{} of {count} messages", self.0.len());
            for (number, member) in members.iter_mut().enumerate() {
                let Some(answer) = member.next(MOMENT).await.expect("a stream that stands") else {
                    continue;
                };
                let messages = answer.messages.into_iter();
                self.0.extend(messages.map(|message| (number, message)));
                client.commit(group, &answer.position).await.expect("committed");
            }
        }
    }

    /// Every message has come once, and those of a key in their order.
    fn check(&self, count: usize) {
        let mut of_key: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for (_, received) in &self.0 {
            let payloads = of_key.entry(&received.message.key).or_default();
            payloads.push(&received.message.payload);
        }
        for (key, payloads) in &of_key {
            assert!(payloads.is_sorted(), "{key}: {payloads:?}");
        }
        let mut all: Vec<_> = of_key.into_values().flatten().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), self.0.len()), (count, count), "each once");
    }
}

async fn quiet<S: Subscription>(subscription: &mut S) {
    let answer = subscription.next(QUIET).await.expect("a stream that stands");
    assert_eq!(answer, None, "nothing is to come");
}

/// Reads so many messages of one member without a commit; the position after each answer.
async fn read<S: Subscription>(member: &mut S, count: usize) -> (Vec<Received>, Vec<Vec<u8>>) {
    let (mut got, mut positions) = (Vec::new(), Vec::new());
    while got.len() < count {
        let answer = member.next(BOUND).await.expect("a stream that stands");
        let answer = answer.expect("an answer");
        got.extend(answer.messages);
        positions.push(answer.position);
    }
    assert_eq!(got.len(), count);
    (got, positions)
}

/// Waits until a group looks like this.
async fn until<C: GroupClient>(client: &mut C, group: &str, is_so: impl Fn(&GroupSeen) -> bool) -> GroupSeen {
    let begun = Instant::now();
    loop {
        let groups = client.groups().await.expect("a list");
        let seen = groups.into_iter().find(|one| one.name == group);
        match seen {
            Some(seen) if is_so(&seen) => return seen,
            seen => assert!(begun.elapsed() < BOUND, "{seen:?}"),
        }
    }
}

/// Waits for the end of a stream.
async fn end<S: Subscription>(subscription: &mut S) -> Failure {
    let begun = Instant::now();
    loop {
        match subscription.next(BOUND).await {
            Err(failure) => return failure,
            Ok(_) => assert!(begun.elapsed() < BOUND, "the stream goes on"),
        }
    }
}

pub(super) async fn p13_members_share_the_messages_each_once<H: Harness>(harness: &mut H) {
    const MESSAGES: usize = 96;
    for count in [1, 2, 17] {
        let mut client = harness.client(None).await;
        publish(&mut client, 24, 0, MESSAGES / 2).await;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(client.join(&Member::of("g")).await.expect("a member"));
        }
        let mut got = Got::default();
        got.collect(&mut client, "g", &mut members, MESSAGES / 2).await;
        let seen = until(&mut client, "g", |seen| seen.held == seen.partitions).await;
        assert_eq!(seen.subscribers as usize, count, "{seen:?}");
        publish(&mut client, 24, MESSAGES / 2, MESSAGES).await;
        got.collect(&mut client, "g", &mut members, MESSAGES).await;
        quiet(&mut members[0]).await;
        got.check(MESSAGES);
        let seen = until(&mut client, "g", |seen| seen.behind == 0).await;
        assert!(seen.is_committed, "{seen:?}");
    }
}

pub(super) async fn p14_a_joining_member_gets_its_share_after_the_commit<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 24, 0, 48).await;
    let mut first = client.join(&Member::of("g")).await.expect("a member");
    let (mut before, positions) = read(&mut first, 48).await;
    let mut second = client.join(&Member::of("g")).await.expect("a member");
    quiet(&mut second).await;
    client
        .commit("g", positions.last().expect("a position"))
        .await
        .expect("committed");
    let mut members = [first, second];
    let mut got = Got::default();
    got.0.extend(before.drain(..).map(|message| (0, message)));
    let (begun, mut published) = (Instant::now(), 48);
    // Until the second one has a partition of these keys.
    while got.0.iter().all(|(member, _)| *member == 0) {
        assert!(begun.elapsed() < BOUND, "the second member gets nothing");
        publish(&mut client, 24, published, published + 24).await;
        published += 24;
        got.collect(&mut client, "g", &mut members, published).await;
    }
    got.check(published);
}

pub(super) async fn p17_a_former_holder_cannot_commit<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 5, 0, 10).await;
    let mut former = client.join(&Member::of("g")).await.expect("a member");
    let (messages, positions) = read(&mut former, 10).await;
    drop(former);
    // Its client sees that nobody reads when the next message comes.
    publish(&mut client, 5, 10, 15).await;
    until(&mut client, "g", |seen| seen.subscribers == 0).await;
    let mut holder = client.join(&Member::of("g")).await.expect("a member");
    let (again, now) = read(&mut holder, 15).await;
    let again = payloads(&again);
    let has = |text: &String| again.contains(text);
    assert!(
        payloads(&messages).iter().all(has),
        "what was not committed comes again"
    );
    let late = client.commit("g", positions.last().expect("a position")).await;
    assert_eq!(late.expect_err("refused").kind, FailureKind::PartitionLost);
    let seen = until(&mut client, "g", |_| true).await;
    assert_eq!((seen.behind, seen.is_committed), (15, false));
    client
        .commit("g", now.last().expect("a position"))
        .await
        .expect("committed");
    until(&mut client, "g", |seen| seen.behind == 0).await;
    // What others have committed since is committed.
    client
        .commit("g", positions.last().expect("a position"))
        .await
        .expect("nothing is lost");
}

pub(super) async fn p18_a_place_only_grows<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 1, 0, 20).await;
    let mut member = client.join(&Member::of("g")).await.expect("a member");
    let (_, positions) = read(&mut member, 20).await;
    assert!(positions.len() >= 3, "several answers");
    let mut left = 20;
    for at in [1, 0, 1, positions.len() - 1, 0, positions.len() - 1] {
        client.commit("g", &positions[at]).await.expect("committed");
        let seen = client.groups().await.expect("a list");
        assert!(seen[0].behind <= left, "{seen:?}");
        left = seen[0].behind;
    }
    assert_eq!(left, 0);
    let mut next = client.join(&Member::of("g")).await.expect("a member");
    quiet(&mut next).await;
}

pub(super) async fn p22_a_stream_pauses_at_its_uncommitted_messages<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 6, 0, 30).await;
    let few = Member {
        uncommitted_max: 10,
        ..Member::of("g")
    };
    let mut member = client.join(&few).await.expect("a member");
    let mut got = Vec::new();
    for round in 1..=3 {
        let position = loop_until_waiting(&mut member, &mut got).await;
        assert_eq!(got.len(), round * 10, "round {round}");
        quiet(&mut member).await;
        client.commit("g", &position).await.expect("committed");
    }
    let mut all = payloads(&got);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30);
    publish(&mut client, 6, 30, 33).await;
    read(&mut member, 3).await;
}

/// Reads until the stream says that it waits for a commit.
async fn loop_until_waiting<S: Subscription>(member: &mut S, got: &mut Vec<Received>) -> Vec<u8> {
    loop {
        let answer = member.next(BOUND).await.expect("a stream that stands");
        let answer = answer.expect("an answer");
        got.extend(answer.messages);
        if answer.is_waiting {
            return answer.position;
        }
    }
}

pub(super) async fn p23_who_does_not_commit_in_time_is_out<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let hasty = Member {
        commit_timeout: Some(Duration::from_secs(1)),
        ..Member::of("g")
    };
    let mut idle = client.join(&hasty).await.expect("a member");
    publish(&mut client, 6, 0, 12).await;
    read(&mut idle, 12).await;
    let mut other = client.join(&Member::of("g")).await.expect("a member");
    assert_eq!(end(&mut idle).await.kind, FailureKind::CommitTimeout);
    let mut got = Got::default();
    let mut members = [other];
    got.collect(&mut client, "g", &mut members, 12).await;
    got.check(12);
    [other] = members;
    let seen = until(&mut client, "g", |seen| seen.subscribers == 1).await;
    assert_eq!(seen.held, seen.partitions);
    quiet(&mut other).await;
}

pub(super) async fn p24_a_reset_group_begins_at_the_new_place<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let mut plain = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    publish(&mut client, 4, 0, 12).await;
    let (_, positions) = read(&mut plain, 12).await;
    harness.pass(Duration::from_millis(30)).await;
    publish(&mut client, 4, 12, 20).await;
    let (later, _) = read(&mut plain, 8).await;
    let time = later.iter().map(|one| one.time_ms).min().expect("messages");
    let last = positions.last().cloned().expect("a position");
    let mut member = client.join(&Member::of("g")).await.expect("a member");
    let (_, mut own) = read(&mut member, 20).await;
    let starts = [
        (Start::Earliest, 20),
        (Start::Time(time), 8),
        (Start::Position(last), 8),
        (Start::Latest, 0),
    ];
    for (number, (start, count)) in (0..).zip(starts) {
        client
            .commit("g", own.last().expect("a position"))
            .await
            .expect("committed");
        let token = WriteToken {
            generation_time_ns: harness.now_ns(),
            token: vec![number; 12],
        };
        client.reset("g", &start, Some(&token)).await.expect("reset");
        assert_eq!(end(&mut member).await.kind, FailureKind::GroupReset, "{start:?}");
        let late = client.commit("g", own.last().expect("a position")).await;
        assert_eq!(late.expect_err("refused").kind, FailureKind::GroupReset);
        // Where the group begins is its own business now.
        member = client.join(&Member::of("g")).await.expect("a member");
        let (got, positions) = read(&mut member, count).await;
        assert!(
            count == 0 || got.iter().any(|one| one.message.payload == b"019"),
            "{got:?}"
        );
        quiet(&mut member).await;
        client.reset("g", &start, Some(&token)).await.expect("a repeat");
        quiet(&mut member).await;
        own = match positions.is_empty() {
            true => vec![member.position()],
            false => positions,
        };
    }
}

pub(super) async fn groups_are_made_listed_and_deleted<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 4, 0, 8).await;
    assert_eq!(client.groups().await.expect("a list"), []);
    // What was published before a group was made at the latest message is not for it.
    let late = Member {
        start: Start::Latest,
        topics: vec!["orders".to_owned()],
        ..Member::of("late")
    };
    let mut member = client.join(&late).await.expect("a member");
    publish(&mut client, 4, 8, 12).await;
    let (got, positions) = read(&mut member, 4).await;
    let mut texts = payloads(&got);
    texts.sort();
    assert_eq!(texts, ["008", "009", "010", "011"]);
    let others = Member {
        topics: Vec::new(),
        ..late.clone()
    };
    let refused = client.join(&others).await.err().expect("other topics");
    assert_eq!(refused.field.as_deref(), Some("topics"), "{refused:?}");
    let of_late = positions.last().expect("a position");
    let refused = client
        .commit("other", of_late)
        .await
        .expect_err("another group's");
    assert_eq!(refused.kind, FailureKind::PositionInvalid, "{refused:?}");
    client.reset("early", &Start::Earliest, None).await.expect("made");
    let groups = client.groups().await.expect("a list");
    let names: Vec<_> = groups.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["early", "late"]);
    assert_eq!(groups[1].topics, ["orders"]);
    let seen = until(&mut client, "early", |seen| seen.behind == 12).await;
    assert_eq!((seen.subscribers, seen.held), (0, 0));
    client.delete_group("late").await.expect("deleted");
    assert_eq!(end(&mut member).await.kind, FailureKind::GroupReset);
    let late = client.commit("late", of_late).await.expect_err("gone");
    assert_eq!(late.kind, FailureKind::GroupReset);
    client.delete_group("late").await.expect("there is none");
    assert_eq!(client.groups().await.expect("a list").len(), 1);
}

const TERMS: Terms = Terms {
    lease_ms: 10_000,
    handover_ms: 30_000,
};
const PLACES: [pubsub::Start; 16] = [pubsub::Start::Number(1); 16];

fn renew(member: u64) -> Renew<'static> {
    Renew {
        member,
        terms: TERMS,
        topics: &[],
        generation: None,
        making: Some((7, &PLACES)),
        released: &[],
        passed: &[],
    }
}

async fn report<C: GroupClient>(client: &mut C, group: &str, renew: Renew<'_>) -> Report {
    match client.act(group, &Act::Renew(renew)).await {
        Outcome::Renewed(report) => report,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_store_keeps_leases_and_places<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 1, 0, 9).await;
    let unmade = Renew {
        making: None,
        ..renew(1)
    };
    assert_eq!(client.act("g", &Act::Renew(unmade)).await, Outcome::Unmade);
    assert_eq!(report(&mut client, "g", renew(1)).await.held.len(), 16);
    assert_eq!(report(&mut client, "g", renew(2)).await.held, []);
    let held = Held {
        partition: 0,
        epoch: 1,
    };
    let commit = |next| {
        let done: &'static [Done] = Vec::leak(vec![Done { held, next }]);
        Act::Commit {
            generation: 7,
            places: done,
        }
    };
    for (next, behind) in [(4, 6), (2, 6), (9, 1)] {
        assert_eq!(client.act("g", &commit(next)).await, Outcome::Committed(vec![]));
        // Of this harness all messages are of the first partition.
        assert_eq!(client.groups().await.expect("a list")[0].behind, behind);
    }
    let seen = &client.groups().await.expect("a list")[0];
    assert_eq!((seen.subscribers, seen.partitions, seen.held), (2, 16, 16));
    // The second is silent, then the first: a third takes all.
    harness.pass(Duration::from_secs(9)).await;
    report(&mut client, "g", renew(1)).await;
    harness.pass(Duration::from_secs(9)).await;
    assert_eq!(client.groups().await.expect("a list")[0].subscribers, 1);
    harness.pass(Duration::from_secs(1)).await;
    let third = report(&mut client, "g", renew(3)).await;
    assert_eq!(third.held.len(), 16);
    assert_eq!(third.held[0].place, pubsub::Start::Number(9));
    assert_eq!(client.act("g", &commit(10)).await, Outcome::Committed(vec![0]));
    // Another namespace has its own.
    let mut other = harness.client(None).await;
    assert_eq!(other.groups().await.expect("a list"), []);
}

pub(super) async fn a_store_resets_groups_and_knows_repeats<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 1, 0, 5).await;
    let reset = |stamp, to| Act::Reset {
        stamp,
        call: 0,
        partitions: 16,
        topics: &[],
        to,
    };
    let to = To::Start(pubsub::Start::Earliest);
    assert_eq!(client.act("g", &reset(100, to)).await, Outcome::Reset);
    assert_eq!(client.groups().await.expect("a list")[0].behind, 5);
    harness.pass(Duration::from_millis(10)).await;
    let to = To::Start(pubsub::Start::Latest);
    assert_eq!(client.act("g", &reset(101, to)).await, Outcome::Reset);
    assert_eq!(client.groups().await.expect("a list")[0].behind, 0);
    // From a log, once more.
    let to = To::Start(pubsub::Start::Earliest);
    assert_eq!(client.act("g", &reset(100, to)).await, Outcome::Reset);
    assert_eq!(client.groups().await.expect("a list")[0].behind, 0);
    client.act("g", &Act::Delete { stamp: 100 }).await;
    assert_eq!(client.groups().await.expect("a list").len(), 1);
    client.act("g", &Act::Delete { stamp: 102 }).await;
    assert_eq!(client.groups().await.expect("a list"), []);
}

pub(super) async fn a_store_keeps_as_many_groups_as_a_namespace_may_have<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    for number in 0..GROUPS_MAX {
        report(&mut client, &format!("g{number:04}"), renew(1)).await;
    }
    let full = client.act("one-more", &Act::Renew(renew(1))).await;
    assert_eq!(full, Outcome::GroupsFull);
    report(&mut client, "g0999", renew(2)).await;
    let groups = client.groups().await.expect("a list");
    assert_eq!(groups.len(), GROUPS_MAX);
    assert!(groups.iter().map(|one| &one.name).is_sorted());
    client.act("g0000", &Act::Delete { stamp: u64::MAX >> 1 }).await;
    report(&mut client, "one-more", renew(1)).await;
}
