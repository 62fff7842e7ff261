//! The one place where errors of the layers below become gRPC status.
//!
//! Every status shows whose fault it is and what to do; programs find a `reason` in its `ErrorInfo`
//! (domain `prism`).

use std::time::Duration;

use prism_backends::StoreError;
use prism_codec::{
    error::DecodeError,
    grpc::{Code, Status},
    limits,
    method::{Api, Method},
};
use prism_wal::{disk::DiskErrorKind, group_commit::AppendError};

use crate::namespace::{spec::NamespaceSpec, state::NamespaceState};

/// Delay after which a shed call is worth trying again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

const UNKNOWN_OUTCOME: &str = "UNKNOWN_OUTCOME";
const TOKEN_REUSED: &str = "TOKEN_REUSED";

/// Makes a status without details.
pub(crate) fn status(code: Code, message: &'static str) -> Box<Status> {
    Box::new(Status::new(code, message))
}

/// A field of the request is wrong.
pub(crate) fn invalid(field: &str, description: &str) -> Box<Status> {
    Box::new(
        Status::new(Code::InvalidArgument, format!("{field}: {description}"))
            .with_reason("INVALID_FIELD", &[("field", field)])
            .with_violations(&[(field, description)]),
    )
}

/// The time of an idempotency token is too far from the gateway's clock.
#[cold]
pub(crate) fn clock_drift(max: Duration) -> Box<Status> {
    invalid(
        "idempotency_token.generation_time",
        &format!(
            "must lie within {} s of the gateway's clock; leave it out to use that clock",
            max.as_secs()
        ),
    )
}

/// The request message cannot be read.
#[cold]
pub(crate) fn from_decode(cause: &DecodeError) -> Box<Status> {
    Box::new(Status::from_decode_error(cause))
}

/// The request names a namespace that does not exist.
#[cold]
pub(crate) fn unknown_namespace(name: &str) -> Box<Status> {
    if name.is_empty() {
        return invalid("namespace", "must be set");
    }
    let shown: String = name.chars().take(64).collect();
    Box::new(
        Status::new(
            Code::NotFound,
            format!("namespace \"{shown}\" does not exist; create it with `prism namespace create FILE`"),
        )
        .with_reason("NAMESPACE_UNKNOWN", &[("namespace", &shown)]),
    )
}

/// The caller has not proved who it is; nothing was done. One sentence for all causes.
#[cold]
pub(crate) fn unauthenticated() -> Box<Status> {
    Box::new(Status::new(Code::Unauthenticated, "no valid credentials").with_reason("UNAUTHENTICATED", &[]))
}

/// The caller lacks a permission, or the namespace does not exist: one answer, so that nobody
/// learns which. Nothing was done.
#[cold]
pub(crate) fn access_denied() -> Box<Status> {
    Box::new(
        Status::new(
            Code::PermissionDenied,
            "access denied: no such namespace, or no permission for it; ask its owner for a grant",
        )
        .with_reason("ACCESS_DENIED", &[]),
    )
}

/// The caller has lost a permission while its stream was open, or its call waited.
#[cold]
pub(crate) fn access_revoked() -> Box<Status> {
    Box::new(
        Status::new(
            Code::PermissionDenied,
            "access revoked: the permission for this namespace was taken back; ask its owner for a grant",
        )
        .with_reason("ACCESS_REVOKED", &[]),
    )
}

/// The namespace belongs to another API; nothing was done.
#[cold]
pub(crate) fn other_api(name: &str, api: Api) -> Box<Status> {
    Box::new(
        Status::new(
            Code::FailedPrecondition,
            format!("namespace \"{name}\" takes calls of {} only", api.service()),
        )
        .with_reason("OTHER_API", &[("namespace", name), ("service", api.service())]),
    )
}

/// This version lacks the method, so no namespace serves it; nothing was done.
#[cold]
pub(crate) fn not_served(method: Method) -> Box<Status> {
    let path = method.spec().path;
    Box::new(
        Status::new(
            Code::Unimplemented,
            format!("{path} is not served by this version; nothing was done"),
        )
        .with_reason("NAMESPACE_UNSUPPORTED", &[("method", path)]),
    )
}

/// The namespace is not ready yet, is being deleted, or waits for an operator; nothing was done.
#[cold]
pub(crate) fn not_in_service(spec: &NamespaceSpec) -> Box<Status> {
    let shown = &spec.name;
    let namespace = [("namespace", shown.as_str())];
    if let Some(trouble) = &spec.trouble {
        let message = format!(
            "namespace \"{shown}\" is out of service: {trouble}; nothing was done. Its data is kept; an operator must look"
        );
        return Box::new(
            Status::new(Code::FailedPrecondition, message)
                .with_reason("NAMESPACE_OUT_OF_SERVICE", &namespace),
        );
    }
    Box::new(match spec.state {
        NamespaceState::Deleting => Status::new(
            Code::FailedPrecondition,
            format!("namespace \"{shown}\" is being deleted; nothing was done"),
        )
        .with_reason("NAMESPACE_DELETING", &namespace),
        _ => Status::new(
            Code::Unavailable,
            format!(
                "namespace \"{shown}\" is not ready yet: its store is still being prepared; nothing was done, try again in \
                 a moment (`prism namespace show {shown}` says how far it is)"
            ),
        )
        .with_reason("NAMESPACE_NOT_READY", &namespace)
        .with_retry_after(Duration::from_secs(1)),
    })
}

/// Progress of a call when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The answer was not ready.
    Answer,
    /// It waited for the shard that owns its key.
    Owner,
    /// It waited for its store.
    Store,
}

/// The deadline passed. Before `Stage::Answer` nothing was done; from then on a write's outcome is
/// unknown.
#[cold]
pub(crate) fn deadline_exceeded(stage: Stage) -> Box<Status> {
    status(
        Code::DeadlineExceeded,
        match stage {
            Stage::Answer => "the deadline passed before the answer was ready",
            Stage::Owner => "the deadline passed before the owner of the key was asked",
            Stage::Store => "the deadline passed before the store was asked",
        },
    )
}

/// The gateway is starting or draining; nothing was done.
#[cold]
pub(crate) fn not_serving() -> Box<Status> {
    Box::new(
        Status::new(
            Code::Unavailable,
            "the gateway is starting or draining; try again in a moment",
        )
        .with_reason("NOT_SERVING", &[])
        .with_retry_after(RETRY_AFTER),
    )
}

/// A maximum is reached; nothing was done.
#[cold]
pub(crate) fn overloaded(what: &'static str) -> Box<Status> {
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!("{what}; nothing was done, try again in a moment"),
        )
        .with_reason("OVERLOADED", &[])
        .with_retry_after(RETRY_AFTER),
    )
}

/// The namespace's declared rate is used up; nothing was done.
#[cold]
pub(crate) fn rate_limited(namespace: &str, limit: &str, declared: u64, wait: Duration) -> Box<Status> {
    let declared = declared.to_string();
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!(
                "namespace \"{namespace}\" declares {limit} {declared}, and more calls than that arrive; nothing was done, try again \
                 in a moment, or declare more"
            ),
        )
        .with_reason(
            "RATE_LIMITED",
            &[("namespace", namespace), ("limit", limit), ("declared", &declared)],
        )
        .with_retry_after(wait),
    )
}

/// The batch has more items than the declared rate lets through at once; nothing was done.
#[cold]
pub(crate) fn batch_too_large(namespace: &str, limit: &str, items: u64, max: u64) -> Box<Status> {
    let max = max.to_string();
    Box::new(
        Status::new(
            Code::InvalidArgument,
            format!(
                "the call has {items} items, and namespace \"{namespace}\" lets at most {max} through at once ({limit}); nothing was \
                 done: send them in several calls, or declare more"
            ),
        )
        .with_reason(
            "BATCH_TOO_LARGE",
            &[("namespace", namespace), ("limit", limit), ("items_max", &max)],
        ),
    )
}

/// The caller's connection has too many unread answers; nothing was done.
#[cold]
pub(crate) fn unread_answers(bytes_max: usize) -> Box<Status> {
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!(
                "this connection leaves {bytes_max} bytes of answers unread, the most that is allowed \
                 (limits.output_bytes_max); nothing was done: read them, or use another connection"
            ),
        )
        .with_reason("ANSWERS_UNREAD", &[("limit_bytes", &bytes_max.to_string())])
        .with_retry_after(RETRY_AFTER),
    )
}

/// The request's header fields are too large.
#[cold]
pub(crate) fn large_head() -> Box<Status> {
    let max = limits::HTTP2_HEADER_LIST_MAX;
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!("the request's header fields (metadata) are larger than {max} bytes; nothing was done: send less of them"),
        )
        .with_reason("HEADERS_TOO_LARGE", &[("limit_bytes", &max.to_string())]),
    )
}

/// A request did not become complete in time; nothing was done.
#[cold]
pub(crate) fn request_incomplete() -> Box<Status> {
    Box::new(
        Status::new(
            Code::DeadlineExceeded,
            "the request did not become complete in time (limits.receive_timeout, limits.body_rate_min); nothing was done",
        )
        .with_reason("REQUEST_INCOMPLETE", &[]),
    )
}

/// Too much waits for the store; `whose` owns the quota.
#[cold]
pub(crate) fn unapplied_quota(whose: &str, bytes_max: usize) -> Box<Status> {
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!(
                "{bytes_max} bytes of {whose} acknowledged writes wait for the store, the most that is allowed in a shard \
                 (wal.unapplied_bytes_max); nothing was done, try again in a moment"
            ),
        )
        .with_reason("STORE_BEHIND", &[])
        .with_retry_after(RETRY_AFTER),
    )
}

/// The log refused a record; nothing was done. `no_segment` is the reason why its next file could
/// not be made.
#[cold]
pub(crate) fn from_append(cause: AppendError, no_segment: Option<DiskErrorKind>) -> Box<Status> {
    let second = Some(Duration::from_secs(1));
    let (code, reason, after) = match (cause, no_segment) {
        (AppendError::TooLong, _) => (Code::InvalidArgument, "LOG_RECORD_TOO_LONG", None),
        (AppendError::Full, _) => (Code::ResourceExhausted, "LOG_BEHIND", Some(RETRY_AFTER)),
        (AppendError::NoSegment, None | Some(DiskErrorKind::NoSpace)) => {
            (Code::ResourceExhausted, "LOG_FULL", second)
        }
        (AppendError::NoSegment, Some(_)) => (Code::Unavailable, "LOG_UNAVAILABLE", second),
        (AppendError::Stalled, _) => (Code::Unavailable, "LOG_STALLED", second),
        (AppendError::Poisoned, _) => (Code::Unavailable, "LANE_POISONED", None),
    };
    let advice = match (cause, no_segment) {
        (AppendError::TooLong, _) => "send less at a time".to_owned(),
        (AppendError::NoSegment, None) => {
            "the log waits for the store, or for its next file; try again".to_owned()
        }
        (AppendError::NoSegment, Some(DiskErrorKind::NoSpace)) => {
            "the disk is full, or the log waits for the store; try again".to_owned()
        }
        (AppendError::NoSegment, Some(kind)) => format!("its next file cannot be made: {kind}"),
        (AppendError::Poisoned, _) => "the log's disk failed; the gateway must be restarted".to_owned(),
        (AppendError::Full | AppendError::Stalled, _) => "try again in a moment".to_owned(),
    };
    let status = Status::new(code, format!("{cause}; nothing was done: {advice}")).with_reason(reason, &[]);
    Box::new(match after {
        Some(delay) => status.with_retry_after(delay),
        None => status,
    })
}

/// The log cannot be made; nothing was done.
#[cold]
pub(crate) fn no_log(cause: &str) -> Box<Status> {
    Box::new(
        Status::new(
            Code::Unavailable,
            format!("the log, which this durability needs, cannot be made: {cause}"),
        )
        .with_reason("LOG_UNAVAILABLE", &[]),
    )
}

/// The token belongs to another call; nothing was done.
#[cold]
pub(crate) fn token_reused() -> Box<Status> {
    Box::new(
        Status::new(
            Code::InvalidArgument,
            "the idempotency token belongs to another call, of which this one is no repeat; nothing was done. Make a token \
             for each call, and send the same call again with the same token",
        )
        .with_reason(TOKEN_REUSED, &[]),
    )
}

/// The shard's lane must not be used.
#[cold]
pub(crate) fn lane_held(why: &str) -> Box<Status> {
    Box::new(
        Status::new(
            Code::Unavailable,
            format!("the part of the log that holds this key is held; nothing was done. An operator must look: {why}"),
        )
        .with_reason("LANE_HELD", &[]),
    )
}

/// The log's disk failed before a write was acknowledged.
#[cold]
pub(crate) fn unknown_outcome() -> Box<Status> {
    Box::new(
        Status::new(
            Code::Unavailable,
            "the log's disk failed while the write was under way: whether it took effect is known after the gateway's \
             restart; repeat it then with the same idempotency token",
        )
        .with_reason(UNKNOWN_OUTCOME, &[]),
    )
}

/// Whether a status is that of [`unknown_outcome`]: its writes may have been done.
#[cold]
pub(crate) fn is_unknown_outcome(status: &Status) -> bool {
    status.reason().as_deref() == Some(UNKNOWN_OUTCOME)
}

/// Some mutations of a Mutate took effect, and a shard refused the others for this reason.
#[cold]
pub(crate) fn partly_done(cause: &Status) -> Box<Status> {
    let reason = cause.reason().unwrap_or_default();
    let advice = match reason == TOKEN_REUSED {
        true => "Send those again in a call of their own",
        false => "Repeat the call with the same idempotency token",
    };
    Box::new(
        Status::new(
            Code::Unavailable,
            format!(
                "some of the mutations took effect; of the others: {}. {advice}",
                cause.message
            ),
        )
        .with_reason("PARTLY_DONE", &[("cause", &reason)]),
    )
}

/// Converts an error of a store.
#[cold]
pub(crate) fn from_store(cause: &StoreError) -> Box<Status> {
    let sentence = cause.to_string();
    match cause {
        StoreError::InvalidArgument { field, reason } => invalid(field, reason),
        StoreError::TokenReused => token_reused(),
        StoreError::InvalidPageToken => invalid(
            "selection.page_token",
            "is not a token of this query; start again without one",
        ),
        StoreError::UnknownNamespace(_) | StoreError::DroppedNamespace(_) => Box::new(
            Status::new(Code::NotFound, "the namespace has just been deleted")
                .with_reason("NAMESPACE_UNKNOWN", &[]),
        ),
        StoreError::Full { .. } => Box::new(
            Status::new(Code::ResourceExhausted, sentence)
                .with_reason("STORE_FULL", &[])
                .with_retry_after(Duration::from_secs(10)),
        ),
        StoreError::Busy { .. } => Box::new(
            Status::new(Code::Unavailable, sentence)
                .with_reason("STORE_BUSY", &[])
                .with_retry_after(RETRY_AFTER),
        ),
        StoreError::Unreachable { .. } => Box::new(
            Status::new(Code::Unavailable, format!("{sentence}; nothing was done"))
                .with_reason("STORE_UNREACHABLE", &[])
                .with_retry_after(RETRY_AFTER),
        ),
        StoreError::Io { .. } => Box::new(
            Status::new(
                Code::Unavailable,
                format!("{sentence}; repeat the call with the same idempotency token"),
            )
            .with_reason("STORE_IO", &[])
            .with_retry_after(RETRY_AFTER),
        ),
        StoreError::Corrupt { .. } => {
            Box::new(Status::new(Code::DataLoss, sentence).with_reason("STORE_CORRUPT", &[]))
        }
        StoreError::Unopenable { .. } | StoreError::WrongFormat { .. } | StoreError::Internal { .. } => {
            Box::new(Status::new(Code::Internal, sentence).with_reason("STORE_FAILED", &[]))
        }
    }
}
