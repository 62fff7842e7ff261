//! A reader that does not read is overtaken by its namespace's retention: it gets what was on its
//! way, then a gap of the right size, then the messages that are left.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use prism_codec::{
    h2::Event,
    proto::prism::pubsub::v1::{
        Message as WireMessage, PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse,
    },
};
use prism_core::{client::Client, config::EmbeddedStore, runtime::clock::WallClock};
use prost::Message as _;

use super::{
    pubsub::{PUBSUB, create},
    raw::RawClient,
    support::Gateway,
};

const HOUR_NS: i64 = 3_600_000_000_000;
/// Messages that are published while nobody reads: more bytes than may be on their way.
const MESSAGES: u64 = 80;
const PAYLOAD_BYTES: usize = 64 << 10;

fn publish(client: &mut Client, number: u64) {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let request = PublishRequest {
        namespace: "events".to_owned(),
        idempotency_token: None,
        message: Some(WireMessage {
            topic: "orders".to_owned(),
            payload,
            // One key, and so one line of numbers.
            ordering_key: "one".to_owned(),
            ..WireMessage::default()
        }),
    };
    let _: PublishResponse = client
        .unary(&format!("{PUBSUB}/Publish"), &request)
        .expect("published");
}

/// A subscription whose client receives when the test wants it to.
struct Reader {
    client: RawClient,
    body: Vec<u8>,
}

impl Reader {
    fn new(gateway: &Gateway) -> Self {
        let mut client = RawClient::with_window(gateway.address(), 64 << 10);
        let request = SubscribeRequest {
            namespace: "events".to_owned(),
            ..SubscribeRequest::default()
        };
        client.call_at(&format!("{PUBSUB}/Subscribe"), &request);
        client.transmit();
        let body = Vec::new();
        Self { client, body }
    }

    fn next(&mut self) -> SubscribeResponse {
        loop {
            let length = self
                .body
                .get(1..5)
                .map(|length| u32::from_be_bytes(length.try_into().expect("four bytes")) as usize);
            if let Some(length) = length.filter(|length| self.body.len() >= 5 + length) {
                let message: Vec<u8> = self.body.drain(..5 + length).skip(5).collect();
                return SubscribeResponse::decode(&message[..]).expect("an answer");
            }
            let body = &mut self.body;
            self.client.receive(|event| match event {
                Event::Data { data, .. } => body.extend_from_slice(data),
                Event::Trailers { headers, .. } => {
                    panic!("the stream has ended: {:?}", headers.get(b"grpc-message"))
                }
                _ => {}
            });
        }
    }
}

#[test]
fn p20_a_slow_reader_gets_a_gap_of_the_right_size_and_then_what_is_left() {
    for (store, durability, shards) in [
        (EmbeddedStore::Memory, "best-effort", 2),
        (EmbeddedStore::Sqlite, "eventual", 1),
        (EmbeddedStore::Sqlite, "strong", 2),
    ] {
        let shift = Arc::new(AtomicI64::new(0));
        let gateway = Gateway::start_with(store, shards, |options| {
            options.wall_clock = WallClock::shifted(shift.clone());
            options.limits.output_bytes_max = 1 << 20;
        });
        create(&gateway, "events", durability, "  retention: 1h\n");
        let mut reader = Reader::new(&gateway);
        let first = reader.next();
        assert!(first.messages.is_empty(), "it says that the subscription stands");
        let mut client = gateway.client();
        (0..MESSAGES).for_each(|number| publish(&mut client, number));
        shift.store(2 * HOUR_NS, Ordering::SeqCst);
        publish(&mut client, MESSAGES);
        let (mut seen, mut gap) = (Vec::new(), None);
        while seen.last() != Some(&MESSAGES) {
            let answer = reader.next();
            if let Some(found) = answer.gap {
                assert_eq!(gap.replace((seen.len() as u64, found.messages)), None, "one gap");
            }
            seen.extend(answer.messages.iter().map(|one| {
                let payload = &one.message.as_ref().expect("a message").payload;
                u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"))
            }));
        }
        let (before, missing) = gap.unwrap_or_else(|| panic!("{durability}: no gap in {seen:?}"));
        assert_eq!(before + missing, MESSAGES, "{durability}: {seen:?}");
        let expected: Vec<u64> = (0..before).chain([MESSAGES]).collect();
        assert_eq!(seen, expected, "{durability}");
    }
}
