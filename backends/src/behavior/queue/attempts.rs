//! Cases about attempts: leases, acks, nacks, and the end of a message.

use std::time::Duration;

use super::cases::{LONG, SHORT, ack, ask, kind_of, nothing, sent, take_one};
use super::{Client, Failed, Harness, Kind, Sent, State};
use crate::behavior::FailureKind;

/// A little more than [`SHORT`].
const AFTER: Duration = Duration::from_millis(1_100);

pub(super) async fn q3_without_an_ack_it_comes_again<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let first = take_one(&mut client, SHORT).await;
    harness.pass(AFTER).await;
    let second = take_one(&mut client, LONG).await;
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_eq!(second.last_failure, "lease ended");
    assert_ne!(second.receipt, first.receipt);
}

pub(super) async fn q4_an_ack_after_the_lease_counts_if_nobody_else_has_it<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, SHORT).await;
    harness.pass(AFTER).await;
    ack(&mut client, &message).await;
    nothing(&mut client).await;
}

pub(super) async fn q5_an_ack_after_another_attempt_began_is_lost<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let first = take_one(&mut client, SHORT).await;
    harness.pass(AFTER).await;
    let second = take_one(&mut client, LONG).await;
    let late = client.ack(&[&first.receipt]).await.expect("an answer");
    assert_eq!(kind_of(late), FailureKind::LeaseLost);
    let late = client.nack(&[&first.receipt], &Failed::default()).await;
    assert_eq!(kind_of(late.expect("an answer")), FailureKind::LeaseLost);
    ack(&mut client, &second).await;
    nothing(&mut client).await;
}

pub(super) async fn q6_an_ack_may_come_twice<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    for _ in 0..3 {
        ack(&mut client, &message).await;
    }
    let failed = client.nack(&[&message.receipt], &Failed::default()).await;
    assert_eq!(kind_of(failed.expect("an answer")), FailureKind::MessageGone);
    nothing(&mut client).await;
}

pub(super) async fn q6_an_ack_is_forgotten_after_ten_minutes<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, LONG).await;
    ack(&mut client, &message).await;
    harness.pass(Duration::from_secs(599)).await;
    ack(&mut client, &message).await;
    harness.pass(Duration::from_secs(2)).await;
    let late = client.ack(&[&message.receipt]).await.expect("an answer");
    assert_eq!(kind_of(late), FailureKind::MessageGone);
}

pub(super) async fn q7_an_ack_at_the_end_of_the_lease_is_done_or_again<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let mut seed = 7_u64;
    for round in 0..2_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        client.send(None, &sent("", "x")).await.expect("sent");
        let first = take_one(&mut client, SHORT).await;
        // Up to two milliseconds before the end, or after it.
        harness.pass(Duration::from_millis(998 + (seed >> 33) % 5)).await;
        let other_first = (seed >> 40).is_multiple_of(2);
        let again = match other_first {
            true => client
                .receive(&ask(1, Duration::ZERO, LONG))
                .await
                .expect("an answer"),
            false => Vec::new(),
        };
        let acked = client.ack(&[&first.receipt]).await.expect("an answer");
        let is_done = acked == [Ok(())];
        assert_eq!(is_done, again.is_empty(), "round {round}: {acked:?} {again:?}");
        if let [second] = &again[..] {
            assert_eq!(kind_of(acked), FailureKind::LeaseLost);
            ack(&mut client, second).await;
        }
        nothing(&mut client).await;
    }
}

pub(super) async fn q8_extend_keeps_and_never_shortens<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, SHORT).await;
    let extended = client.extend(&[&message.receipt], LONG).await.expect("an answer");
    let [Ok(end)] = extended[..] else {
        panic!("{extended:?}");
    };
    assert!(end > message.lease_end_ms + 3_000_000);
    let shorter = client.extend(&[&message.receipt], SHORT).await;
    assert_eq!(shorter.expect("an answer"), [Ok(end)]);
    harness.pass(AFTER).await;
    nothing(&mut client).await;
    let failed = Failed {
        delay: Some(Duration::ZERO),
        ..Failed::default()
    };
    let state = client
        .nack(&[&message.receipt], &failed)
        .await
        .expect("an answer");
    assert_eq!(state, [Ok(State::Ready)]);
    let second = take_one(&mut client, LONG).await;
    let late = client.extend(&[&message.receipt], LONG).await;
    assert_eq!(kind_of(late.expect("an answer")), FailureKind::LeaseLost);
    ack(&mut client, &second).await;
    let late = client.extend(&[&second.receipt], LONG).await;
    assert_eq!(kind_of(late.expect("an answer")), FailureKind::MessageGone);
}

pub(super) async fn q8_twelve_hours_are_the_end<H: Harness>(harness: &mut H) {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let message = take_one(&mut client, HOUR).await;
    for _ in 0..11 {
        harness.pass(HOUR / 2).await;
        let extended = client.extend(&[&message.receipt], HOUR).await;
        assert!(extended.expect("an answer")[0].is_ok());
        harness.pass(HOUR / 2).await;
        nothing(&mut client).await;
    }
    let extended = client.extend(&[&message.receipt], HOUR * 12).await;
    let end = message.lease_end_ms + 11 * 3_600_000;
    assert_eq!(extended.expect("an answer"), [Ok(end)]);
    let refused = client.extend(&[&message.receipt], HOUR * 12).await;
    assert_eq!(kind_of(refused.expect("an answer")), FailureKind::LeaseTooLong);
    harness.pass(HOUR).await;
    assert_eq!(take_one(&mut client, HOUR).await.attempt, 2);
}

pub(super) async fn q9_a_nack_waits_and_the_wait_grows<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let message = Sent {
        attempts_max: 100,
        ..sent("", "x")
    };
    client.send(None, &message).await.expect("sent");
    for attempt in 1..=12 {
        let message = take_one(&mut client, LONG).await;
        assert_eq!(message.attempt, attempt);
        let state = client.nack(&[&message.receipt], &Failed::default()).await;
        assert_eq!(state.expect("an answer"), [Ok(State::Delayed)]);
        let whole = (1_000 << (attempt - 1)).min(300_000);
        harness.pass(Duration::from_millis(whole - whole / 5 - 1)).await;
        nothing(&mut client).await;
        harness.pass(Duration::from_millis(whole / 5 + 2)).await;
    }
}

pub(super) async fn q9_a_nack_without_delay_comes_at_once<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    client.send(None, &sent("", "x")).await.expect("sent");
    let first = take_one(&mut client, LONG).await;
    let failed = Failed {
        delay: Some(Duration::ZERO),
        reason: "no connection — 🦀".to_owned(),
        ..Failed::default()
    };
    for _ in 0..2 {
        let state = client.nack(&[&first.receipt], &failed).await.expect("an answer");
        assert_eq!(state, [Ok(State::Ready)], "and twice is once");
    }
    let second = take_one(&mut client, LONG).await;
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_eq!(second.last_failure, failed.reason);
    let failed = Failed {
        delay: Some(LONG),
        ..failed
    };
    let state = client.nack(&[&second.receipt], &failed).await.expect("an answer");
    assert_eq!(state, [Ok(State::Delayed)]);
    nothing(&mut client).await;
}

pub(super) async fn q10_used_up_attempts_are_dead<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let message = Sent {
        attempts_max: 3,
        ..sent("", "x")
    };
    let id = client.send(None, &message).await.expect("sent");
    let failed = Failed {
        delay: Some(Duration::ZERO),
        reason: "broken".to_owned(),
        ..Failed::default()
    };
    let first = take_one(&mut client, SHORT).await;
    client.nack(&[&first.receipt], &failed).await.expect("an answer");
    for attempt in [2, 3] {
        assert_eq!(take_one(&mut client, SHORT).await.attempt, attempt);
        harness.pass(AFTER).await;
    }
    nothing(&mut client).await;
    let (dead, _) = client.peek(&[State::Dead], None, 10, &[]).await.expect("a page");
    let [dead] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((&dead.id, dead.attempt), (&id, 3));
    assert_eq!(dead.last_failure, "lease ended");
    harness.pass(LONG).await;
    nothing(&mut client).await;
}

pub(super) async fn q10_nacks_lead_to_death_once<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let message = Sent {
        attempts_max: 2,
        ..sent("", "x")
    };
    client.send(None, &message).await.expect("sent");
    for (attempt, state) in [(1, State::Ready), (2, State::Dead)] {
        let message = take_one(&mut client, LONG).await;
        assert_eq!(message.attempt, attempt);
        let failed = Failed {
            delay: Some(Duration::ZERO),
            reason: format!("reason {attempt}"),
            ..Failed::default()
        };
        let said = client
            .nack(&[&message.receipt], &failed)
            .await
            .expect("an answer");
        assert_eq!(said, [Ok(state)]);
    }
    nothing(&mut client).await;
    let (dead, _) = client.peek(&[State::Dead], None, 10, &[]).await.expect("a page");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].last_failure, "reason 2");
}

pub(super) async fn q11_dead_and_uncounted<H: Harness>(harness: &mut H) {
    let mut client = harness.client(Kind::default()).await;
    let message = Sent {
        attempts_max: 1,
        ..sent("", "x")
    };
    client.send(None, &message).await.expect("sent");
    for _ in 0..3 {
        let message = take_one(&mut client, LONG).await;
        assert_eq!(message.attempt, 1);
        let failed = Failed {
            delay: Some(Duration::ZERO),
            uncounted: true,
            ..Failed::default()
        };
        let said = client
            .nack(&[&message.receipt], &failed)
            .await
            .expect("an answer");
        assert_eq!(said, [Ok(State::Ready)]);
    }
    client.send(None, &sent("", "y")).await.expect("sent");
    for _ in 0..2 {
        let message = take_one(&mut client, LONG).await;
        let failed = Failed {
            dead: true,
            reason: "poison".to_owned(),
            ..Failed::default()
        };
        let said = client
            .nack(&[&message.receipt], &failed)
            .await
            .expect("an answer");
        assert_eq!(said, [Ok(State::Dead)]);
    }
    nothing(&mut client).await;
}
