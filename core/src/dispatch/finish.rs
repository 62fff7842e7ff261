//! The only exit of calls about data: each admitted call ends here, once, and is counted under its
//! namespace and method.
//!
//! A call owes its ending by a [`Pass`]. [`Dispatcher::finish`] takes it, so there is no second
//! ending. A pass that is dropped on the way (the connection is gone, the shard ends) counts the
//! call as cancelled.

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
}

impl Pass {
    /// Makes the pass of a call whose namespace serves the method's API.
    pub(super) fn new(namespace: Rc<Namespace>, method: Method) -> Self {
        Self {
            namespace,
            method,
            ended: false,
        }
    }

    /// The namespace that the call counts for.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The figures that the call counts in.
    pub(super) fn metrics(&self) -> &MethodMetrics {
        self.namespace.metrics.method(self.method)
    }

    #[inline]
    fn end(&mut self, code: Code, response_bytes: usize) -> &MethodMetrics {
        self.ended = true;
        let metrics = self.metrics();
        metrics.by_code[code as usize].add(1);
        metrics.response_bytes.add(response_bytes as u64);
        metrics
    }
}

impl Drop for Pass {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled, 0);
        }
    }
}

impl Dispatcher {
    /// Ends a call that did not wait: it is timed with its batch.
    #[inline]
    pub(super) fn finish(&mut self, mut pass: Pass, code: Code, response_bytes: usize) {
        pass.end(code, response_bytes);
        if pass.namespace.note_in_batch(pass.method) {
            self.touched.push(pass.namespace.clone());
        }
    }

    /// Ends a call that waited after the arrival of its request.
    pub(super) fn finish_waiting(
        &self,
        mut pass: Pass,
        received: Instant,
        code: Code,
        response_bytes: usize,
    ) {
        let metrics = pass.end(code, response_bytes);
        metrics.latency.record(received.elapsed(), 1);
    }
}

/// The code of a result.
pub(super) fn code_of<T>(result: &Result<T, Box<Status>>) -> Code {
    result.as_ref().map_or_else(|status| status.code, |_| Code::Ok)
}
