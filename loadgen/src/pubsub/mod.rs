//! A PubSub load: publishers with one call each at a time, subscribers that read everything, and
//! books of both.
//!
//! Each publisher and each subscriber is a thread with a connection of its own: order is promised
//! to calls that do not overlap, so a publisher has no use for more streams. What a subscriber gets
//! must be what was published, under the id that the publisher was answered: so an answer that
//! belongs to another call is found out, whoever got it.

pub mod ledger;
mod publisher;
mod report;
mod subscriber;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;

pub use self::report::Report;
use self::{publisher::Published, subscriber::Delivered};
use crate::{
    messages::{HEADER_BYTES, Ids, Numbers},
    options::Options,
    plan::Plan,
    run::Run,
};

/// Options of a PubSub load.
#[derive(Clone, Copy, Debug, Args)]
pub struct PubSubOptions {
    /// Load PubSub instead of KeyValue: every message must reach every subscriber once, those of a
    /// key in order
    #[arg(long, conflicts_with_all = ["workload", "mix", "preload", "sweep", "journal", "check_journal", "slo", "hdr_log"])]
    pub pubsub: bool,
    /// Publishers, each with one call at a time
    #[arg(long, default_value_t = 8)]
    pub publishers: u32,
    /// Subscribers to all messages
    #[arg(long, default_value_t = 2)]
    pub subscribers: u32,
    /// Further subscribers that stop reading as soon as their subscription stands
    #[arg(long, default_value_t = 0)]
    pub stalled: u32,
    /// Ordering keys of each publisher
    #[arg(long, default_value_t = 16)]
    pub ordering_keys: u32,
    /// The server is killed meanwhile: subscriptions that end go on at their position, calls are
    /// made again for a minute (of --queue: leases may be lost)
    #[arg(long)]
    pub crashes: bool,
    /// Another gateway, at which subscribers (of --queue: workers) are [default: the target]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub receive_at: Option<SocketAddr>,
}

/// Settings of a load, for each of its threads.
#[derive(Clone, Debug)]
struct Load {
    plan: Plan,
    /// Plan of subscribers.
    receiving: Plan,
    namespace: String,
    /// Number of the run, in each payload.
    run: u64,
    publishers: u32,
    subscribers: u32,
    stalled: u32,
    keys: u32,
    /// Whether subscriptions that end go on at their position.
    crashes: bool,
    /// Shares of calls that are cancelled and that lose their connection.
    faults: (f64, f64),
    seed: u64,
    payload_bytes: usize,
    tokens: bool,
    /// Publishes per second of all publishers together; `None`: as fast as they are answered.
    rate: Option<f64>,
    /// When the measured time begins and ends, after the start.
    measure_ns: u64,
    end_ns: u64,
    drain: Duration,
    /// Most publishes of one publisher.
    calls_max: u64,
}

/// State that the threads of a load share.
struct Common {
    load: Load,
    started: OnceLock<Instant>,
    stop: Arc<AtomicBool>,
    /// Set when all publishers are through: what was acknowledged, by publisher.
    acknowledged: OnceLock<Vec<Numbers>>,
    ids: Ids,
    /// Most memory of the server's process that was seen, in bytes.
    server_bytes: AtomicU64,
    published: AtomicU64,
    delivered: AtomicU64,
}

impl Common {
    fn started(&self) -> Instant {
        self.started.get().copied().unwrap_or_else(Instant::now)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started().elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_measured(&self, due_ns: u64) -> bool {
        (self.load.measure_ns..self.load.end_ns).contains(&due_ns)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl PubSubOptions {
    /// Plan of subscribers and workers, if they are at another gateway.
    pub(crate) fn receiving(&self, plan: &Plan) -> Plan {
        let address = self.receive_at.unwrap_or(plan.address);
        let authority = match self.receive_at {
            Some(address) => address.to_string(),
            None => plan.authority.clone(),
        };
        Plan {
            address,
            authority,
            ..plan.clone()
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn check(&self, payload_bytes: u32) -> Result<(), String> {
        for (name, value, most) in [
            ("--publishers", self.publishers, 1_024),
            ("--subscribers", self.subscribers, 1_024),
            ("--stalled", self.stalled.max(1), 1_024),
            ("--ordering-keys", self.ordering_keys, 100_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{name} {value}: must be between 1 and {most}"));
            }
        }
        if self.pubsub && (payload_bytes as usize) < HEADER_BYTES {
            return Err(format!(
                "--value {payload_bytes}: a payload needs {HEADER_BYTES} bytes at least, which name its message"
            ));
        }
        Ok(())
    }
}

/// Runs a load to its end. `show` gets a line of progress each second.
///
/// # Errors
/// A publisher or a subscriber could not reach the server.
pub fn run(
    options: &Options,
    run: &Run,
    stop: &Arc<AtomicBool>,
    show: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let common = Common {
        load: load_of(options, run),
        started: OnceLock::new(),
        stop: stop.clone(),
        acknowledged: OnceLock::new(),
        ids: Ids::new(options.pubsub.publishers),
        server_bytes: AtomicU64::new(0),
        published: AtomicU64::new(0),
        delivered: AtomicU64::new(0),
    };
    let (published, delivered) = thread::scope(|scope| {
        let (ready, all_stand) = std::sync::mpsc::channel();
        let subscribers: Vec<_> = (0..common.load.subscribers + common.load.stalled)
            .map(|number| {
                let (common, ready) = (&common, ready.clone());
                scope.spawn(move || subscriber::run(common, number, ready))
            })
            .collect();
        drop(ready);
        // Nothing is published before all subscriptions stand: they begin with what is new.
        for _ in 0..common.load.subscribers + common.load.stalled {
            if all_stand.recv().is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        let _ = common.started.set(Instant::now());
        let publishers: Vec<_> = (0..common.load.publishers)
            .map(|number| {
                let common = &common;
                scope.spawn(move || publisher::run(common, number))
            })
            .collect();
        while !publishers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(100));
            let bytes = run.server_pid.and_then(resident_bytes).unwrap_or(0);
            common.server_bytes.fetch_max(bytes, Ordering::Relaxed);
            show(&format!(
                "{:>4} s  published {:>10}  delivered {:>10}",
                common.started().elapsed().as_secs(),
                crate::units::show_count(common.published.load(Ordering::Relaxed)),
                crate::units::show_count(common.delivered.load(Ordering::Relaxed)),
            ));
        }
        let published = publishers
            .into_iter()
            .map(joined)
            .collect::<Vec<Result<Published, String>>>();
        let acknowledged = published.iter().flatten().map(|one| one.acknowledged.clone());
        let _ = common.acknowledged.set(acknowledged.collect());
        let delivered = subscribers
            .into_iter()
            .map(joined)
            .collect::<Vec<Result<Delivered, String>>>();
        (published, delivered)
    });
    let published = published.into_iter().collect::<Result<Vec<_>, _>>()?;
    let delivered = delivered.into_iter().collect::<Result<Vec<_>, _>>()?;
    let seconds = common
        .now_ns()
        .min(common.load.end_ns)
        .saturating_sub(common.load.measure_ns) as f64
        / 1e9;
    let acknowledged = common.acknowledged.get().map_or(&[][..], Vec::as_slice);
    Ok(Report::new(
        &common,
        seconds,
        &published,
        &delivered,
        acknowledged,
    ))
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread
        .join()
        .unwrap_or_else(|_| Err("a thread of the load panicked".to_owned()))
}

/// Memory of a process that is in use now.
fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

fn load_of(options: &Options, run: &Run) -> Load {
    let of = options.pubsub;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Load {
        plan: run.plan.clone(),
        receiving: of.receiving(&run.plan),
        namespace: run.load.namespace.clone(),
        run: nanos(since_1970) ^ (u64::from(std::process::id()) << 40),
        publishers: of.publishers,
        subscribers: of.subscribers,
        stalled: of.stalled,
        crashes: of.crashes,
        faults: (run.load.cancel, run.load.disconnect),
        seed: run.load.seed,
        keys: of.ordering_keys,
        payload_bytes: run.load.value.max_bytes() as usize,
        tokens: run.load.tokens,
        rate: run.rate,
        measure_ns: nanos(run.warm_up),
        end_ns: nanos(run.warm_up.saturating_add(run.duration)),
        drain: run.drain,
        calls_max: run
            .requests
            .map_or(u64::MAX, |all| all.div_ceil(u64::from(of.publishers))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn check(arguments: &str) -> Result<Run, String> {
        let words = ["prism-loadgen", "-n", "n", "--pubsub"];
        let options = Options::try_parse_from(words.into_iter().chain(arguments.split_whitespace()));
        options.map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn impossible_loads_are_refused() {
        assert!(check("--publishers 4 --subscribers 3 --rate 1000 --value 28").is_ok());
        assert!(check("--cancel 10% --disconnect 0.1% --deadline 50ms --crashes --stalled 1").is_ok());
        for bad in [
            "--publishers 0",
            "--subscribers 2000",
            "--ordering-keys 0",
            "--value 27",
            "--mix put=1",
            "--sweep",
            "--slo p99=1ms",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
