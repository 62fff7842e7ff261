//! Cases about the start of a subscription, and the messages that it misses.

use std::time::Duration;

use super::cases::{exactly, next, payloads, quiet, sent};
use super::{Client, Harness, Received, Start, Subscription};
use crate::behavior::FailureKind;

/// Retention in the cases about it.
const LIFE: Duration = Duration::from_secs(4);

async fn publish<C: Client>(client: &mut C, from: usize, to: usize) {
    for number in from..to {
        let message = sent("orders", &format!("k{}", number % 3), format!("{number:02}"));
        client.publish(None, &message).await.expect("published");
    }
}

pub(super) async fn p1_latest_begins_after_the_first_answer<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 0, 3).await;
    let mut live = client
        .subscribe(&[], &Start::Latest)
        .await
        .expect("a subscription");
    quiet(&mut live).await;
    publish(&mut client, 3, 6).await;
    let mut got = payloads(&exactly(&mut live, 3).await);
    got.sort();
    assert_eq!(got, ["03", "04", "05"]);
    // A namespace without any message yet has a start, too.
    let mut empty = harness.client(None).await;
    let mut live = empty
        .subscribe(&[], &Start::Latest)
        .await
        .expect("a subscription");
    publish(&mut empty, 0, 1).await;
    assert_eq!(payloads(&exactly(&mut live, 1).await), ["00"]);
}

pub(super) async fn p2_earliest_gives_all_once_and_in_order<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 0, 60).await;
    for _ in 0..2 {
        let mut all = client
            .subscribe(&[], &Start::Earliest)
            .await
            .expect("a subscription");
        let got = exactly(&mut all, 60).await;
        for key in ["k0", "k1", "k2"] {
            let of_key: Vec<_> = got.iter().filter(|one| one.message.key == key).cloned().collect();
            assert_eq!(of_key.len(), 20);
            assert!(payloads(&of_key).is_sorted());
        }
    }
}

pub(super) async fn p3_time_begins_with_the_first_message_at_it_or_later<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 0, 4).await;
    let mut all = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    // The store has these before the next ones are published: messages of several keys may reach it
    // in another order than they were acknowledged.
    let first = exactly(&mut all, 4).await;
    harness.pass(Duration::from_millis(50)).await;
    publish(&mut client, 4, 9).await;
    let later = exactly(&mut all, 5).await;
    let times = |messages: &[Received]| messages.iter().map(|one| one.time_ms).collect::<Vec<_>>();
    let between = times(&later).into_iter().min().expect("five messages");
    assert!(
        times(&first).into_iter().all(|time| time < between),
        "time has passed"
    );
    for (time, count) in [(0, 9), (between, 5), (between + 3_600_000, 0)] {
        let start = Start::Time(time);
        let mut subscription = client.subscribe(&[], &start).await.expect("a subscription");
        let got = exactly(&mut subscription, count).await;
        assert!(got.iter().all(|one| one.time_ms >= time), "from {time}");
    }
    // From a future time on, it is the messages that are published next.
    let start = Start::Time(between + 3_600_000);
    let mut later = client.subscribe(&[], &start).await.expect("a subscription");
    publish(&mut client, 9, 10).await;
    assert_eq!(payloads(&exactly(&mut later, 1).await), ["09"]);
}

pub(super) async fn p4_every_position_is_a_place_to_go_on_from<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    publish(&mut client, 0, 40).await;
    let mut all = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    let mut places = vec![(all.position(), 0)];
    let mut ids = Vec::new();
    while ids.len() < 40 {
        let answer = next(&mut all).await;
        ids.extend(answer.messages.into_iter().map(|one| one.id));
        places.push((answer.position, ids.len()));
    }
    for (position, count) in places {
        let start = Start::Position(position);
        let mut rest = client.subscribe(&[], &start).await.expect("a subscription");
        let mut got: Vec<_> = exactly(&mut rest, 40 - count)
            .await
            .into_iter()
            .map(|one| one.id)
            .collect();
        let mut expected = ids[count..].to_vec();
        // Partitions may come in another order the second time.
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "after {count}");
    }
}

pub(super) async fn p20_who_is_overtaken_by_retention_gets_a_gap<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Some(LIFE)).await;
    let mut slow = client
        .subscribe(&[], &Start::Latest)
        .await
        .expect("a subscription");
    publish(&mut client, 0, 10).await;
    harness.pass(LIFE).await;
    publish(&mut client, 10, 13).await;
    let answer = next(&mut slow).await;
    assert_eq!(answer.gap, Some(10), "those that went");
    assert_eq!(payloads(&answer.messages), ["10", "11", "12"]);
    quiet(&mut slow).await;
}

pub(super) async fn p21_an_expired_position_is_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Some(LIFE)).await;
    let first = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    let start = Start::Position(first.position());
    drop(first);
    publish(&mut client, 0, 3).await;
    client
        .subscribe(&[], &start)
        .await
        .expect("all of them are there");
    harness.pass(LIFE + Duration::from_millis(100)).await;
    publish(&mut client, 3, 4).await;
    let refused = client.subscribe(&[], &start).await.err().expect("three are gone");
    assert_eq!(refused.kind, FailureKind::PositionExpired, "{refused:?}");
    let mut rest = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    assert_eq!(payloads(&exactly(&mut rest, 1).await), ["03"]);
}

pub(super) async fn p21_positions_of_others_are_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let mut other = harness.client(None).await;
    publish(&mut client, 0, 3).await;
    publish(&mut other, 0, 3).await;
    let mut all = client
        .subscribe(&["orders"], &Start::Earliest)
        .await
        .expect("a subscription");
    exactly(&mut all, 3).await;
    let position = all.position();
    let start = Start::Position(position.clone());
    client.subscribe(&["orders"], &start).await.expect("its own");
    let mut damaged = position;
    *damaged.last_mut().expect("not empty") ^= 1;
    let refused = [
        other.subscribe(&["orders"], &start).await,
        client.subscribe(&["bills"], &start).await,
        client.subscribe(&["orders"], &Start::Position(damaged)).await,
        client
            .subscribe(&["orders"], &Start::Position(b"garbage".to_vec()))
            .await,
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let refused = refused.err().unwrap_or_else(|| panic!("{number} was taken"));
        assert_eq!(
            refused.kind,
            FailureKind::PositionInvalid,
            "{number}: {refused:?}"
        );
    }
}

pub(super) async fn p31_old_messages_are_not_delivered<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Some(LIFE)).await;
    publish(&mut client, 0, 5).await;
    let mut all = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    exactly(&mut all, 5).await;
    harness.pass(LIFE + Duration::from_millis(100)).await;
    publish(&mut client, 5, 6).await;
    for start in [Start::Earliest, Start::Time(0)] {
        let mut left = client.subscribe(&[], &start).await.expect("a subscription");
        assert_eq!(payloads(&exactly(&mut left, 1).await), ["05"], "{start:?}");
    }
    // Sweeping to the end does not change that.
    for _ in 0..5 {
        harness.pass(Duration::ZERO).await;
    }
    let mut left = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    assert_eq!(payloads(&exactly(&mut left, 1).await), ["05"]);
}
