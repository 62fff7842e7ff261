//! Errors of a store, and whose fault each is. One place of the gateway maps them to gRPC status.

use std::fmt;

use crate::ids::NamespaceId;

/// The reason why a store did not carry out a call. [`StoreError::is_retryable`]: the same call may
/// succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The caller's fault: `field` breaks a limit or a rule. Permanent.
    InvalidArgument {
        /// Path of the field as in the protobuf message, e.g. `items[3].key`.
        field: String,
        /// The fault, and what is allowed.
        reason: String,
    },
    /// The mutation has the version of another call with another digest: its token was used twice.
    /// Nothing was changed. Permanent; the caller needs a token of its own.
    TokenReused,
    /// The page token was not made for this query by this store, or was altered. Permanent; start
    /// without a token.
    InvalidPageToken,
    /// There is no such namespace in this store. Permanent.
    UnknownNamespace(NamespaceId),
    /// The namespace was dropped; its number is never used again. Permanent.
    DroppedNamespace(NamespaceId),
    /// The store has no room left (disk full, size limit). Nothing was changed. Retryable once
    /// there is room.
    Full {
        /// The store's own words.
        detail: String,
    },
    /// Another process holds the store's lock for longer than we wait. Nothing was changed.
    /// Retryable.
    Busy {
        /// The store's own words.
        detail: String,
    },
    /// The store's server cannot be reached. Nothing was changed. Retryable.
    Unreachable {
        /// The server, and the reason.
        detail: String,
    },
    /// Reading or writing failed. Whether the change took place is unknown after a failed commit.
    /// Retryable with the same version.
    Io {
        /// The words of the store or the system.
        detail: String,
    },
    /// The path cannot be opened: missing, not writable, no permission. Permanent until an operator
    /// acts.
    Unopenable {
        /// The path, and the system's words.
        detail: String,
    },
    /// The file is not one of ours, or has a newer format than this program knows. Permanent.
    WrongFormat {
        /// The path, the format found and the format expected.
        detail: String,
    },
    /// Stored data contradicts itself. Permanent until an operator acts.
    Corrupt {
        /// The contradiction found.
        detail: String,
    },
    /// A fault of this program. Permanent.
    Internal {
        /// Description of the fault.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without any change to it.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Full { .. }
            | StoreError::Busy { .. }
            | StoreError::Unreachable { .. }
            | StoreError::Io { .. } => true,
            StoreError::InvalidArgument { .. }
            | StoreError::TokenReused
            | StoreError::InvalidPageToken
            | StoreError::UnknownNamespace(_)
            | StoreError::DroppedNamespace(_)
            | StoreError::Unopenable { .. }
            | StoreError::WrongFormat { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Internal { .. } => false,
        }
    }

    /// Refuses what is longer than `max` bytes.
    pub(crate) fn check_length(field: &str, length: usize, max: usize) -> Result<(), StoreError> {
        match length <= max {
            true => Ok(()),
            false => Err(StoreError::invalid(
                field,
                format!("must have at most {max} bytes, has {length}"),
            )),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> StoreError {
        StoreError::InvalidArgument {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::InvalidArgument { field, reason } => write!(f, "{field}: {reason}"),
            StoreError::TokenReused => f.write_str("the token belongs to another call"),
            StoreError::InvalidPageToken => {
                write!(
                    f,
                    "page_token: not a token of this query; start again without one"
                )
            }
            StoreError::UnknownNamespace(NamespaceId(id)) => write!(f, "the store has no namespace {id}"),
            StoreError::DroppedNamespace(NamespaceId(id)) => write!(f, "namespace {id} was dropped"),
            StoreError::Full { detail } => write!(f, "the store is full: {detail}"),
            StoreError::Busy { detail } => write!(f, "the store is locked by somebody else: {detail}"),
            StoreError::Unreachable { detail } => write!(f, "the store is out of reach: {detail}"),
            StoreError::Io { detail } => write!(f, "the store could not read or write: {detail}"),
            StoreError::Unopenable { detail } => write!(f, "the store cannot be opened: {detail}"),
            StoreError::WrongFormat { detail } => write!(f, "the store's file cannot be used: {detail}"),
            StoreError::Corrupt { detail } => write!(f, "the store's data is damaged: {detail}"),
            StoreError::Internal { detail } => write!(f, "a fault of the store: {detail}"),
        }
    }
}

impl std::error::Error for StoreError {}
