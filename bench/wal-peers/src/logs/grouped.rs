//! The group commit of textbooks: whoever finds nobody committing commits for all who wait.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Failure, Log};

/// Makes records durable, one group at a time.
pub(crate) trait Sink: Send {
    /// Makes all of them durable.
    fn commit(&mut self, group: &Group) -> Result<(), Failure>;
}

/// Records one after the other.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) bytes: Vec<u8>,
    /// Where each record ends.
    pub(crate) ends: Vec<usize>,
}

/// A [`Sink`] with a front for many threads.
pub(crate) struct Grouped<S> {
    state: Mutex<State<S>>,
    committed: Condvar,
}

struct State<S> {
    open: Group,
    spare: Group,
    appended: u64,
    durable: u64,
    failed: bool,
    /// Away while somebody commits.
    sink: Option<S>,
}

impl<S: Sink> Grouped<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self {
            state: Mutex::new(State {
                open: Group::default(),
                spare: Group::default(),
                appended: 0,
                durable: 0,
                failed: false,
                sink: Some(sink),
            }),
            committed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sink> Log for Grouped<S> {
    fn append(&self, _: usize, record: &[u8]) -> Result<(), Failure> {
        let mut state = self.lock();
        state.open.bytes.extend_from_slice(record);
        let end = state.open.bytes.len();
        state.open.ends.push(end);
        state.appended += 1;
        let own = state.appended;
        while state.durable < own {
            if state.failed {
                return Err("a commit has failed".into());
            }
            let Some(mut sink) = state.sink.take() else {
                state = self.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let spare = mem::take(&mut state.spare);
            let mut group = mem::replace(&mut state.open, spare);
            let last = state.appended;
            drop(state);
            let result = sink.commit(&group);
            group.bytes.clear();
            group.ends.clear();
            state = self.lock();
            state.spare = group;
            state.sink = Some(sink);
            state.failed |= result.is_err();
            if result.is_ok() {
                state.durable = last;
            }
            self.committed.notify_all();
            result?;
        }
        Ok(())
    }
}
