//! KeyValue: what its calls mean. Views of the wire in, response messages out.
//!
//! The same code serves the memory store on its shard (inline, without an allocation for a Put of one item) and SQLite on
//! its helper threads. It knows nothing of connections, shards or threads.

pub(crate) mod apply;
mod digest;
pub(crate) mod memory;
pub(crate) mod reads;
pub(crate) mod writes;

use prism_codec::{
    grpc::Status,
    message::{
        common::TokenView,
        keyvalue::{
            CompareAndSwapView, DeleteView, GetView, MutateView, MutationOperation, PutView, ScanView,
        },
    },
    method::KeyValueMethod,
};
use smallvec::SmallVec;

use self::digest::digest_of;
use crate::call::{
    error,
    footprint::{CallToken, Footprint},
};

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) enum Request<'a> {
    Put(PutView<'a>),
    Get(GetView<'a>),
    Delete(DeleteView<'a>),
    Scan(ScanView<'a>),
    Mutate(MutateView<'a>),
    CompareAndSwap(CompareAndSwapView<'a>),
}

impl<'a> Request<'a> {
    /// Decodes the request message of a method.
    pub(crate) fn decode(method: KeyValueMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
        let decoded = match method {
            KeyValueMethod::Put => PutView::decode(message).map(Self::Put),
            KeyValueMethod::Get => GetView::decode(message).map(Self::Get),
            KeyValueMethod::Delete => DeleteView::decode(message).map(Self::Delete),
            KeyValueMethod::Scan => ScanView::decode(message).map(Self::Scan),
            KeyValueMethod::Mutate => MutateView::decode(message).map(Self::Mutate),
            KeyValueMethod::CompareAndSwap => CompareAndSwapView::decode(message).map(Self::CompareAndSwap),
        };
        decoded.map_err(|cause| error::from_decode(&cause))
    }

    /// The namespace that the request names.
    pub(crate) fn namespace(&self) -> &'a str {
        match self {
            Self::Put(view) => view.namespace,
            Self::Get(view) => view.namespace,
            Self::Delete(view) => view.namespace,
            Self::Scan(view) => view.namespace,
            Self::Mutate(view) => view.namespace,
            Self::CompareAndSwap(view) => view.namespace,
        }
    }

    /// The id that the request is about; `None` for those about many.
    pub(crate) fn id(&self) -> Option<&'a str> {
        match self {
            Self::Put(view) => Some(view.id),
            Self::Get(view) => Some(view.id),
            Self::Delete(view) => Some(view.id),
            Self::CompareAndSwap(view) => Some(view.id),
            Self::Scan(_) | Self::Mutate(_) => None,
        }
    }

    /// The idempotency token of a write.
    pub(crate) fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Put(view) => view.token,
            Self::Delete(view) => view.token,
            Self::Mutate(view) => view.token,
            Self::CompareAndSwap(view) => view.token,
            Self::Get(_) | Self::Scan(_) => None,
        }
    }

    /// The ids that the request is about, those of a batch in its order.
    pub(crate) fn keys(&self, mut each: impl FnMut(&'a str)) {
        match self {
            Self::Put(view) => each(view.id),
            Self::Get(view) => each(view.id),
            Self::Delete(view) => each(view.id),
            Self::CompareAndSwap(view) => each(view.id),
            Self::Mutate(view) => view.mutations.iter().for_each(|mutation| each(mutation.id)),
            Self::Scan(_) => {}
        }
    }

    /// The token of a write, with the digest that tells its repeats from other calls.
    pub(crate) fn call_token(&self) -> Option<CallToken<'a>> {
        let token = self.token()?;
        Some(CallToken {
            time: token.generation_time.map(|time| (time.seconds, time.nanos)),
            token: token.token,
            digest: digest_of(self)?,
        })
    }

    /// What the log must know of a write.
    pub(crate) fn footprint(&self) -> Footprint<'a> {
        let mut keys = SmallVec::new();
        self.keys(|key| keys.push(key));
        Footprint {
            keys,
            token: self.call_token(),
        }
    }
}

/// Refuses a token whose clock is too far from the wall clock: its write could win or lose against all others for that long.
pub(crate) fn check_drift(request: &Request<'_>, wall_ns: i64, drift_max_ns: i64) -> Result<(), Box<Status>> {
    let Some(time) = request.token().and_then(|token| token.generation_time) else {
        return Ok(());
    };
    let near = time
        .as_unix_nanos()
        .is_some_and(|time| time.abs_diff(wall_ns) <= drift_max_ns.unsigned_abs());
    if near {
        return Ok(());
    }
    Err(error::invalid(
        "idempotency_token.generation_time",
        &format!(
            "must lie within {} s of the gateway's clock; leave it out to use that clock",
            drift_max_ns / 1_000_000_000
        ),
    ))
}

/// Refuses values above the namespace's own maximum, which the wire's limits do not know.
pub(crate) fn check_values(request: &Request<'_>, value_bytes_max: usize) -> Result<(), Box<Status>> {
    let refuse = |field: &str, length: usize| {
        Err(error::invalid(
            field,
            &format!(
                "must have at most {value_bytes_max} bytes (the namespace's max_message_size), has {length}"
            ),
        ))
    };
    match request {
        Request::Put(view) => match view.items.iter().find(|item| item.value.len() > value_bytes_max) {
            Some(item) => refuse("items[].value", item.value.len()),
            None => Ok(()),
        },
        Request::CompareAndSwap(view) => match &view.item {
            Some(item) if item.value.len() > value_bytes_max => refuse("item.value", item.value.len()),
            _ => Ok(()),
        },
        Request::Mutate(view) => {
            for mutation in view.mutations.iter() {
                if let Ok(MutationOperation::Put(items)) = &mutation.operation
                    && let Some(item) = items.iter().find(|item| item.value.len() > value_bytes_max)
                {
                    return refuse("mutations[].put.items[].value", item.value.len());
                }
            }
            Ok(())
        }
        Request::Get(_) | Request::Delete(_) | Request::Scan(_) => Ok(()),
    }
}
