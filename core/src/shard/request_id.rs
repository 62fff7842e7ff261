//! Ids of requests, by which a client and the gateway's diagnostics refer to the same request.
//!
//! A client sends one as `x-request-id`; a request that fails without one gets the gateway's. The
//! id is in the error (`google.rpc.RequestInfo`, over HTTP in `x-request-id`, too) and in the line
//! of diagnostics about it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

use prism_codec::grpc::{Code, Status};
use rustc_hash::FxHashMap;

use crate::{
    call::ticket::{CallId, Ticket},
    dispatch::head::{Extra, Head},
};

/// The response field that carries the id.
pub(super) const FIELD: &str = "x-request-id";

/// Ids that clients sent on the open streams of one connection.
#[derive(Default)]
pub(super) struct RequestIds(FxHashMap<u32, Box<str>>);

impl RequestIds {
    /// Takes the id out of a head's extra fields, and keeps it for the reply.
    pub(super) fn keep(&mut self, stream: u32, extra: Option<&mut Extra>) {
        if let Some(id) = extra.and_then(|extra| extra.request_id.take()) {
            self.0.insert(stream, id);
        }
    }

    pub(super) fn get(&self, stream: u32) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&stream).map(|id| &**id)
    }

    /// Removes the id of a stream that has ended, and returns it.
    #[inline]
    pub(super) fn take(&mut self, stream: u32) -> Option<Box<str>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.remove(&stream)
    }
}

/// Names a failed request: by its client's id, else by one of the gateway's. Returns the id that
/// the reply carries.
#[inline]
pub(super) fn name_failure(
    head: Head,
    given: Option<Box<str>>,
    ticket: impl FnOnce() -> Ticket,
    result: Result<(), Box<Status>>,
) -> (Option<Box<str>>, Result<(), Box<Status>>) {
    match result {
        Ok(()) => (given, Ok(())),
        Err(status) => {
            let id = given.unwrap_or_else(|| own(ticket()));
            let status = mark(head, &id, *status);
            (Some(id), Err(status))
        }
    }
}

/// The gateway's own id for a request: unique among all gateways' processes except with a
/// probability of 2^-32 for each pair.
fn own(ticket: Ticket) -> Box<str> {
    static PROCESS: OnceLock<u32> = OnceLock::new();
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()) as u32);
    let call = match ticket.call {
        CallId::Stream(stream) => u64::from(stream.value()),
        CallId::Request(number) => number,
    };
    let Ticket {
        shard,
        slot,
        generation,
        ..
    } = ticket;
    format!("{process:08x}-{shard}-{slot}.{generation}-{call}").into()
}

/// Writes a line of diagnostics about a failed request and puts its id into the status. A fault of
/// the gateway or its store is a warning; a fault of the client or the moment is written at debug
/// only.
#[cold]
fn mark(head: Head, id: &str, status: Status) -> Box<Status> {
    let is_ours = matches!(status.code, Code::Internal | Code::DataLoss);
    if is_ours || tracing::enabled!(tracing::Level::DEBUG) {
        let method = head.route.method().map_or("", |method| method.spec().path);
        let (code, reason) = (status.code.name(), status.reason().unwrap_or_default());
        let why = &*status.message;
        if is_ours {
            tracing::warn!(request = id, method, code, %reason, why, "a request failed");
        } else {
            tracing::debug!(request = id, method, code, %reason, why, "a request failed");
        }
    }
    Box::new(status.with_request_id(id))
}
