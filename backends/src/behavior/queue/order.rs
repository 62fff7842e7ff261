//! Cases about ordered queues.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cases::{LONG, ack, ask, nothing, payloads, sent, take, take_one, token};
use super::{Client, Failed, Harness, Kind, Sent, State};
use crate::behavior::{FailureKind, join_all, yield_once};

const ORDERED: Kind = Kind {
    ordered: true,
    replay: false,
    ttl: None,
    retention: None,
};

pub(super) async fn q13_of_a_key_one_at_a_time_and_in_order<H: Harness>(harness: &mut H) {
    const KEYS: usize = 10;
    const EACH: usize = 20;
    const WORKERS: usize = 6;
    let mut client = harness.client(ORDERED).await;
    for round in 0..EACH {
        let batch: Vec<_> = (0..KEYS)
            .map(|key| sent(&format!("key-{key}"), format!("{round}")))
            .collect();
        let results = client.send_batch(None, &batch).await.expect("a batch");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(harness.client_beside(&client).await);
    }
    let done = RefCell::new(BTreeMap::<String, Vec<String>>::new());
    let busy = RefCell::new(BTreeSet::new());
    let tasks = workers.into_iter().enumerate().map(|(number, mut worker)| {
        let (done, busy) = (&done, &busy);
        async move {
            while done.borrow().values().map(Vec::len).sum::<usize>() < KEYS * EACH {
                let some = worker.receive(&ask(3, Duration::from_millis(200), LONG)).await;
                for message in some.expect("messages") {
                    assert!(busy.borrow_mut().insert(message.key.clone()), "two of one key");
                    yield_once().await;
                    if message.attempt == 1 && message.payload.len() % 2 == number % 2 {
                        // A failure keeps its place.
                        let failed = Failed {
                            delay: Some(Duration::ZERO),
                            ..Failed::default()
                        };
                        busy.borrow_mut().remove(&message.key);
                        let said = worker.nack(&[&message.receipt], &failed).await;
                        assert_eq!(said.expect("an answer"), [Ok(State::Ready)]);
                        continue;
                    }
                    let payload = payloads(std::slice::from_ref(&message)).remove(0);
                    done.borrow_mut()
                        .entry(message.key.clone())
                        .or_default()
                        .push(payload);
                    busy.borrow_mut().remove(&message.key);
                    ack(&mut worker, &message).await;
                }
                yield_once().await;
            }
        }
    });
    join_all(tasks.collect()).await;
    let expected: Vec<String> = (0..EACH).map(|round| round.to_string()).collect();
    for (key, order) in done.into_inner() {
        assert_eq!(order, expected, "{key}");
    }
    nothing(&mut client).await;
}

pub(super) async fn q14_a_failing_head_holds_up_its_key_alone<H: Harness>(harness: &mut H) {
    let mut client = harness.client(ORDERED).await;
    let head = Sent {
        attempts_max: 2,
        ..sent("a", "a1")
    };
    for message in [&head, &sent("a", "a2"), &sent("b", "b1")] {
        client.send(None, message).await.expect("sent");
    }
    let mut heads = take(&mut client, 2).await;
    heads.sort_by(|one, other| one.payload.cmp(&other.payload));
    assert_eq!(payloads(&heads), ["a1", "b1"]);
    let failed = Failed {
        delay: Some(Duration::from_secs(3)),
        ..Failed::default()
    };
    let said = client.nack(&[&heads[0].receipt], &failed).await;
    assert_eq!(said.expect("an answer"), [Ok(State::Delayed)]);
    ack(&mut client, &heads[1]).await;
    nothing(&mut client).await;
    harness.pass(Duration::from_secs(3)).await;
    let again = take_one(&mut client, LONG).await;
    assert_eq!((again.payload.as_slice(), again.attempt), (&b"a1"[..], 2));
    let said = client.nack(&[&again.receipt], &failed).await;
    assert_eq!(said.expect("an answer"), [Ok(State::Dead)]);
    assert_eq!(take_one(&mut client, LONG).await.payload, b"a2");
}

pub(super) async fn q15_a_delayed_head_holds_up_its_key<H: Harness>(harness: &mut H) {
    let mut client = harness.client(ORDERED).await;
    let head = Sent {
        delay: Duration::from_secs(4),
        ..sent("a", "a1")
    };
    for message in [&head, &sent("a", "a2"), &sent("b", "b1")] {
        client.send(None, message).await.expect("sent");
    }
    assert_eq!(payloads(&take(&mut client, 1).await), ["b1"]);
    harness.pass(Duration::from_secs(4)).await;
    let first = take_one(&mut client, LONG).await;
    assert_eq!(first.payload, b"a1");
    nothing(&mut client).await;
    ack(&mut client, &first).await;
    assert_eq!(take_one(&mut client, LONG).await.payload, b"a2");
}

pub(super) async fn q16_the_next_of_a_key_is_there_after_the_ack<H: Harness>(harness: &mut H) {
    let mut client = harness.client(ORDERED).await;
    client.send(None, &sent("a", "0")).await.expect("sent");
    for round in 0..20 {
        let message = take_one(&mut client, LONG).await;
        assert_eq!(payloads(std::slice::from_ref(&message)), [round.to_string()]);
        // Sent while the worker has the message before.
        client
            .send(None, &sent("a", format!("{}", round + 1)))
            .await
            .expect("sent");
        nothing(&mut client).await;
        ack(&mut client, &message).await;
    }
}

pub(super) async fn q17_the_empty_key_is_a_key<H: Harness>(harness: &mut H) {
    let mut client = harness.client(ORDERED).await;
    for number in 0..3 {
        client
            .send(None, &sent("", format!("{number}")))
            .await
            .expect("sent");
    }
    for number in 0..3 {
        let message = take_one(&mut client, LONG).await;
        assert_eq!(payloads(std::slice::from_ref(&message)), [number.to_string()]);
        nothing(&mut client).await;
        ack(&mut client, &message).await;
    }
}

/// A token names one call of the whole queue, whatever ordering key another call has.
pub(super) async fn q21_a_token_of_another_key_is_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client(ORDERED).await;
    let mut beside = harness.client_beside(&client).await;
    let name = token(harness, "send");
    let id = client.send(Some(&name), &sent("first", "x")).await.expect("sent");
    for number in 0..24 {
        let other = sent(&format!("key-{number}"), "x");
        let refused = beside.send(Some(&name), &other).await.expect_err("another call");
        assert_eq!(refused.kind, FailureKind::TokenReused, "{number}: {refused:?}");
    }
    let repeat = beside.send(Some(&name), &sent("first", "x")).await;
    assert_eq!(repeat, Ok(id), "it names the first call still");
    assert_eq!(payloads(&take(&mut client, 1).await), ["x"]);
    nothing(&mut client).await;
}
