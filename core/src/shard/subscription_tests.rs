//! Subscriptions on a connection: they take no place of a call, leave nothing when they end, and
//! ask no faster than their client reads.

use std::time::{Duration, Instant};

use super::bench::{Bench, OK, Request};
use crate::config::ServeLimits;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_thousand_idle_streams_take_no_place_of_a_call() {
    for shards in [1, 2] {
        let limits = ServeLimits {
            inflight_per_shard_max: 2,
            ..ServeLimits::default()
        };
        let mut bench = Bench::with_limits(shards, limits);
        for _ in 0..1_000 {
            bench.start(&Request::subscribe("events"));
            bench.settle();
            assert!(bench.take_codes().is_empty(), "none has ended");
        }
        assert_eq!(bench.open_streams(), (1_000, 1_000 * shards));
        for number in 0..20 {
            bench.start(&Request::put("sessions", &format!("id-{number}"), 10));
            bench.settle();
            assert_eq!(bench.take_codes(), [OK], "{shards} shards");
        }
    }
}

#[test]
fn a_stream_that_ends_leaves_nothing_whatever_its_state() {
    type Reach = fn(&mut Bench);
    let states: [(&str, Reach); 4] = [
        ("its first ask is on its way", |_| {}),
        ("its first answer is on its way", Bench::execute_jobs),
        ("it waits for messages", Bench::settle),
        ("messages are on their way", |bench| {
            bench.settle();
            bench.start(&Request::publish("events", "k", 10));
            bench.execute_jobs();
        }),
    ];
    for shards in [1, 2, 3] {
        for (state, reach) in states {
            let mut bench = Bench::new(shards);
            let stream = bench.start(&Request::subscribe("events"));
            reach(&mut bench);
            bench.cancel(stream);
            bench.settle();
            assert_eq!(
                bench.open_streams(),
                (0, 0),
                "cancelled when {state}, {shards} shards"
            );

            let mut bench = Bench::new(shards);
            bench.start(&Request::subscribe("events").within(HOUR));
            reach(&mut bench);
            bench.expire(Instant::now() + 2 * HOUR);
            bench.settle();
            assert_eq!(
                bench.open_streams(),
                (0, 0),
                "expired when {state}, {shards} shards"
            );
            assert!(bench.take_codes().contains(&b"4".to_vec()), "{state}");

            let mut bench = Bench::new(shards);
            bench.start(&Request::subscribe("events"));
            reach(&mut bench);
            bench.drain();
            bench.settle();
            assert_eq!(
                bench.open_streams(),
                (0, 0),
                "drained when {state}, {shards} shards"
            );
            assert!(bench.take_codes().contains(&b"14".to_vec()), "{state}");

            let mut bench = Bench::new(shards);
            bench.start(&Request::subscribe("events"));
            reach(&mut bench);
            bench.close();
            bench.settle();
            assert_eq!(bench.open_streams(), (0, 0), "lost when {state}, {shards} shards");
        }
    }
}

#[test]
fn who_does_not_read_is_asked_no_further() {
    const MESSAGE_BYTES: usize = 100 << 10;
    let mut bench = Bench::new(1);
    let stream = bench.start(&Request::subscribe("events"));
    bench.settle();
    assert!(bench.take_codes().is_empty(), "it stands");
    // From here on the client reads nothing.
    for _ in 0..100 {
        bench.call_elsewhere(&Request::publish("events", "k", MESSAGE_BYTES));
        bench.settle();
    }
    let queued = bench.queued(stream);
    assert!(queued > 0, "more was published than the window takes");
    assert!(
        queued <= (1 << 20) + (256 << 10),
        "{queued} bytes wait: at most a queue and one answer"
    );
    assert_eq!(bench.open_streams(), (1, 0), "it is open, and not asked for more");
}
