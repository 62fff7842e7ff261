//! One sender: a call at a time, each due after the one before.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{
    Calls, Common,
    books::{Books, Fault},
    wire,
};
use crate::{
    blocking::{Answer, Session},
    messages::Stamp,
    outcome::Outcome,
    random::Random,
};

/// Sends until the end of the load.
pub(super) fn run(common: &Common, number: u32) -> Result<Calls, String> {
    let load = &common.load;
    let failed = |error| format!("sender {number}: {error}");
    let random = Random::new(load.seed, u64::from(number) * 2);
    let session = Session::connect(&load.plan, load.patience(), random, load.faults);
    let mut session = session.map_err(failed)?;
    let mut calls = Calls::default();
    let mut payload = vec![0; load.payload_bytes];
    let mut token = [0; 20];
    token[..8].copy_from_slice(&load.run.to_be_bytes());
    token[8..12].copy_from_slice(&number.to_be_bytes());
    for call in 0..load.calls_max {
        let due_ns = match load.rate {
            Some(rate) => (call as f64 * f64::from(load.senders) + f64::from(number)) * 1e9 / rate,
            None => common.now_ns() as f64,
        } as u64;
        if due_ns >= load.end_ns || common.is_stopped() {
            break;
        }
        let early = due_ns.saturating_sub(common.now_ns());
        if early > 0 {
            thread::sleep(Duration::from_nanos(early));
        }
        let stamp = Stamp {
            run: load.run,
            sender: number,
            number: call,
            due_ns,
        };
        stamp.fill(&mut payload);
        token[12..].copy_from_slice(&call.to_be_bytes());
        let key = match call.checked_rem(load.keys) {
            Some(key) => format!("{number}-{key}"),
            None => String::new(),
        };
        let request = wire::send(&load.namespace, load.tokens.then_some(&token[..]), key, &payload);
        common.books(|books| books.sending(number, call));
        let (answer, is_first) = send(common, &mut session, &request, &mut calls).map_err(failed)?;
        let outcome = judge(common, number, call, &answer, is_first);
        if outcome == Outcome::OK {
            common.sent.fetch_add(1, Ordering::Relaxed);
        }
        calls.record(common, due_ns, outcome, answer.error);
    }
    Ok(calls)
}

/// Makes a call, and makes it again with its token as long as its outcome is unknown; of those that
/// were cut here, each second one. Returns whether the answer is one to the first attempt.
fn send(
    common: &Common,
    session: &mut Session<'_>,
    request: &[u8],
    calls: &mut Calls,
) -> std::io::Result<(Answer, bool)> {
    let begun = Instant::now();
    let mut is_first = true;
    loop {
        let fault = session.draw_fault();
        let answer = session.call(wire::SEND.spec().path, request, fault, &|| common.is_stopped())?;
        let may_be_done = common.load.tokens && answer.outcome.is_unknown();
        let again = may_be_done && !common.is_stopped() && begun.elapsed() < common.load.patience();
        if !again || !session.draw_again(answer.outcome) {
            return Ok((answer, is_first));
        }
        is_first = false;
        calls.again += 1;
        thread::sleep(super::PAUSE_AGAIN);
    }
}

fn judge(common: &Common, number: u32, call: u64, answer: &Answer, is_first: bool) -> Outcome {
    let wrong = |books: &mut Books, what: String| {
        books.fault(Fault::Damaged, || {
            format!("answer to send {call} of sender {number}: {what}")
        });
        Outcome::WRONG
    };
    common.books(|books| match answer.outcome {
        Outcome::OK => match wire::sent(&answer.message) {
            Ok(id) => {
                books.acknowledged(number, call, &id);
                Outcome::OK
            }
            Err(what) => wrong(books, what),
        },
        outcome => {
            // A refused repeat says nothing of the first attempt.
            if is_first && !outcome.is_unknown() {
                books.refused(number, call);
            }
            outcome
        }
    })
}
