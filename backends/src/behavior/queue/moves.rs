//! Cases about looking at messages, and about moving and removing them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cases::{LONG, ack, nothing, payloads, sent, take, take_one, token};
use super::{Client, Failed, Harness, Kind, Sent, State, Which};
use crate::behavior::FailureKind;

const DEAD: Failed = Failed {
    delay: None,
    reason: String::new(),
    dead: true,
    uncounted: false,
};

/// Makes the next message dead.
async fn kill<C: Client>(client: &mut C) -> Vec<u8> {
    let message = take_one(client, LONG).await;
    let said = client.nack(&[&message.receipt], &DEAD).await.expect("an answer");
    assert_eq!(said, [Ok(State::Dead)]);
    message.id
}

fn numbers(of: &[(State, u64)]) -> BTreeMap<State, u64> {
    of.iter().copied().collect()
}

pub(super) async fn q28_peek_shows_every_state_and_pages<H: Harness>(harness: &mut H) {
    let kind = Kind {
        ordered: true,
        replay: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    // One in each state, by its key, then many that are ready.
    for key in ["dead", "done", "leased"] {
        client.send(None, &sent(key, key)).await.expect("sent");
        match key {
            "dead" => drop(kill(&mut client).await),
            "done" => {
                let message = take_one(&mut client, LONG).await;
                ack(&mut client, &message).await;
            }
            _ => drop(take_one(&mut client, LONG).await),
        }
    }
    let delayed = Sent {
        delay: LONG,
        ..sent("delayed", "delayed")
    };
    client.send(None, &delayed).await.expect("sent");
    for number in 0..25 {
        client
            .send(None, &sent("many", format!("{number:02}")))
            .await
            .expect("sent");
    }
    let (mut seen, mut page) = (Vec::new(), Vec::new());
    loop {
        let (some, next) = client.peek(&State::ALL, None, 7, &page).await.expect("a page");
        assert!(some.len() <= 7);
        seen.extend(some);
        page = next;
        if page.is_empty() {
            break;
        }
    }
    let states: Vec<_> = seen.iter().take(4).map(|one| one.state).collect();
    assert_eq!(states, [State::Dead, State::Done, State::Leased, State::Delayed]);
    assert_eq!(seen.len(), 29);
    assert!(seen[4..].iter().all(|one| one.state == State::Ready));
    let undone = client.peek(&[], None, 100, &[]).await.expect("a page").0;
    assert_eq!(undone.len(), 27);
    let of_key = client.peek(&[], Some("leased"), 100, &[]).await.expect("a page");
    assert_eq!(of_key.0.len(), 1);
    assert_eq!((of_key.0[0].attempt, of_key.0[0].key.as_str()), (1, "leased"));
    let none = client.peek(&[State::Dead], Some("many"), 100, &[]).await;
    assert_eq!(none.expect("a page"), (Vec::new(), Vec::new()));
}

pub(super) async fn q29_dead_messages_are_redriven_to_the_end<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    for name in ["1", "2", "3"] {
        client.send(None, &sent("", name)).await.expect("sent");
    }
    let first = kill(&mut client).await;
    kill(&mut client).await;
    let name = token(harness, "by-id");
    let ids = Which::Ids(vec![first.clone(), first.clone(), b"no such message".to_vec()]);
    for _ in 0..2 {
        assert_eq!(client.redrive(Some(&name), &ids).await, Ok((1, false)));
    }
    let other = client.redrive(Some(&name), &Which::State(State::Dead)).await;
    assert_eq!(other.expect_err("refused").kind, FailureKind::TokenReused);
    let third = take_one(&mut client, LONG).await;
    assert_eq!(third.payload, b"3");
    let again = take_one(&mut client, LONG).await;
    assert_eq!((&again.id, again.attempt), (&first, 1));
    assert_eq!(
        client.redrive(None, &Which::State(State::Dead)).await,
        Ok((1, false))
    );
    assert_eq!(
        client.redrive(None, &Which::State(State::Dead)).await,
        Ok((0, false))
    );
    assert_eq!(payloads(&take(&mut client, 1).await), ["2"]);
    assert_eq!(
        client.stats().await.expect("numbers"),
        numbers(&[(State::Leased, 3)])
    );
}

pub(super) async fn q29_done_messages_are_redriven<H: Harness>(harness: &mut H) {
    let kind = Kind {
        replay: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let first = take_one(&mut client, LONG).await;
    ack(&mut client, &first).await;
    nothing(&mut client).await;
    assert_eq!(
        client.redrive(None, &Which::State(State::Done)).await,
        Ok((1, false))
    );
    let late = client.ack(&[&first.receipt]).await.expect("an answer");
    assert!(late[0].is_err(), "the receipt was for the time before");
    let second = take_one(&mut client, LONG).await;
    assert_eq!((second.id.clone(), second.attempt), (first.id, 1));
    ack(&mut client, &second).await;
}

pub(super) async fn q30_delete_leaves_leased_ones_alone<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "dead")).await.expect("sent");
    let dead = kill(&mut client).await;
    client.send(None, &sent("", "leased")).await.expect("sent");
    let leased = take_one(&mut client, LONG).await;
    let delayed = Sent {
        delay: LONG,
        ..sent("", "delayed")
    };
    let delayed = client.send(None, &delayed).await.expect("sent");
    let name = token(harness, "sent");
    let ready = client.send(Some(&name), &sent("", "ready")).await.expect("sent");
    let ids = Which::Ids(vec![
        dead,
        leased.id.clone(),
        delayed,
        ready.clone(),
        ready.clone(),
    ]);
    assert_eq!(client.delete(None, &ids).await, Ok((3, false)));
    assert_eq!(
        client.stats().await.expect("numbers"),
        numbers(&[(State::Leased, 1)])
    );
    // A repeat by its sender does not bring it back.
    assert_eq!(client.send(Some(&name), &sent("", "ready")).await, Ok(ready));
    nothing(&mut client).await;
    for number in 0..5 {
        client
            .send(None, &sent("", format!("{number}")))
            .await
            .expect("sent");
    }
    assert_eq!(
        client.delete(None, &Which::State(State::Ready)).await,
        Ok((5, false))
    );
    nothing(&mut client).await;
    ack(&mut client, &leased).await;
}

pub(super) async fn q30_done_messages_stay_unless_asked<H: Harness>(harness: &mut H) {
    let kind = Kind {
        replay: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    ack(&mut client, &message).await;
    for state in [State::Ready, State::Delayed, State::Dead] {
        assert_eq!(client.delete(None, &Which::State(state)).await, Ok((0, false)));
    }
    assert_eq!(
        client.stats().await.expect("numbers"),
        numbers(&[(State::Done, 1)])
    );
    assert_eq!(
        client.delete(None, &Which::State(State::Done)).await,
        Ok((1, false))
    );
    assert_eq!(client.stats().await.expect("numbers"), BTreeMap::new());
}

pub(super) async fn q31_the_numbers_add_up<H: Harness>(harness: &mut H) {
    let kind = Kind {
        replay: true,
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    let mut batch = vec![sent("", "x"); 30];
    batch.extend(vec![
        Sent {
            delay: LONG,
            ..sent("", "y")
        };
        5
    ]);
    client.send_batch(None, &batch).await.expect("a batch");
    let taken = take(&mut client, 20).await;
    for message in &taken[..4] {
        ack(&mut client, message).await;
    }
    for message in &taken[4..10] {
        client.nack(&[&message.receipt], &DEAD).await.expect("an answer");
    }
    let expected = numbers(&[
        (State::Ready, 10),
        (State::Delayed, 5),
        (State::Leased, 10),
        (State::Dead, 6),
        (State::Done, 4),
    ]);
    assert_eq!(client.stats().await.expect("numbers"), expected);
}

pub(super) async fn q33_what_nobody_begins_within_the_ttl_is_dead<H: Harness>(harness: &mut H) {
    let kind = Kind {
        ttl: Some(Duration::from_secs(6)),
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    client.send(None, &sent("", "begun")).await.expect("sent");
    let begun = take_one(&mut client, Duration::from_secs(1)).await;
    client.send(None, &sent("", "not begun")).await.expect("sent");
    harness.pass(Duration::from_secs(7)).await;
    let again = take_one(&mut client, LONG).await;
    assert_eq!(again.id, begun.id, "it was begun in time");
    nothing(&mut client).await;
    let (dead, _) = client.peek(&[State::Dead], None, 10, &[]).await.expect("a page");
    let [dead] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!(dead.payload, b"not begun");
    assert!(dead.last_failure.contains("ttl"), "{dead:?}");
}

pub(super) async fn q33_what_outlives_the_retention_is_dead_and_goes<H: Harness>(harness: &mut H) {
    let kind = Kind {
        ordered: true,
        retention: Some(Duration::from_secs(100)),
        ..Kind::default()
    };
    let mut client = harness.client(kind).await;
    for number in 0..3 {
        client
            .send(None, &sent("k", format!("{number}")))
            .await
            .expect("sent");
    }
    let leased = take_one(&mut client, Duration::from_secs(150)).await;
    harness.pass(Duration::from_secs(101)).await;
    let expected = numbers(&[(State::Leased, 1), (State::Dead, 2)]);
    assert_eq!(client.stats().await.expect("numbers"), expected);
    client.send(None, &sent("k", "new")).await.expect("sent");
    ack(&mut client, &leased).await;
    let new = take_one(&mut client, LONG).await;
    assert_eq!(new.payload, b"new", "the dead do not hold it up");
    ack(&mut client, &new).await;
    let (dead, _) = client.peek(&[State::Dead], None, 10, &[]).await.expect("a page");
    assert!(
        dead.iter().all(|one| one.last_failure.contains("retention")),
        "{dead:?}"
    );
    harness.pass(Duration::from_secs(150)).await;
    // The sweep goes through all queues of the store, a little with each step.
    for _ in 0..300 {
        if client.stats().await.expect("numbers").is_empty() {
            return;
        }
        harness.pass(Duration::from_millis(10)).await;
    }
    panic!("{:?} are left", client.stats().await);
}
