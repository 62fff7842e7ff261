//! Priority of the threads that calls wait for: shards, the log's writers, the store's writer and
//! readers.
//!
//! Each works for micro- or a few milliseconds at a time. A kernel with lazy preemption lets the
//! running thread, the checkpointer or (where tasks are not grouped by session) another program,
//! continue until its tick, and a call meets several such waits. All have one priority: a shard
//! above the store's writer would interrupt it for each packet, and both would have more work for
//! each call. See `docs/OPERATING.md`.

use rustix::{process::setpriority_process, thread::gettid};

/// Niceness, as set by `nice`.
const NICE: i32 = -10;

/// Lets the calling thread, and threads that it starts, run before others, where the system allows
/// it (CAP_SYS_NICE, or an RLIMIT_NICE of 30). Otherwise nothing changes.
pub(crate) fn raise() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        let thread = std::thread::current();
        tracing::debug!(thread = thread.name(), %error, "runs at the priority of all others");
    }
}
