//! KeyValue: the meaning of its calls. Views of the wire in, response messages out.
//!
//! The same code serves the memory store on its shard (inline, without an allocation for a Put of
//! one item) and SQLite on its helper threads. It knows nothing of connections, shards or threads.

pub(crate) mod apply;
mod digest;
pub(crate) mod execute;
mod memory;
pub(crate) mod reads;
mod scan;
pub(crate) mod writes;

use std::time::Duration;

use prism_backends::{
    StoreError, UnixMillis,
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::Status,
    message::{
        common::{TimestampView, TokenView},
        keyvalue::{
            CompareAndSwapView, DeleteView, GetView, MutateView, MutationOperation, PutView, ScanView,
        },
    },
    method::KeyValueMethod,
};

use prism_wal::tail::Payload;

use self::{digest::digest_of, scan::Scan};
use super::{
    Applied, Batch, StoreCall,
    memory::ShardMemory,
    service::{Loggable, Request, Service, check_drift},
    stream::Opened,
};
use crate::{
    call::{
        context::Context,
        error,
        job::PartOutcome,
        record::{LoggedWrite, Part},
    },
    namespace::spec::NamespaceSpec,
};

/// The service.
pub(crate) struct KeyValue;

impl Service for KeyValue {
    type Method = KeyValueMethod;
    type Request<'a> = KeyValueRequest<'a>;

    fn decode(method: KeyValueMethod, message: &[u8]) -> Result<KeyValueRequest<'_>, Box<Status>> {
        KeyValueRequest::decode(method, message)
    }

    fn open(
        method: KeyValueMethod,
        request: &KeyValueRequest<'_>,
        spec: &NamespaceSpec,
        shards: u16,
    ) -> Result<Opened, Box<Status>> {
        let KeyValueRequest::Scan(view) = request else {
            return Err(error::not_served(method.into()));
        };
        let scan = Scan::new(spec, shards, reads::selection(&view.selection))?;
        Ok(Opened {
            source: Box::new(scan),
            after_log: true,
        })
    }

    fn serve(
        memory: &mut ShardMemory,
        method: KeyValueMethod,
        request: &KeyValueRequest<'_>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        memory::serve(&mut memory.keyvalue, method, request, context, out)
    }

    fn serve_part(
        memory: &mut ShardMemory,
        request: &KeyValueRequest<'_>,
        context: &Context,
        part: Part,
    ) -> Vec<PartOutcome> {
        memory::serve_part(&mut memory.keyvalue, request, context, part)
    }

    fn loggable(
        method: KeyValueMethod,
        request: &KeyValueRequest<'_>,
        context: &Context,
        part: Option<Part>,
    ) -> Result<Loggable, Box<Status>> {
        writes::loggable(method, request, context, part)
    }

    fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        apply::apply(writer, batch)
    }

    fn redrive(writer: &mut Writer, record: &LoggedWrite<'_>, now: UnixMillis) -> Result<(), StoreError> {
        apply::redrive(writer, record, now)
    }

    fn write(
        writer: &mut Writer,
        calls: &[StoreCall<'_>],
        committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        execute::write(writer, calls, committed, answer);
    }

    fn read(
        reader: &Reader,
        call: &StoreCall<'_>,
        unapplied: &[Payload],
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        execute::read(reader, call, unapplied, out)
    }
}

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) enum KeyValueRequest<'a> {
    Put(PutView<'a>),
    Get(GetView<'a>),
    Delete(DeleteView<'a>),
    Scan(ScanView<'a>),
    Mutate(MutateView<'a>),
    CompareAndSwap(CompareAndSwapView<'a>),
}

impl<'a> KeyValueRequest<'a> {
    fn decode(method: KeyValueMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
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
}

impl<'a> Request<'a> for KeyValueRequest<'a> {
    fn namespace(&self) -> &'a str {
        match self {
            Self::Put(view) => view.namespace,
            Self::Get(view) => view.namespace,
            Self::Delete(view) => view.namespace,
            Self::Scan(view) => view.namespace,
            Self::Mutate(view) => view.namespace,
            Self::CompareAndSwap(view) => view.namespace,
        }
    }

    fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Put(view) => view.token,
            Self::Delete(view) => view.token,
            Self::Mutate(view) => view.token,
            Self::CompareAndSwap(view) => view.token,
            Self::Get(_) | Self::Scan(_) => None,
        }
    }

    fn keys(&self, mut each: impl FnMut(&'a str)) {
        match self {
            Self::Put(view) => each(view.id),
            Self::Get(view) => each(view.id),
            Self::Delete(view) => each(view.id),
            Self::CompareAndSwap(view) => each(view.id),
            Self::Mutate(view) => view.mutations.iter().for_each(|mutation| each(mutation.id)),
            Self::Scan(_) => {}
        }
    }

    fn items(&self) -> u64 {
        match self {
            Self::Mutate(view) => view.mutations.len() as u64,
            _ => 1,
        }
    }

    fn digest(&self) -> Option<u64> {
        digest_of(self)
    }

    fn check_time(time: TimestampView, wall_ns: i64, drift_max: Duration) -> Result<(), Box<Status>> {
        check_drift(time, wall_ns, drift_max)
    }

    fn check(&self, spec: &NamespaceSpec) -> Result<(), Box<Status>> {
        let value_bytes_max = spec.value_bytes_max;
        let refuse = |field: &str, length: usize| {
            Err(error::invalid(
                field,
                &format!(
                    "must have at most {value_bytes_max} bytes (the namespace's max_message_size), has {length}"
                ),
            ))
        };
        match self {
            Self::Put(view) => match view.items.iter().find(|item| item.value.len() > value_bytes_max) {
                Some(item) => refuse("items[].value", item.value.len()),
                None => Ok(()),
            },
            Self::CompareAndSwap(view) => match &view.item {
                Some(item) if item.value.len() > value_bytes_max => refuse("item.value", item.value.len()),
                _ => Ok(()),
            },
            Self::Mutate(view) => {
                for mutation in view.mutations.iter() {
                    if let Ok(MutationOperation::Put(items)) = &mutation.operation
                        && let Some(item) = items.iter().find(|item| item.value.len() > value_bytes_max)
                    {
                        return refuse("mutations[].put.items[].value", item.value.len());
                    }
                }
                Ok(())
            }
            Self::Get(_) | Self::Delete(_) | Self::Scan(_) => Ok(()),
        }
    }
}
