//! Calls, their sequences and keys, their requests, and what their answers may be.

use std::collections::HashSet;

use prism_codec::message::keyvalue::{CompareAndSwapView, GetResponseWriter, GetView, MutateView, PutView};

use super::*;

const NOW: u64 = 1_700_000_000_000_000_000;

fn load(mix: &str, verify: Verify) -> Load {
    Load {
        namespace: "test".into(),
        mix: mix.parse().expect("a mix"),
        distribution: KeyDistribution::Zipfian,
        keys: 100,
        value: ValueSize::Uniform {
            min_bytes: 24,
            max_bytes: 500,
        },
        items: 3,
        batch: 7,
        scan_items: 10,
        verify,
        loaded: false,
        tokens: true,
        cancel: 0.2,
        disconnect: 0.1,
        seed: 5,
    }
}

fn workload(mix: &str, verify: Verify, thread: u64, threads: u64) -> Workload {
    Workload::new(load(mix, verify), thread, threads, NOW, None)
}

#[test]
fn the_same_seed_asks_for_the_same() {
    let mix = "put=1,get=1,insert=1,range=1,scan=1,delete=1,cas=1,mutate=1";
    let calls = |thread| {
        let mut workload = workload(mix, Verify::Match, thread, 2);
        (0..1_000).map(|i| workload.plan(NOW + i)).collect::<Vec<_>>()
    };
    assert_eq!(calls(0), calls(0));
    let operations = |calls: Vec<Option<Call>>| {
        calls
            .into_iter()
            .flatten()
            .map(|call| call.operation)
            .collect::<Vec<_>>()
    };
    assert_ne!(
        operations(calls(0)),
        operations(calls(1)),
        "threads do not do the same"
    );
}

#[test]
fn no_two_writes_of_any_thread_share_a_sequence() {
    let mut seen = HashSet::new();
    for thread in 0..3 {
        let mut workload = workload("put=1", Verify::Match, thread, 3);
        let mut last = 0;
        for i in 0..5_000u64 {
            // A clock that stands still, jumps and goes back.
            let call = workload.plan(NOW + (i / 100 * 1_000) % 7_000).expect("no end");
            assert!(call.sequence > last, "a thread's sequences grow");
            last = call.sequence;
            assert!(seen.insert(call.sequence));
        }
    }
}

#[test]
fn loading_writes_every_key_once() {
    for (verify, threads) in [(Verify::Match, 1), (Verify::Match, 3), (Verify::Fresh, 3)] {
        let mut keys = Vec::new();
        for thread in 0..threads {
            let mut workload = workload("get=1", verify, thread, threads).loading();
            while let Some(call) = workload.plan(NOW) {
                assert_eq!((call.operation, call.fault), (Operation::Put, None));
                keys.push(call.key);
            }
        }
        keys.sort_unstable();
        assert_eq!(
            keys,
            (0..100).collect::<Vec<_>>(),
            "{verify:?}, {threads} threads"
        );
    }
}

#[test]
fn each_key_has_one_writer_when_freshness_is_checked() {
    for thread in 0..4 {
        let mut workload = workload("put=1,insert=1,mutate=1", Verify::Fresh, thread, 4);
        for _ in 0..1_000 {
            let call = workload.plan(NOW).expect("no end");
            for place in 0..workload.keys_written(&call) {
                assert_eq!(workload.key_at(&call, place) % 4, thread);
            }
        }
    }
}

#[test]
fn requests_are_what_the_codec_reads() {
    let mut workload = workload("put=1,range=1,mutate=1", Verify::Match, 0, 1);
    for _ in 0..300 {
        let call = workload.plan(NOW).expect("no end");
        let mut message = Vec::new();
        workload.encode(&call, &mut message);
        let id = KeyName::new(call.key);
        match call.method() {
            KeyValueMethod::Put => {
                let view = PutView::decode(&message).expect("a PutRequest");
                assert_eq!(
                    (view.namespace, view.id, view.items.len()),
                    ("test", id.as_str(), 3)
                );
                let token = view.token.expect("a token");
                assert_eq!(
                    token.generation_time.and_then(|t| t.as_unix_nanos()),
                    Some(call.sequence as i64)
                );
                for (number, item) in view.items.iter().enumerate() {
                    let seen = workload
                        .checker
                        .values()
                        .check(call.key, number as u16, item.value);
                    assert!(
                        matches!(seen, Ok(Some(seen)) if seen.sequence == call.sequence && seen.items == 3)
                    );
                }
            }
            KeyValueMethod::Get => {
                let view = GetView::decode(&message).expect("a GetRequest");
                assert_eq!(view.selection.item_limit, call.item_limit);
            }
            _ => assert_eq!(
                MutateView::decode(&message)
                    .expect("a MutateRequest")
                    .mutations
                    .len(),
                7
            ),
        }
    }
}

#[test]
fn a_cas_reads_and_then_swaps_what_it_read() {
    let mut workload = workload("cas=1", Verify::Fresh, 0, 1);
    let read = workload.plan(NOW).expect("no end");
    assert_eq!((read.method(), read.step), (KeyValueMethod::Get, Step::Read));
    let seen = Seen {
        sequence: NOW - 5,
        items: 3,
        value_bytes: 77,
    };
    let told = Told {
        seen: Some(seen),
        ..Told::default()
    };
    let Next::Goes(swap) = workload.finish(&read, Outcome::OK, &told, NOW) else {
        panic!("a second step")
    };
    assert_eq!(
        (swap.method(), swap.fault),
        (KeyValueMethod::CompareAndSwap, None)
    );
    assert!(swap.sequence > read.sequence);
    let mut message = Vec::new();
    workload.encode(&swap, &mut message);
    let view = CompareAndSwapView::decode(&message).expect("a CompareAndSwapRequest");
    let ExpectedView::Value(expected) = view.expected else {
        panic!("a value was read")
    };
    assert_eq!(
        workload.checker.values().check(swap.key, 0, expected),
        Ok(Some(seen)),
        "the value made again"
    );
    let told = Told {
        swapped: true,
        ..Told::default()
    };
    assert_eq!(
        workload.finish(&swap, Outcome::OK, &told, NOW),
        Next::Ended(Outcome::OK)
    );
}

/// The answer to a Get that holds one item, written by `sequence`.
fn answer(workload: &Workload, key: u64, items: u16, sequence: u64) -> Vec<u8> {
    let (mut value, mut message) = (Vec::new(), Vec::new());
    workload.checker.values().write(
        Stamp {
            key,
            item: 0,
            items,
            sequence,
        },
        100,
        &mut value,
    );
    let mut writer = GetResponseWriter::new(&mut message);
    writer.item(&ItemView {
        key: &ITEM_KEYS[0],
        value: &value,
        ..NONE
    });
    writer.finish(b"");
    message
}

#[test]
fn reads_must_see_what_was_acknowledged_before_they_left() {
    let mut workload = Workload::new(
        Load {
            keys: 1,
            items: 1,
            ..load("put=1,get=1", Verify::Fresh)
        },
        0,
        1,
        NOW,
        None,
    );
    let next = |workload: &mut Workload, operation| loop {
        let call = workload.plan(NOW).expect("no end");
        if call.operation == operation {
            return call;
        }
    };
    let early = next(&mut workload, Operation::Get);
    let first = next(&mut workload, Operation::Put);
    let second = next(&mut workload, Operation::Put);
    workload.finish(&second, Outcome::OK, &Told::default(), NOW);
    let late = next(&mut workload, Operation::Get);
    let of = |workload: &Workload, sequence| answer(workload, 0, 1, sequence);
    let (old, new) = (of(&workload, first.sequence), of(&workload, second.sequence));
    assert!(
        workload.check(&early, &old).is_ok(),
        "it left before the acknowledgement"
    );
    assert!(workload.check(&late, &new).is_ok());
    assert!(
        workload
            .check(&late, &old)
            .is_err_and(|wrong| wrong.contains("stale"))
    );
    assert!(
        workload
            .check(&late, b"")
            .is_err_and(|wrong| wrong.contains("lost"))
    );
    assert!(
        workload
            .check(&late, &of(&workload, NOW + 99_999_999))
            .is_err_and(|wrong| wrong.contains("never sent"))
    );
    // A swap stands where its expectation held, whatever its generation time.
    let swapped = answer(&workload, 0, 1 | SWAP_MARK, first.sequence);
    assert!(workload.check(&late, &swapped).is_ok());
}
