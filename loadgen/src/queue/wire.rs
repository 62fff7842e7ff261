//! Requests and answers of Queue, in the types that are made from its service definition.

use std::time::Duration;

use prism_codec::{
    method::QueueMethod,
    proto::prism::{
        common::v1::IdempotencyToken,
        queue::v1::{
            AckRequest, AckResponse, Message, ReceiveRequest, ReceiveResponse, ReceivedMessage, SendRequest,
            SendResponse, State, StatsRequest, StatsResponse,
        },
    },
};
use prost::Message as _;

use super::books::Acked;

/// Attempts of a message: so many that cut calls do not use them up.
const ATTEMPTS: u32 = 100;

pub(super) const SEND: QueueMethod = QueueMethod::Send;
pub(super) const RECEIVE: QueueMethod = QueueMethod::Receive;
pub(super) const ACK: QueueMethod = QueueMethod::Ack;
pub(super) const STATS: QueueMethod = QueueMethod::Stats;

fn token(bytes: &[u8]) -> Option<IdempotencyToken> {
    Some(IdempotencyToken {
        generation_time: None,
        token: bytes.to_vec(),
    })
}

pub(super) fn send(namespace: &str, token_bytes: Option<&[u8]>, key: String, payload: &[u8]) -> Vec<u8> {
    let message = Message {
        payload: payload.to_vec(),
        ordering_key: key,
        attempts_max: ATTEMPTS,
        ..Message::default()
    };
    let request = SendRequest {
        namespace: namespace.to_owned(),
        idempotency_token: token_bytes.and_then(token),
        message: Some(message),
    };
    request.encode_to_vec()
}

/// The id in an answer to Send.
pub(super) fn sent(answer: &[u8]) -> Result<Vec<u8>, String> {
    let response = SendResponse::decode(answer).map_err(|error| error.to_string())?;
    match response.result {
        Some(_) => Ok(response.message_id),
        None => Err("an answer without a result".to_owned()),
    }
}

pub(super) fn receive(
    namespace: &str,
    token_bytes: &[u8],
    messages_max: u32,
    (wait, lease): (Duration, Duration),
) -> Vec<u8> {
    let duration = |time: Duration| {
        Some(prost_types::Duration {
            seconds: time.as_secs() as i64,
            nanos: time.subsec_nanos() as i32,
        })
    };
    let request = ReceiveRequest {
        namespace: namespace.to_owned(),
        idempotency_token: token(token_bytes),
        messages_max,
        wait: duration(wait),
        lease: duration(lease),
    };
    request.encode_to_vec()
}

pub(super) fn received(answer: &[u8]) -> Result<Vec<ReceivedMessage>, String> {
    let response = ReceiveResponse::decode(answer).map_err(|error| error.to_string())?;
    Ok(response.messages)
}

pub(super) fn ack(namespace: &str, receipts: Vec<Vec<u8>>) -> Vec<u8> {
    let request = AckRequest {
        namespace: namespace.to_owned(),
        idempotency_token: None,
        receipts,
    };
    request.encode_to_vec()
}

/// The outcome of each receipt.
pub(super) fn acked(answer: &[u8]) -> Result<Vec<Acked>, String> {
    const ABORTED: i32 = 10;
    const NOT_FOUND: i32 = 5;
    let response = AckResponse::decode(answer).map_err(|error| error.to_string())?;
    let results = response.results.into_iter();
    Ok(results
        .map(|result| match result.status.map_or(0, |status| status.code) {
            0 => Acked::Done,
            ABORTED | NOT_FOUND => Acked::Late,
            _ => Acked::Unknown,
        })
        .collect())
}

pub(super) fn stats(namespace: &str) -> Vec<u8> {
    let request = StatsRequest {
        namespace: namespace.to_owned(),
    };
    request.encode_to_vec()
}

/// Messages that wait or are with a worker, and dead ones.
pub(super) fn counted(answer: &[u8]) -> Result<(u64, u64), String> {
    let response = StatsResponse::decode(answer).map_err(|error| error.to_string())?;
    let count = |wanted: &[State]| {
        let states = response.states.iter();
        let wanted = states.filter(|state| wanted.contains(&state.state()));
        wanted.map(|state| state.messages).sum()
    };
    let waiting = count(&[State::Ready, State::Delayed, State::Leased]);
    Ok((waiting, count(&[State::Dead])))
}
