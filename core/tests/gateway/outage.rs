//! Parts of the tests of failing servers: a load meanwhile, its end whatever happens, and what
//! every store must stand.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_core::client::Client;

use super::{
    log::{get, http_get, put, token},
    support::Gateway,
};

/// Longest time until a store is found again.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How the server of a store is killed, and started again with its data.
pub(super) trait Mortal {
    fn kill(&mut self);
    fn resume(&mut self);
}

/// Kills the server under load and restarts the gateway, three times, and reads all that was
/// acknowledged: at `strong`, by the log, and at `eventual`, by the server.
pub(super) fn kills_lose_nothing(server: &mut impl Mortal, gateway: &mut Gateway) {
    gateway.create_namespace_at("kept", "strong");
    gateway.create_namespace_at("later", "eventual");
    let mut all = Vec::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let (kept, later) = thread::scope(|scope| {
            let clients = || [gateway.client(), gateway.client()];
            let (own, stop) = (clients(), &stop);
            let load = scope.spawn(move || write_until(own, "kept", stop, round));
            let own = clients();
            let other = scope.spawn(move || write_until(own, "later", stop, round));
            // However this ends: the scope waits for the load.
            let _end = OnDrop(|| stop.store(true, Ordering::SeqCst));
            thread::sleep(Duration::from_millis(300));
            server.kill();
            thread::sleep(Duration::from_millis(200));
            server.resume();
            // The gateway reconnects by itself.
            let begun = Instant::now();
            while put(&mut gateway.client(), "later", "probe", "v", None).is_err() {
                assert!(begun.elapsed() < PATIENCE, "the store is not found again");
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::SeqCst);
            (
                load.join().expect("the load"),
                other.join().expect("the other load"),
            )
        });
        for (namespace, (acknowledged, failed)) in [("kept", kept), ("later", later)] {
            // The log takes what is strong while the server is down; what is eventual needs it.
            assert_eq!(failed > 0, namespace == "later", "{failed} of {namespace} failed");
            assert!(!acknowledged.is_empty(), "{namespace}");
            all.extend(acknowledged.into_iter().map(|id| (namespace, id)));
        }
        gateway.restart(|_| {});
    }
    let mut client = gateway.client();
    for (namespace, id) in &all {
        assert_eq!(
            get(&mut client, namespace, id).as_deref(),
            Some(id.as_str()),
            "{id} of {namespace} is lost"
        );
    }
    println!("{} acknowledged writes, none lost", all.len());
}

/// Starts a gateway whose server is away, with another number of shards: it keeps the one before,
/// with which the log's records have their owners. What is eventual is refused, the log takes what
/// is strong, and both go on when the server comes. The next start takes the new number.
pub(super) fn a_start_without_its_server(server: &mut impl Mortal, gateway: &mut Gateway) {
    gateway.create_namespace_at("kept", "strong");
    gateway.create_namespace_at("later", "eventual");
    put(&mut gateway.client(), "kept", "id", "v", None).expect("a put");
    server.kill();
    // Nobody but the log has these.
    let ids: Vec<_> = (0..20).map(|number| format!("late-{number}")).collect();
    for id in &ids {
        put(&mut gateway.client(), "kept", id, id, None).expect("the log takes it");
    }
    let before = shards_of(gateway);
    gateway.restart(|options| options.shards = NonZeroUsize::new(before + 1).expect("not 0"));
    assert_eq!(shards_of(gateway), before, "the records keep their owners");
    let status = put(&mut gateway.client(), "later", "id", "w", None).expect_err("nobody is there");
    assert_eq!(status.code, 14, "{status:?}");
    assert!(
        status.message.contains("out of reach") && status.message.contains("nothing was done"),
        "{status:?}"
    );
    // The log takes it, and gives it to the server when that comes.
    let result = put(&mut gateway.client(), "kept", "id", "w", None).expect("the log is there");
    assert!(result.lane > 0 && !result.applied, "{result:?}");
    server.resume();
    let begun = Instant::now();
    let mut client = gateway.client();
    while put(&mut client, "later", "id", "w", None).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the store is not found");
        thread::sleep(Duration::from_millis(20));
    }
    for namespace in ["later", "kept"] {
        assert_eq!(get(&mut client, namespace, "id").as_deref(), Some("w"));
    }
    drop(client);
    let begun = Instant::now();
    while shards_of(gateway) == before {
        // Until the server has everything, the number stays.
        assert!(begun.elapsed() < PATIENCE, "the number of shards stays");
        gateway.restart(|_| {});
    }
    assert_eq!(shards_of(gateway), before + 1);
    let mut client = gateway.client();
    for id in &ids {
        assert_eq!(get(&mut client, "kept", id).as_deref(), Some(id.as_str()));
    }
    assert_eq!(get(&mut client, "kept", "id").as_deref(), Some("w"));
}

/// The shards with which a gateway runs.
fn shards_of(gateway: &Gateway) -> usize {
    let (_, page) = http_get(gateway, "/metrics");
    let lines = page.lines();
    lines
        .filter(|line| line.starts_with("prism_connections_open{"))
        .count()
}

/// Writes by two clients until stopped. Returns the acknowledged ids, and the number of failed
/// attempts.
pub(super) fn write_until(
    clients: [Client; 2],
    namespace: &str,
    stop: &AtomicBool,
    round: usize,
) -> (Vec<String>, usize) {
    let writer = |writer: usize, mut client: Client| {
        let (mut done, mut failed) = (Vec::new(), 0);
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{round}-{writer}-{number}");
            match put(&mut client, namespace, &id, &id, Some(token(&id))) {
                Ok(_) => done.push(id),
                Err(status) => {
                    // UNAVAILABLE, or for calls sent to a hanging server DEADLINE_EXCEEDED.
                    assert!(matches!(status.code, 4 | 14), "{status:?}");
                    failed += 1;
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        (done, failed)
    };
    thread::scope(|scope| {
        let [first, second] = clients;
        let others = [
            scope.spawn(|| writer(0, first)),
            scope.spawn(|| writer(1, second)),
        ];
        let (mut all, mut failed) = (Vec::new(), 0);
        for other in others {
            let (done, own) = other.join().expect("a writer");
            all.extend(done);
            failed += own;
        }
        (all, failed)
    })
}

/// Something to be done at the end of a scope.
pub(super) struct OnDrop<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
