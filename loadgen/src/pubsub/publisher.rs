//! One publisher: a call at a time, each due after the one before.

use std::{
    thread,
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

use super::{
    Common,
    ledger::{Numbers, Stamp},
};
use crate::{
    outcome::Outcome,
    setup::{Blocking, CallError},
    tally::latency_histogram,
};

/// How long a publisher tries to reach the server again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a call that was not taken.
const PAUSE: Duration = Duration::from_millis(1);

/// Calls of one publisher.
pub(super) struct Published {
    pub(super) acknowledged: Numbers,
    /// Acknowledged calls of the measured time.
    pub(super) measured: u64,
    /// Latencies of those, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// How the calls of the measured time ended.
    pub(super) outcomes: [u64; Outcome::COUNT],
    /// The message of the first error.
    pub(super) first_error: Option<String>,
}

/// Publishes until the end of the load.
pub(super) fn run(common: &Common, number: u32) -> Result<Published, String> {
    let load = &common.load;
    let connect = || Blocking::connect(load.plan.address, &load.plan.headers);
    let mut client = connect().map_err(|error| format!("publisher {number}: {error}"))?;
    let mut published = Published {
        acknowledged: Numbers::default(),
        measured: 0,
        latency: latency_histogram(),
        outcomes: [0; Outcome::COUNT],
        first_error: None,
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
            publisher: number,
            number: call,
            due_ns,
        };
        stamp.put(&mut payload);
        token[12..].copy_from_slice(&call.to_be_bytes());
        encode(common, &token, number, call, &payload, &mut request);
        let result = client.call(PubSubMethod::Publish.spec().path, &request);
        let outcome = match &result {
            Ok(answer) if PublishResponseView::decode(answer).is_ok_and(|view| view.result.is_some()) => {
                Outcome::OK
            }
            Ok(_) => Outcome::WRONG,
            Err(CallError::Refused(outcome, _)) => *outcome,
            Err(CallError::Io(_)) => Outcome::LOST,
        };
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
        if let Err(error) = result {
            let is_lost = matches!(error, CallError::Io(_));
            published.first_error.get_or_insert(error.to_string());
            thread::sleep(PAUSE);
            if is_lost {
                client =
                    reconnect(common, connect).map_err(|error| format!("publisher {number}: {error}"))?;
            }
        }
    }
    Ok(published)
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

fn reconnect<'h>(
    common: &Common,
    connect: impl Fn() -> std::io::Result<Blocking<'h>>,
) -> std::io::Result<Blocking<'h>> {
    let begun = Instant::now();
    loop {
        match connect() {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > PATIENCE || common.is_stopped() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
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
