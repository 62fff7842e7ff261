//! The only exit of calls about data: each that was let in ends here, once, and is counted under its namespace and method.
//!
//! A call owes its ending by a [`Pass`]. [`Dispatcher::finish`] takes it, so there is no second ending; one that is lost on
//! the way (its connection is gone, the shard ends) is counted as cancelled when it is dropped.

use std::{rc::Rc, time::Instant};

use prism_codec::{
    grpc::{Code, Status},
    method::Method,
};

use super::{Dispatcher, namespaces::Namespace};
use crate::metrics::MethodMetrics;

/// The ending that a call owes.
#[must_use]
pub(crate) struct Pass {
    namespace: Rc<Namespace>,
    method: Method,
    ended: bool,
    /// When its request had arrived, of a call that waits; one that does not wait is timed with its batch.
    waits_since: Option<Instant>,
}

impl Pass {
    /// Of a call whose namespace takes calls of the method's API.
    pub(super) fn new(namespace: Rc<Namespace>, method: Method) -> Self {
        Self {
            namespace,
            method,
            ended: false,
            waits_since: None,
        }
    }

    /// The call's own time counts from here on, not that of its batch.
    pub(super) fn wait_since(&mut self, received: Instant) {
        self.waits_since = Some(received);
    }

    /// The namespace that the call counts for.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The figures that the call counts in.
    pub(super) fn metrics(&self) -> &MethodMetrics {
        self.namespace.metrics.method(self.method)
    }

    /// Counts the ending. Returns whether the namespace's part of the batch has yet to be timed.
    fn end(&mut self, code: Code, response_bytes: usize) -> bool {
        self.ended = true;
        let metrics = self.metrics();
        metrics.by_code[code as usize].add(1);
        metrics.response_bytes.add(response_bytes as u64);
        match self.waits_since {
            Some(received) => {
                metrics.latency.record(received.elapsed(), 1);
                false
            }
            None => self.namespace.note_in_batch(self.method),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.ended {
            // Out of the running batch, whose end would time it.
            self.waits_since.get_or_insert_with(Instant::now);
            self.end(Code::Cancelled, 0);
        }
    }
}

impl Dispatcher {
    /// Ends a call.
    pub(super) fn finish(&mut self, mut pass: Pass, code: Code, response_bytes: usize) {
        if pass.end(code, response_bytes) {
            self.touched.push(pass.namespace.clone());
        }
    }
}

/// The code of a result.
pub(super) fn code_of<T>(result: &Result<T, Box<Status>>) -> Code {
    result.as_ref().map_or_else(|status| status.code, |_| Code::Ok)
}
