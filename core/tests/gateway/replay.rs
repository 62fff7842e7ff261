//! What a start makes of the log's records when the store has lost them: swaps keep the verdicts that were answered. Power
//! cuts are made from copies of the store's and the log's files.

use std::{
    fs,
    time::{Duration, Instant},
};

use prism_codec::proto::prism::keyvalue::v1::{
    CompareAndSwapRequest, CompareAndSwapResponse, Item, PutRequest, PutResponse,
    compare_and_swap_request::Expected,
};
use prism_core::client::Client;
use tempfile::TempDir;

use super::{
    log::{get, item, log_files, method, strong_gateway},
    support::Gateway,
};

/// How often a test is tried on a machine that is too slow for it.
const ATTEMPTS: usize = 10;

#[test]
fn a_replay_gives_the_verdicts_that_were_answered_whatever_has_expired_since() {
    const TTL: Duration = Duration::from_secs(3);
    for _ in 0..ATTEMPTS {
        let mut gateway = strong_gateway(2);
        let mut client = gateway.client();
        let put_at = Instant::now();
        put_for(&mut client, "taken", "v", TTL);
        put_for(&mut client, "kept", "v", TTL);
        drop(client);
        gateway.stop();
        let store = StoreImage::of(&gateway);
        gateway.start_again(|_| {});
        let mut client = gateway.client();
        let taken = swap(&mut client, "ledger", "taken", Some("v"), Some("done"));
        let refused = swap(&mut client, "ledger", "kept", None, Some("intruder"));
        let log = log_image(&gateway);
        if put_at.elapsed() >= TTL {
            continue;
        }
        assert_eq!((taken, refused), (true, false));
        drop(client);
        gateway.stop();
        store.restore(&gateway);
        restore_log(&gateway, &log);
        // Everything that was put has expired when the records are applied once more.
        std::thread::sleep((TTL + Duration::from_millis(50)).saturating_sub(put_at.elapsed()));
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

// --- helpers ------------------------------------------------------------------------------------------------------------

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

/// The files of a store that nobody has open.
struct StoreImage([Vec<u8>; 2]);

const STORE_FILES: [&str; 2] = ["keyvalue.db", "keyvalue.db-wal"];

impl StoreImage {
    fn of(gateway: &Gateway) -> Self {
        Self(STORE_FILES.map(|name| fs::read(gateway.directory().join(name)).unwrap_or_default()))
    }

    fn restore(&self, gateway: &Gateway) {
        for (name, bytes) in STORE_FILES.iter().zip(&self.0) {
            fs::write(gateway.directory().join(name), bytes).expect("an older store");
        }
        // Only an index of the newer write-ahead file, if SQLite has left it; it is made anew.
        drop(fs::remove_file(gateway.directory().join("keyvalue.db-shm")));
    }
}

/// A copy of the log as it is on disk now.
fn log_image(gateway: &Gateway) -> TempDir {
    let image = tempfile::tempdir().expect("a directory");
    for path in log_files(gateway) {
        let name = path.file_name().expect("a name");
        fs::copy(&path, image.path().join(name)).expect("a copy");
    }
    image
}

/// Puts the copy in place of the log of a stopped gateway.
fn restore_log(gateway: &Gateway, image: &TempDir) {
    for path in log_files(gateway) {
        fs::remove_file(path).expect("a newer file");
    }
    for entry in fs::read_dir(image.path()).expect("the image") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        fs::copy(&path, gateway.directory().join("wal").join(name)).expect("a copy");
    }
}
