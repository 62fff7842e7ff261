//! The views and encoders of `prism.pubsub.v1`.

use std::cell::Cell;

use prism_codec::{
    message::{
        common::{AnyView, DurationView, StatusOut, TimestampView},
        pubsub::*,
    },
    proto::prism::pubsub::v1 as ps,
};
use prost::Message as _;

use super::{
    compare, convert, random_result, random_token, result_view, token_view,
    wire::{self, Random},
};

fn message(view: MessageView<'_>) -> ps::Message {
    assert_eq!(view.attributes.iter().count(), view.attributes.len());
    ps::Message {
        topic: view.topic.into(),
        payload: view.payload.into(),
        ordering_key: view.ordering_key.into(),
        attributes: view
            .attributes
            .iter()
            .map(|attribute| (attribute.name.into(), attribute.value.into()))
            .collect(),
    }
}

fn publish_response(view: PublishResponseView<'_>) -> ps::PublishResponse {
    ps::PublishResponse {
        result: view.result.map(convert::result),
        message_id: view.message_id.into(),
    }
}

fn publish_batch_response(view: PublishBatchResponseView<'_>) -> ps::PublishBatchResponse {
    let one = |one: PublishResultView<'_>| ps::PublishResult {
        status: one.status.map(convert::status),
        result: one.result.map(convert::result),
        message_id: one.message_id.into(),
    };
    ps::PublishBatchResponse {
        results: view.results.iter().map(one).collect(),
    }
}

fn subscribe_response(view: SubscribeResponseView<'_>) -> ps::SubscribeResponse {
    let received = |received: ReceivedMessageView<'_>| ps::ReceivedMessage {
        id: received.id.into(),
        message: received.message.map(message),
        store_time: received.store_time.map(convert::timestamp),
    };
    ps::SubscribeResponse {
        messages: view.messages.iter().map(received).collect(),
        position: view.position.into(),
        gap: view.gap.map(|gap| ps::Gap {
            messages: gap.messages,
            oldest_left_time: gap.oldest_left_time.map(convert::timestamp),
        }),
        waiting_for_commit: view.waiting_for_commit,
    }
}

fn start(view: StartView<'_>) -> ps::start_at::Place {
    use ps::start_at::Place;
    match view {
        StartView::Latest => Place::Start(ps::Start::Latest.into()),
        StartView::Earliest => Place::Start(ps::Start::Earliest.into()),
        StartView::Time(time) => Place::Time(convert::timestamp(time)),
        StartView::Position(position) => Place::Position(position.into()),
    }
}

fn subscribe(view: SubscribeView<'_>) -> ps::SubscribeRequest {
    ps::SubscribeRequest {
        namespace: view.namespace.into(),
        topics: view.topics.iter().map(Into::into).collect(),
        start: view.start.map(|view| ps::StartAt {
            place: Some(start(view)),
        }),
        group: view.group.into(),
        batch_messages: view.batch_messages,
        batch_bytes: view.batch_bytes,
        uncommitted_messages_max: view.uncommitted_messages_max,
        commit_timeout: view.commit_timeout.map(convert::duration),
    }
}

/// The request with the defaults that the view fills in.
fn with_defaults(mut wanted: ps::SubscribeRequest) -> ps::SubscribeRequest {
    use ps::start_at::Place;
    wanted.start = wanted.start.filter(|start| start.place.is_some());
    if let Some(Place::Start(start @ 0)) = wanted.start.as_mut().and_then(|start| start.place.as_mut()) {
        *start = ps::Start::Latest.into();
    }
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    wanted.batch_messages = or(wanted.batch_messages, 100);
    wanted.batch_bytes = or(wanted.batch_bytes, 256 << 10);
    wanted
}

view_test!(
    publish,
    wire::PUBLISH,
    true,
    ps::PublishRequest,
    |bytes| PublishView::decode(bytes).map(|view| ps::PublishRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        message: Some(message(view.message)),
    }),
    |wanted| wanted
);
view_test!(
    subscribing,
    wire::SUBSCRIBE,
    true,
    ps::SubscribeRequest,
    |bytes| SubscribeView::decode(bytes).map(subscribe),
    |wanted| with_defaults(wanted)
);
view_test!(
    commits,
    wire::COMMIT,
    true,
    ps::CommitRequest,
    |bytes| CommitView::decode(bytes).map(|view| ps::CommitRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        group: view.group.into(),
        position: view.position.into(),
    }),
    |wanted| wanted
);
view_test!(
    lists_of_groups,
    wire::LIST_GROUPS,
    true,
    ps::ListGroupsRequest,
    |bytes| ListGroupsView::decode(bytes).map(|view| ps::ListGroupsRequest {
        namespace: view.namespace.into(),
        page_size: view.page_size,
        page_token: view.page_token.into(),
    }),
    |wanted| ps::ListGroupsRequest {
        page_size: if wanted.page_size == 0 {
            100
        } else {
            wanted.page_size
        },
        ..wanted
    }
);
view_test!(
    resets_of_groups,
    wire::RESET_GROUP,
    true,
    ps::ResetGroupRequest,
    |bytes| ResetGroupView::decode(bytes).map(|view| ps::ResetGroupRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        group: view.group.into(),
        start: Some(ps::StartAt {
            place: Some(start(view.start)),
        }),
        topics: view.topics.iter().map(Into::into).collect(),
    }),
    |wanted| {
        use ps::start_at::Place;
        let mut wanted: ps::ResetGroupRequest = wanted;
        if let Some(Place::Start(start @ 0)) = wanted.start.as_mut().and_then(|start| start.place.as_mut()) {
            *start = ps::Start::Latest.into();
        }
        wanted
    }
);
view_test!(
    deletes_of_groups,
    wire::DELETE_GROUP,
    true,
    ps::DeleteGroupRequest,
    |bytes| DeleteGroupView::decode(bytes).map(|view| ps::DeleteGroupRequest {
        namespace: view.namespace.into(),
        idempotency_token: view.token.map(convert::token),
        group: view.group.into(),
    }),
    |wanted| wanted
);
view_test!(
    publish_responses,
    wire::PUBLISH_RESPONSE,
    false,
    ps::PublishResponse,
    |bytes| PublishResponseView::decode(bytes).map(publish_response),
    |wanted| wanted
);
view_test!(
    publish_batch_responses,
    wire::PUBLISH_BATCH_RESPONSE,
    false,
    ps::PublishBatchResponse,
    |bytes| PublishBatchResponseView::decode(bytes).map(publish_batch_response),
    |wanted| wanted
);
view_test!(
    subscribe_responses,
    wire::SUBSCRIBE_RESPONSE,
    false,
    ps::SubscribeResponse,
    |bytes| SubscribeResponseView::decode(bytes).map(subscribe_response),
    |wanted| wanted
);

/// Each message of a PublishBatch is the one that prost reads; those that break a limit report it.
#[test]
fn publish_batch() {
    let (sound, broken) = (Cell::new(0), Cell::new(0));
    compare::<ps::PublishBatchRequest>(wire::PUBLISH, 20_000, true, |bytes, wanted| {
        let view = PublishBatchView::decode(bytes)?;
        if ps::PublishBatchRequest::decode(bytes).is_err() {
            return Ok(());
        }
        assert_eq!(view.namespace, wanted.namespace);
        assert_eq!(view.token.map(convert::token), wanted.idempotency_token);
        assert_eq!(view.messages.len(), wanted.messages.len());
        for (got, wanted) in view.messages.iter().zip(&wanted.messages) {
            let counter = if got.fault.is_some() { &broken } else { &sound };
            counter.set(counter.get() + 1);
            assert!(got.fault.is_none_or(|fault| fault.is_limit()));
            assert_eq!(message(got.message), *wanted, "bytes {bytes:02x?}");
        }
        Ok(())
    });
    assert!(
        sound.get() > 1_000 && broken.get() > 1_000,
        "{sound:?} {broken:?}"
    );
}

fn random_message(random: &mut Random) -> (ps::Message, Vec<u8>) {
    let name = |random: &mut Random| format!("n-{}", random.below(1_000));
    let message = ps::Message {
        topic: format!("t{}.€", random.below(99)),
        payload: random.bytes(300),
        ordering_key: random.text(20),
        attributes: (0..random.below(4))
            .map(|_| (name(random), random.text(20)))
            .collect(),
    };
    let mut attributes = Vec::new();
    let pairs = message.attributes.iter();
    encode_attributes(
        &mut attributes,
        pairs.map(|(name, value)| AttributeView { name, value }),
    );
    (message, attributes)
}

fn out<'a>((message, attributes): &'a (ps::Message, Vec<u8>)) -> MessageOut<'a> {
    MessageOut {
        topic: &message.topic,
        payload: &message.payload,
        ordering_key: &message.ordering_key,
        attributes,
    }
}

fn random_time(random: &mut Random) -> TimestampView {
    TimestampView::from_unix_nanos(random.number() as i64)
}

#[test]
fn lists_of_groups_are_encoded_as_prost_does() {
    for seed in 0..500 {
        let random = &mut Random::new(seed);
        let group = |random: &mut Random| {
            let time = |random: &mut Random| random.percent(50).then(|| random_time(random));
            let topics: Vec<String> = (0..random.below(3)).map(|_| random.text(9)).collect();
            let (name, number) = (random.text(20), random.below(300) as u32);
            (name, topics, number, random.number(), time(random), time(random))
        };
        let groups: Vec<_> = (0..random.below(4)).map(|_| group(random)).collect();
        let token = random.bytes(9);
        let mut bytes = Vec::new();
        for (name, topics, number, behind, oldest, commit) in &groups {
            let out = GroupOut {
                name,
                topics,
                subscribers: *number,
                partitions: number / 2,
                partitions_held: number / 3,
                messages_behind: *behind,
                oldest_behind_time: *oldest,
                last_commit_time: *commit,
            };
            encode_group(&mut bytes, &out);
        }
        encode_next_page_token(&mut bytes, &token);
        let wanted = ps::ListGroupsResponse {
            groups: groups
                .iter()
                .map(|(name, topics, number, behind, oldest, commit)| ps::Group {
                    name: name.clone(),
                    topics: topics.clone(),
                    subscribers: *number,
                    partitions: number / 2,
                    partitions_held: number / 3,
                    messages_behind: *behind,
                    oldest_behind_time: oldest.map(convert::timestamp),
                    last_commit_time: commit.map(convert::timestamp),
                })
                .collect(),
            next_page_token: token,
        };
        assert_eq!(bytes, wanted.encode_to_vec(), "seed {seed}");
    }
}

#[test]
fn requests_about_groups_name_what_is_wrong() {
    let commit = ps::CommitRequest {
        namespace: "n".into(),
        group: "g".into(),
        position: vec![1],
        ..Default::default()
    };
    let said = |request: ps::CommitRequest| {
        let error = CommitView::decode(&request.encode_to_vec()).expect_err("refused");
        error.to_string()
    };
    let none = ps::CommitRequest {
        group: String::new(),
        ..commit.clone()
    };
    assert_eq!(said(none), "field \"group\" must not be empty");
    let none = ps::CommitRequest {
        position: Vec::new(),
        ..commit
    };
    assert_eq!(said(none), "field \"position\" must not be empty");
    let reset = ps::ResetGroupRequest {
        namespace: "n".into(),
        group: "g".into(),
        ..Default::default()
    };
    let error = ResetGroupView::decode(&reset.encode_to_vec()).expect_err("refused");
    assert_eq!(error.to_string(), "field \"start\" must not be empty");
    let list = ps::ListGroupsRequest {
        namespace: "n".into(),
        page_size: 1_001,
        ..Default::default()
    };
    let error = ListGroupsView::decode(&list.encode_to_vec()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "field \"page_size\" must lie between 0 and 1000"
    );
}

/// The encoders write, byte for byte, what prost writes.
#[test]
fn pubsub_requests_are_encoded_as_prost_does() {
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let namespace = format!("n{}", random.text(5));
        let token = random.percent(50).then(|| random_token(random));
        let messages: Vec<_> = (0..1 + random.below(4)).map(|_| random_message(random)).collect();

        let mut bytes = vec![7];
        let token_out = token.as_ref().map(token_view);
        encode_publish_request(&mut bytes, &namespace, token_out.as_ref(), &out(&messages[0]));
        let publish = ps::PublishRequest {
            namespace: namespace.clone(),
            idempotency_token: token.clone(),
            message: Some(messages[0].0.clone()),
        };
        assert_eq!(bytes[1..], publish.encode_to_vec(), "seed {seed}");
        let view = PublishView::decode(&bytes[1..]).expect("within limits");
        assert_eq!(message(view.message), messages[0].0, "seed {seed}");

        let mut bytes = Vec::new();
        encode_publish_batch_request(
            &mut bytes,
            &namespace,
            token_out.as_ref(),
            messages.iter().map(out),
        );
        let batch = ps::PublishBatchRequest {
            namespace: namespace.clone(),
            idempotency_token: token.clone(),
            messages: messages.iter().map(|(message, _)| message.clone()).collect(),
        };
        assert_eq!(bytes, batch.encode_to_vec(), "seed {seed}");

        let position = [&[1], &random.bytes(20)[..]].concat();
        let start = match random.below(5) {
            0 => None,
            1 => Some(StartView::Latest),
            2 => Some(StartView::Earliest),
            3 => Some(StartView::Time(random_time(random))),
            _ => Some(StartView::Position(&position)),
        };
        let request = SubscribeOut {
            namespace: &namespace,
            topics: &["a.*", "", ">"][..random.below(4)],
            start,
            group: "g-1",
            batch_messages: 1 + random.below(1_000) as u32,
            batch_bytes: 1 + random.below(4 << 20) as u32,
            uncommitted_messages_max: random.below(10_001) as u32,
            commit_timeout: random
                .percent(50)
                .then_some(DurationView { seconds: 5, nanos: 9 }),
        };
        let mut bytes = Vec::new();
        encode_subscribe_request(&mut bytes, &request);
        let view = SubscribeView::decode(&bytes).expect("within limits");
        assert_eq!(view.start, start, "seed {seed}");
        assert_eq!(bytes, subscribe(view).encode_to_vec(), "seed {seed}");
    }
}

#[test]
fn pubsub_responses_are_encoded_as_prost_does() {
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let (result, id) = (random_result(random), random.bytes(68));
        let wanted = ps::PublishResponse {
            result: Some(result),
            message_id: id.clone(),
        };
        let mut bytes = vec![1];
        encode_publish_response(&mut bytes, &result_view(&result), &id);
        assert_eq!(bytes[1..], wanted.encode_to_vec(), "seed {seed}");
        let mut bytes = ps::PublishResponse {
            message_id: Vec::new(),
            ..wanted.clone()
        }
        .encode_to_vec();
        append_publish_id(&mut bytes, &id);
        assert_eq!(bytes, wanted.encode_to_vec(), "seed {seed}");

        let status = prism_codec::proto::google::rpc::Status {
            code: 1 + random.below(16) as i32,
            message: random.text(60),
            details: vec![prost_types::Any {
                type_url: random.text(9),
                value: random.bytes(200),
            }],
        };
        let details = [AnyView {
            type_url: &status.details[0].type_url,
            value: &status.details[0].value,
        }];
        let status_out = StatusOut {
            code: status.code,
            message: &status.message,
            details: &details,
        };
        let mut bytes = Vec::new();
        let mut writer = PublishBatchResponseWriter::new(&mut bytes);
        writer.result(&status_out, None, &[]);
        writer.result(&StatusOut::default(), Some(&result_view(&result)), &id);
        let wanted = ps::PublishBatchResponse {
            results: vec![
                ps::PublishResult {
                    status: Some(status),
                    ..Default::default()
                },
                ps::PublishResult {
                    status: Some(Default::default()),
                    result: Some(result),
                    message_id: id.clone(),
                },
            ],
        };
        assert_eq!(bytes, wanted.encode_to_vec(), "seed {seed}");
        subscribe_response_is_encoded(random, &id);
    }
}

fn subscribe_response_is_encoded(random: &mut Random, id: &[u8]) {
    let messages: Vec<_> = (0..random.below(4)).map(|_| random_message(random)).collect();
    let (store_time, position) = (random_time(random), random.bytes(40));
    let gap = random.percent(30).then(|| GapOut {
        messages: random.number(),
        oldest_left_time: random.percent(50).then(|| random_time(random)),
    });
    let mut bytes = vec![9];
    let mut size = 0;
    let mut writer = SubscribeResponseWriter::new(&mut bytes);
    for message in &messages {
        let received = ReceivedOut {
            id,
            message: out(message),
            store_time,
        };
        size += received_encoded_len(&received);
        writer.message(&received);
    }
    let waiting_for_commit = random.percent(20);
    writer.finish(&position, gap.as_ref(), waiting_for_commit);
    let received = |(message, _): &(ps::Message, Vec<u8>)| ps::ReceivedMessage {
        id: id.to_vec(),
        message: Some(message.clone()),
        store_time: Some(convert::timestamp(store_time)),
    };
    let wanted = ps::SubscribeResponse {
        messages: messages.iter().map(received).collect(),
        position,
        gap: gap.map(|gap| ps::Gap {
            messages: gap.messages,
            oldest_left_time: gap.oldest_left_time.map(convert::timestamp),
        }),
        waiting_for_commit,
    };
    assert_eq!(bytes[1..], wanted.encode_to_vec());
    let only_messages = ps::SubscribeResponse {
        messages: wanted.messages,
        ..Default::default()
    };
    assert_eq!(size, only_messages.encoded_len());
}

#[test]
fn limits_of_messages_name_the_field() {
    type Change = fn(&mut ps::Message);
    let long_topic = || "x".repeat(256);
    let cases: [(Change, &str); 9] = [
        (
            |message| message.topic = "x".repeat(256),
            "field \"message.topic\" is longer than 255 bytes",
        ),
        (
            |message| message.topic = "a..b".into(),
            "field \"message.topic\" is no topic: write tokens joined by single dots, without spaces, control \
             characters, * and >",
        ),
        (
            |message| message.ordering_key = "x".repeat(256),
            "field \"message.ordering_key\" is longer than 255 bytes",
        ),
        (
            |message| message.attributes = (0..65).map(|n| (format!("n{n}"), String::new())).collect(),
            "field \"message.attributes\" has more than 64 elements",
        ),
        (
            |message| drop(message.attributes.insert("n".into(), "x".repeat(8 << 10))),
            "field \"message.attributes\" is longer than 8192 bytes",
        ),
        (
            |message| drop(message.attributes.insert("Upper".into(), String::new())),
            "field \"message.attributes\" holds a name that is not allowed: write 1 to 64 lower-case letters, \
             digits and hyphens, not beginning with prism-",
        ),
        (
            |message| drop(message.attributes.insert("prism-x".into(), String::new())),
            "field \"message.attributes\" holds a name that is not allowed",
        ),
        (
            |message| drop(message.attributes.insert(String::new(), String::new())),
            "field \"message.attributes\" holds a name that is not allowed",
        ),
        (
            |message| drop(message.attributes.insert("x".repeat(65), String::new())),
            "field \"message.attributes\" holds a name that is not allowed",
        ),
    ];
    for (change, expected) in cases {
        let mut changed = ps::Message::default();
        change(&mut changed);
        let request = ps::PublishRequest {
            namespace: "n".into(),
            idempotency_token: None,
            message: Some(changed),
        };
        let error = PublishView::decode(&request.encode_to_vec()).expect_err(expected);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let none = PublishView::decode(b"\x0a\x01n").expect_err("no message");
    assert_eq!(none.to_string(), "field \"message\" must not be empty");
    // The map's entry occurs twice on the wire, which no map of a client does.
    let twice = b"\x0a\x01n\x1a\x0a\x22\x03\x0a\x01a\x22\x03\x0a\x01a";
    let error = PublishView::decode(twice).expect_err("twice");
    assert_eq!(
        error.to_string(),
        "field \"message.attributes\" holds two entries of one name"
    );
    // A message that is refused within a batch still shows the line that it stops.
    let batch = ps::PublishBatchRequest {
        namespace: "n".into(),
        idempotency_token: None,
        messages: vec![ps::Message {
            topic: long_topic(),
            ..Default::default()
        }],
    }
    .encode_to_vec();
    let view = PublishBatchView::decode(&batch).expect("each message fails by itself");
    let one = view.messages.iter().next().expect("one");
    assert_eq!((one.message.topic, one.fault.is_some()), (&*long_topic(), true));
}

#[test]
fn limits_of_batches_and_subscriptions_name_the_field() {
    let batch = |messages| ps::PublishBatchRequest {
        namespace: "n".into(),
        idempotency_token: None,
        messages,
    };
    let payload = |bytes| ps::Message {
        payload: vec![0; bytes],
        ..Default::default()
    };
    let cases = [
        (vec![], "field \"messages\" must not be empty"),
        (
            vec![payload(0); 1_001],
            "field \"messages\" has more than 1000 elements",
        ),
        (
            vec![payload(2 << 20); 2],
            "field \"messages\" is longer than 4194304 bytes",
        ),
    ];
    for (messages, expected) in cases {
        let error = PublishBatchView::decode(&batch(messages).encode_to_vec()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    assert!(PublishBatchView::decode(&batch(vec![payload(0); 1_000]).encode_to_vec()).is_ok());

    type Change = fn(&mut ps::SubscribeRequest);
    let cases: [(Change, &str); 9] = [
        (
            |request| request.topics = vec!["a".into(); 17],
            "field \"topics\" has more than 16 elements",
        ),
        (
            |request| request.topics = vec!["a".into(), "a*".into()],
            "field \"topics[1]\" is no pattern of topics: write tokens joined by single dots, where * stands for \
             one token, and > at the end for one or more",
        ),
        (
            |request| {
                request.start = Some(ps::StartAt {
                    place: Some(ps::start_at::Place::Start(3)),
                });
            },
            "field \"start.start\" is out of range",
        ),
        (
            |request| {
                request.start = Some(ps::StartAt {
                    place: Some(ps::start_at::Place::Position(vec![0; 2_049])),
                });
            },
            "field \"start.position\" is longer than 2048 bytes",
        ),
        (
            |request| request.group = "a b".into(),
            "field \"group\" is out of range",
        ),
        (
            |request| request.batch_messages = 1_001,
            "field \"batch_messages\" must lie between 0 and 1000",
        ),
        (
            |request| request.batch_bytes = (4 << 20) + 1,
            "field \"batch_bytes\" must lie between 0 and 4194304",
        ),
        (
            |request| request.uncommitted_messages_max = 10_001,
            "field \"uncommitted_messages_max\" must lie between 0 and 10000",
        ),
        (
            |request| {
                request.commit_timeout = Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 999_000_000,
                });
            },
            "field \"commit_timeout\" is out of range",
        ),
    ];
    for (change, expected) in cases {
        let mut request = ps::SubscribeRequest {
            namespace: "n".into(),
            ..Default::default()
        };
        change(&mut request);
        let error = SubscribeView::decode(&request.encode_to_vec()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}
