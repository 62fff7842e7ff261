//! Results of ended calls, counted and sent on once a second.

use std::sync::atomic::Ordering;

use super::{INTERVAL_NS, Worker};
use crate::{
    call::Call,
    connection::{Client, Ended},
    outcome::Outcome,
    plan::{Interval, Message},
    workload::Next,
};

impl Worker<'_> {
    pub(super) fn count_ended(&mut self) {
        let mut batch = std::mem::take(&mut self.ended);
        let unix_ns = self.started_unix_ns + self.now_ns;
        for ended in batch.drain(..) {
            let Ended {
                call,
                due_ns,
                mut outcome,
                told,
                wrong,
                message,
            } = ended;
            if let Some(wrong) = wrong {
                outcome = Outcome::WRONG;
                self.tally.record_wrong(|| wrong);
            }
            match self.workload.finish(&call, outcome, &told, unix_ns) {
                // It takes the next free stream, past all that is due: it has begun already.
                Next::Goes(next) => self.second_steps.push_back((next, due_ns)),
                Next::Ended(outcome) => self.count(&call, due_ns, outcome, message),
            }
        }
        self.ended = batch;
    }

    pub(super) fn count(&mut self, call: &Call, due_ns: u64, outcome: Outcome, message: Option<String>) {
        if due_ns >= self.phases.measure_ns {
            self.tally
                .record(call.operation, outcome, self.now_ns.saturating_sub(due_ns));
        }
        // Answers of the warm-up count too: in its own intervals, which only the progress line
        // sees.
        let answered = !matches!(outcome, Outcome::CUT | Outcome::LOST | Outcome::UNSERVED);
        if answered && self.now_ns < self.phases.end_ns {
            self.tally.answered += 1;
            self.tally.refused += u64::from(outcome.is_error());
        }
        if outcome.is_error()
            && let Some(message) = message
        {
            self.tally.record_message(outcome, message);
        }
    }

    /// Tells what was counted when a second, or the warm-up, is over.
    pub(super) fn turn_interval(&mut self) {
        let starts_measuring = !self.measuring && self.now_ns >= self.phases.measure_ns;
        let complete = self.now_ns >= (self.interval + 1) * INTERVAL_NS;
        if starts_measuring || complete {
            self.send_interval(complete);
            self.measuring |= starts_measuring;
            self.interval = self.now_ns / INTERVAL_NS;
            self.clients.iter_mut().for_each(Client::tick);
        }
    }

    pub(super) fn send_interval(&mut self, complete: bool) {
        let cpu_ns = thread_cpu_ns();
        let mut tally = std::mem::take(&mut self.tally);
        tally.cpu_ns = cpu_ns - self.cpu_ns;
        self.cpu_ns = cpu_ns;
        let (thread, second, measured) = (self.plan.thread, self.interval, self.measuring);
        let interval = Interval {
            thread,
            complete,
            second,
            measured,
            tally,
        };
        // When nobody listens any more, the run was called off.
        if self.sender.send(Message::Interval(Box::new(interval))).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// CPU time of this thread in nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
