//! Faults of the catalog, and the sentences that an operator reads.

use std::{fmt, path::PathBuf};

use rusqlite::ErrorCode;

use super::schema::SCHEMA_VERSION;
use crate::namespace::problem::Problem;

/// Why the catalog could not be opened or did not do as asked.
#[derive(Debug)]
pub(crate) enum CatalogError {
    /// The directory cannot be made or written. The operator's to mend.
    Directory {
        /// The data directory.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Another process has the catalog open.
    Busy {
        /// The file.
        place: String,
    },
    /// The file is not a catalog, or damaged.
    Corrupt {
        /// The file.
        place: String,
        /// SQLite's words.
        reason: String,
    },
    /// The file was written by a newer version.
    NewerSchema {
        /// The file.
        place: String,
        /// Schema version of the file.
        found: i32,
    },
    /// There are as many namespaces as allowed, or ids are used up.
    Full {
        /// How many that is.
        limit: u64,
        /// How many more were asked for.
        asked: usize,
    },
    /// The stored file of one namespace is not accepted by this version.
    Entry {
        /// The namespace.
        name: String,
        /// Why.
        problems: Vec<Problem>,
    },
    /// The database of a shared catalog cannot be reached, or may forget what it acknowledges.
    /// Nothing was done.
    Unreachable {
        /// Why, in the words of the driver.
        reason: String,
    },
    /// The database of a shared catalog has not answered: the change may have been recorded.
    Unknown {
        /// Why, in the words of the driver.
        reason: String,
    },
    /// Another gateway has changed the namespace meanwhile, or goes on with its change.
    Superseded,
    /// The shared catalog cannot be used as it is configured.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// SQLite or the disk below it failed.
    Store {
        /// The file.
        place: String,
        /// SQLite's words.
        reason: String,
    },
}

impl fmt::Display for CatalogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, reason } => {
                write!(
                    formatter,
                    "cannot use the data directory {}: {reason}; choose another with --data-dir",
                    path.display()
                )
            }
            Self::Busy { place } => {
                write!(
                    formatter,
                    "the catalog {place} is in use by another process; stop it or choose another --data-dir"
                )
            }
            Self::Corrupt { place, reason } => {
                write!(
                    formatter,
                    "the catalog {place} is damaged or not a catalog ({reason}); restore it from a backup or move it away"
                )
            }
            Self::NewerSchema { place, found } => write!(
                formatter,
                "the catalog {place} has schema version {found}, this program knows up to {SCHEMA_VERSION}; use a newer prism"
            ),
            Self::Full { limit, asked: 1 } => write!(
                formatter,
                "there are {limit} namespaces already, and that is the limit"
            ),
            Self::Full { limit, asked } => write!(
                formatter,
                "{asked} more namespaces are above the limit of {limit} (limits.namespaces_max); none was created"
            ),
            Self::Entry { name, problems } => {
                let first = problems.first().map_or(String::new(), ToString::to_string);
                write!(
                    formatter,
                    "the stored file of namespace \"{name}\" is not accepted any more: {first}"
                )
            }
            Self::Unreachable { reason } => write!(
                formatter,
                "the shared catalog cannot be used: {reason}; nothing was done, and namespaces that are there are served: \
                 look at the database of catalog.url, and try again"
            ),
            Self::Unknown { reason } => write!(
                formatter,
                "the shared catalog has not answered: {reason}; the change may have been recorded, and is finished then: \
                 `prism namespace list` shows it once the database answers"
            ),
            Self::Superseded => formatter.write_str("another gateway has changed the namespace meanwhile"),
            Self::Refused { reason } => formatter.write_str(reason),
            Self::Store { place, reason } => write!(
                formatter,
                "the catalog {place} cannot be read or written: {reason}"
            ),
        }
    }
}

impl std::error::Error for CatalogError {}

/// A fault of SQLite that is not classified yet, or one of ours.
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Ours(CatalogError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    pub(super) fn classify(self, place: &str) -> CatalogError {
        match self {
            Self::Sqlite(error) => classify(place, &error),
            Self::Ours(error) => error,
        }
    }
}

/// The meaning of an SQLite error to the operator.
pub(super) fn classify(place: &str, error: &rusqlite::Error) -> CatalogError {
    let (place, reason) = (place.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CatalogError::Busy { place },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => CatalogError::Corrupt { place, reason },
        Some(_) => CatalogError::Store { place, reason },
        // No code: a row did not hold what the schema says.
        None => CatalogError::Corrupt { place, reason },
    }
}
