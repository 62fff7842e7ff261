//! One worker: receives, looks at what it got, and acks.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prism_codec::proto::prism::queue::v1::ReceivedMessage;

use super::{
    Calls, Common,
    books::{Acked, Fault, Given, is_number},
    wire,
};
use crate::{blocking::Session, messages::Stamp, outcome::Outcome, random::Random, tally::latency_histogram};

/// Longest wait of a Receive for its first message.
const WAIT: Duration = Duration::from_millis(200);

/// Work of one worker.
pub(super) struct Worked {
    /// Calls of Receive that were not empty, and of Ack.
    pub(super) receives: Calls,
    pub(super) acks: Calls,
    /// Messages of the measured time that were given for the first time, and that were done.
    pub(super) given: u64,
    pub(super) done: u64,
    /// Times from when messages were due until they were given, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Messages of earlier loads in the same queue, which are done and not counted.
    pub(super) of_others: u64,
}

/// A message that a worker was given, enough to ack it.
struct Task {
    /// Sender and number; `None` for a message that is not of this load.
    message: Option<(u32, u64)>,
    receipt: Vec<u8>,
}

/// Works until nothing is left, or the load ends.
pub(super) fn run(common: &Common, number: u32) -> Result<Worked, String> {
    let load = &common.load;
    let failed = |error| format!("worker {number}: {error}");
    let random = Random::new(load.seed, u64::from(number) * 2 + 1);
    let session = Session::connect(&load.receiving, load.patience(), random, load.faults);
    let mut session = session.map_err(failed)?;
    let mut worked = Worked {
        receives: Calls::default(),
        acks: Calls::default(),
        given: 0,
        done: 0,
        latency: latency_histogram(),
        of_others: 0,
    };
    let mut token = [0; 21];
    token[0] = b'r';
    token[1..9].copy_from_slice(&load.run.to_be_bytes());
    token[9..13].copy_from_slice(&number.to_be_bytes());
    let mut call = 0u64;
    while !common.is_finished() {
        call += 1;
        token[13..].copy_from_slice(&call.to_be_bytes());
        let tasks = receive(common, &mut session, &token, &mut worked).map_err(failed)?;
        if !tasks.is_empty() {
            ack(common, &mut session, tasks, &mut worked).map_err(failed)?;
        }
    }
    Ok(worked)
}

/// Asks for messages; a call of unknown outcome is made again with its token, which gives the same
/// messages, or its messages come again when their leases end.
fn receive(
    common: &Common,
    session: &mut Session<'_>,
    token: &[u8],
    worked: &mut Worked,
) -> std::io::Result<Vec<Task>> {
    let load = &common.load;
    let request = wire::receive(&load.namespace, token, load.receive_max, (WAIT, load.lease));
    // A lease may have begun with the first attempt.
    let asked_ns = common.now_ns();
    loop {
        let left_ns = common.now_ns();
        let fault = session.draw_fault();
        let path = wire::RECEIVE.spec().path;
        let answer = session.call(path, &request, fault, &|| common.is_finished())?;
        let answered_ns = common.now_ns();
        if answer.outcome != Outcome::OK {
            let again = answer.outcome.is_unknown() && !common.is_finished();
            worked
                .receives
                .record(common, left_ns, answer.outcome, answer.error);
            if again && session.draw_again(answer.outcome) {
                worked.receives.again += 1;
                thread::sleep(super::PAUSE_AGAIN);
                continue;
            }
            thread::sleep(super::PAUSE_AGAIN);
            return Ok(Vec::new());
        }
        let messages = wire::received(&answer.message).unwrap_or_else(|what| {
            common.books(|books| books.fault(Fault::Damaged, || format!("answer to Receive: {what}")));
            Vec::new()
        });
        if !messages.is_empty() {
            worked.receives.record(common, left_ns, Outcome::OK, None);
        }
        let moments = (asked_ns, answered_ns);
        let tasks = messages.into_iter().map(|one| take(common, one, moments, worked));
        return Ok(tasks.collect());
    }
}

/// Notes one message.
fn take(
    common: &Common,
    one: ReceivedMessage,
    (asked_ns, answered_ns): (u64, u64),
    worked: &mut Worked,
) -> Task {
    let load = &common.load;
    let payload = one.message.as_ref().map_or(&[][..], |message| &message.payload);
    let stamp = Stamp::of(payload);
    let whole = stamp.filter(|stamp| stamp.is_whole(payload) && is_number(stamp.number));
    let mine = whole.filter(|stamp| stamp.run == load.run && payload.len() == load.payload_bytes);
    let Some(stamp) = mine else {
        if !whole.is_some_and(|stamp| load.is_of_namespace(stamp.run) && stamp.run != load.run) {
            let length = payload.len();
            common.books(|books| {
                books.fault(Fault::Damaged, || {
                    format!("a message of {length} bytes, {stamp:?}")
                });
            });
        }
        worked.of_others += 1;
        return Task {
            message: None,
            receipt: one.receipt,
        };
    };
    let given = Given {
        sender: stamp.sender,
        number: stamp.number,
        id: &one.message_id,
        receipt: &one.receipt,
        asked_ns,
        answered_ns,
        lease_ns: load.lease.as_nanos() as u64,
    };
    let is_first = common.books(|books| books.given(&given));
    if is_first && common.is_measured(stamp.due_ns) {
        worked.given += 1;
        worked
            .latency
            .saturating_record(answered_ns.saturating_sub(stamp.due_ns));
    }
    Task {
        message: Some((stamp.sender, stamp.number)),
        receipt: one.receipt,
    }
}

/// Says that tasks are done; says it again where nobody knows, which is harmless.
fn ack(
    common: &Common,
    session: &mut Session<'_>,
    tasks: Vec<Task>,
    worked: &mut Worked,
) -> std::io::Result<()> {
    let load = &common.load;
    let begun = Instant::now();
    let receipts = tasks.iter().map(|task| task.receipt.clone()).collect();
    let request = wire::ack(&load.namespace, receipts);
    loop {
        let left_ns = common.now_ns();
        let fault = session.draw_fault();
        let answer = session.call(wire::ACK.spec().path, &request, fault, &|| common.is_finished())?;
        let now_ns = common.now_ns();
        worked.acks.record(common, left_ns, answer.outcome, answer.error);
        let results = match answer.outcome {
            Outcome::OK => wire::acked(&answer.message)
                .and_then(|results| match results.len() == tasks.len() {
                    true => Ok(results),
                    false => Err(format!("{} results for {} receipts", results.len(), tasks.len())),
                })
                .unwrap_or_else(|what| {
                    common.books(|books| books.fault(Fault::Damaged, || format!("answer to Ack: {what}")));
                    vec![Acked::Unknown; tasks.len()]
                }),
            outcome if outcome.is_unknown() => vec![Acked::Unknown; tasks.len()],
            // Nothing was done: the messages come again.
            _ => Vec::new(),
        };
        common.books(|books| {
            for (task, result) in tasks.iter().zip(&results) {
                let Some((sender, number)) = task.message else {
                    continue;
                };
                if books.acked(sender, number, &task.receipt, *result, now_ns) {
                    worked.done += u64::from(common.is_measured(now_ns));
                    common.done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let is_open = results.contains(&Acked::Unknown) || results.is_empty();
        // An Ack counts also after the lease has ended.
        let again = is_open && !common.is_finished() && begun.elapsed() < load.patience();
        if !again || !session.draw_again(answer.outcome) {
            return Ok(());
        }
        worked.acks.again += 1;
        thread::sleep(super::PAUSE_AGAIN);
    }
}
