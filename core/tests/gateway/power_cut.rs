//! Power cuts that destroy everything that the store has not synced: acknowledged writes are
//! restored from the log. Made from images of a running gateway's log.

use std::time::{Duration, Instant};

use prism_backends::behavior::pubsub::{Start, Subscription as _};
use prism_codec::proto::prism::pubsub::v1::{Message, PublishRequest, PublishResponse};
use prism_core::{client::Client, config::EmbeddedStore, runtime::clock::WallClock};

use super::{
    log::{get, mutate, put, swap_value, token},
    pubsub,
    support::{Gateway, LogImage, SMALL_SEGMENT_BYTES, log_files},
};

#[test]
fn what_the_store_loses_in_a_power_cut_comes_back_from_the_log() {
    let revived = revived_from_the_log(2, &WallClock::default(), |gateway| {
        let mut client = gateway.client();
        for number in 0..100 {
            let id = format!("id-{number}");
            put(&mut client, "ledger", &id, &format!("value-{number}"), None).expect("a put");
            put(&mut client, "events", &id, &format!("event-{number}"), None).expect("a put");
        }
    });
    let mut client = revived.client();
    for number in 0..100 {
        let id = format!("id-{number}");
        assert_eq!(get(&mut client, "ledger", &id), Some(format!("value-{number}")));
        assert_eq!(get(&mut client, "events", &id), Some(format!("event-{number}")));
    }
}

#[test]
fn swaps_at_eventual_come_back_in_the_order_in_which_they_were_decided() {
    let (counters, steps) = (4, 40);
    // Also with another number of shards: the former lanes are read first.
    for shards in [2, 3] {
        let revived = revived_from_the_log(shards, &WallClock::default(), |gateway| {
            // The kernel spreads them over the shards, so that each counter's swaps are taken by
            // all shards in turn.
            let mut clients: Vec<Client> = (0..16).map(|_| gateway.client()).collect();
            let all = clients.len();
            for step in 0..steps {
                for counter in 0..counters {
                    let client = &mut clients[(step + counter) % all];
                    let swapped = swap(client, "events", &format!("counter-{counter}"), step);
                    assert!(swapped, "counter {counter} stands at {step}");
                }
            }
            let ids: Vec<_> = (0..10).map(|number| format!("id-{number}")).collect();
            mutate(&mut clients[0], "events", &ids, "by a mutate", token("all ten")).expect("a mutate");
        });
        let mut client = revived.client();
        for counter in 0..counters {
            let value = get(&mut client, "events", &format!("counter-{counter}"));
            assert_eq!(
                value,
                Some(steps.to_string()),
                "counter {counter}, {shards} shards"
            );
        }
        for number in 0..10 {
            let value = get(&mut client, "events", &format!("id-{number}"));
            assert_eq!(value.as_deref(), Some("by a mutate"));
        }
    }
}

/// Ordering keys of the messages.
const KEYS: usize = 6;

#[test]
fn p27_messages_at_eventual_come_back_as_a_prefix_of_each_key() {
    let payload = |number: usize| format!("{number:04}").into_bytes();
    let image = (0..10).find_map(|_| {
        let began = Instant::now();
        let gateway = Gateway::start_with(EmbeddedStore::Sqlite, 2, |options| {
            options.wal.segment_bytes = SMALL_SEGMENT_BYTES;
        });
        pubsub::create(&gateway, "events", "eventual", "");
        let mut clients: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
        for number in 0..300 {
            let client = &mut clients[number % 8];
            publish(client, number % KEYS, payload(number));
        }
        // The log's copies follow their answers, so the last of them may not be there yet.
        let image = LogImage::of(&gateway);
        (began.elapsed() <= Duration::from_secs(4)).then_some(image)
    });
    let image = image.expect("the store syncs after five seconds: the machine is too slow for this test");
    // As it is, and with the end of each lane missing, as if the disk had not had that yet.
    for kept in [1.0, 0.7, 0.3] {
        let mut revived = Gateway::start(EmbeddedStore::Sqlite, 2);
        pubsub::create(&revived, "events", "best-effort", "");
        revived.stop();
        image.restore(&revived);
        cut_segments(&revived, kept);
        revived.start_again(|_| {});
        let mut client = revived.client();
        (0..KEYS).for_each(|key| publish(&mut client, key, b"last".to_vec()));
        let (mut found, mut missing) = (vec![Vec::new(); KEYS], KEYS);
        pubsub::run_to_end(async {
            let mut stream = pubsub::subscribe(&revived, "events", &Start::Earliest);
            while missing > 0 {
                let answer = stream.next(Duration::from_secs(30)).await.expect("a stream");
                for one in answer.expect("messages that are due").messages {
                    let key: usize = one.message.key.parse().expect("a number");
                    match one.message.payload.as_slice() {
                        b"last" => missing -= 1,
                        _ => found[key].push(one.message.payload),
                    }
                }
            }
        });
        for (key, found) in found.iter().enumerate() {
            let acknowledged: Vec<_> = (key..300).step_by(KEYS).map(payload).collect();
            let is_prefix = acknowledged.starts_with(found);
            assert!(is_prefix, "of key {key} with {kept} of the log: {found:?}");
        }
        let count: usize = found.iter().map(Vec::len).sum();
        println!("{count} of 300 messages with {kept} of the log");
        assert!(
            count > 0 && (kept == 1.0 || count < 300),
            "{count} with {kept} of the log"
        );
    }
}

// --- helpers -------------------------------------------------------------------------------------

fn publish(client: &mut Client, key: usize, payload: Vec<u8>) {
    let request = PublishRequest {
        namespace: "events".to_owned(),
        idempotency_token: None,
        message: Some(Message {
            payload,
            ordering_key: key.to_string(),
            ..Message::default()
        }),
    };
    let path = format!("{}/Publish", pubsub::PUBSUB);
    let _: PublishResponse = client.unary(&path, &request).expect("published");
}

/// Keeps this share of the blocks that each segment has beyond its headers; the rest is zeros.
fn cut_segments(gateway: &Gateway, kept: f64) {
    const BLOCK: usize = 4096;
    const HEADERS: usize = 2;
    for path in log_files(gateway) {
        if path.extension().is_none_or(|extension| extension != "segment") {
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("a segment");
        let used = bytes
            .chunks(BLOCK)
            .rposition(|block| block.iter().any(|byte| *byte != 0));
        let written = (used.unwrap_or(0) + 1).saturating_sub(HEADERS);
        let from = (HEADERS + (written as f64 * kept).ceil() as usize) * BLOCK;
        if from < bytes.len() {
            bytes[from..].fill(0);
            std::fs::write(&path, bytes).expect("a cut segment");
        }
    }
}

/// Swaps a counter from `step` to the next number. The first step finds no item.
fn swap(client: &mut Client, namespace: &str, id: &str, step: usize) -> bool {
    let before = (step > 0).then(|| step.to_string());
    swap_value(client, namespace, id, before.as_deref(), &(step + 1).to_string())
}

/// Starts a gateway with only the log of another, which had two shards and the namespaces `ledger`
/// at strong and `events` at eventual, as `write` left it: the state after a power cut that
/// destroys the whole store. The first gateway's wall clock was `wall`; that of the new one is the
/// system's.
pub(super) fn revived_from_the_log(shards: usize, wall: &WallClock, write: impl Fn(&Gateway)) -> Gateway {
    let image = (1..)
        .find_map(|attempt| image_of_the_log(wall, &write, attempt == 10))
        .expect("an image");
    let mut revived = Gateway::start(EmbeddedStore::Sqlite, shards);
    // The catalog is synced at once; here it is rebuilt, with the same numbers.
    revived.create_namespace_at("ledger", "best-effort");
    revived.create_namespace_at("events", "best-effort");
    revived.stop();
    image.restore(&revived);
    revived.start_again(|_| {});
    revived
}

/// Makes an image of the log before the first sync of the store. The store syncs every five
/// seconds, and a power cut destroys its data since the last one; an image without the store is the
/// worst case of that. `None` if the moment was missed and may be tried again.
fn image_of_the_log(wall: &WallClock, write: &impl Fn(&Gateway), last_attempt: bool) -> Option<LogImage> {
    let began = Instant::now();
    let gateway = Gateway::start_with(EmbeddedStore::Sqlite, 2, |options| {
        options.wall_clock = wall.clone();
        options.wal.segment_bytes = SMALL_SEGMENT_BYTES;
    });
    gateway.create_namespace_at("ledger", "strong");
    gateway.create_namespace_at("events", "eventual");
    write(&gateway);
    // Records at eventual follow within the next group; later ones at strong prove it durable.
    std::thread::sleep(Duration::from_millis(50));
    let mut client = gateway.client();
    for number in 0..20 {
        put(&mut client, "ledger", &format!("last-{number}"), "x", None).expect("a put");
    }
    let image = LogImage::of(&gateway);
    let in_time = began.elapsed() <= Duration::from_secs(4);
    (in_time || last_attempt).then_some(image)
}
