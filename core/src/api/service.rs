//! The shape of an API: a service, and the requests of its methods. Code that handles calls is
//! generic over them and is compiled for each API, so a call costs no indirection and no allocation
//! for them.

use std::time::Duration;

use prism_backends::{
    NamespaceId, StoreError, UnixMillis,
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::{Code, Status},
    message::common::{TimestampView, TokenView},
    method::Method,
};
use prism_wal::tail::Payload;
use smallvec::SmallVec;

use super::{Applied, Batch, StoreCall, memory::ShardMemory, stream::Opened};
use crate::{
    call::{
        context::Context,
        error,
        footprint::{CallToken, Footprint},
        job::PartOutcome,
        receipt::Receipt,
        record::{LoggedWrite, Part},
    },
    namespace::spec::NamespaceSpec,
};

/// An API of the data plane, and the meaning of its calls.
pub(crate) trait Service {
    /// Methods of the API.
    type Method: Copy + Into<Method>;
    /// A decoded request, which borrows from its message.
    type Request<'a>: Request<'a>;

    /// Whether its streams wait for what its writes bring, so that a write in memory is followed by
    /// a look at them.
    const FEEDS_STREAMS: bool = false;

    /// Whether a token names one call in the whole namespace, so that another call about other keys
    /// is refused under it. The token is then sent by an owner of its own, where a call would reach
    /// the owners of its keys only.
    const TOKENS_SPAN_KEYS: bool = false;

    /// Decodes the request message of a method.
    ///
    /// # Errors
    /// The bytes are no such message, or beyond the limits of the wire.
    fn decode(method: Self::Method, message: &[u8]) -> Result<Self::Request<'_>, Box<Status>>;

    /// Opens the stream that answers a request of a streaming method. `shards`: how many there are.
    ///
    /// # Errors
    /// Nothing was done.
    fn open(
        method: Self::Method,
        request: &Self::Request<'_>,
        spec: &NamespaceSpec,
        shards: u16,
    ) -> Result<Opened, Box<Status>> {
        let _ = (request, spec, shards);
        Err(error::not_served(method.into()))
    }

    // --- in the memory of the shard that holds all keys of the call ------------------------------

    /// Serves a unary call. Appends the response message to `out`.
    ///
    /// # Errors
    /// Nothing was done.
    fn serve(
        memory: &mut ShardMemory,
        method: Self::Method,
        request: &Self::Request<'_>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>>;

    /// Serves the part of a batch with the keys that a shard holds.
    fn serve_part(
        memory: &mut ShardMemory,
        request: &Self::Request<'_>,
        context: &Context,
        part: Part,
    ) -> Vec<PartOutcome>;

    // --- on its way into the log, and from there into the store ----------------------------------

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

    /// Applies records, as [`api::apply`](super::apply) says.
    ///
    /// # Errors
    /// Those of the store.
    fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError>;

    /// Applies the write of a dead letter, as [`api::redrive`](super::redrive) says.
    ///
    /// # Errors
    /// Those of the store.
    fn redrive(writer: &mut Writer, record: &LoggedWrite<'_>, now: UnixMillis) -> Result<(), StoreError>;

    // --- on the threads of SQLite ----------------------------------------------------------------

    /// Applies the writes of many calls, as [`api::write`](super::write) says.
    fn write(
        writer: &mut Writer,
        calls: &[StoreCall<'_>],
        committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    );

    /// Serves a read, as [`api::read`](super::read) says.
    ///
    /// # Errors
    /// Those of the store.
    fn read(
        reader: &Reader,
        call: &StoreCall<'_>,
        unapplied: &[Payload],
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        let _ = (reader, unapplied, out);
        Err(error::not_served(call.method))
    }

    /// When a call that found nothing may find something, if nobody writes before; `None`: then it
    /// does not.
    ///
    /// # Errors
    /// Those of the store.
    fn ready_at(writer: &mut Writer, namespace: NamespaceId) -> Result<Option<UnixMillis>, StoreError> {
        let _ = (writer, namespace);
        Ok(None)
    }
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

    /// Compares the request with what its namespace allows, which the limits of the wire do not
    /// know.
    ///
    /// # Errors
    /// The field that is beyond one.
    fn check(&self, spec: &NamespaceSpec) -> Result<(), Box<Status>>;

    /// Refuses a call by GET that has side effects, which a page must not cause unasked.
    ///
    /// # Errors
    /// The field that causes them.
    fn check_get(&self) -> Result<(), Box<Status>> {
        Ok(())
    }

    /// Compares the time of its token with the gateway's clock.
    ///
    /// # Errors
    /// It is too far off for what its API makes of it.
    fn check_time(time: TimestampView, wall_ns: i64, drift_max: Duration) -> Result<(), Box<Status>>;

    /// How long the call waits for something where there is nothing.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    /// Items that count towards a declared rate: those of a batch, else one.
    fn items(&self) -> u64 {
        1
    }

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

/// Refuses the time of a token that orders writes: one that is too far off could win or lose
/// against all others for that long.
pub(super) fn check_drift(time: TimestampView, wall_ns: i64, drift_max: Duration) -> Result<(), Box<Status>> {
    let near = |time: i64| u128::from(time.abs_diff(wall_ns)) <= drift_max.as_nanos();
    match time.as_unix_nanos().is_some_and(near) {
        true => Ok(()),
        false => Err(error::clock_drift(drift_max)),
    }
}

/// Refuses the time of a token by which a store recognises repeats for `window_ms`: one that is so
/// old that nobody can tell whether the call is a repeat, and one that lies too far ahead.
pub(super) fn check_window(
    time: TimestampView,
    wall_ns: i64,
    drift_max: Duration,
    window_ms: u64,
) -> Result<(), Box<Status>> {
    let time = time.as_unix_nanos().unwrap_or(i64::MAX);
    let drift_max_ns = i64::try_from(drift_max.as_nanos()).unwrap_or(i64::MAX);
    if time.saturating_sub(wall_ns) > drift_max_ns {
        return Err(error::invalid(
            "idempotency_token.generation_time",
            &format!(
                "must lie at most {} s ahead of the gateway's clock; leave it out to use that clock",
                drift_max.as_secs()
            ),
        ));
    }
    let age_ns = u128::from(wall_ns.saturating_sub(time).max(0).cast_unsigned());
    if age_ns <= Duration::from_millis(window_ms).as_nanos() {
        return Ok(());
    }
    let now = (wall_ns / 1_000_000_000).to_string();
    Err(Box::new(
        Status::new(
            Code::FailedPrecondition,
            format!(
                "the idempotency token is older than {} min, so it cannot be told whether the call is a repeat; nothing was \
                 done: look whether the message is there, then publish with a new token",
                window_ms / 60_000
            ),
        )
        .with_reason("TOKEN_EXPIRED", &[("gateway_time", &now)]),
    ))
}

/// A write that is ready for the log.
#[derive(Debug)]
pub(crate) struct Loggable {
    /// Hashes of the keys that it may change.
    pub(crate) keys: SmallVec<[u64; 1]>,
    pub(crate) receipt: Receipt,
}
