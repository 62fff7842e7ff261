//! The views and encoders of `prism.queue.v1`.

use prism_codec::{
    message::{
        common::{DurationView, StatusOut, TimestampView},
        pubsub::AttributeView,
        queue::*,
    },
    proto::prism::queue::v1 as qu,
};
use prost::Message as _;

use super::{
    compare, convert,
    wire::{self, Random},
};

fn duration(millis: u64) -> Option<prost_types::Duration> {
    Some(convert::duration(DurationView::from_millis(millis)))
}

fn millis_of(duration: Option<prost_types::Duration>, absent: u64) -> Option<prost_types::Duration> {
    let view = duration.map(|duration| DurationView {
        seconds: duration.seconds,
        nanos: duration.nanos,
    });
    self::duration(view.map_or(absent, |view| view.as_millis_ceil().expect("legal")))
}

fn message(view: MessageView<'_>) -> qu::Message {
    qu::Message {
        payload: view.payload.into(),
        ordering_key: view.ordering_key.into(),
        attributes: view
            .attributes
            .iter()
            .map(|attribute| (attribute.name.into(), attribute.value.into()))
            .collect(),
        delay: view.delay.map(convert::duration),
        attempts_max: view.attempts_max,
    }
}

view_test!(
    send,
    wire::SEND,
    true,
    qu::SendRequest,
    |bytes| SendView::decode(bytes).map(|view| qu::SendRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        message: Some(message(view.message)),
    }),
    |wanted| wanted
);
view_test!(
    receive,
    wire::RECEIVE,
    true,
    qu::ReceiveRequest,
    |bytes| ReceiveView::decode(bytes).map(|view| qu::ReceiveRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        messages_max: view.messages_max,
        wait: duration(view.wait_ms),
        lease: duration(view.lease_ms),
    }),
    |wanted| qu::ReceiveRequest {
        messages_max: wanted.messages_max.max(1),
        wait: millis_of(wanted.wait, 0),
        lease: millis_of(wanted.lease, 30_000),
        ..wanted
    }
);
view_test!(
    nack,
    wire::NACK,
    true,
    qu::NackRequest,
    |bytes| NackView::decode(bytes).map(|view| qu::NackRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        receipts: view.receipts.iter().map(Into::into).collect(),
        delay: view.delay_ms.and_then(duration),
        reason: view.reason.into(),
        dead: view.dead,
        uncounted: view.uncounted,
    }),
    |wanted| qu::NackRequest {
        delay: wanted.delay.and_then(|delay| millis_of(Some(delay), 0)),
        ..wanted
    }
);
view_test!(
    extend,
    wire::EXTEND,
    true,
    qu::ExtendRequest,
    |bytes| ExtendView::decode(bytes).map(|view| qu::ExtendRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        receipts: view.receipts.iter().map(Into::into).collect(),
        lease: duration(view.lease_ms),
    }),
    |wanted| qu::ExtendRequest {
        lease: millis_of(wanted.lease, 30_000),
        ..wanted
    }
);
view_test!(
    peek,
    wire::PEEK,
    true,
    qu::PeekRequest,
    |bytes| PeekView::decode(bytes).map(|view| qu::PeekRequest {
        namespace: view.namespace.into(),
        states: (1..=5).filter(|number| view.states & 1 << number != 0).collect(),
        ordering_key: view.ordering_key.map(Into::into),
        page_size: view.page_size,
        page_token: view.page_token.into(),
        without_payload: view.without_payload,
    }),
    |wanted| {
        let mut states = wanted.states.clone();
        states.sort_unstable();
        states.dedup();
        qu::PeekRequest {
            states,
            page_size: if wanted.page_size == 0 {
                100
            } else {
                wanted.page_size
            },
            ..wanted
        }
    }
);
view_test!(
    redrive,
    wire::MOVE,
    true,
    qu::RedriveRequest,
    |bytes| MoveView::decode(bytes).map(|view| qu::RedriveRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        which: Some(match view.which {
            WhichView::Ids(ids) => qu::redrive_request::Which::Ids(qu::MessageIds {
                message_ids: ids.iter().map(Into::into).collect(),
            }),
            WhichView::State(state) => qu::redrive_request::Which::State(state.number()),
        }),
    }),
    |wanted| wanted
);

#[test]
fn batches_keep_the_faults_of_their_messages_for_later() {
    let good = qu::Message {
        payload: b"x".to_vec(),
        ..Default::default()
    };
    let bad = qu::Message {
        ordering_key: "k".repeat(256),
        ..Default::default()
    };
    let request = qu::SendBatchRequest {
        namespace: "n".into(),
        idempotency_token: None,
        messages: vec![good.clone(), bad, good],
    };
    let bytes = request.encode_to_vec();
    let view = SendBatchView::decode(&bytes).expect("a batch");
    let faults: Vec<bool> = view.messages.iter().map(|one| one.fault.is_some()).collect();
    assert_eq!(faults, [false, true, false]);
    let empty = qu::SendBatchRequest {
        namespace: "n".into(),
        ..Default::default()
    };
    assert!(SendBatchView::decode(&empty.encode_to_vec()).is_err());
}

#[test]
fn limits_name_their_fields() {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let receive = |request: qu::ReceiveRequest| {
        let bytes = qu::ReceiveRequest {
            namespace: "n".into(),
            ..request
        }
        .encode_to_vec();
        ReceiveView::decode(&bytes)
            .err()
            .map(|error| error.field().to_string())
    };
    let none = qu::ReceiveRequest::default;
    assert_eq!(receive(none()), None);
    for (request, field) in [
        (
            qu::ReceiveRequest {
                messages_max: 101,
                ..none()
            },
            "messages_max",
        ),
        (
            qu::ReceiveRequest {
                wait: seconds(51),
                ..none()
            },
            "wait",
        ),
        (
            qu::ReceiveRequest {
                wait: seconds(-1),
                ..none()
            },
            "wait",
        ),
        (
            qu::ReceiveRequest {
                lease: seconds(0),
                ..none()
            },
            "lease",
        ),
        (
            qu::ReceiveRequest {
                lease: seconds(43_201),
                ..none()
            },
            "lease",
        ),
    ] {
        assert_eq!(receive(request).as_deref(), Some(field));
    }
    let ack = |receipts: Vec<Vec<u8>>| {
        let bytes = qu::AckRequest {
            namespace: "n".into(),
            idempotency_token: None,
            receipts,
        }
        .encode_to_vec();
        AckView::decode(&bytes)
            .err()
            .map(|error| error.field().to_string())
    };
    assert_eq!(ack(vec![vec![1]; 1_000]), None);
    assert_eq!(ack(vec![vec![1]; 1_001]).as_deref(), Some("receipts"));
    assert_eq!(ack(vec![]).as_deref(), Some("receipts"));
    assert_eq!(ack(vec![vec![1], vec![]]).as_deref(), Some("receipts[1]"));
    assert_eq!(ack(vec![vec![1; 161]]).as_deref(), Some("receipts[0]"));
}

#[test]
fn responses_are_those_that_prost_writes() {
    let mut random = Random::new(7);
    let attributes = [("a", "1"), ("b", "")];
    let mut packed = Vec::new();
    encode_attributes(
        &mut packed,
        attributes.map(|(name, value)| AttributeView { name, value }),
    );
    for round in 0..200 {
        let payload = vec![random.below(256) as u8; random.below(300)];
        let time = TimestampView {
            seconds: random.below(5) as i64,
            nanos: random.below(2) as i32,
        };
        let out = MessageOut {
            payload: &payload,
            ordering_key: if round % 2 == 0 { "" } else { "key" },
            attributes: if round % 3 == 0 { &packed } else { &[] },
            attempts_max: random.below(3) as u32,
        };
        let wanted = qu::Message {
            payload: payload.clone(),
            ordering_key: out.ordering_key.into(),
            attributes: if round % 3 == 0 {
                attributes.map(|(name, value)| (name.into(), value.into())).into()
            } else {
                Default::default()
            },
            delay: None,
            attempts_max: out.attempts_max,
        };
        let received = ReceivedOut {
            message_id: b"id",
            message: out,
            receipt: b"receipt",
            attempt: random.below(2) as u32,
            lease_end_time: time,
            send_time: time,
            last_failure: "why",
        };
        let mut bytes = Vec::new();
        ReceiveResponseWriter::new(&mut bytes).message(&received);
        assert_eq!(bytes.len(), received_encoded_len(&received));
        let message = qu::ReceivedMessage {
            message_id: b"id".to_vec(),
            message: Some(wanted.clone()),
            receipt: b"receipt".to_vec(),
            attempt: received.attempt,
            lease_end_time: Some(convert::timestamp(time)),
            send_time: Some(convert::timestamp(time)),
            last_failure: "why".into(),
        };
        let response = qu::ReceiveResponse {
            messages: vec![message],
        };
        assert_eq!(bytes, response.encode_to_vec());
        let peeked = PeekedOut {
            message_id: b"id",
            message: out,
            state: StateView::ALL[random.below(5)],
            attempt: random.below(2) as u32,
            send_time: time,
            state_time: time,
            last_failure: "",
        };
        let mut bytes = Vec::new();
        let mut writer = PeekResponseWriter::new(&mut bytes);
        writer.message(&peeked);
        writer.finish(b"next");
        let response = qu::PeekResponse {
            messages: vec![qu::PeekedMessage {
                message_id: b"id".to_vec(),
                message: Some(wanted),
                state: peeked.state.number(),
                attempt: peeked.attempt,
                send_time: Some(convert::timestamp(time)),
                state_time: Some(convert::timestamp(time)),
                last_failure: String::new(),
            }],
            next_page_token: b"next".to_vec(),
        };
        assert_eq!(bytes, response.encode_to_vec());
        let mut bytes = Vec::new();
        ExtendResponseWriter::new(&mut bytes).result(&StatusOut::default(), Some(time));
        encode_stats(&mut Vec::new(), []);
        let response = qu::ExtendResponse {
            results: vec![qu::ExtendResult {
                status: Some(Default::default()),
                lease_end_time: Some(convert::timestamp(time)),
            }],
        };
        assert_eq!(bytes, response.encode_to_vec());
    }
    let mut bytes = Vec::new();
    encode_stats(&mut bytes, [(StateView::Dead, 7, None)]);
    let response = qu::StatsResponse {
        states: vec![qu::StateCount {
            state: 4,
            messages: 7,
            oldest_send_time: None,
        }],
    };
    assert_eq!(bytes, response.encode_to_vec());
}
