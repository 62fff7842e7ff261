//! A Queue load: senders with one call each at a time, workers that receive and ack, and books of
//! all they do.
//!
//! Every acknowledged message must be done, by one worker at a time and once; nothing else may come
//! out of the queue; a message must come as it was sent, under the id that its sender was answered.
//! At the end the queue must be empty by its own count.
//!
//! ```text
//!   senders ── Send ──> queue ──> Receive ── workers ── Ack ──> queue
//!      └──────────────> books <──────────────┘
//! ```

pub mod books;
mod report;
mod sender;
mod wire;
mod worker;

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use hdrhistogram::Histogram;

use self::books::{Books, Terms};
pub use self::report::Report;
use crate::{
    blocking::Session,
    messages::{HEADER_BYTES, hash_of},
    options::Options,
    outcome::Outcome,
    plan::Plan,
    random::Random,
    run::Run,
    tally::latency_histogram,
    units,
};

/// Pause after a call that was not taken.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause before a call is made again whose outcome is unknown.
const PAUSE_AGAIN: Duration = Duration::from_millis(20);
/// Pause between two looks at what the queue counts.
const LOOK: Duration = Duration::from_millis(100);
/// Bits of a run's number that name the namespace.
const NAMESPACE_BITS: u64 = 0xffff << 48;

/// Options of a Queue load.
#[derive(Clone, Copy, Debug, Args)]
pub struct QueueOptions {
    /// Load Queue instead of KeyValue: every message must be done, by one worker at a time and once
    #[arg(long, conflicts_with_all = ["pubsub", "workload", "mix", "preload", "sweep", "journal", "check_journal", "slo",
        "hdr_log"])]
    pub queue: bool,
    /// Senders, each with one call at a time
    #[arg(long, default_value_t = 8)]
    pub senders: u32,
    /// Workers, each with one call at a time
    #[arg(long, default_value_t = 8)]
    pub workers: u32,
    /// Most messages of one Receive
    #[arg(long, default_value_t = 10)]
    pub receive_max: u32,
    /// How long messages are a worker's
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_lease)]
    pub lease: Duration,
    /// Ordering keys of each sender; 0: the queue has no order
    #[arg(long, default_value_t = 0)]
    pub queue_keys: u32,
}

fn parse_lease(text: &str) -> Result<Duration, String> {
    units::nanoseconds(text).map(Duration::from_nanos)
}

impl QueueOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn check(&self, payload_bytes: u32) -> Result<(), String> {
        for (name, value, least, most) in [
            ("--senders", self.senders, 1, 1_024),
            ("--workers", self.workers, 1, 1_024),
            ("--receive-max", self.receive_max, 1, 100),
            ("--queue-keys", self.queue_keys, 0, 100_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} {value}: must be between {least} and {most}"));
            }
        }
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(12 * 3_600));
        if !(least..=most).contains(&self.lease) {
            return Err("--lease: must be between 1 s and 12 h".to_owned());
        }
        if self.queue && (payload_bytes as usize) < HEADER_BYTES {
            return Err(format!(
                "--value {payload_bytes}: a payload needs {HEADER_BYTES} bytes at least, which name its message"
            ));
        }
        Ok(())
    }
}

/// Settings of a load, for each of its threads.
#[derive(Clone, Debug)]
struct Load {
    plan: Plan,
    /// Plan of workers.
    receiving: Plan,
    namespace: String,
    /// Number of the run, in each payload: its first bits name the namespace.
    run: u64,
    senders: u32,
    workers: u32,
    receive_max: u32,
    lease: Duration,
    /// Ordering keys of each sender; 0: none.
    keys: u64,
    payload_bytes: usize,
    tokens: bool,
    crashes: bool,
    faults: (f64, f64),
    seed: u64,
    /// Sends per second of all senders together; `None`: as fast as they are answered.
    rate: Option<f64>,
    /// When the measured time begins and ends, after the start.
    measure_ns: u64,
    end_ns: u64,
    drain: Duration,
    /// Most Sends of one sender.
    calls_max: u64,
}

impl Load {
    /// How long a call is made again, and the server is tried to be reached.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.crashes { 60 } else { 10 })
    }

    /// Whether a message is of a load in this namespace.
    fn is_of_namespace(&self, run: u64) -> bool {
        run & NAMESPACE_BITS == self.run & NAMESPACE_BITS
    }
}

/// State that the threads of a load share.
struct Common {
    load: Load,
    started: OnceLock<Instant>,
    stop: Arc<AtomicBool>,
    /// Set when nothing is left to be done, or the time for that is over.
    finished: AtomicBool,
    books: Mutex<Books>,
    sent: AtomicU64,
    done: AtomicU64,
}

impl Common {
    fn now_ns(&self) -> u64 {
        let started = self.started.get_or_init(Instant::now);
        u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_measured(&self, at_ns: u64) -> bool {
        (self.load.measure_ns..self.load.end_ns).contains(&at_ns)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    fn books<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        // Books of a thread that panicked are whole: the load fails for the panic.
        work(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Calls of one kind of one thread.
struct Calls {
    /// Those of the measured time that were answered as asked.
    measured: u64,
    /// Latencies of those, in nanoseconds.
    latency: Histogram<u64>,
    /// How the calls of any time ended.
    outcomes: [u64; Outcome::COUNT],
    /// Calls that were made again.
    again: u64,
    /// The message of the first error.
    first_error: Option<String>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            measured: 0,
            latency: latency_histogram(),
            outcomes: [0; Outcome::COUNT],
            again: 0,
            first_error: None,
        }
    }
}

impl Calls {
    fn record(&mut self, common: &Common, due_ns: u64, outcome: Outcome, error: Option<String>) {
        self.outcomes[outcome.index()] += 1;
        if outcome == Outcome::OK && common.is_measured(due_ns) {
            self.measured += 1;
            let latency_ns = common.now_ns().saturating_sub(due_ns);
            self.latency.saturating_record(latency_ns);
        }
        if let Some(error) = error.filter(|_| outcome.is_error()) {
            self.first_error.get_or_insert(error);
            thread::sleep(PAUSE);
        }
    }

    fn made(&self) -> u64 {
        self.outcomes.iter().sum::<u64>() + self.again
    }
}

/// Messages that the queue counts at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Ready, delayed or leased.
    waiting: u64,
    /// Dead ones that were not dead before.
    dead: u64,
}

/// Runs a load to its end. `show` gets a line of progress each second.
///
/// # Errors
/// A sender or a worker could not reach the server, or the queue cannot be counted.
pub fn run(
    options: &Options,
    run: &Run,
    stop: &Arc<AtomicBool>,
    show: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let load = load_of(options, run);
    let terms = Terms {
        keys: load.keys,
        leases_may_be_lost: load.crashes,
    };
    let common = Common {
        books: Mutex::new(Books::new(load.senders, terms)),
        load,
        started: OnceLock::new(),
        stop: stop.clone(),
        finished: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        done: AtomicU64::new(0),
    };
    let load = &common.load;
    let failed = |error: std::io::Error| format!("the queue cannot be counted: {error}");
    let random = Random::new(load.seed, u64::MAX);
    let mut session = Session::connect(&load.plan, load.patience(), random, (0.0, 0.0)).map_err(failed)?;
    let before = count(&mut session, load)?;
    common.started.get_or_init(Instant::now);
    let (sent, worked, left) = thread::scope(|scope| {
        let common = &common;
        let workers = (0..load.workers).map(|number| scope.spawn(move || worker::run(common, number)));
        let workers: Vec<_> = workers.collect();
        let senders = (0..load.senders).map(|number| scope.spawn(move || sender::run(common, number)));
        let senders: Vec<_> = senders.collect();
        while !senders.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(LOOK);
            show(&progress(common));
        }
        let sent = senders
            .into_iter()
            .map(joined)
            .collect::<Vec<Result<Calls, String>>>();
        let left = drain(common, &mut session, before.dead);
        common.finished.store(true, Ordering::Relaxed);
        let worked = workers.into_iter().map(joined).collect::<Vec<_>>();
        (sent, worked, left)
    });
    let sent = sent.into_iter().collect::<Result<Vec<_>, _>>()?;
    let worked = worked.into_iter().collect::<Result<Vec<_>, _>>()?;
    let end_ns = common.now_ns().min(load.end_ns);
    let seconds = end_ns.saturating_sub(load.measure_ns) as f64 / 1e9;
    let left = left?;
    Ok(common.books(|books| Report::new(&common, seconds, &sent, &worked, (books, left))))
}

fn progress(common: &Common) -> String {
    let [sent, done] =
        [&common.sent, &common.done].map(|count| units::show_count(count.load(Ordering::Relaxed)));
    let seconds = common.now_ns() / 1_000_000_000;
    format!("{seconds:>4} s  sent {sent:>10}  done {done:>10}")
}

/// Waits until nothing is left, as long as it may take: leases of workers that were cut must end
/// first. A signal to stop ends the senders only.
fn drain(common: &Common, session: &mut Session<'_>, dead_before: u64) -> Result<Left, String> {
    let begun = Instant::now();
    let longest = common.load.drain + common.load.lease + common.load.patience();
    loop {
        let counted = count(session, &common.load);
        let is_over = begun.elapsed() > longest;
        match counted {
            Ok(left) if is_over || (left.waiting == 0 && common.books(|books| books.open_count()) == 0) => {
                return Ok(Left {
                    waiting: left.waiting,
                    dead: left.dead.saturating_sub(dead_before),
                });
            }
            // Its numbers may be a while behind; nobody knows a better one.
            Ok(_) => {}
            Err(error) if is_over => return Err(error),
            Err(_) => {}
        }
        thread::sleep(LOOK);
    }
}

fn count(session: &mut Session<'_>, load: &Load) -> Result<Left, String> {
    let request = wire::stats(&load.namespace);
    let failed = |error: &dyn std::fmt::Display| format!("the queue cannot be counted: {error}");
    let answer = session
        .call(wire::STATS.spec().path, &request, None, &|| false)
        .map_err(|error| failed(&error))?;
    if answer.outcome != Outcome::OK {
        return Err(failed(&answer.error.unwrap_or_default()));
    }
    let (waiting, dead) = wire::counted(&answer.message).map_err(|error| failed(&error))?;
    Ok(Left { waiting, dead })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread
        .join()
        .unwrap_or_else(|_| Err("a thread of the load panicked".to_owned()))
}

fn load_of(options: &Options, run: &Run) -> Load {
    let of = options.queue;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let own = nanos(since_1970) ^ (u64::from(std::process::id()) << 32);
    let namespace = hash_of(run.load.namespace.as_bytes());
    Load {
        plan: run.plan.clone(),
        receiving: options.pubsub.receiving(&run.plan),
        namespace: run.load.namespace.clone(),
        run: (namespace & NAMESPACE_BITS) | (own & !NAMESPACE_BITS),
        senders: of.senders,
        workers: of.workers,
        receive_max: of.receive_max,
        lease: of.lease,
        keys: u64::from(of.queue_keys),
        payload_bytes: run.load.value.max_bytes() as usize,
        tokens: run.load.tokens,
        crashes: options.pubsub.crashes,
        faults: (run.load.cancel, run.load.disconnect),
        seed: run.load.seed,
        rate: run.rate,
        measure_ns: nanos(run.warm_up),
        end_ns: nanos(run.warm_up.saturating_add(run.duration)),
        drain: run.drain,
        calls_max: run
            .requests
            .map_or(u64::MAX, |all| all.div_ceil(u64::from(of.senders))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn check(arguments: &str) -> Result<Run, String> {
        let words = ["prism-loadgen", "-n", "n", "--queue"];
        let options = Options::try_parse_from(words.into_iter().chain(arguments.split_whitespace()));
        options.map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn impossible_loads_are_refused() {
        assert!(check("--senders 4 --workers 3 --rate 1000 --value 28 --queue-keys 5").is_ok());
        assert!(check("--cancel 10% --disconnect 0.1% --deadline 50ms --crashes --lease 2s").is_ok());
        for bad in [
            "--senders 0",
            "--workers 2000",
            "--receive-max 0",
            "--receive-max 101",
            "--queue-keys 100001",
            "--lease 999ms",
            "--lease 13h",
            "--value 27",
            "--mix put=1",
            "--sweep",
            "--slo p99=1ms",
            "--pubsub",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
