//! Each ending of a call is counted once, under its method and code, whatever follows.

use std::time::{Duration, Instant};

use super::bench::{Bench, INVALID_ARGUMENT, OK, Request, id_of_shard};
use crate::config::ServeLimits;

const HOUR: Duration = Duration::from_secs(3_600);
const DEADLINE_EXCEEDED: &[u8] = b"4";
const UNAVAILABLE: &[u8] = b"14";

#[track_caller]
fn assert_counted(bench: &Bench, endings: &[(&str, u64)]) {
    let counted = bench.counted();
    let counted: Vec<(&str, u64)> = counted
        .iter()
        .map(|(ending, count)| (ending.as_str(), *count))
        .collect();
    assert_eq!(counted, endings);
    for (ending, _) in endings {
        let method = ending.split(' ').next().unwrap_or_default();
        let of_method = endings
            .iter()
            .filter(|(other, _)| other.starts_with(&format!("{method} ")));
        let all: u64 = of_method.map(|(_, count)| count).sum();
        assert_eq!(bench.timed(method), all, "each ending of {method} is timed once");
    }
}

#[test]
fn an_answer_is_counted_once_where_it_was_taken() {
    let mut bench = Bench::new(2);
    for shard in [0, 1] {
        bench.start(&Request::put("sessions", &id_of_shard(shard, 2), 10));
        bench.execute_jobs();
        bench.deliver_replies();
        assert_eq!(bench.take_codes(), [OK]);
    }
    assert_counted(&bench, &[("Put OK", 2)]);
}

#[test]
fn a_refusal_is_counted_once_unless_nobody_knows_for_whom() {
    let mut bench = Bench::new(2);
    bench.start(&Request::put("sessions", "alice", 2_000));
    assert_eq!(bench.take_codes(), [INVALID_ARGUMENT]);
    bench.start(&Request::put("elsewhere", "alice", 10));
    assert_eq!(bench.take_codes(), [b"5"], "no such namespace");
    assert_counted(&bench, &[("Put INVALID_ARGUMENT", 1)]);
}

#[test]
fn a_call_that_finds_no_place_is_counted_once() {
    let limits = ServeLimits {
        inflight_per_shard_max: 2,
        ..ServeLimits::default()
    };
    let mut bench = Bench::with_limits(2, limits);
    let put = Request::put("sessions", &id_of_shard(1, 2), 10);
    bench.start(&put);
    bench.start(&put);
    assert_eq!(bench.take_codes(), [b"8"], "a namespace has half of the places");
    bench.execute_jobs();
    bench.deliver_replies();
    assert_eq!(bench.take_codes(), [OK]);
    assert_counted(&bench, &[("Put OK", 1), ("Put RESOURCE_EXHAUSTED", 1)]);
}

#[test]
fn an_expired_call_is_counted_once_though_its_answer_comes_later() {
    let mut bench = Bench::new(2);
    bench.start(&Request::put("sessions", &id_of_shard(1, 2), 10).within(HOUR));
    bench.expire(Instant::now() + 2 * HOUR);
    assert_eq!(bench.take_codes(), [DEADLINE_EXCEEDED]);
    bench.execute_jobs();
    bench.deliver_replies();
    assert!(bench.take_codes().is_empty());
    assert_counted(&bench, &[("Put DEADLINE_EXCEEDED", 1)]);
}

#[test]
fn a_call_whose_deadline_has_passed_before_it_starts_is_counted_once_and_does_nothing() {
    let mut bench = Bench::new(1);
    bench.start(&Request::put("sessions", "alice", 10).within(Duration::ZERO));
    assert_eq!(bench.take_codes(), [DEADLINE_EXCEEDED]);
    bench.start(&Request::get("sessions", "alice"));
    assert_eq!(bench.take_codes(), [OK]);
    assert_counted(&bench, &[("Put DEADLINE_EXCEEDED", 1), ("Get OK", 1)]);
}

#[test]
fn a_cancelled_call_is_counted_once_though_its_answer_comes_later() {
    let mut bench = Bench::new(2);
    let stream = bench.start(&Request::put("sessions", &id_of_shard(1, 2), 10));
    bench.cancel(stream);
    bench.execute_jobs();
    bench.deliver_replies();
    bench.close();
    assert_counted(&bench, &[("Put CANCELLED", 1)]);
}

#[test]
fn a_lost_connection_cancels_its_calls_once() {
    let mut bench = Bench::new(2);
    let put = Request::put("sessions", &id_of_shard(1, 2), 10);
    bench.start(&put);
    bench.start(&put);
    bench.start(&Request::scan("sessions"));
    bench.close();
    bench.execute_jobs();
    bench.deliver_replies();
    assert_counted(&bench, &[("Put CANCELLED", 2), ("Scan CANCELLED", 1)]);
}

#[test]
fn a_mutate_of_several_shards_is_counted_once_also_when_a_part_is_refused() {
    let mut bench = Bench::new(2);
    let mutate = Request::mutate("sessions", &[id_of_shard(0, 2), id_of_shard(1, 2)]);
    bench.start(&mutate);
    bench.execute_jobs();
    bench.deliver_replies();
    assert_eq!(bench.take_codes(), [OK]);
    // One shard has no room for its part: the result of the whole is known in part only.
    bench.fill_mailbox(1);
    bench.start(&mutate);
    bench.empty_mailbox(1);
    bench.execute_jobs();
    bench.deliver_replies();
    assert_eq!(bench.take_codes(), [UNAVAILABLE]);
    assert_counted(&bench, &[("Mutate OK", 1), ("Mutate UNAVAILABLE", 1)]);
}

#[test]
fn a_scan_is_counted_once_when_its_last_page_has_gone() {
    let mut bench = Bench::new(2);
    let scan = Request::scan("sessions");
    let stream = bench.start(&scan);
    for _ in 0..2 {
        bench.execute_jobs();
        bench.deliver_replies();
    }
    assert_eq!(bench.take_codes(), [OK]);
    bench.cancel(stream);
    assert_counted(&bench, &[("Scan OK", 1)]);
    bench.start(&scan.within(HOUR));
    bench.expire(Instant::now() + 2 * HOUR);
    assert_eq!(bench.take_codes(), [DEADLINE_EXCEEDED]);
    bench.execute_jobs();
    bench.deliver_replies();
    bench.close();
    assert_counted(&bench, &[("Scan OK", 1), ("Scan DEADLINE_EXCEEDED", 1)]);
}
