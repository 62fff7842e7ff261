//! One publisher: a call at a time, each due after the one before.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prism_codec::{
    message::{
        common::TokenView,
        pubsub::{MessageOut, PublishResponseView, encode_publish_request},
    },
    method::PubSubMethod,
};

use super::Common;
use crate::{
    blocking::{Answer, Session},
    messages::{Numbers, Stamp},
    outcome::Outcome,
    random::Random,
    tally::latency_histogram,
};

/// How long a call is made again, and the server is tried to be reached.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where the server is killed meanwhile.
const PATIENCE_OF_CRASHES: Duration = Duration::from_secs(60);
/// Faults that are described and counted.
const WRONG_MAX: usize = 1_000;
/// Pause after a call that was not taken.
const PAUSE: Duration = Duration::from_millis(1);

/// Pause before a call is made again whose outcome is unknown.
const PAUSE_AGAIN: Duration = Duration::from_millis(20);

/// Calls of one publisher.
pub(super) struct Published {
    pub(super) acknowledged: Numbers,
    /// Acknowledged calls of the measured time.
    pub(super) measured: u64,
    /// Latencies of those, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// How the calls of the measured time ended.
    pub(super) outcomes: [u64; Outcome::COUNT],
    /// Messages that were published, whatever came of it.
    pub(super) calls: u64,
    /// Calls that were made again.
    pub(super) again: u64,
    /// The message of the first error.
    pub(super) first_error: Option<String>,
    /// Faults of answers.
    pub(super) wrong: Vec<String>,
}

/// Publishes until the end of the load.
pub(super) fn run(common: &Common, number: u32) -> Result<Published, String> {
    let load = &common.load;
    let random = Random::new(load.seed, u64::from(number) * 2);
    let failed = |error| format!("publisher {number}: {error}");
    let mut session = Session::connect(&load.plan, patience(common), random, load.faults).map_err(failed)?;
    let mut published = Published {
        acknowledged: Numbers::default(),
        measured: 0,
        latency: latency_histogram(),
        outcomes: [0; Outcome::COUNT],
        calls: 0,
        again: 0,
        first_error: None,
        wrong: Vec::new(),
    };
    let mut payload = vec![0xa5; load.payload_bytes];
    let mut request = Vec::new();
    let mut token = [0; 20];
    token[..8].copy_from_slice(&load.run.to_be_bytes());
    token[8..12].copy_from_slice(&number.to_be_bytes());
    for call in 0..load.calls_max {
        let due_ns = match load.rate {
            Some(rate) => due_ns(rate, load.publishers, number, call),
            None => common.now_ns(),
        };
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
        encode(common, &token, number, call, &payload, &mut request);
        published.calls += 1;
        let answer = publish(common, &mut session, &request, &mut published).map_err(failed)?;
        let outcome = judge(common, number, call, &answer, &mut published);
        if outcome == Outcome::OK {
            published.acknowledged.insert(call);
            common
                .published
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        if common.is_measured(due_ns) {
            published.outcomes[outcome.index()] += 1;
            if outcome == Outcome::OK {
                published.measured += 1;
                let latency_ns = common.now_ns().saturating_sub(due_ns);
                published.latency.saturating_record(latency_ns);
            }
        }
        if outcome.is_error() {
            thread::sleep(PAUSE);
        }
        if let Some(error) = answer.error.filter(|_| outcome.is_error()) {
            published.first_error.get_or_insert(error);
        }
    }
    Ok(published)
}

/// Makes a call, and makes it again with its token as long as its outcome is unknown; of those that
/// were cut here, each second one.
fn publish(
    common: &Common,
    session: &mut Session<'_>,
    request: &[u8],
    published: &mut Published,
) -> io::Result<Answer> {
    let begun = Instant::now();
    loop {
        let fault = session.draw_fault();
        let path = PubSubMethod::Publish.spec().path;
        let answer = session.call(path, request, fault, &|| common.is_stopped())?;
        let may_be_done = common.load.tokens && answer.outcome.is_unknown();
        let again = may_be_done && !common.is_stopped() && begun.elapsed() < patience(common);
        if !again || !session.draw_again(answer.outcome) {
            return Ok(answer);
        }
        published.again += 1;
        thread::sleep(PAUSE_AGAIN);
    }
}

/// Looks at an answer: it must be one to this call, so its id is that of the message.
fn judge(common: &Common, number: u32, call: u64, answer: &Answer, published: &mut Published) -> Outcome {
    if answer.outcome != Outcome::OK {
        return answer.outcome;
    }
    let wrong = match PublishResponseView::decode(&answer.message) {
        Ok(view) if view.result.is_none() => "an answer without a result".to_owned(),
        Ok(view) if !common.ids.note(number, call, view.message_id) => {
            "an answer with the id of another message".to_owned()
        }
        Ok(_) => return Outcome::OK,
        Err(error) => error.to_string(),
    };
    if published.wrong.len() < WRONG_MAX {
        published
            .wrong
            .push(format!("publish {call} of publisher {number}: {wrong}"));
    }
    Outcome::WRONG
}

pub(super) fn patience(common: &Common) -> Duration {
    match common.load.crashes {
        true => PATIENCE_OF_CRASHES,
        false => PATIENCE,
    }
}

/// When a call of an open loop is due: the publishers take turns.
fn due_ns(rate: f64, publishers: u32, publisher: u32, call: u64) -> u64 {
    let place = call as f64 * f64::from(publishers) + f64::from(publisher);
    (place / rate * 1e9) as u64
}

fn encode(common: &Common, token: &[u8], publisher: u32, call: u64, payload: &[u8], request: &mut Vec<u8>) {
    let load = &common.load;
    let token = TokenView {
        generation_time: None,
        token,
    };
    let key = format!("{publisher}-{}", call % u64::from(load.keys));
    let message = MessageOut {
        topic: "loadgen",
        payload,
        ordering_key: &key,
        attributes: &[],
    };
    request.clear();
    encode_publish_request(request, &load.namespace, load.tokens.then_some(&token), &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_of_an_open_loop_take_turns() {
        let all: Vec<u64> = (0..3)
            .flat_map(|call| (0..2).map(move |publisher| due_ns(1_000.0, 2, publisher, call)))
            .collect();
        assert_eq!(all, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    }
}
