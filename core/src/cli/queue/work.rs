//! `prism queue work`: a command for each message. Its exit code says what became of the work.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use prism_codec::method::QueueMethod;
use prism_codec::proto::prism::queue::v1 as queue;

use super::{call, call_within, first_failure, show_bytes, time, wire_duration};
use crate::cli::output::Printer;
use crate::cli::{Exit, Failure, Global};

/// How long one call waits for a message.
const WAIT: Duration = Duration::from_secs(20);
/// Pause before a gateway that cannot be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(in crate::cli) struct WorkArgs {
    /// The namespace
    namespace: String,
    /// Lease that is renewed while the command runs, from 3s
    #[arg(long, value_name = "DURATION", value_parser = time, default_value = "30s")]
    lease: Duration,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End when there is no message to work on
    #[arg(long)]
    until_empty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(super) fn run(args: &WorkArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    if args.lease < Duration::from_secs(3) {
        return Err(Failure::new(
            Exit::Usage,
            "--lease must be at least 3s: it is renewed each third of it",
        ));
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut has_worked = false;
    while left > 0 {
        let message = match next(args, global) {
            Ok(Some(message)) => message,
            Ok(None) if args.until_empty => return Ok(()),
            Ok(None) => continue,
            // A gateway that restarts is away for a moment; one that was never reached is another
            // matter.
            Err(failure) if has_worked && failure.exit == Exit::Unreachable => {
                thread::sleep(RETRY_PAUSE);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        has_worked = true;
        left -= 1;
        let reason = work(args, global, &message)?;
        report(args, global, &message, reason, printer)?;
    }
    Ok(())
}

fn next(args: &WorkArgs, global: &Global) -> Result<Option<queue::ReceivedMessage>, Failure> {
    let wait = if args.until_empty { Duration::ZERO } else { WAIT };
    let request = queue::ReceiveRequest {
        namespace: args.namespace.clone(),
        idempotency_token: None,
        messages_max: 1,
        wait: Some(wire_duration(wait)),
        lease: Some(wire_duration(args.lease)),
    };
    let reply: queue::ReceiveResponse = call_within(global, wait, QueueMethod::Receive, &request)?;
    Ok(reply.messages.into_iter().next())
}

/// Runs the command for a message. `None`: the work is done; else why it is not.
fn work(
    args: &WorkArgs,
    global: &Global,
    received: &queue::ReceivedMessage,
) -> Result<Option<String>, Failure> {
    let message = received.message.clone().unwrap_or_default();
    let (program, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::new(Exit::Usage, "write the command after --"))?;
    let spawned = Command::new(program)
        .args(arguments)
        .env("PRISM_MESSAGE_ID", show_bytes(&received.message_id))
        .env("PRISM_ATTEMPT", received.attempt.to_string())
        .env("PRISM_KEY", &message.ordering_key)
        .stdin(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            // No message is to blame for that.
            give_back(
                args,
                global,
                received,
                &format!("cannot run {program}: {error}"),
                true,
            )?;
            let what = format!("cannot run {program}: {error}; the message was given back");
            return Err(Failure::new(Exit::Usage, what));
        }
    };
    let input = child.stdin.take();
    let payload = message.payload;
    let writer = thread::spawn(move || {
        if let Some(mut input) = input {
            // A command that reads nothing of it, or not all, may still do its work.
            let _ = input.write_all(&payload);
        }
    });
    let status = wait(args, global, received, child)?;
    let _ = writer.join();
    Ok((!status.success()).then(|| status.to_string()))
}

/// Waits for the command, and keeps the lease meanwhile.
fn wait(
    args: &WorkArgs,
    global: &Global,
    received: &queue::ReceivedMessage,
    mut child: Child,
) -> Result<std::process::ExitStatus, Failure> {
    let (sender, ended) = channel();
    thread::spawn(move || {
        let _ = sender.send(child.wait());
    });
    loop {
        match ended.recv_timeout(args.lease / 3) {
            Ok(status) => {
                return status.map_err(|error| {
                    Failure::new(Exit::No, format!("cannot wait for the command: {error}"))
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                let request = queue::ExtendRequest {
                    namespace: args.namespace.clone(),
                    idempotency_token: None,
                    receipts: vec![received.receipt.clone()],
                    lease: Some(wire_duration(args.lease)),
                };
                // If that fails the message may come again; the command's own end decides.
                let _: Result<queue::ExtendResponse, Failure> = call(global, QueueMethod::Extend, &request);
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(Exit::No, "the command's end was not seen"));
            }
        }
    }
}

/// Tells the gateway what became of the work.
fn report(
    args: &WorkArgs,
    global: &Global,
    received: &queue::ReceivedMessage,
    reason: Option<String>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let id = show_bytes(&received.message_id);
    if let Some(reason) = reason {
        give_back(args, global, received, &reason, false)?;
        printer.note(&format!("{id}: {reason}; it comes again later, or is dead"));
        return Ok(());
    }
    let request = queue::AckRequest {
        namespace: args.namespace.clone(),
        idempotency_token: None,
        receipts: vec![received.receipt.clone()],
    };
    let reply: queue::AckResponse = call(global, QueueMethod::Ack, &request)?;
    match first_failure(reply.results.iter().map(|one| &one.status)) {
        Ok(()) => printer.done(&format!("{id} done")),
        Err(failure) => {
            printer.note(&format!("{id}: {}", failure.message));
            Ok(())
        }
    }
}

fn give_back(
    args: &WorkArgs,
    global: &Global,
    received: &queue::ReceivedMessage,
    reason: &str,
    uncounted: bool,
) -> Result<(), Failure> {
    let request = queue::NackRequest {
        namespace: args.namespace.clone(),
        idempotency_token: None,
        receipts: vec![received.receipt.clone()],
        delay: None,
        reason: reason.to_owned(),
        dead: false,
        uncounted,
    };
    let _: queue::NackResponse = call(global, QueueMethod::Nack, &request)?;
    Ok(())
}
