//! Cases about compare-and-swap: expectations, repeats, races.

use std::time::Duration;

use super::cases::{entry, token, value_of};
use super::join::{join_all, yield_once};
use super::{Client, Entry, Expectation, FailureKind, Harness, Paging, Predicate, SwapAnswer, WriteToken};

pub(super) async fn an_expired_item_is_absent_to_swaps<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let item = Entry {
        ttl: Some(Duration::from_millis(100)),
        ..entry("k", "old")
    };
    client
        .put("id", &token(harness, 0, "1"), &[item])
        .await
        .expect("a put");
    harness.pass(Duration::from_millis(120)).await;
    let old = Expectation::Value(b"old".to_vec());
    let first = token(harness, 1, "2");
    let answer = client
        .compare_and_swap("id", b"k", &first, &old, Some(&entry("k", "x")))
        .await;
    assert_eq!(
        answer,
        Ok(SwapAnswer {
            swapped: false,
            ..SwapAnswer::default()
        })
    );
    let second = token(harness, 2, "3");
    let answer = client
        .compare_and_swap(
            "id",
            b"k",
            &second,
            &Expectation::Absent,
            Some(&entry("k", "new")),
        )
        .await;
    assert_eq!(
        answer,
        Ok(SwapAnswer {
            swapped: true,
            ..SwapAnswer::default()
        })
    );
    assert_eq!(value_of(&mut client, "id", b"k").await, Some(b"new".to_vec()));
}

pub(super) async fn swaps_hold_their_expectation<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let value = |value: &str| Expectation::Value(value.as_bytes().to_vec());
    let late = token(harness, 10_000, "late");
    client
        .put("id", &late, &[entry("other", "0")])
        .await
        .expect("a put");
    let steps: &[(Expectation, Option<Entry>, bool, Option<&str>)] = &[
        (value("1"), Some(entry("k", "2")), false, None),
        (Expectation::Absent, Some(entry("k", "1")), true, Some("1")),
        (Expectation::Absent, Some(entry("k", "2")), false, Some("1")),
        (value("1 "), Some(entry("k", "2")), false, Some("1")),
        (value("1"), Some(entry("k", "2")), true, Some("2")),
        (value("2"), None, true, None),
        (value("2"), None, false, None),
        (Expectation::Absent, None, true, None),
        (Expectation::Absent, Some(entry("k", "3")), true, Some("3")),
    ];
    // Later steps have older tokens: the expectation, not the clock, orders swaps.
    for (step, (expected, replacement, swapped, left)) in steps.iter().enumerate() {
        let token = token(harness, -(step as i64) * 1_000, &format!("{step}"));
        let answer = client
            .compare_and_swap("id", b"k", &token, expected, replacement.as_ref())
            .await
            .expect("a swap");
        assert_eq!(answer.swapped, *swapped, "step {step}");
        let found = value_of(&mut client, "id", b"k").await;
        assert_eq!(found.as_deref(), left.map(str::as_bytes), "step {step}");
        if !answer.swapped {
            assert_eq!(answer.current.map(|entry| entry.value), found, "step {step}");
        }
    }
    assert_eq!(value_of(&mut client, "id", b"other").await, Some(b"0".to_vec()));
}

async fn versions<C: Client>(client: &mut C) -> Vec<Vec<u8>> {
    let page = client.get("id", &Predicate::All, &Paging::default()).await;
    page.expect("a page").versions
}

pub(super) async fn versions_name_states_of_items<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items = [entry("a", "1"), entry("k", "1")];
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    let first = versions(&mut client).await;
    assert!(first.len() == 2 && first.iter().all(|version| !version.is_empty()));
    let scanned = client.scan(&Paging::default()).await.expect("a scan");
    assert_eq!(scanned.versions, first, "a scan shows the same");
    // The same value again is another state.
    client
        .put("id", &token(harness, 10, "2"), &items[1..])
        .await
        .expect("a put");
    let second = versions(&mut client).await;
    assert!(second[0] == first[0] && second[1] != first[1]);
    let swap = |version: &[u8], to: Option<&str>| {
        (
            Expectation::Version(version.to_vec()),
            to.map(|to| entry("k", to)),
        )
    };
    let mut number = 20;
    let mut answers = Vec::new();
    for (expected, item) in [
        swap(&first[1], Some("2")),
        swap(&second[0], Some("2")),
        swap(&second[1], Some("2")),
        swap(&second[1], None),
    ] {
        // Older tokens than the item's: the expectation orders swaps.
        number -= 1;
        let token = token(harness, -number, &format!("swap {number}"));
        let answer = client
            .compare_and_swap("id", b"k", &token, &expected, item.as_ref())
            .await
            .expect("a swap");
        let again = client
            .compare_and_swap("id", b"k", &token, &expected, item.as_ref())
            .await;
        assert_eq!(again.as_ref(), Ok(&answer), "a repeat gets the same answer");
        answers.push(answer);
    }
    let swapped: Vec<bool> = answers.iter().map(|answer| answer.swapped).collect();
    assert_eq!(swapped, [false, false, true, false]);
    assert_eq!(answers[0].current, Some(entry("k", "1")));
    assert_eq!(answers[0].current_version, second[1]);
    let third = versions(&mut client).await;
    assert_eq!(answers[3].current, Some(entry("k", "2")));
    assert_eq!(answers[3].current_version, third[1]);
    // What a refusal showed is what the next try expects.
    let last = token(harness, 0, "last");
    let (expected, _) = swap(&answers[3].current_version, None);
    let answer = client
        .compare_and_swap("id", b"k", &last, &expected, None)
        .await
        .expect("a swap");
    assert!(answer.swapped);
    assert_eq!(value_of(&mut client, "id", b"k").await, None);
    // An item that is not there has no version, and one that came back has another.
    let gone = token(harness, 30, "gone");
    let answer = client.compare_and_swap("id", b"k", &gone, &expected, None).await;
    assert_eq!(answer, Ok(SwapAnswer::default()));
    client
        .put("id", &token(harness, 1_000, "back"), &[entry("k", "2")])
        .await
        .expect("a put");
    let back = token(harness, 40, "back again");
    let answer = client.compare_and_swap("id", b"k", &back, &expected, None).await;
    assert!(!answer.expect("a swap").swapped);
    for wrong in [&b""[..], b"no version", &[0; 17]] {
        let token = token(harness, 50, "wrong");
        let expected = Expectation::Version(wrong.to_vec());
        let failure = client
            .compare_and_swap("id", b"k", &token, &expected, None)
            .await
            .expect_err("no version");
        assert_eq!(failure.kind, FailureKind::InvalidArgument, "{failure:?}");
        assert_eq!(failure.field.as_deref(), Some("version"), "{failure:?}");
    }
}

pub(super) async fn a_repeated_swap_gets_its_first_answer<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let first = token(harness, 0, "first");
    let lost = token(harness, 10, "lost");
    let second = token(harness, 20, "second");
    let one = entry("k", "1");
    let two = entry("k", "2");
    let is_one = Expectation::Value(b"1".to_vec());
    let swapped = Ok(SwapAnswer {
        swapped: true,
        ..SwapAnswer::default()
    });
    for round in 0..3 {
        let answer = client
            .compare_and_swap("id", b"k", &first, &Expectation::Absent, Some(&one))
            .await;
        assert_eq!(answer, swapped, "round {round}");
        let answer = client
            .compare_and_swap("id", b"k", &lost, &Expectation::Absent, Some(&two))
            .await;
        let answer = answer.expect("a swap");
        assert_eq!(
            (answer.swapped, answer.current),
            (false, Some(one.clone())),
            "round {round}"
        );
        // A version never names another state than the one that is shown.
        assert_eq!(answer.current_version.is_empty(), round > 0, "round {round}");
        let answer = client
            .compare_and_swap("id", b"k", &second, &is_one, Some(&two))
            .await;
        assert_eq!(answer, swapped, "round {round}");
        assert_eq!(
            value_of(&mut client, "id", b"k").await,
            Some(b"2".to_vec()),
            "round {round}"
        );
    }
    client
        .delete("id", &token(harness, 1_000, "delete"), &Predicate::All)
        .await
        .expect("a delete");
    let answer = client
        .compare_and_swap("id", b"k", &first, &Expectation::Absent, Some(&one))
        .await;
    assert_eq!(answer, swapped, "the answer stands, and nothing happens");
    assert_eq!(value_of(&mut client, "id", b"k").await, None);
}

pub(super) async fn a_token_of_another_call_is_refused<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let used = token(harness, 0, "used");
    let one = entry("k", "1");
    let swapped = Ok(SwapAnswer {
        swapped: true,
        ..SwapAnswer::default()
    });
    let answer = client
        .compare_and_swap("id", b"k", &used, &Expectation::Absent, Some(&one))
        .await;
    assert_eq!(answer, swapped);
    client
        .put("id", &token(harness, 10, "put"), &[entry("k", "2")])
        .await
        .expect("a put");
    let is_two = Expectation::Value(b"2".to_vec());
    let short = Entry {
        ttl: Some(Duration::from_secs(60)),
        ..one.clone()
    };
    let others: [(&[u8], &Expectation, Option<Entry>); 5] = [
        (b"k", &Expectation::Absent, Some(entry("k", "9"))),
        (b"k", &is_two, Some(one.clone())),
        (b"k", &Expectation::Absent, None),
        (b"k", &Expectation::Absent, Some(short)),
        (b"l", &Expectation::Absent, Some(entry("l", "1"))),
    ];
    for (key, expected, item) in &others {
        let answer = client
            .compare_and_swap("id", key, &used, expected, item.as_ref())
            .await;
        assert_eq!(
            answer.map_err(|failure| failure.kind),
            Err(FailureKind::TokenReused),
            "{key:?} {expected:?} {item:?}"
        );
    }
    assert_eq!(value_of(&mut client, "id", b"k").await, Some(b"2".to_vec()));
    assert_eq!(value_of(&mut client, "id", b"l").await, None);
    let answer = client
        .compare_and_swap("id", b"k", &used, &Expectation::Absent, Some(&one))
        .await;
    assert_eq!(answer, swapped, "the first answer, as ever");
    // A token of a put is not a swap's either, as long as the item still shows it.
    let of_put = token(harness, 20, "of a put");
    client
        .put("id", &of_put, &[entry("k", "3")])
        .await
        .expect("a put");
    for item in [Some(entry("k", "4")), None] {
        let answer = client
            .compare_and_swap(
                "id",
                b"k",
                &of_put,
                &Expectation::Value(b"3".to_vec()),
                item.as_ref(),
            )
            .await;
        assert_eq!(
            answer.map_err(|failure| failure.kind),
            Err(FailureKind::TokenReused)
        );
    }
    assert_eq!(value_of(&mut client, "id", b"k").await, Some(b"3".to_vec()));
    let of_delete = token(harness, 30, "of a delete");
    client
        .delete("id", &of_delete, &Predicate::All)
        .await
        .expect("a delete");
    let answer = client
        .compare_and_swap(
            "id",
            b"k",
            &of_delete,
            &Expectation::Absent,
            Some(&entry("k", "5")),
        )
        .await;
    assert_eq!(
        answer.map_err(|failure| failure.kind),
        Err(FailureKind::TokenReused)
    );
    assert_eq!(value_of(&mut client, "id", b"k").await, None);
}

pub(super) async fn racing_swaps_lose_no_increment<H: Harness>(harness: &mut H) {
    const RACERS: usize = 4;
    const INCREMENTS: usize = 25;
    let mut first = harness.client().await;
    first
        .put("id", &token(harness, 0, "start"), &[entry("n", "0")])
        .await
        .expect("a put");
    let mut races = Vec::new();
    for racer in 0..RACERS {
        let mut client = harness.client_beside(&first).await;
        let base = token(harness, 1, "");
        races.push(async move {
            let mut lost = 0_usize;
            for step in 0..INCREMENTS {
                loop {
                    let value = value_of(&mut client, "id", b"n").await.expect("the counter");
                    yield_once().await;
                    let text = std::str::from_utf8(&value).expect("digits");
                    let next = text.parse::<usize>().expect("a number") + 1;
                    let token = WriteToken {
                        token: format!("{racer}.{step}.{lost}").into_bytes(),
                        ..base.clone()
                    };
                    let answer = client
                        .compare_and_swap(
                            "id",
                            b"n",
                            &token,
                            &Expectation::Value(value),
                            Some(&entry("n", next.to_string())),
                        )
                        .await
                        .expect("a swap");
                    if answer.swapped {
                        break;
                    }
                    lost += 1;
                    assert!(lost < 10_000, "nobody gets ahead");
                }
            }
            lost
        });
    }
    let lost: usize = join_all(races).await.into_iter().sum();
    // The first client may have been silent for longer than a gateway keeps its connection.
    let mut last = harness.client_beside(&first).await;
    let end = value_of(&mut last, "id", b"n").await;
    assert_eq!(
        end,
        Some((RACERS * INCREMENTS).to_string().into_bytes()),
        "{lost} swaps were refused"
    );
}
