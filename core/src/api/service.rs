//! The shape of an API: a service, and the requests of its methods. Code that handles calls is
//! generic over them and is compiled for each API, so a call costs no indirection and no allocation
//! for them.

use prism_backends::memory::MemoryStore;
use prism_codec::{grpc::Status, message::common::TokenView, method::Method};
use smallvec::SmallVec;

use crate::call::{
    context::Context,
    footprint::{CallToken, Footprint},
    job::PartOutcome,
    receipt::Receipt,
    record::Part,
};

/// An API of the data plane, and the meaning of its unary calls.
pub(crate) trait Service {
    /// Methods of the API.
    type Method: Copy + Into<Method>;
    /// A decoded request, which borrows from its message.
    type Request<'a>: Request<'a>;

    /// Decodes the request message of a method.
    ///
    /// # Errors
    /// The bytes are no such message, or beyond the limits of the wire.
    fn decode(method: Self::Method, message: &[u8]) -> Result<Self::Request<'_>, Box<Status>>;

    /// Serves a call from a shard's own memory, which holds all its keys. Appends the response
    /// message to `out`.
    ///
    /// # Errors
    /// Nothing was done.
    fn serve(
        memory: &mut MemoryStore,
        method: Self::Method,
        request: &Self::Request<'_>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>>;

    /// Serves the part of a batch with the keys that a shard holds.
    fn serve_part(
        memory: &mut MemoryStore,
        request: &Self::Request<'_>,
        context: &Context,
        part: Part,
    ) -> Vec<PartOutcome>;

    /// Prepares a write, or the part of a batch that a shard owns, for the log.
    ///
    /// # Errors
    /// A store would refuse it; nothing was promised.
    fn loggable(
        method: Self::Method,
        request: &Self::Request<'_>,
        context: &Context,
        part: Option<Part>,
    ) -> Result<Loggable, Box<Status>>;
}

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) trait Request<'a> {
    /// The namespace that the request names.
    fn namespace(&self) -> &'a str;

    /// The idempotency token of a write.
    fn token(&self) -> Option<TokenView<'a>>;

    /// The keys that the request is about, those of a batch in its order; each has one owner among
    /// the shards. None for a request about a whole namespace.
    fn keys(&self, each: impl FnMut(&'a str));

    /// The digest of a write; `None` if it carries no token. Repeats of a call have the same one,
    /// another call under its token has another.
    fn digest(&self) -> Option<u64>;

    /// Compares the request with the limits of its namespace, which the wire's limits do not cover.
    ///
    /// # Errors
    /// The field that exceeds one.
    fn check(&self, value_bytes_max: usize) -> Result<(), Box<Status>>;

    /// The token of a write, with its digest.
    fn call_token(&self) -> Option<CallToken<'a>> {
        let token = self.token()?;
        Some(CallToken {
            time: token.generation_time.map(|time| (time.seconds, time.nanos)),
            token: token.token,
            digest: self.digest()?,
        })
    }

    /// Facts about a write that the log needs.
    fn footprint(&self) -> Footprint<'a> {
        let mut keys = SmallVec::new();
        self.keys(|key| keys.push(key));
        Footprint {
            keys,
            token: self.call_token(),
        }
    }
}

/// A write that is ready for the log.
#[derive(Debug)]
pub(crate) struct Loggable {
    /// Hashes of the keys that it may change.
    pub(crate) keys: SmallVec<[u64; 1]>,
    pub(crate) receipt: Receipt,
}
