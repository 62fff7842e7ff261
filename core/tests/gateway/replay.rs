//! Replay of the log's records at a start after the store has lost them: swaps keep the answered
//! verdicts. Power cuts are made from copies of the store's and the log's files.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use prism_codec::proto::prism::keyvalue::v1::{
    CompareAndSwapRequest, CompareAndSwapResponse, Item, PutRequest, PutResponse,
    compare_and_swap_request::Expected,
};
use prism_core::{client::Client, config::EmbeddedStore, runtime::clock::WallClock};

use super::{
    log::{get, item, method},
    support::{Gateway, LogImage, SMALL_SEGMENT_BYTES},
};

/// Attempts of a test on a machine that is too slow for it.
const ATTEMPTS: usize = 10;
/// Time within which a test restores the store: five seconds after the start it syncs, and from
/// then on it must have the records up to the log's cursors.
const SYNC_PAUSE: Duration = Duration::from_secs(4);

#[test]
fn a_replay_gives_the_verdicts_that_were_answered_whatever_has_expired_since() {
    const TTL: Duration = Duration::from_secs(600);
    for _ in 0..ATTEMPTS {
        let shift = Arc::new(AtomicI64::new(0));
        let mut gateway = Gateway::start_with(EmbeddedStore::Sqlite, 2, |options| {
            options.wall_clock = WallClock::shifted(shift.clone());
            options.wal.segment_bytes = SMALL_SEGMENT_BYTES;
        });
        gateway.create_namespace_at("ledger", "strong");
        let mut client = gateway.client();
        put_for(&mut client, "taken", "v", TTL);
        put_for(&mut client, "kept", "v", TTL);
        drop(client);
        gateway.stop();
        let store = StoreImage::of(&gateway);
        let started = Instant::now();
        gateway.start_again(|_| {});
        let mut client = gateway.client();
        let taken = swap(&mut client, "ledger", "taken", Some("v"), Some("done"));
        let refused = swap(&mut client, "ledger", "kept", None, Some("intruder"));
        assert_eq!((taken, refused), (true, false));
        let log = LogImage::of(&gateway);
        if started.elapsed() >= SYNC_PAUSE {
            continue;
        }
        drop(client);
        gateway.stop();
        store.restore(&gateway);
        log.restore(&gateway);
        // All items that were put have expired when the records are applied again.
        shift.store((TTL * 2).as_nanos() as i64, Ordering::SeqCst);
        gateway.start_again(|_| {});
        let mut client = gateway.client();
        assert_eq!(get(&mut client, "ledger", "taken").as_deref(), Some("done"));
        assert_eq!(
            get(&mut client, "ledger", "kept"),
            None,
            "refused then, refused now"
        );
        return;
    }
    panic!("the machine is too slow for this test");
}

// --- helpers -------------------------------------------------------------------------------------

fn put_for(client: &mut Client, id: &str, value: &str, ttl: Duration) {
    let request = PutRequest {
        namespace: "ledger".to_owned(),
        id: id.to_owned(),
        idempotency_token: None,
        items: vec![Item {
            ttl: Some(ttl.try_into().expect("a short time")),
            ..item(value)
        }],
    };
    let _: PutResponse = client.unary(&method("Put"), &request).expect("a put");
}

/// Whether the swap took place.
fn swap(
    client: &mut Client,
    namespace: &str,
    id: &str,
    expected: Option<&str>,
    replacement: Option<&str>,
) -> bool {
    let request = CompareAndSwapRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        key: b"k".to_vec(),
        idempotency_token: None,
        expected: Some(match expected {
            Some(value) => Expected::Value(value.as_bytes().to_vec()),
            None => Expected::Absent(Default::default()),
        }),
        item: replacement.map(item),
    };
    let response: CompareAndSwapResponse = client.unary(&method("CompareAndSwap"), &request).expect("a swap");
    response.swapped
}

/// Files of a store that no process has open.
pub(super) struct StoreImage([Vec<u8>; 2]);

const STORE_FILES: [&str; 2] = ["keyvalue.db", "keyvalue.db-wal"];

impl StoreImage {
    pub(super) fn of(gateway: &Gateway) -> Self {
        Self(STORE_FILES.map(|name| fs::read(gateway.directory().join(name)).unwrap_or_default()))
    }

    pub(super) fn restore(&self, gateway: &Gateway) {
        for (name, bytes) in STORE_FILES.iter().zip(&self.0) {
            fs::write(gateway.directory().join(name), bytes).expect("an older store");
        }
        // Only an index of the newer write-ahead file, if SQLite has left it; it is rebuilt.
        drop(fs::remove_file(gateway.directory().join("keyvalue.db-shm")));
    }
}
