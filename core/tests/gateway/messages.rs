//! Parts of the tests of servers with messages: a load while they fail, and what is there then.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_backends::behavior::pubsub::Start;
use prism_codec::proto::{
    google::rpc::Status,
    prism::{
        admin::v1::{CreateRequest, CreateResponse},
        pubsub::v1::{Message, PublishRequest, PublishResponse},
    },
};
use prism_core::client::{Client, ClientError};

use super::{log::token, pubsub::open_at, support::Gateway};

/// Longest time until all messages must have been delivered.
const PATIENCE: Duration = Duration::from_secs(120);

/// The file of an ordered namespace.
pub(super) fn yaml(name: &str, needs: &str) -> String {
    format!("namespace: {name}\nteam: tests\nclient_api: pubsub\nneeds: {{ordered: true, {needs}}}\n")
}

/// Creates an ordered namespace.
pub(super) fn create(gateway: &Gateway, name: &str, needs: &str) -> Result<CreateResponse, ClientError> {
    let request = CreateRequest {
        yaml: yaml(name, needs),
    };
    gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &request)
}

/// Code and message of an answer that must be a refusal.
pub(super) fn refusal(answer: Result<CreateResponse, ClientError>) -> (i32, String) {
    match answer {
        Err(ClientError::Status(status)) => (status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// Publishes a payload under a token that it makes its own.
pub(super) fn publish_once(
    client: &mut Client,
    namespace: &str,
    key: &str,
    payload: &str,
) -> Result<(), Box<Status>> {
    let request = PublishRequest {
        namespace: namespace.to_owned(),
        idempotency_token: Some(token(payload)),
        message: Some(Message {
            topic: "orders".to_owned(),
            payload: payload.into(),
            ordering_key: key.to_owned(),
            ..Message::default()
        }),
    };
    match client.unary::<PublishResponse>("/prism.pubsub.v1.PubSub/Publish", &request) {
        Ok(_) => Ok(()),
        Err(ClientError::Status(status)) => Err(status),
        Err(other) => panic!("the call did not reach the gateway: {other}"),
    }
}

/// Publishes by two clients until stopped, each line of messages under a key of its own. Returns
/// the acknowledged payloads.
pub(super) fn publish_until(
    clients: [Client; 2],
    namespace: &str,
    stop: &AtomicBool,
    round: usize,
) -> Vec<String> {
    let publisher = |number: usize, mut client: Client| {
        let mut done = Vec::new();
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let payload = format!("{round}-{number}-{count:06}");
            match publish_once(&mut client, namespace, &format!("key {number}"), &payload) {
                Ok(()) => {
                    done.push(payload);
                    count += 1;
                }
                // The same once more: its token tells that it is a repeat.
                Err(status) => {
                    assert!(matches!(status.code, 4 | 8 | 14), "{status:?}");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        done
    };
    thread::scope(|scope| {
        let [first, second] = clients;
        let others = [
            scope.spawn(|| publisher(0, first)),
            scope.spawn(|| publisher(1, second)),
        ];
        others
            .into_iter()
            .flat_map(|other| other.join().expect("a publisher"))
            .collect()
    })
}

/// Checks that all acknowledged payloads are there, once and in order for each key; one that was
/// sent last may be there as well.
pub(super) fn check_all(gateway: &Gateway, namespace: &str, acknowledged: &[String]) {
    let got = payloads_from(gateway, namespace, acknowledged);
    for number in 0..2 {
        let of_key = |text: &&String| text.split('-').nth(1) == Some(&number.to_string());
        let lines: Vec<&String> = got.iter().filter(of_key).collect();
        assert!(lines.is_sorted(), "key {number} is out of order");
        assert!(
            lines.windows(2).all(|pair| pair[0] != pair[1]),
            "key {number}: one came twice"
        );
    }
    println!("{} acknowledged messages, each there once", acknowledged.len());
}

/// The payloads of a namespace, from the oldest on, once all of these are there.
pub(super) fn payloads_from(gateway: &Gateway, namespace: &str, wanted: &[String]) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut missing: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut got = Vec::new();
        // One that meets the server's restart ends, and another begins.
        let subscription = open_at(gateway.address(), namespace, &Start::Earliest).ok();
        while let Some(subscription) = &subscription {
            let wait = match missing.is_empty() {
                true => Duration::from_millis(300),
                false => Duration::from_secs(5),
            };
            let Ok(Ok(answer)) = subscription.answers.recv_timeout(wait) else {
                break;
            };
            assert_eq!(answer.gap, None, "nothing has expired");
            for one in answer.messages {
                let payload = one.message.expect("a message").payload;
                let payload = String::from_utf8(payload).expect("text");
                missing.remove(payload.as_str());
                got.push(payload);
            }
        }
        if missing.is_empty() {
            return got;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of {} are missing, such as {:?}",
            missing.len(),
            wanted.len(),
            missing.first()
        );
        thread::sleep(Duration::from_millis(50));
    }
}
