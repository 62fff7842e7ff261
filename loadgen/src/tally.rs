//! Counts: latencies and outcomes by operation, mergeable over threads and intervals.
//!
//! Latencies are kept in nanoseconds by HdrHistogram, with three significant digits, up to 60 s;
//! longer ones count as 60 s.

use hdrhistogram::Histogram;

use crate::{mix::Operation, outcome::Outcome, slo::Figures};

/// The longest latency that is distinguished, in nanoseconds.
pub const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// The unit of the histogram in nanoseconds. Three digits of the least latency of interest, 10 µs,
/// are 10 ns.
const LATENCY_UNIT_NS: u64 = 10;
const WRONG_EXAMPLES_MAX: usize = 10;

/// A histogram of latencies in nanoseconds.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_UNIT_NS, LATENCY_MAX_NS, 3).expect("the bounds are legal constants")
}

/// Latencies and outcomes of one operation.
#[derive(Clone, Debug)]
pub struct OperationTally {
    /// Latencies in nanoseconds, of the outcomes that count in latency.
    pub latency: Histogram<u64>,
    /// How often each outcome occurred, by its number.
    pub outcomes: [u64; Outcome::COUNT],
}

/// Everything that a thread counts in one interval; intervals and threads add up.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    operations: [Option<Box<OperationTally>>; Operation::ALL.len()],
    /// How late requests left although a stream was free, in nanoseconds: the load generator's own
    /// delay.
    pub lag: Option<Box<Histogram<u64>>>,
    /// Requests that became due (open loop) or were sent (closed loop).
    pub due: u64,
    /// Requests that were answered in time, whatever the answer.
    pub answered: u64,
    /// Those of them whose answer was an error. A server that refuses what is too much for it has
    /// not served that.
    pub refused: u64,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes that the kernel brought.
    pub bytes_received: u64,
    /// Connections that were opened again after they broke or were broken on purpose.
    pub reconnects: u64,
    /// Wrong answers of any time, warm-up included.
    pub wrong: u64,
    /// The first few wrong answers, described.
    pub wrong_examples: Vec<String>,
    /// The first message that came with each kind of error.
    pub messages: Vec<(Outcome, String)>,
    /// CPU time of the load generator's threads in nanoseconds.
    pub cpu_ns: u64,
}

impl Tally {
    /// Counts one request that ended.
    #[inline]
    pub fn record(&mut self, operation: Operation, outcome: Outcome, latency_ns: u64) {
        let tally = self.operations[operation as usize].get_or_insert_with(|| {
            Box::new(OperationTally {
                latency: latency_histogram(),
                outcomes: [0; Outcome::COUNT],
            })
        });
        tally.outcomes[outcome.index()] += 1;
        if outcome.counts_in_latency() {
            tally.latency.saturating_record(latency_ns);
        }
    }

    /// Counts how late a request left although it could have left when it was due.
    #[inline]
    pub fn record_lag(&mut self, lag_ns: u64) {
        self.lag
            .get_or_insert_with(|| Box::new(latency_histogram()))
            .saturating_record(lag_ns);
    }

    /// Counts a wrong answer and keeps its description if it is among the first.
    #[cold]
    pub fn record_wrong(&mut self, description: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.wrong_examples.len() < WRONG_EXAMPLES_MAX {
            self.wrong_examples.push(description());
        }
    }

    /// Keeps the message of an error if it is the first of its kind.
    #[cold]
    pub fn record_message(&mut self, outcome: Outcome, message: String) {
        if !self.messages.iter().any(|(known, _)| *known == outcome) {
            self.messages.push((outcome, message));
        }
    }

    /// Adds what another thread or interval counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.operations.iter_mut().zip(&other.operations) {
            match (mine, theirs) {
                (_, None) => {}
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (Some(mine), Some(theirs)) => {
                    mine.latency
                        .add(&theirs.latency)
                        .expect("all latency histograms have the same bounds");
                    mine.outcomes
                        .iter_mut()
                        .zip(theirs.outcomes)
                        .for_each(|(mine, theirs)| *mine += theirs);
                }
            }
        }
        if let Some(lag) = &other.lag {
            let mine = self.lag.get_or_insert_with(|| Box::new(latency_histogram()));
            mine.add(lag.as_ref())
                .expect("all latency histograms have the same bounds");
        }
        self.due += other.due;
        self.answered += other.answered;
        self.refused += other.refused;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.reconnects += other.reconnects;
        self.wrong += other.wrong;
        self.cpu_ns += other.cpu_ns;
        for (outcome, message) in &other.messages {
            self.record_message(*outcome, message.clone());
        }
        let room = WRONG_EXAMPLES_MAX - self.wrong_examples.len();
        self.wrong_examples
            .extend(other.wrong_examples.iter().take(room).cloned());
    }

    /// The operations that occurred, in the order of their numbers.
    pub fn operations(&self) -> impl Iterator<Item = (Operation, &OperationTally)> {
        Operation::ALL
            .into_iter()
            .zip(&self.operations)
            .filter_map(|(op, tally)| tally.as_deref().map(|t| (op, t)))
    }

    /// How often an outcome occurred over all operations.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.operations()
            .map(|(_, tally)| tally.outcomes[outcome.index()])
            .sum()
    }

    /// Requests that ended as errors.
    pub fn errors(&self) -> u64 {
        Outcome::all()
            .filter(|outcome| outcome.is_error())
            .map(|outcome| self.count(outcome))
            .sum()
    }

    /// Requests that were answered in time and without an error.
    fn served(&self) -> u64 {
        self.answered - self.refused
    }

    /// Requests that ended in any way.
    pub fn ended(&self) -> u64 {
        self.operations()
            .map(|(_, tally)| tally.outcomes.iter().sum::<u64>())
            .sum()
    }

    /// The latencies of all operations together.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = latency_histogram();
        for (_, tally) in self.operations() {
            all.add(&tally.latency)
                .expect("all latency histograms have the same bounds");
        }
        all
    }
}

/// A finished measurement: what was counted, and in which time.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Counts of each operation.
    pub tally: Tally,
    /// Latencies of all operations together, in nanoseconds.
    pub latency: Histogram<u64>,
    /// The measured time in seconds, without warm-up and drain.
    pub seconds: f64,
    /// Requests due per second; `None` in a closed loop.
    pub rate_due: Option<f64>,
    /// CPU time of the server's process in nanoseconds, if it was watched.
    pub server_cpu_ns: Option<u64>,
}

impl Measured {
    /// Brings the counted things and their time together.
    pub fn new(tally: Tally, seconds: f64, rate_due: Option<f64>, server_cpu_ns: Option<u64>) -> Self {
        let latency = tally.latency();
        Self {
            tally,
            latency,
            seconds,
            rate_due,
            server_cpu_ns,
        }
    }
}

impl Measured {
    /// Requests per second that were answered without an error.
    pub fn served_rate(&self) -> f64 {
        self.per_second(self.tally.served())
    }

    fn per_second(&self, requests: u64) -> f64 {
        if self.seconds > 0.0 {
            requests as f64 / self.seconds
        } else {
            0.0
        }
    }
}

impl Figures for Measured {
    fn latency_ns(&self, quantile: f64) -> Option<u64> {
        (!self.latency.is_empty()).then(|| self.latency.value_at_quantile(quantile))
    }

    fn mean_ns(&self) -> Option<f64> {
        (!self.latency.is_empty()).then(|| self.latency.mean())
    }

    fn error_share(&self) -> f64 {
        let ended = self.tally.ended() - self.tally.count(Outcome::CUT);
        if ended == 0 {
            1.0
        } else {
            self.tally.errors() as f64 / ended as f64
        }
    }

    fn rate(&self) -> f64 {
        self.per_second(self.tally.answered)
    }

    fn served_share(&self) -> Option<f64> {
        self.rate_due?;
        let served = self.tally.served() + self.tally.count(Outcome::CUT);
        Some(served as f64 / self.tally.due.max(1) as f64).map(|share| share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_of_threads_add_up() {
        let mut sum = Tally::default();
        for thread in 0..3u64 {
            let mut tally = Tally::default();
            for i in 0..100 {
                tally.record(Operation::Put, Outcome::OK, 10_000 * (thread + 1) + i);
            }
            tally.record(Operation::Get, Outcome::UNAVAILABLE, 5);
            tally.record_lag(100);
            tally.record_wrong(|| format!("thread {thread}"));
            tally.due = 101;
            tally.answered = 101;
            tally.refused = 1;
            sum.add(&tally);
        }
        assert_eq!(
            (sum.count(Outcome::OK), sum.errors(), sum.ended(), sum.wrong),
            (300, 3, 303, 3)
        );
        assert_eq!((sum.due, sum.answered, sum.refused), (303, 303, 3));
        assert_eq!(
            sum.operations().map(|(op, _)| op.name()).collect::<Vec<_>>(),
            ["put", "get"]
        );
        // The quick refusals are not in the latency.
        assert_eq!(sum.latency().len(), 300);
        assert_eq!(sum.lag.as_ref().map(|lag| lag.len()), Some(3));
        assert_eq!(sum.wrong_examples, ["thread 0", "thread 1", "thread 2"]);
    }

    #[test]
    fn three_digits_from_ten_microseconds_to_a_minute() {
        for ns in [10_000u64, 12_340, 999_000, 123_000_000, 59_900_000_000] {
            let mut histogram = latency_histogram();
            histogram.record(ns).expect("in range");
            let got = histogram.value_at_quantile(0.5);
            assert!(
                got.abs_diff(ns) as f64 <= ns as f64 / 1_000.0,
                "{ns} became {got}"
            );
        }
        let mut tally = Tally::default();
        tally.record(Operation::Get, Outcome::OK, u64::MAX);
        assert!(tally.latency().max() >= LATENCY_MAX_NS);
    }

    #[test]
    fn figures_of_a_run() {
        let mut tally = Tally::default();
        (0..99).for_each(|_| tally.record(Operation::Get, Outcome::OK, 1_000_000));
        tally.record(Operation::Get, Outcome::INTERNAL, 1);
        tally.record(Operation::Get, Outcome::CUT, 1);
        (tally.due, tally.answered, tally.refused) = (200, 100, 1);
        let measured = Measured::new(tally, 2.0, Some(100.0), None);
        assert_eq!(measured.error_share(), 0.01);
        assert_eq!((measured.rate(), measured.served_rate()), (50.0, 49.5));
        assert_eq!(
            measured.served_share(),
            Some(0.5),
            "the refused one is not served"
        );
        assert!(
            measured
                .latency_ns(0.5)
                .is_some_and(|ns| ns.abs_diff(1_000_000) < 1_000)
        );
        let nothing = Measured::new(Tally::default(), 0.0, None, None);
        assert_eq!(
            (nothing.latency_ns(0.5), nothing.error_share(), nothing.rate()),
            (None, 1.0, 0.0)
        );
        assert_eq!(nothing.served_share(), None);
    }
}
