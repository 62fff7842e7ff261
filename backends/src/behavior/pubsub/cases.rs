//! Cases about publishing: order, repeats, topics, and the limits of a message.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Answer, Client, Harness, Received, Sent, Start, Subscription};
use crate::behavior::{FailureKind, WriteToken, join_all, yield_once};

/// Longest time after which a subscription must deliver an existing message.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Time without a message that shows that none is due.
pub(super) const QUIET: Duration = Duration::from_millis(150);

pub(super) fn sent(topic: &str, key: &str, payload: impl AsRef<[u8]>) -> Sent {
    Sent {
        topic: topic.to_owned(),
        key: key.to_owned(),
        attributes: Vec::new(),
        payload: payload.as_ref().to_vec(),
    }
}

pub(super) fn token<H: Harness>(harness: &mut H, name: &str) -> WriteToken {
    WriteToken {
        generation_time_ns: harness.now_ns(),
        token: name.as_bytes().to_vec(),
    }
}

/// Reads this number of messages, and checks that no more come.
pub(super) async fn exactly<S: Subscription>(subscription: &mut S, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        let answer = next(subscription).await;
        assert_eq!(answer.gap, None, "nothing is missing");
        all.extend(answer.messages);
    }
    assert_eq!(all.len(), count, "{all:?}");
    quiet(subscription).await;
    all
}

pub(super) async fn next<S: Subscription>(subscription: &mut S) -> Answer {
    let answer = subscription
        .next(PATIENCE)
        .await
        .expect("a subscription that stands");
    answer.expect("messages that are due")
}

pub(super) async fn quiet<S: Subscription>(subscription: &mut S) {
    let answer = subscription
        .next(QUIET)
        .await
        .expect("a subscription that stands");
    assert_eq!(answer, None, "nothing is due");
}

pub(super) fn payloads(messages: &[Received]) -> Vec<String> {
    let text = |one: &Received| String::from_utf8_lossy(&one.message.payload).into_owned();
    messages.iter().map(text).collect()
}

async fn everything<C: Client>(client: &mut C, count: usize) -> Vec<Received> {
    let mut all = client
        .subscribe(&[], &Start::Earliest)
        .await
        .expect("a subscription");
    exactly(&mut all, count).await
}

pub(super) async fn p5_each_key_comes_in_the_order_of_its_acknowledgements<H: Harness>(harness: &mut H) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 25;
    let mut client = harness.client(None).await;
    let mut live = client
        .subscribe(&[], &Start::Latest)
        .await
        .expect("a subscription");
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        publishers.push(harness.client_beside(&client).await);
    }
    // Moments of the call and of the acknowledgement of each message.
    let clock = Cell::new(0);
    let tick = || {
        clock.set(clock.get() + 1);
        clock.get()
    };
    let spans = RefCell::new(BTreeMap::<String, (u32, u32)>::new());
    let tasks = publishers.into_iter().enumerate().map(|(number, mut publisher)| {
        let (spans, tick) = (&spans, &tick);
        async move {
            for round in 0..EACH {
                let key = format!("key-{}", (number * 7 + round) % 10);
                let payload = format!("{number}-{round}");
                let message = sent("orders", &key, &payload);
                let called = tick();
                publisher.publish(None, &message).await.expect("published");
                spans.borrow_mut().insert(payload, (called, tick()));
                yield_once().await;
            }
        }
    });
    join_all(tasks.collect()).await;
    let spans = spans.into_inner();
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    let all = exactly(&mut live, PUBLISHERS * EACH).await;
    let each: BTreeSet<_> = all.iter().map(|one| &one.message.payload).collect();
    assert_eq!(each.len(), spans.len(), "each once");
    for one in all {
        let payload = String::from_utf8_lossy(&one.message.payload).into_owned();
        seen.entry(one.message.key).or_default().push(payload);
    }
    for (key, payloads) in seen {
        for (at, payload) in payloads.iter().enumerate() {
            // Calls that overlap have no order.
            let (called, _) = spans[payload];
            let late = payloads[at..].iter().find(|later| spans[*later].1 < called);
            assert_eq!(late, None, "of {key} acknowledged before {payload} was sent");
        }
    }
}

pub(super) async fn p6_a_batch_keeps_the_order_of_a_key<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let messages: Vec<_> = (0..50)
        .map(|number| sent("orders", &format!("k{}", number % 5), format!("{number:02}")))
        .collect();
    let name = token(harness, "batch");
    let ids = client
        .publish_batch(Some(&name), &messages)
        .await
        .expect("a batch");
    for (index, id) in (0u32..).zip(&ids) {
        let expected = [name.token.as_slice(), &index.to_be_bytes()].concat();
        assert_eq!(id.as_ref().expect("published"), &expected, "token and index");
    }
    let all = everything(&mut client, 50).await;
    for key in 0..5 {
        let key = format!("k{key}");
        let of_key: Vec<_> = all.iter().filter(|one| one.message.key == key).cloned().collect();
        assert_eq!(of_key.len(), 10);
        assert!(payloads(&of_key).is_sorted(), "{:?}", payloads(&of_key));
    }
}

pub(super) async fn p6_the_first_failure_takes_the_later_ones_of_its_key_along<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let mut bad = sent("orders", "a", "2");
    bad.attributes = vec![("Not A Name".to_owned(), String::new())];
    let messages = [
        sent("orders", "a", "1"),
        bad,
        sent("orders", "b", "3"),
        sent("orders", "a", "4"),
        sent("bills", "a", "5"),
    ];
    let name = token(harness, "batch");
    let results = client
        .publish_batch(Some(&name), &messages)
        .await
        .expect("a batch");
    let took_place: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(took_place, [true, false, true, false, true]);
    let mut all = payloads(&everything(&mut client, 3).await);
    all.sort();
    assert_eq!(all, ["1", "3", "5"]);
}

pub(super) async fn p7_a_repeat_has_one_id_and_is_stored_once<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let mut beside = harness.client_beside(&client).await;
    let (name, message) = (token(harness, "once"), sent("orders", "k", "one"));
    let id = client.publish(Some(&name), &message).await.expect("published");
    assert_eq!(id, name.token);
    for repeat in [
        beside.publish(Some(&name), &message).await,
        client.publish(Some(&name), &message).await,
    ] {
        assert_eq!(repeat.expect("a repeat"), id);
    }
    let batch = [message.clone(), sent("orders", "l", "two")];
    let of_batch = token(harness, "batch");
    let first = client
        .publish_batch(Some(&of_batch), &batch)
        .await
        .expect("a batch");
    let again = beside
        .publish_batch(Some(&of_batch), &batch)
        .await
        .expect("a repeat");
    assert_eq!(first, again);
    let all = everything(&mut client, 3).await;
    assert_eq!(all[0].id, id);
}

pub(super) async fn p7_a_token_of_another_call_is_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let name = token(harness, "once");
    let first = sent("orders", "k", "one");
    client.publish(Some(&name), &first).await.expect("published");
    let other = sent("orders", "k", "two");
    // The token is the id of the message, whatever generation time its client gives.
    for offset_ns in [0, 1_000_000] {
        let token = WriteToken {
            generation_time_ns: name.generation_time_ns + offset_ns,
            ..name.clone()
        };
        let repeat = client.publish(Some(&token), &first).await.expect("a repeat");
        assert_eq!(repeat, name.token);
        let refused = client
            .publish(Some(&token), &other)
            .await
            .expect_err("another call");
        assert_eq!(refused.kind, FailureKind::TokenReused, "{refused:?}");
    }
    // Nor of a call about other partitions, whoever keeps them.
    for number in 0..24 {
        let elsewhere = sent(&format!("orders.{number}"), "k", "two");
        let refused = client
            .publish(Some(&name), &elsewhere)
            .await
            .expect_err("another call");
        assert_eq!(refused.kind, FailureKind::TokenReused, "{number}: {refused:?}");
    }
    assert_eq!(payloads(&everything(&mut client, 1).await), ["one"]);
}

pub(super) async fn p8_a_token_older_than_the_window_stores_nothing<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let mut name = token(harness, "old");
    name.generation_time_ns -= 11 * 60 * 1_000_000_000;
    let refused = client
        .publish(Some(&name), &sent("orders", "k", "late"))
        .await
        .expect_err("older than ten minutes");
    assert_eq!(refused.kind, FailureKind::TokenExpired, "{refused:?}");
    everything(&mut client, 0).await;
}

pub(super) async fn p9_equal_publishes_at_once_are_one_message<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let (name, message) = (token(harness, "twins"), sent("orders", "k", "one"));
    let mut twins = Vec::new();
    for _ in 0..6 {
        twins.push(harness.client_beside(&client).await);
    }
    let calls = twins.into_iter().map(|mut twin| {
        let (name, message) = (&name, &message);
        async move { twin.publish(Some(name), message).await }
    });
    for id in join_all(calls.collect()).await {
        assert_eq!(id.expect("published"), name.token);
    }
    everything(&mut client, 1).await;
}

pub(super) async fn p10_without_a_token_there_are_two_messages<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let message = sent("orders", "k", "one");
    let first = client.publish(None, &message).await.expect("published");
    let second = client.publish(None, &message).await.expect("published");
    assert_ne!(first, second);
    let ids: Vec<_> = everything(&mut client, 2)
        .await
        .into_iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(ids, [first, second]);
}

pub(super) async fn p11_patterns_take_their_topics_once<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let topics = ["", "a", "a.b", "a.b.c", "b", "b.b"];
    for topic in topics {
        client
            .publish(None, &sent(topic, "", topic))
            .await
            .expect("published");
    }
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &topics),
        (&[""], &[""]),
        (&["*"], &["a", "b"]),
        (&["a.>"], &["a.b", "a.b.c"]),
        (&[">"], &["a", "a.b", "a.b.c", "b", "b.b"]),
        (&["*.b"], &["a.b", "b.b"]),
        // Overlapping patterns give each message once.
        (&["a.*", "*.b", "a.>"], &["a.b", "a.b.c", "b.b"]),
        (&["none.of.them"], &[]),
    ];
    for (patterns, expected) in cases {
        let mut subscription = client
            .subscribe(patterns, &Start::Earliest)
            .await
            .expect("a subscription");
        // Messages of one topic are in order, those of several may be in any.
        let mut got = payloads(&exactly(&mut subscription, expected.len()).await);
        got.sort();
        assert_eq!(got, expected, "{patterns:?}");
    }
}

pub(super) async fn p12_messages_come_back_as_they_were_sent<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long = "k".repeat(255);
    let with = |topic: &str, key: &str, attributes: &[(&str, &str)], payload: Vec<u8>| Sent {
        topic: topic.to_owned(),
        key: key.to_owned(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        payload,
    };
    let messages = [
        with("", "", &[], Vec::new()),
        with(
            "käse.€.𝄞",
            "schlüssel 𝄞 \u{0} ende",
            &[("ce-id", "€"), ("n", "")],
            all_bytes,
        ),
        with(
            &"t".repeat(255),
            &long,
            &[("content-type", "text/plain")],
            vec![7; 70_000],
        ),
        with("large", "", &[], vec![9; harness.payload_bytes_max()]),
    ];
    for message in &messages {
        client.publish(None, message).await.expect("published");
    }
    let all = everything(&mut client, messages.len()).await;
    for message in &messages {
        assert!(
            all.iter().any(|one| one.message == *message),
            "topic {:?} comes back",
            message.topic
        );
    }
    assert!(
        all.iter().all(|one| one.time_ms > 1_600_000_000_000),
        "store times"
    );
}

pub(super) async fn p12_what_is_too_large_is_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(None).await;
    let max = harness.payload_bytes_max();
    for (message, field) in [
        (sent("t", "k", vec![0; max + 1]), "message.payload"),
        (sent(&"t".repeat(256), "k", "x"), "message.topic"),
        (sent("t", &"k".repeat(256), "x"), "message.ordering_key"),
    ] {
        let refused = client.publish(None, &message).await.expect_err(field);
        assert_eq!(refused.kind, FailureKind::InvalidArgument, "{refused:?}");
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
    }
    everything(&mut client, 0).await;
}
