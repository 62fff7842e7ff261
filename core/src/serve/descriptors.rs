//! Descriptors of the process: the soft limit is raised, and those that log, catalog and store need
//! are reserved from connections.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ServeError, failed};
use crate::config::ServeOptions;

/// Descriptors that the process opens now and then: its tables in `/proc`, a folder, temporary
/// files of the store.
const OCCASIONAL: u64 = 8;
/// Descriptors of one shard's lane: its folder and manifest, the current segment, the one before
/// and the next one, each once more for the ring, one being prepared, and the eventfd of its
/// writers, twice.
const LANE: u64 = 11;
/// Descriptors of one shard for connections that it closes as soon as it has accepted them.
const REFUSED: u64 = 1;

/// Raises the soft limit of open files to the hard one: the starter of a gateway cannot know its
/// needs.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(cause) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%cause, "cannot raise the limit of open files (ulimit -n)");
    }
}

/// Most connections: as many as configured, or as the limit of open files leaves once everything
/// else has its share.
///
/// # Errors
/// A sentence, when the limit leaves less than one for each shard.
pub(super) fn connections_max(options: &ServeOptions, has_log: bool) -> Result<usize, ServeError> {
    let wanted = options.limits.connections_max;
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Ok(wanted);
    };
    let open = open_files().map_err(|cause| failed("cannot count the open files of the process", &cause))?;
    let shards = options.shards.get() as u64;
    fit(wanted, limit, open, shards, has_log).map_err(ServeError)
}

/// Descriptors that are open now.
fn open_files() -> io::Result<u64> {
    // The folder itself is open while it is read.
    Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}

fn fit(wanted: usize, limit: u64, open: u64, shards: u64, has_log: bool) -> Result<usize, String> {
    let of_shard = REFUSED + if has_log { LANE } else { 0 };
    let reserved = OCCASIONAL + of_shard * shards;
    let left = limit.saturating_sub(open + reserved);
    if left < shards {
        return Err(format!(
            "the process may have {limit} files open (ulimit -n): {open} are open, and log, catalog and store need up to \
             {reserved} more, which leaves too few for connections; raise the limit to {} or more",
            open + reserved + 64 * shards
        ));
    }
    Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_what_the_others_leave() {
        assert_eq!(fit(10_000, 1_048_576, 40, 2, true), Ok(10_000));
        assert_eq!(fit(10_000, 1_024, 40, 2, true), Ok(1_024 - 40 - 8 - 24));
        assert_eq!(fit(10, 1_024, 40, 2, true), Ok(10));
        assert_eq!(fit(10_000, 64, 20, 1, false), Ok(64 - 20 - 8 - 1));
        let refused = fit(10_000, 64, 40, 2, true).unwrap_err();
        assert!(
            refused.contains("64 files") && refused.contains("ulimit -n"),
            "{refused}"
        );
        assert!(refused.contains("raise the limit to 200"), "{refused}");
    }
}
