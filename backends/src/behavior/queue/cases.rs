//! Cases about sending and receiving, and helpers of all other cases.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use super::{Ask, Client, Harness, Kind, Received, Sent, State};
use crate::behavior::{FailureKind, WriteToken, join_all, yield_once};

/// Longest time after which an existing message must be received.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A lease that does not end within a case.
pub(super) const LONG: Duration = Duration::from_secs(3_600);

/// A lease that ends soon.
pub(super) const SHORT: Duration = Duration::from_secs(1);

pub(super) fn sent(key: &str, payload: impl AsRef<[u8]>) -> Sent {
    Sent {
        key: key.to_owned(),
        payload: payload.as_ref().to_vec(),
        ..Sent::default()
    }
}

pub(super) fn token<H: Harness>(harness: &mut H, name: &str) -> WriteToken {
    WriteToken {
        generation_time_ns: harness.now_ns(),
        token: name.as_bytes().to_vec(),
    }
}

pub(super) fn ask(messages_max: u32, wait: Duration, lease: Duration) -> Ask {
    Ask {
        token: None,
        messages_max,
        wait,
        lease,
    }
}

/// Receives this number of messages, one answer after the other, with a long lease.
pub(super) async fn take<C: Client>(client: &mut C, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = client.receive(&ask(10, PATIENCE, LONG)).await.expect("messages");
        assert!(!some.is_empty(), "{count} messages are due, {} came", all.len());
        all.extend(some);
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

/// Receives one message with this lease.
pub(super) async fn take_one<C: Client>(client: &mut C, lease: Duration) -> Received {
    let mut some = client.receive(&ask(1, PATIENCE, lease)).await.expect("a message");
    assert_eq!(some.len(), 1, "a message is due");
    some.remove(0)
}

/// Checks that no message can be received now.
pub(super) async fn nothing<C: Client>(client: &mut C) {
    let some = client.receive(&ask(10, Duration::ZERO, LONG)).await;
    assert_eq!(some.expect("an answer"), [], "nothing is due");
}

pub(super) async fn ack<C: Client>(client: &mut C, message: &Received) {
    let results = client.ack(&[&message.receipt]).await.expect("an answer");
    assert_eq!(results, [Ok(())]);
}

pub(super) fn payloads(messages: &[Received]) -> Vec<String> {
    let text = |one: &Received| String::from_utf8_lossy(&one.payload).into_owned();
    messages.iter().map(text).collect()
}

/// The kind of the only failure of an answer.
pub(super) fn kind_of<T: std::fmt::Debug>(results: Vec<Result<T, crate::behavior::Failure>>) -> FailureKind {
    let [Err(failure)] = &results[..] else {
        panic!("one refusal is expected, not {results:?}");
    };
    failure.kind
}

pub(super) async fn q1_what_is_acked_never_comes_again<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let id = client.send(None, &sent("", "work")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    assert_eq!((message.id.clone(), message.attempt), (id, 1));
    assert_eq!(message.last_failure, "");
    nothing(&mut client).await;
    ack(&mut client, &message).await;
    harness.pass(SHORT).await;
    nothing(&mut client).await;
    assert_eq!(client.stats().await.expect("numbers"), BTreeMap::new());
}

pub(super) async fn q2_each_message_is_done_once_by_many_workers<H: Harness>(harness: &mut H) {
    const WORKERS: usize = 8;
    const MESSAGES: usize = 200;
    let mut client = harness.client(Kind::default()).await;
    let messages: Vec<_> = (0..MESSAGES)
        .map(|number| sent("", format!("{number}")))
        .collect();
    for batch in messages.chunks(50) {
        let results = client.send_batch(None, batch).await.expect("a batch");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(harness.client_beside(&client).await);
    }
    let done = RefCell::new(BTreeMap::<String, usize>::new());
    let tasks = workers.into_iter().map(|mut worker| {
        let done = &done;
        async move {
            while done.borrow().len() < MESSAGES {
                let some = worker
                    .receive(&ask(7, Duration::from_millis(200), LONG))
                    .await
                    .expect("messages");
                for payload in payloads(&some) {
                    *done.borrow_mut().entry(payload).or_default() += 1;
                }
                let receipts: Vec<&[u8]> = some.iter().map(|one| one.receipt.as_slice()).collect();
                if !receipts.is_empty() {
                    let results = worker.ack(&receipts).await.expect("an answer");
                    assert!(results.iter().all(Result::is_ok), "{results:?}");
                }
                yield_once().await;
            }
        }
    });
    join_all(tasks.collect()).await;
    let done = done.into_inner();
    assert!(done.values().all(|times| *times == 1), "{done:?}");
    nothing(&mut client).await;
}

pub(super) async fn q12_a_delay_is_kept<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let begun = harness.now_ns();
    let delayed = Sent {
        delay: Duration::from_secs(4),
        ..sent("", "later")
    };
    client.send(None, &delayed).await.expect("sent");
    client.send(None, &sent("", "now")).await.expect("sent");
    assert_eq!(payloads(&take(&mut client, 1).await), ["now"]);
    nothing(&mut client).await;
    harness.pass(Duration::from_secs(4)).await;
    let message = take_one(&mut client, LONG).await;
    assert_eq!(message.payload, b"later");
    assert!(
        harness.now_ns() - begun >= 3_990_000_000,
        "not before its time, less a clock's tick"
    );
}

pub(super) async fn q18_a_key_needs_order<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let failure = client.send(None, &sent("key", "x")).await.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::InvalidArgument);
    assert_eq!(failure.field.as_deref(), Some("message.ordering_key"));
    nothing(&mut client).await;
}

pub(super) async fn q19_the_same_receive_gets_the_same_messages<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    for number in 0..4 {
        client
            .send(None, &sent("", format!("{number}")))
            .await
            .expect("sent");
    }
    let named = Ask {
        token: Some(b"call-1".to_vec()),
        ..ask(2, PATIENCE, Duration::from_secs(4))
    };
    let mut first = client.receive(&named).await.expect("messages");
    assert!(!first.is_empty());
    if first.len() == 1 {
        // The second message did not exist yet; the same call continues with its first result.
        first = client.receive(&named).await.expect("messages");
    }
    assert_eq!(client.receive(&named).await.expect("messages"), first);
    let other = Ask {
        token: Some(b"call-2".to_vec()),
        ..named.clone()
    };
    let second = client.receive(&other).await.expect("messages");
    assert!(
        second
            .iter()
            .all(|one| !first.iter().any(|same| same.id == one.id)),
        "another call gets others"
    );
    ack(&mut client, &first[0]).await;
    let rest = client.receive(&named).await.expect("messages");
    assert!(
        rest.iter().all(|one| one.id != first[0].id),
        "what is acked is not given again: {rest:?}"
    );
    harness.pass(Duration::from_secs(5)).await;
    let after = client.receive(&named).await.expect("messages");
    assert!(!after.is_empty());
    assert!(
        after.iter().all(|one| !first.contains(one)),
        "the leases have ended: {after:?}"
    );
}

pub(super) async fn q20_a_worker_waits_for_a_message<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let mut worker = harness.client_beside(&client).await;
    let waits = async { assert_eq!(take_one(&mut worker, LONG).await.payload, b"at last") };
    let sends = async {
        for _ in 0..50 {
            yield_once().await;
        }
        client.send(None, &sent("", "at last")).await.expect("sent");
    };
    let both: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![Box::pin(waits), Box::pin(sends)];
    join_all(both).await;
}

pub(super) async fn q20_nothing_comes_when_nothing_is_there<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let some = client.receive(&ask(10, Duration::from_millis(100), LONG)).await;
    assert_eq!(some.expect("an answer"), []);
    // A receiver that gave up has leased nothing.
    client.send(None, &sent("", "x")).await.expect("sent");
    assert_eq!(take(&mut client, 1).await[0].attempt, 1);
}

pub(super) async fn q21_a_repeat_is_one_message<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let name = token(harness, "send");
    let id = client.send(Some(&name), &sent("", "x")).await.expect("sent");
    assert_eq!(client.send(Some(&name), &sent("", "x")).await, Ok(id));
    let other = client.send(Some(&name), &sent("", "y")).await;
    assert_eq!(other.expect_err("refused").kind, FailureKind::TokenReused);
    let name = token(harness, "batch");
    let batch = [sent("", "1"), sent("", "2")];
    let ids = client.send_batch(Some(&name), &batch).await.expect("a batch");
    assert_eq!(
        client.send_batch(Some(&name), &batch).await.expect("a batch"),
        ids
    );
    let mut all = payloads(&take(&mut client, 3).await);
    all.sort();
    assert_eq!(all, ["1", "2", "x"]);
    nothing(&mut client).await;
}

pub(super) async fn q21_a_repeat_of_a_done_message_is_none<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let name = token(harness, "send");
    let id = client.send(Some(&name), &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    ack(&mut client, &message).await;
    assert_eq!(client.send(Some(&name), &sent("", "x")).await, Ok(id));
    nothing(&mut client).await;
    assert_eq!(client.stats().await.expect("numbers"), BTreeMap::new());
}

pub(super) async fn q21_a_token_older_than_the_window_sends_nothing<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let old = WriteToken {
        generation_time_ns: harness.now_ns() - 601_000_000_000,
        token: b"old".to_vec(),
    };
    let failure = client
        .send(Some(&old), &sent("", "x"))
        .await
        .expect_err("refused");
    assert_eq!(failure.kind, FailureKind::TokenExpired);
    nothing(&mut client).await;
}

pub(super) async fn q22_an_answer_is_bounded<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let size = harness.payload_bytes_max().min(1 << 20);
    for _ in 0..5 {
        client.send(None, &sent("", vec![7; size])).await.expect("sent");
    }
    let mut count = 0;
    while count < 5 {
        let some = client.receive(&ask(100, PATIENCE, LONG)).await.expect("messages");
        let bytes: usize = some.iter().map(|one| one.payload.len()).sum();
        assert!(
            !some.is_empty() && bytes <= 4 << 20,
            "{} messages, {bytes} bytes",
            some.len()
        );
        count += some.len();
    }
    for number in 0..10 {
        client
            .send(None, &sent("", format!("{number}")))
            .await
            .expect("sent");
    }
    let mut count = 0;
    while count < 10 {
        let some = client.receive(&ask(3, PATIENCE, LONG)).await.expect("messages");
        assert!((1..=3).contains(&some.len()));
        count += some.len();
    }
    nothing(&mut client).await;
}

pub(super) async fn q32_messages_come_back_as_they_were_sent<H: Harness>(harness: &mut H) {
    let kind = Kind {
        ordered: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let messages = [
        sent("", ""),
        sent("ключ \u{0} 🦀", all_bytes),
        sent(&"k".repeat(255), vec![0; harness.payload_bytes_max()]),
        Sent {
            attributes: vec![
                ("content-type".to_owned(), "text/plain".to_owned()),
                ("x".to_owned(), "ü".to_owned()),
            ],
            ..sent("attributes", "x")
        },
    ];
    for message in &messages {
        client.send(None, message).await.expect("sent");
        let came = take_one(&mut client, LONG).await;
        let again = Sent {
            key: came.key.clone(),
            attributes: came.attributes.clone(),
            payload: came.payload.clone(),
            ..Sent::default()
        };
        assert!(again == *message, "key {:?}", message.key);
        ack(&mut client, &came).await;
    }
}

pub(super) async fn q32_what_is_too_large_is_refused<H: Harness>(harness: &mut H) {
    let kind = Kind {
        ordered: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    let too_large = sent("", vec![0; harness.payload_bytes_max() + 1]);
    let failure = client.send(None, &too_large).await.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::InvalidArgument);
    assert_eq!(failure.field.as_deref(), Some("message.payload"));
    let failure = client.send(None, &sent(&"k".repeat(256), "x")).await;
    let failure = failure.expect_err("refused");
    assert_eq!(failure.field.as_deref(), Some("message.ordering_key"));
    nothing(&mut client).await;
}

pub(super) async fn q32_forged_receipts_are_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    let mut forged = message.receipt.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut other = harness.client(Kind::default()).await;
    for (client, receipt) in [(&mut client, &forged[..]), (&mut other, &message.receipt[..])] {
        let failure = client.ack(&[receipt]).await.expect_err("refused");
        assert_eq!(failure.kind, FailureKind::InvalidArgument);
        assert_eq!(failure.field.as_deref(), Some("receipts[0]"));
    }
    assert_eq!(
        client.stats().await.expect("numbers"),
        BTreeMap::from([(State::Leased, 1)])
    );
    ack(&mut client, &message).await;
}
