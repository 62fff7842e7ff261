//! Heap allocations of a call on the memory path: header block, message, limits, routing, store,
//! metrics and reply, driven like a connection. A call served by its own shard makes none; one that
//! hops to another shard, or is refused, makes few, and never more than the figures here.

use super::bench::{BATCH, Bench, INVALID_ARGUMENT, OK, PERMISSION_DENIED, Request, id_of_shard};

/// Batches that first fill tables, buffers and the store.
const WARM_UP: usize = 20;
const COUNTED: usize = 100;

/// Allocations of a put that hops: its pending call, its message for the other shard, and the reply
/// there.
const PER_HOP: u64 = 3;
/// Allocations of a refusal: the status with its sentence, its details (among them the name of the
/// request) packed and encoded for the wire.
const PER_REFUSAL: u64 = 42;

#[test]
fn a_put_in_memory_allocates_nothing() {
    let mut bench = Bench::new(1);
    let put = Request::put("sessions", "alice", 256);
    warm_up(&mut bench, &put, OK);
    for _ in 0..COUNTED {
        assert_eq!(bench.exchange(&put, OK), 0);
    }
    let calls = (WARM_UP + COUNTED) * BATCH;
    assert_eq!(bench.counted(), [("Put OK".to_owned(), calls as u64)]);
}

#[test]
fn a_get_in_memory_allocates_nothing() {
    let mut bench = Bench::new(1);
    warm_up(&mut bench, &Request::put("sessions", "alice", 256), OK);
    let get = Request::get("sessions", "alice");
    warm_up(&mut bench, &get, OK);
    for _ in 0..COUNTED {
        assert_eq!(bench.exchange(&get, OK), 0);
    }
}

#[test]
fn the_check_of_a_permission_allocates_nothing() {
    let mut bench = Bench::with_identity("web");
    let put = Request::put("sessions", "alice", 256);
    warm_up(&mut bench, &put, OK);
    for _ in 0..COUNTED {
        assert_eq!(bench.exchange(&put, OK), 0);
    }
    let mut stranger = Bench::with_identity("stranger");
    stranger.exchange(&put, PERMISSION_DENIED);
    assert!(
        stranger.counted().is_empty(),
        "what is denied counts for no namespace"
    );
}

#[test]
fn a_put_that_hops_allocates_little() {
    let mut bench = Bench::new(2);
    let put = Request::put("sessions", &id_of_shard(1, 2), 256);
    warm_up(&mut bench, &put, OK);
    for _ in 0..COUNTED {
        let allocations = bench.exchange(&put, OK);
        assert!(
            allocations <= PER_HOP * BATCH as u64,
            "{allocations} of {BATCH} calls"
        );
    }
}

#[test]
fn a_refused_call_allocates_little() {
    let mut bench = Bench::new(1);
    // Above the namespace's own maximum.
    let put = Request::put("sessions", "alice", 1_100);
    warm_up(&mut bench, &put, INVALID_ARGUMENT);
    for _ in 0..COUNTED {
        let allocations = bench.exchange(&put, INVALID_ARGUMENT);
        assert!(
            allocations <= PER_REFUSAL * BATCH as u64,
            "{allocations} of {BATCH} calls"
        );
    }
    let calls = (WARM_UP + COUNTED) * BATCH;
    assert_eq!(
        bench.counted(),
        [("Put INVALID_ARGUMENT".to_owned(), calls as u64)]
    );
}

fn warm_up(bench: &mut Bench, request: &Request, code: &[u8]) {
    for _ in 0..WARM_UP {
        bench.exchange(request, code);
    }
}
