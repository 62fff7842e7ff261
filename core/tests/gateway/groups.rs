//! Groups of subscribers through the gateway: the calls of the suite's cases about them, and what
//! only a gateway has.

use std::time::Duration;

use prism_backends::{
    api::groups::{Act, Outcome},
    behavior::{
        Failure, WriteToken,
        pubsub::{GroupClient, GroupSeen, Member, Start, Subscription},
    },
};
use prism_codec::proto::prism::{
    common::v1::{Durability, WriteResult},
    pubsub::v1::{
        CommitRequest, CommitResponse, DeleteGroupRequest, DeleteGroupResponse, ListGroupsRequest,
        ListGroupsResponse, PublishResponse, ResetGroupRequest, ResetGroupResponse, SubscribeRequest,
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};

use super::{
    pubsub::{
        GatewayClient, GatewaySubscription, PUBSUB, create, publish, reason, run_to_end, wire_start,
        wire_token,
    },
    support::Gateway,
};

impl GroupClient for GatewayClient {
    async fn join(&mut self, member: &Member) -> Result<GatewaySubscription, Failure> {
        let request = SubscribeRequest {
            namespace: self.namespace.clone(),
            topics: member.topics.clone(),
            start: Some(wire_start(&member.start)),
            group: member.group.clone(),
            batch_messages: 7,
            uncommitted_messages_max: member.uncommitted_max,
            commit_timeout: member.commit_timeout.map(|time| prost_types::Duration {
                seconds: time.as_secs() as i64,
                nanos: time.subsec_nanos() as i32,
            }),
            ..SubscribeRequest::default()
        };
        GatewaySubscription::open(&self.address, request)
    }

    async fn commit(&mut self, group: &str, position: &[u8]) -> Result<(), Failure> {
        let request = CommitRequest {
            namespace: self.namespace.clone(),
            idempotency_token: None,
            group: group.to_owned(),
            position: position.to_vec(),
        };
        let response: CommitResponse = self.call("Commit", &request)?;
        // As left: places are in the store alone.
        let result = response.result.expect("a result");
        assert_eq!(
            (result.durability(), result.applied),
            (Durability::BestEffort, true)
        );
        Ok(())
    }

    async fn reset(&mut self, group: &str, start: &Start, token: Option<&WriteToken>) -> Result<(), Failure> {
        let request = ResetGroupRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            group: group.to_owned(),
            start: Some(wire_start(start)),
            topics: Vec::new(),
        };
        let response: ResetGroupResponse = self.call("ResetGroup", &request)?;
        self.check_judged(response.result);
        Ok(())
    }

    async fn delete_group(&mut self, group: &str) -> Result<(), Failure> {
        let request = DeleteGroupRequest {
            namespace: self.namespace.clone(),
            idempotency_token: None,
            group: group.to_owned(),
        };
        let response: DeleteGroupResponse = self.call("DeleteGroup", &request)?;
        self.check_judged(response.result);
        Ok(())
    }

    async fn groups(&mut self) -> Result<Vec<GroupSeen>, Failure> {
        let (mut all, mut page_token) = (Vec::new(), Vec::new());
        loop {
            let request = ListGroupsRequest {
                namespace: self.namespace.clone(),
                page_size: 2,
                page_token,
            };
            let response: ListGroupsResponse = self.call("ListGroups", &request)?;
            all.extend(response.groups.into_iter().map(|one| GroupSeen {
                name: one.name,
                topics: one.topics,
                subscribers: one.subscribers,
                partitions: one.partitions,
                held: one.partitions_held,
                behind: one.messages_behind,
                is_committed: one.last_commit_time.is_some(),
            }));
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    async fn act(&mut self, _group: &str, _act: &Act<'_>) -> Outcome {
        panic!("acts on records are the store's")
    }
}

impl GatewayClient {
    /// The result of a call that the store has judged.
    fn check_judged(&self, result: Option<WriteResult>) {
        let result = result.expect("a result");
        assert!(result.applied, "the store has judged it: {result:?}");
        let is_logged = result.durability() == Durability::Strong;
        assert_eq!(result.lsn > 0, is_logged, "{result:?}");
    }
}

fn refusal(call: Result<PublishResponse, ClientError>) -> (i32, String, String) {
    match call {
        Err(ClientError::Status(status)) => (status.code, reason(&status), status.message),
        other => panic!("{other:?}"),
    }
}

fn call(client: &mut Client, method: &str, request: &impl prost::Message) -> (i32, String, String) {
    refusal(client.unary(&format!("{PUBSUB}/{method}"), request))
}

#[test]
fn a_namespace_without_replay_gives_groups_the_latest_only() {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 1);
    create(&gateway, "now", "best-effort", "  replay: false\n");
    let early = SubscribeRequest {
        namespace: "now".to_owned(),
        group: "g".to_owned(),
        start: Some(wire_start(&Start::Earliest)),
        ..SubscribeRequest::default()
    };
    let refused = GatewaySubscription::open(gateway.address(), early)
        .err()
        .expect("refused");
    assert_eq!(refused.field.as_deref(), Some("start"), "{refused:?}");
    let reset = ResetGroupRequest {
        namespace: "now".to_owned(),
        group: "g".to_owned(),
        start: Some(wire_start(&Start::Earliest)),
        ..ResetGroupRequest::default()
    };
    let (code, _, sentence) = call(&mut gateway.client(), "ResetGroup", &reset);
    assert_eq!(code, 3, "{sentence}");
    assert!(sentence.contains("replay: false"), "{sentence}");
    let late = SubscribeRequest {
        namespace: "now".to_owned(),
        group: "g".to_owned(),
        ..SubscribeRequest::default()
    };
    let mut member = GatewaySubscription::open(gateway.address(), late).expect("a member");
    publish(&mut gateway.client(), "now", "x").expect("published");
    run_to_end(async {
        let answer = member.next(Duration::from_secs(30)).await.expect("a stream");
        assert_eq!(answer.expect("an answer").messages.len(), 1);
    });
    // Of another API.
    gateway.create_namespace("items");
    let of_items = ListGroupsRequest {
        namespace: "items".to_owned(),
        ..ListGroupsRequest::default()
    };
    let (code, reason, _) = call(&mut gateway.client(), "ListGroups", &of_items);
    assert_eq!((code, reason.as_str()), (9, "OTHER_API"));
}

#[test]
fn a_group_outlives_its_gateway_and_goes_on_after_its_commit() {
    let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    create(&gateway, "events", "strong", "");
    for number in 0..5 {
        publish(&mut gateway.client(), "events", &format!("{number}")).expect("published");
    }
    let request = || SubscribeRequest {
        namespace: "events".to_owned(),
        group: "g".to_owned(),
        start: Some(wire_start(&Start::Earliest)),
        batch_messages: 2,
        ..SubscribeRequest::default()
    };
    let wait = Duration::from_secs(30);
    let mut member = GatewaySubscription::open(gateway.address(), request()).expect("a member");
    let mut payloads = Vec::new();
    run_to_end(async {
        let answer = member.next(wait).await.expect("a stream").expect("an answer");
        payloads.extend(answer.messages.into_iter().map(|one| one.message.payload));
        let commit = CommitRequest {
            namespace: "events".to_owned(),
            group: "g".to_owned(),
            position: answer.position,
            ..CommitRequest::default()
        };
        let path = format!("{PUBSUB}/Commit");
        let _: CommitResponse = gateway.client().unary(&path, &commit).expect("committed");
    });
    let committed = payloads.len();
    // A drain ends the stream, whose partitions are free at once.
    gateway.restart(|_| {});
    let mut member = GatewaySubscription::open(gateway.address(), request()).expect("a member");
    run_to_end(async {
        while payloads.len() < 5 {
            let answer = member.next(wait).await.expect("a stream").expect("an answer");
            payloads.extend(answer.messages.into_iter().map(|one| one.message.payload));
        }
    });
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), 5, "{committed} were committed before");
}
