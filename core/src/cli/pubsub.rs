//! `prism pubsub`: messages of a pubsub namespace, one command for publishing, one for subscribing,
//! and those about groups of subscribers.

mod groups;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use prism_codec::method::PubSubMethod;
use prism_codec::proto::prism::pubsub::v1::{self as pubsub, start_at::Place};
use prism_core::client::ClientError;
use serde_json::{Map, Value, json};

use self::groups::Committer;
use super::kv::{Bytes, result_json, token::TokenArgs};
use super::output::{Printer, insert_bytes, parse_bytes, show_bytes, show_time};
use super::{Exit, Failure, Global, connect};

/// Pause before a gateway that cannot be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

const SUBSCRIBE_HELP: &str = "\
Prints messages as they come, as topic, ordering key and payload, until it is stopped. Where the
connection ends it goes on after the last message that it has printed. With a group it shares the
messages with the group's other subscribers, and commits what it has printed.

  prism pubsub subscribe user-events 'login.*' --from earliest
  prism pubsub subscribe user-events --group audit --from earliest
  prism pubsub subscribe user-events --output json --limit 10";

#[derive(Debug, Subcommand)]
pub(super) enum PubSubCommand {
    /// Publish a message
    Publish(PublishArgs),
    /// Print messages as they come
    #[command(after_help = SUBSCRIBE_HELP)]
    Subscribe(SubscribeArgs),
    /// Say that a group is done with a position, and with all before it
    Commit(groups::CommitArgs),
    /// Show the groups of a namespace, and how far each is
    Groups(groups::ListArgs),
    /// Move a group to another place, backwards or forwards; its subscribers begin there
    ResetGroup(groups::ResetArgs),
    /// Forget a group and its place
    DeleteGroup(groups::DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The namespace
    namespace: String,
    /// The payload: text, or base64:… for any bytes
    #[arg(required_unless_present = "payload_file")]
    payload: Option<Bytes>,
    /// Take the payload from a file; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Topic: tokens joined by dots, such as orders.eu.created; the namespace's own if left out
    #[arg(long, value_name = "TOPIC", default_value = "")]
    topic: String,
    /// Ordering key: messages of one topic and key keep their order. Needs `ordered: true`
    #[arg(long, value_name = "KEY", default_value = "")]
    key: String,
    /// Attribute of the message; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Args)]
pub(super) struct SubscribeArgs {
    /// The namespace
    namespace: String,
    /// Topics: `*` stands for one token, `>` at the end for one or more; all if left out
    topic: Vec<String>,
    /// Where to begin: latest, earliest, seconds since 1970, or position:… as --output json prints
    /// it
    #[arg(long, value_name = "PLACE", default_value = "latest", value_parser = place)]
    from: Place,
    /// Share the messages with the other subscribers of this group, and commit what is printed;
    /// --from counts only when the group is made
    #[arg(long, value_name = "GROUP", default_value = "")]
    group: String,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Runs one of the commands.
pub(super) fn run(command: &PubSubCommand, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        PubSubCommand::Publish(args) => publish(args, global, printer),
        PubSubCommand::Subscribe(args) => subscribe(args, global, printer),
        PubSubCommand::Commit(args) => groups::commit(args, global, printer),
        PubSubCommand::Groups(args) => groups::list(args, global, printer),
        PubSubCommand::ResetGroup(args) => groups::reset(args, global, printer),
        PubSubCommand::DeleteGroup(args) => groups::delete(args, global, printer),
    }
}

fn publish(args: &PublishArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let payload = match (&args.payload, &args.payload_file) {
        (Some(Bytes(payload)), _) => payload.clone(),
        (None, Some(path)) => read_payload(path)?,
        (None, None) => Vec::new(),
    };
    let request = pubsub::PublishRequest {
        namespace: args.namespace.clone(),
        idempotency_token: args.token.message(),
        message: Some(pubsub::Message {
            topic: args.topic.clone(),
            payload,
            ordering_key: args.key.clone(),
            attributes: args.attribute.iter().cloned().collect(),
        }),
    };
    let path = PubSubMethod::Publish.spec().path;
    let reply: pubsub::PublishResponse = connect(global)?.unary(path, &request)?;
    if !printer.is_json() {
        return printer.done("published");
    }
    let mut object = Map::new();
    insert_bytes(&mut object, "message_id", &reply.message_id);
    if let Value::Object(result) = result_json(reply.result) {
        object.extend(result);
    }
    printer.json(&Value::Object(object))
}

pub(super) fn read_payload(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()));
    if path.as_os_str() != "-" {
        return std::fs::read(path).map_err(unreadable);
    }
    let mut payload = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut payload)
        .map_err(unreadable)?;
    Ok(payload)
}

/// Prints messages until the limit, over as many connections as it takes: a quiet one is given up
/// after the timeout, and the next goes on from its position.
fn subscribe(args: &SubscribeArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut start = args.from.clone();
    let mut reached = Instant::now();
    let mut committer = Committer::new(&args.namespace, &args.group);
    let mut has_begun = false;
    loop {
        let mut client = match connect(global) {
            Ok(client) => client,
            // A gateway that restarts is away for a moment.
            Err(_) if has_begun && reached.elapsed() < global.timeout => {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let request = pubsub::SubscribeRequest {
            namespace: args.namespace.clone(),
            topics: args.topic.clone(),
            group: args.group.clone(),
            // Of a group an answer is committed as a whole.
            batch_messages: u32::from(!args.group.is_empty() && args.limit.is_some()),
            start: Some(pubsub::StartAt {
                place: Some(start.clone()),
            }),
            ..pubsub::SubscribeRequest::default()
        };
        let mut printed = Ok(());
        let path = PubSubMethod::Subscribe.spec().path;
        let ended = client.server_streaming(path, &request, |answer: pubsub::SubscribeResponse| {
            printed = print_answer(&answer, &mut left, printer);
            has_begun = true;
            if args.group.is_empty() {
                start = Place::Position(answer.position);
            } else if printed.is_ok() && !answer.messages.is_empty() {
                printed = committer.commit(answer.position, global, printer);
            }
            reached = Instant::now();
            match printed.is_err() || left == 0 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        printed?;
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if goes_on(&error) && has_begun => {
                // It was reached a moment ago, however quiet it was.
                reached = Instant::now();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a subscription may go on from its position.
fn goes_on(error: &ClientError) -> bool {
    const UNAVAILABLE: i32 = 14;
    match error {
        ClientError::TimedOut { .. } | ClientError::Broken { .. } => true,
        ClientError::Status(status) => status.code == UNAVAILABLE,
        ClientError::Address { .. }
        | ClientError::Credentials { .. }
        | ClientError::Untrusted { .. }
        | ClientError::Unreachable { .. } => false,
    }
}

fn print_answer(
    answer: &pubsub::SubscribeResponse,
    left: &mut u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    if let Some(gap) = &answer.gap {
        let many = match gap.messages {
            0 => "messages".to_owned(),
            count => format!("{count} messages"),
        };
        printer.note(&format!(
            "{many} went by retention before this subscriber had them"
        ));
    }
    for received in &answer.messages {
        if *left == 0 {
            break;
        }
        *left -= 1;
        print_message(received, &answer.position, printer)?;
    }
    // The next answer may come in hours.
    printer.finish()
}

fn print_message(
    received: &pubsub::ReceivedMessage,
    position: &[u8],
    printer: &mut Printer,
) -> Result<(), Failure> {
    let message = received.message.clone().unwrap_or_default();
    if !printer.is_json() {
        return printer.line(&format!(
            "{}\t{}\t{}",
            show_bytes(message.topic.as_bytes()),
            show_bytes(message.ordering_key.as_bytes()),
            show_bytes(&message.payload)
        ));
    }
    let mut object = Map::new();
    insert_bytes(&mut object, "id", &received.id);
    object.insert("topic".to_owned(), json!(message.topic));
    object.insert("ordering_key".to_owned(), json!(message.ordering_key));
    object.insert("attributes".to_owned(), json!(message.attributes));
    insert_bytes(&mut object, "payload", &message.payload);
    if let Some(time) = &received.store_time {
        object.insert("store_time".to_owned(), json!(show_time(time)));
    }
    // Of the whole answer: whoever goes on from it misses nothing once all of it was handled.
    insert_bytes(&mut object, "position", position);
    printer.json(&Value::Object(object))
}

pub(super) fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write NAME=VALUE".to_owned()),
    }
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "latest" => Ok(Place::Start(pubsub::Start::Latest.into())),
        "earliest" => Ok(Place::Start(pubsub::Start::Earliest.into())),
        _ => match text.strip_prefix("position:") {
            Some(position) => Ok(Place::Position(parse_bytes(&format!("base64:{position}"))?)),
            None => super::kv::token::time(text).map(Place::Time).map_err(|_| {
                "write latest, earliest, seconds since 1970, or position:… as --output json prints it"
                    .to_owned()
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place("latest"), Ok(Place::Start(1)));
        assert_eq!(place("earliest"), Ok(Place::Start(2)));
        assert_eq!(place("position:AQID"), Ok(Place::Position(vec![1, 2, 3])));
        let time = prost_types::Timestamp {
            seconds: 1_764_321_234,
            nanos: 500_000_000,
        };
        assert_eq!(place("1764321234.5"), Ok(Place::Time(time)));
        for bad in ["", "now", "position:!", "AQID"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attributes() {
        assert_eq!(attribute("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(attribute("a").is_err());
    }
}
