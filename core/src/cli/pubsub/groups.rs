//! Groups of subscribers: commits, lists, resets and deletes.

use clap::Args;
use prism_codec::method::PubSubMethod;
use prism_codec::proto::google::rpc::ErrorInfo;
use prism_codec::proto::prism::pubsub::v1::{self as pubsub, start_at::Place};
use prism_core::client::{Client, ClientError};
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::place;
use crate::cli::kv::{result_json, token::TokenArgs};
use crate::cli::output::{Printer, parse_bytes, show_time};
use crate::cli::{Failure, Global, connect};

#[derive(Debug, Args)]
pub(in crate::cli) struct CommitArgs {
    /// The namespace
    namespace: String,
    /// The group
    group: String,
    /// The position of an answer, as subscribe --group --output json prints it
    #[arg(value_parser = position)]
    position: Position,
}

#[derive(Debug, Clone)]
struct Position(Vec<u8>);

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// The namespace
    namespace: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResetArgs {
    /// The namespace
    namespace: String,
    /// The group; made if there is none
    group: String,
    /// Where to begin: earliest, latest, seconds since 1970, or position:… as --output json prints
    /// it
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Place,
    /// Topics of a group that is made by this; all if left out
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// The namespace
    namespace: String,
    /// The group
    group: String,
    #[command(flatten)]
    token: TokenArgs,
}

/// Commits the answers of a subscription, over a connection of its own.
pub(super) struct Committer<'a> {
    namespace: &'a str,
    group: &'a str,
    client: Option<Client>,
}

impl<'a> Committer<'a> {
    pub(super) fn new(namespace: &'a str, group: &'a str) -> Self {
        Self {
            namespace,
            group,
            client: None,
        }
    }

    /// Commits a position. What others have now comes to them: that is noted, and no failure.
    pub(super) fn commit(
        &mut self,
        position: Vec<u8>,
        global: &Global,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(connect(global)?),
        };
        let request = pubsub::CommitRequest {
            namespace: self.namespace.to_owned(),
            group: self.group.to_owned(),
            position,
            ..pubsub::CommitRequest::default()
        };
        let path = PubSubMethod::Commit.spec().path;
        match client.unary::<pubsub::CommitResponse>(path, &request) {
            Ok(_) => Ok(()),
            Err(ClientError::Status(status)) if reason_of(&status.details) == "PARTITION_LOST" => {
                printer.note(&status.message);
                Ok(())
            }
            // The next connection shows whether the gateway is back; what was not committed comes
            // again.
            Err(ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {
                self.client = None;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn reason_of(details: &[prost_types::Any]) -> String {
    let info = details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
    let info = info.and_then(|detail| ErrorInfo::decode(detail.value.as_slice()).ok());
    info.map(|info| info.reason).unwrap_or_default()
}

pub(super) fn commit(args: &CommitArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = pubsub::CommitRequest {
        namespace: args.namespace.clone(),
        group: args.group.clone(),
        position: args.position.0.clone(),
        ..pubsub::CommitRequest::default()
    };
    let path = PubSubMethod::Commit.spec().path;
    let reply: pubsub::CommitResponse = connect(global)?.unary(path, &request)?;
    match printer.is_json() {
        true => printer.json(&result_json(reply.result)),
        false => printer.done("committed"),
    }
}

pub(super) fn list(args: &ListArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = connect(global)?;
    let mut page_token = Vec::new();
    loop {
        let request = pubsub::ListGroupsRequest {
            namespace: args.namespace.clone(),
            page_size: 0,
            page_token,
        };
        let path = PubSubMethod::ListGroups.spec().path;
        let reply: pubsub::ListGroupsResponse = client.unary(path, &request)?;
        for group in &reply.groups {
            print_group(group, printer)?;
        }
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

fn print_group(group: &pubsub::Group, printer: &mut Printer) -> Result<(), Failure> {
    if !printer.is_json() {
        return printer.line(&format!(
            "{}\t{}/{} partitions held\tbehind {}",
            group.name, group.partitions_held, group.partitions, group.messages_behind
        ));
    }
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(group.name));
    object.insert("topics".to_owned(), json!(group.topics));
    object.insert("subscribers".to_owned(), json!(group.subscribers));
    object.insert("partitions".to_owned(), json!(group.partitions));
    object.insert("partitions_held".to_owned(), json!(group.partitions_held));
    object.insert("messages_behind".to_owned(), json!(group.messages_behind));
    for (name, time) in [
        ("oldest_behind_time", &group.oldest_behind_time),
        ("last_commit_time", &group.last_commit_time),
    ] {
        if let Some(time) = time {
            object.insert(name.to_owned(), json!(show_time(time)));
        }
    }
    printer.json(&Value::Object(object))
}

pub(super) fn reset(args: &ResetArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = pubsub::ResetGroupRequest {
        namespace: args.namespace.clone(),
        idempotency_token: args.token.message(),
        group: args.group.clone(),
        start: Some(pubsub::StartAt {
            place: Some(args.to.clone()),
        }),
        topics: args.topic.clone(),
    };
    let path = PubSubMethod::ResetGroup.spec().path;
    let reply: pubsub::ResetGroupResponse = connect(global)?.unary(path, &request)?;
    match printer.is_json() {
        true => printer.json(&result_json(reply.result)),
        false => printer.done("reset"),
    }
}

pub(super) fn delete(args: &DeleteArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = pubsub::DeleteGroupRequest {
        namespace: args.namespace.clone(),
        idempotency_token: args.token.message(),
        group: args.group.clone(),
    };
    let path = PubSubMethod::DeleteGroup.spec().path;
    let reply: pubsub::DeleteGroupResponse = connect(global)?.unary(path, &request)?;
    match printer.is_json() {
        true => printer.json(&result_json(reply.result)),
        false => printer.done("deleted"),
    }
}

fn position(text: &str) -> Result<Position, String> {
    let text = text.strip_prefix("position:").unwrap_or(text);
    let text = text.strip_prefix("base64:").unwrap_or(text);
    parse_bytes(&format!("base64:{text}")).map(Position)
}
