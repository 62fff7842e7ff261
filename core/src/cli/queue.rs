//! `prism queue`: messages of a queue, sent, worked on, and looked after.

mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use prism_codec::method::QueueMethod;
use prism_codec::proto::google::rpc::Status;
use prism_codec::proto::prism::common::v1::WriteResult;
use prism_codec::proto::prism::queue::v1::{self as queue, State};
use serde_json::{Map, Value, json};

use super::kv::{Bytes, result_json, token::TokenArgs};
use super::output::{Printer, insert_bytes, show_bytes, show_time, status_failure};
use super::pubsub::{attribute, read_payload};
use super::{Failure, Global, connect_for, duration};

const WORK_HELP: &str = "\
Runs the command for each message, one at a time, until it is stopped. The payload is the
command's standard input; PRISM_MESSAGE_ID, PRISM_ATTEMPT and PRISM_KEY are in its environment.
Exit code 0 acks the message; any other one gives it back, with the code as the reason. The lease
is kept while the command runs.

  prism queue work emails -- ./send-email
  prism queue work emails --limit 10 -- sh -c 'cat > mail-$PRISM_MESSAGE_ID'";

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Send a message
    Send(SendArgs),
    /// Lease messages, and print them with their receipts
    Receive(ReceiveArgs),
    /// Say that the work of these receipts is done
    Ack(ReceiptArgs),
    /// Say that the work of these receipts failed
    Nack(NackArgs),
    /// Keep the messages of these receipts for longer
    Extend(ExtendArgs),
    /// Show messages without leasing them
    Peek(PeekArgs),
    /// Put dead or done messages back to the end of the queue
    Redrive(MoveArgs),
    /// Remove messages that nobody has leased
    Delete(MoveArgs),
    /// Show how many messages there are in each state
    Stats(StatsArgs),
    /// Run a command for each message
    #[command(after_help = WORK_HELP)]
    Work(work::WorkArgs),
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The namespace
    namespace: String,
    /// The payload: text, or base64:… for any bytes
    #[arg(required_unless_present = "payload_file")]
    payload: Option<Bytes>,
    /// Take the payload from a file; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Ordering key: of one key one message is with a worker at a time. Needs `ordered: true`
    #[arg(long, value_name = "KEY", default_value = "")]
    key: String,
    /// Not before this long from now
    #[arg(long, value_name = "DURATION", value_parser = time)]
    delay: Option<Duration>,
    /// How often it is given to a worker before it is dead; 10 if left out
    #[arg(long, value_name = "N", default_value_t = 0)]
    attempts: u32,
    /// Attribute of the message; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReceiveArgs {
    /// The namespace
    namespace: String,
    /// Most messages, up to 100
    #[arg(long, value_name = "N", default_value_t = 1)]
    max: u32,
    /// How long to wait for the first one, up to 50s
    #[arg(long, value_name = "DURATION", value_parser = time)]
    wait: Option<Duration>,
    /// How long they are leased, 1s to 12h; 30s if left out
    #[arg(long, value_name = "DURATION", value_parser = time)]
    lease: Option<Duration>,
    /// Ack them once they are printed
    #[arg(long)]
    ack: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReceiptArgs {
    /// The namespace
    namespace: String,
    /// Receipts, as receive prints them
    #[arg(required = true)]
    receipt: Vec<Bytes>,
}

#[derive(Debug, Args)]
pub(super) struct NackArgs {
    #[command(flatten)]
    receipts: ReceiptArgs,
    /// When they come again; by the number of attempts if left out
    #[arg(long, value_name = "DURATION", value_parser = time)]
    delay: Option<Duration>,
    /// Reason of the failure, for people
    #[arg(long, value_name = "REASON", default_value = "")]
    reason: String,
    /// Do not try again
    #[arg(long)]
    dead: bool,
    /// Do not count the attempt
    #[arg(long)]
    uncounted: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExtendArgs {
    #[command(flatten)]
    receipts: ReceiptArgs,
    /// How long from now on, 1s to 12h; 30s if left out
    #[arg(long, value_name = "DURATION", value_parser = time)]
    lease: Option<Duration>,
}

/// A state, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateName {
    Ready,
    Delayed,
    Leased,
    Dead,
    Done,
}

impl StateName {
    fn number(self) -> i32 {
        let state = match self {
            StateName::Ready => State::Ready,
            StateName::Delayed => State::Delayed,
            StateName::Leased => State::Leased,
            StateName::Dead => State::Dead,
            StateName::Done => State::Done,
        };
        state.into()
    }
}

#[derive(Debug, Args)]
pub(super) struct PeekArgs {
    /// The namespace
    namespace: String,
    /// Only messages in this state; may be repeated. Without: what is not done and not dead
    #[arg(long, value_name = "STATE", value_enum)]
    state: Vec<StateName>,
    /// Dead messages; short for --state dead
    #[arg(long)]
    dead: bool,
    /// Only messages of this ordering key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Most messages
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
struct WhichArgs {
    /// Ids of messages, as peek prints them
    id: Vec<Bytes>,
    /// All messages in this state, 10,000 at a time
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<StateName>,
    /// All dead messages; short for --state dead
    #[arg(long)]
    dead: bool,
}

#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    /// The namespace
    namespace: String,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// The namespace
    namespace: String,
}

/// Runs one of the commands.
pub(super) fn run(command: &QueueCommand, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        QueueCommand::Send(args) => send(args, global, printer),
        QueueCommand::Receive(args) => receive(args, global, printer),
        QueueCommand::Ack(args) => {
            let request = queue::AckRequest {
                namespace: args.namespace.clone(),
                idempotency_token: None,
                receipts: receipts(args),
            };
            let reply: queue::AckResponse = call(global, QueueMethod::Ack, &request)?;
            let results = reply.results.into_iter().map(|one| (one.status, one.result));
            print_results(results.collect(), "acked", printer)
        }
        QueueCommand::Nack(args) => {
            let request = queue::NackRequest {
                namespace: args.receipts.namespace.clone(),
                idempotency_token: None,
                receipts: receipts(&args.receipts),
                delay: args.delay.map(wire_duration),
                reason: args.reason.clone(),
                dead: args.dead,
                uncounted: args.uncounted,
            };
            let reply: queue::NackResponse = call(global, QueueMethod::Nack, &request)?;
            let results = reply.results.into_iter().map(|one| (one.status, one.result));
            print_results(results.collect(), "given back", printer)
        }
        QueueCommand::Extend(args) => {
            let request = queue::ExtendRequest {
                namespace: args.receipts.namespace.clone(),
                idempotency_token: None,
                receipts: receipts(&args.receipts),
                lease: args.lease.map(wire_duration),
            };
            let reply: queue::ExtendResponse = call(global, QueueMethod::Extend, &request)?;
            let results = reply.results.into_iter().map(|one| (one.status, None));
            print_results(results.collect(), "extended", printer)
        }
        QueueCommand::Peek(args) => peek(args, global, printer),
        QueueCommand::Redrive(args) => {
            use queue::redrive_request::Which;
            let which = which(args, Which::Ids, Which::State);
            let moved = move_all(printer, "redriven", |token| {
                let request = queue::RedriveRequest {
                    namespace: args.namespace.clone(),
                    idempotency_token: token,
                    which: Some(which.clone()),
                };
                let reply: queue::RedriveResponse = call(global, QueueMethod::Redrive, &request)?;
                Ok((reply.redriven, reply.more))
            });
            moved.map(drop)
        }
        QueueCommand::Delete(args) => {
            use queue::delete_request::Which;
            let which = which(args, Which::Ids, Which::State);
            let moved = move_all(printer, "deleted", |token| {
                let request = queue::DeleteRequest {
                    namespace: args.namespace.clone(),
                    idempotency_token: token,
                    which: Some(which.clone()),
                };
                let reply: queue::DeleteResponse = call(global, QueueMethod::Delete, &request)?;
                Ok((reply.deleted, reply.more))
            });
            moved.map(drop)
        }
        QueueCommand::Stats(args) => stats(args, global, printer),
        QueueCommand::Work(args) => work::run(args, global, printer),
    }
}

/// Makes a call on a connection of its own.
fn call<Reply: prost::Message + Default>(
    global: &Global,
    method: QueueMethod,
    request: &impl prost::Message,
) -> Result<Reply, Failure> {
    call_within(global, Duration::ZERO, method, request)
}

/// Makes a call that may take longer by so much.
fn call_within<Reply: prost::Message + Default>(
    global: &Global,
    longer: Duration,
    method: QueueMethod,
    request: &impl prost::Message,
) -> Result<Reply, Failure> {
    let mut client = connect_for(global, global.timeout + longer)?;
    Ok(client.unary(method.spec().path, request)?)
}

fn send(args: &SendArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let payload = match (&args.payload, &args.payload_file) {
        (Some(Bytes(payload)), _) => payload.clone(),
        (None, Some(path)) => read_payload(path)?,
        (None, None) => Vec::new(),
    };
    let request = queue::SendRequest {
        namespace: args.namespace.clone(),
        idempotency_token: args.token.message(),
        message: Some(queue::Message {
            payload,
            ordering_key: args.key.clone(),
            attributes: args.attribute.iter().cloned().collect(),
            delay: args.delay.map(wire_duration),
            attempts_max: args.attempts,
        }),
    };
    let reply: queue::SendResponse = call(global, QueueMethod::Send, &request)?;
    if !printer.is_json() {
        return printer.done("sent");
    }
    let mut object = Map::new();
    insert_bytes(&mut object, "message_id", &reply.message_id);
    if let Value::Object(result) = result_json(reply.result) {
        object.extend(result);
    }
    printer.json(&Value::Object(object))
}

fn receive(args: &ReceiveArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let wait = args.wait.unwrap_or_default();
    let request = queue::ReceiveRequest {
        namespace: args.namespace.clone(),
        idempotency_token: None,
        messages_max: args.max,
        wait: Some(wire_duration(wait)),
        lease: args.lease.map(wire_duration),
    };
    let reply: queue::ReceiveResponse = call_within(global, wait, QueueMethod::Receive, &request)?;
    for received in &reply.messages {
        print_received(received, printer)?;
    }
    if reply.messages.is_empty() && !printer.is_json() {
        printer.note("there is no message to work on now");
    }
    printer.finish()?;
    if !args.ack || reply.messages.is_empty() {
        return Ok(());
    }
    let request = queue::AckRequest {
        namespace: args.namespace.clone(),
        idempotency_token: None,
        receipts: reply.messages.into_iter().map(|one| one.receipt).collect(),
    };
    let reply: queue::AckResponse = call(global, QueueMethod::Ack, &request)?;
    first_failure(reply.results.iter().map(|one| &one.status))
}

fn print_received(received: &queue::ReceivedMessage, printer: &mut Printer) -> Result<(), Failure> {
    let message = received.message.clone().unwrap_or_default();
    if !printer.is_json() {
        return printer.line(&format!(
            "{}\t{}\t{}",
            show_bytes(&received.receipt),
            show_bytes(message.ordering_key.as_bytes()),
            show_bytes(&message.payload)
        ));
    }
    let mut object = Map::new();
    insert_bytes(&mut object, "message_id", &received.message_id);
    insert_message(&mut object, &message);
    insert_bytes(&mut object, "receipt", &received.receipt);
    object.insert("attempt".to_owned(), json!(received.attempt));
    if let Some(time) = &received.lease_end_time {
        object.insert("lease_end_time".to_owned(), json!(show_time(time)));
    }
    if let Some(time) = &received.send_time {
        object.insert("send_time".to_owned(), json!(show_time(time)));
    }
    object.insert("last_failure".to_owned(), json!(received.last_failure));
    printer.json(&Value::Object(object))
}

fn insert_message(object: &mut Map<String, Value>, message: &queue::Message) {
    object.insert("ordering_key".to_owned(), json!(message.ordering_key));
    object.insert("attributes".to_owned(), json!(message.attributes));
    insert_bytes(object, "payload", &message.payload);
}

fn peek(args: &PeekArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut states: Vec<i32> = args.state.iter().map(|state| state.number()).collect();
    if args.dead {
        states.push(State::Dead.into());
    }
    let (mut left, mut page_token) = (args.limit, Vec::new());
    loop {
        let request = queue::PeekRequest {
            namespace: args.namespace.clone(),
            states: states.clone(),
            ordering_key: args.key.clone(),
            page_size: u32::try_from(left.clamp(1, 1_000)).unwrap_or(1_000),
            page_token,
            without_payload: false,
        };
        let reply: queue::PeekResponse = call(global, QueueMethod::Peek, &request)?;
        for peeked in reply.messages.iter().take(left) {
            print_peeked(peeked, printer)?;
        }
        left = left.saturating_sub(reply.messages.len());
        if left == 0 || reply.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = reply.next_page_token;
    }
}

fn print_peeked(peeked: &queue::PeekedMessage, printer: &mut Printer) -> Result<(), Failure> {
    let message = peeked.message.clone().unwrap_or_default();
    let state = state_word(peeked.state());
    if !printer.is_json() {
        return printer.line(&format!(
            "{}\t{state}\t{}\t{}\t{}",
            show_bytes(&peeked.message_id),
            show_bytes(message.ordering_key.as_bytes()),
            show_bytes(&message.payload),
            peeked.last_failure
        ));
    }
    let mut object = Map::new();
    insert_bytes(&mut object, "message_id", &peeked.message_id);
    object.insert("state".to_owned(), json!(state));
    insert_message(&mut object, &message);
    object.insert("attempt".to_owned(), json!(peeked.attempt));
    for (name, time) in [
        ("send_time", &peeked.send_time),
        ("state_time", &peeked.state_time),
    ] {
        if let Some(time) = time {
            object.insert(name.to_owned(), json!(show_time(time)));
        }
    }
    object.insert("last_failure".to_owned(), json!(peeked.last_failure));
    printer.json(&Value::Object(object))
}

fn state_word(state: State) -> String {
    state.as_str_name().trim_start_matches("STATE_").to_lowercase()
}

fn stats(args: &StatsArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = queue::StatsRequest {
        namespace: args.namespace.clone(),
    };
    let reply: queue::StatsResponse = call(global, QueueMethod::Stats, &request)?;
    if printer.is_json() {
        let states: Map<String, Value> = reply
            .states
            .iter()
            .map(|one| {
                let oldest = one.oldest_send_time.as_ref().map(show_time);
                let count = json!({"messages": one.messages, "oldest_send_time": oldest});
                (state_word(one.state()), count)
            })
            .collect();
        return printer.json(&Value::Object(states));
    }
    if reply.states.is_empty() {
        return printer.line("the queue is empty");
    }
    for one in &reply.states {
        let oldest = one.oldest_send_time.as_ref().map_or_else(String::new, show_time);
        printer.line(&format!(
            "{}\t{}\t{oldest}",
            state_word(one.state()),
            one.messages
        ))?;
    }
    Ok(())
}

fn receipts(args: &ReceiptArgs) -> Vec<Vec<u8>> {
    args.receipt
        .iter()
        .map(|Bytes(receipt)| receipt.clone())
        .collect()
}

fn which<W>(args: &MoveArgs, ids: impl Fn(queue::MessageIds) -> W, state: impl Fn(i32) -> W) -> W {
    match (args.which.state, args.which.dead) {
        (Some(name), _) => state(name.number()),
        (None, true) => state(State::Dead.into()),
        (None, false) => ids(queue::MessageIds {
            message_ids: args.which.id.iter().map(|Bytes(id)| id.clone()).collect(),
        }),
    }
}

/// Makes calls until nothing is left to be moved.
fn move_all(
    printer: &mut Printer,
    what: &str,
    mut call: impl FnMut(
        Option<prism_codec::proto::prism::common::v1::IdempotencyToken>,
    ) -> Result<(u64, bool), Failure>,
) -> Result<(), Failure> {
    let mut all = 0;
    loop {
        let (moved, more) = call(None)?;
        all += moved;
        if !more {
            break;
        }
    }
    match printer.is_json() {
        true => printer.json(&json!({what: all})),
        false => printer.done(&format!("{all} messages {what}")),
    }
}

fn print_results(
    results: Vec<(Option<Status>, Option<WriteResult>)>,
    what: &str,
    printer: &mut Printer,
) -> Result<(), Failure> {
    for (status, result) in &results {
        let failure = status.as_ref().filter(|status| status.code != 0);
        if printer.is_json() {
            let value = match failure {
                Some(status) => json!({"code": status.code, "error": status.message}),
                None => result_json(*result),
            };
            printer.json(&value)?;
        } else if let Some(status) = failure {
            printer.line(&status.message)?;
        } else {
            printer.done(what)?;
        }
    }
    first_failure(results.iter().map(|(status, _)| status))
}

fn first_failure<'a>(mut statuses: impl Iterator<Item = &'a Option<Status>>) -> Result<(), Failure> {
    let failed = statuses.find_map(|status| status.as_ref().filter(|status| status.code != 0));
    failed.map_or(Ok(()), |status| Err(status_failure(status)))
}

fn wire_duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: time.subsec_nanos() as i32,
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => duration(text, "write 0s, or a time above"),
    }
}
