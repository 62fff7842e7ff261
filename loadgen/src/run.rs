//! A measurement: starts the threads, collects what they count, follows the phases, and shows the
//! progress.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::Histogram;

use crate::{
    journal::Journal,
    outcome::Outcome,
    plan::{Interval, Message, Pace, Phases, Plan},
    random::Random,
    schedule::{Arrival, Schedule},
    tally::{Measured, Tally, latency_histogram},
    worker,
    workload::{Load, Workload},
};

/// Composition of a measurement.
#[derive(Clone, Debug)]
pub struct Run {
    /// Instructions for each thread; `connections` is the number for all threads together.
    pub plan: Plan,
    /// Threads, at least 1 and at most as many as connections.
    pub threads: usize,
    /// The cores of the threads, in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// The workload.
    pub load: Load,
    /// Whether this is the load phase: one Put of every key.
    pub loading: bool,
    /// Requests due per second; `None`: a closed loop.
    pub rate: Option<f64>,
    /// How they are spaced.
    pub arrival: Arrival,
    /// Time before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
    /// How long answers are waited for at the end.
    pub drain: Duration,
    /// Stop after this many calls.
    pub requests: Option<u64>,
    /// Where finished writes are noted.
    pub journal: Option<Journal>,
    /// The process whose CPU time is watched.
    pub server_pid: Option<u32>,
}

/// Results of a measurement.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// The figures.
    pub measured: Measured,
    /// When the run began.
    pub started: SystemTime,
    /// Latencies by second of the run: start, length, nanoseconds.
    pub intervals: Vec<(Duration, Duration, Histogram<u64>)>,
    /// Why a thread gave up, if one did.
    pub gave_up: Option<String>,
}

/// Counts of the last second, for the progress line.
#[derive(Debug)]
pub struct Progress<'t> {
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// Whether the measured time has begun.
    pub measured: bool,
    /// Counts of this second, of all threads.
    pub tally: &'t Tally,
}

/// Measures. `stop` ends it early, `progress` is called about once a second.
///
/// # Errors
/// A connection could not be opened at the start, or a thread could not be made.
pub fn measure(
    run: &Run,
    stop: &Arc<AtomicBool>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcomes, String> {
    let threads = run.threads.clamp(1, run.plan.connections.max(1));
    let plans: Vec<Plan> = (0..threads).map(|index| plan_of(run, index, threads)).collect();
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let mut starters = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            let (starter, begin) = channel::<Instant>();
            let (sender, stop) = (sender.clone(), Arc::clone(stop));
            let builder = thread::Builder::new().name(format!("load-{index}"));
            let work = move || {
                let (workload, pace, phases) = share_of(run, index as u64, threads as u64);
                worker::run(plan, workload, pace, phases, sender, stop, || begin.recv().ok());
            };
            builder
                .spawn_scoped(scope, work)
                .map_err(|error| format!("no thread: {error}"))?;
            starters.push(starter);
        }
        // Only the threads' own ends remain, so that the channel ends with them, even if one
        // panics.
        drop(sender);
        for _ in 0..threads {
            match receiver.recv() {
                Ok(Message::Ready(Ok(()))) => {}
                Ok(Message::Ready(Err(error))) => return Err(error),
                other => return Err(format!("a thread ended before the start: {other:?}")),
            }
        }
        let (started, started_wall) = (Instant::now(), SystemTime::now());
        for starter in &starters {
            // A thread that is gone shows at the end of the channel.
            let _ = starter.send(started);
        }
        Ok(collect(run, &receiver, threads, started, started_wall, progress))
    })
}

fn plan_of(run: &Run, index: usize, threads: usize) -> Plan {
    let connections = run.plan.connections / threads + usize::from(index < run.plan.connections % threads);
    let core = (!run.cores.is_empty()).then(|| run.cores[index % run.cores.len()]);
    Plan {
        thread: index,
        connections,
        core,
        ..run.plan.clone()
    }
}

fn share_of(run: &Run, index: u64, threads: u64) -> (Workload, Pace, Phases) {
    let mut workload = Workload::new(
        run.load.clone(),
        index,
        threads,
        worker::unix_ns(),
        run.journal.clone(),
    );
    if run.loading {
        workload = workload.loading();
    }
    let pace = match run.rate {
        Some(rate) => {
            let random = Random::new(run.load.seed, index * 4 + 1);
            Pace::Open(Schedule::new(run.arrival, rate, index, threads, random))
        }
        None => Pace::Closed,
    };
    let measure_ns = run.warm_up.as_nanos() as u64;
    let share = |requests: u64| requests / threads + u64::from(index < requests % threads);
    let phases = Phases {
        measure_ns,
        end_ns: measure_ns.saturating_add(u64::try_from(run.duration.as_nanos()).unwrap_or(u64::MAX)),
        drain_ns: run.drain.as_nanos() as u64,
        calls_max: run.requests.map_or(u64::MAX, share),
    };
    (workload, pace, phases)
}

/// Gathers the threads' reports until all have ended.
fn collect(
    run: &Run,
    receiver: &Receiver<Message>,
    threads: usize,
    started: Instant,
    started_wall: SystemTime,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Outcomes {
    let mut total = Tally::default();
    let mut seconds: Vec<Second> = Vec::new();
    let mut gave_up = None;
    let mut watch = ServerWatch::new(run, started);
    // How many seconds each thread has reported completely.
    let mut told = vec![0u64; threads];
    let mut shown = 0;
    while told.iter().any(|&told| told < u64::MAX) {
        match receiver.recv_timeout(watch.patience()) {
            Ok(Message::Interval(interval)) => {
                if interval.complete {
                    told[interval.thread] = interval.second + 1;
                }
                take_interval(*interval, &mut total, &mut seconds);
            }
            Ok(Message::Done { thread, result }) => {
                told[thread] = u64::MAX;
                gave_up = gave_up.or(result.err());
            }
            Ok(Message::Ready(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                gave_up = gave_up.or(Some("a thread ended without a word".to_owned()));
                break;
            }
        }
        watch.look();
        // A second is shown when every thread has reported all of it.
        let complete = told.iter().min().copied().unwrap_or(0).min(seconds.len() as u64) as usize;
        for (second, Second { measured, tally }) in seconds.iter().enumerate().take(complete).skip(shown) {
            progress(Progress {
                elapsed: Duration::from_secs(second as u64 + 1),
                measured: *measured,
                tally,
            });
        }
        shown = shown.max(complete);
    }
    // A run that ends by count ends before its time.
    let ended = started.elapsed().min(run.warm_up.saturating_add(run.duration));
    let measured_time = ended.saturating_sub(run.warm_up).as_secs_f64();
    let measured = Measured::new(total, measured_time, run.rate, watch.finish());
    Outcomes {
        measured,
        started: started_wall,
        intervals: intervals(&seconds),
        gave_up,
    }
}

/// One second of the run, over all threads.
#[derive(Default)]
struct Second {
    measured: bool,
    tally: Tally,
}

fn take_interval(interval: Interval, total: &mut Tally, seconds: &mut Vec<Second>) {
    let Interval {
        second,
        measured,
        tally,
        ..
    } = interval;
    if measured {
        total.add(&tally);
    } else {
        // Wrong answers are wrong at any time.
        total.wrong += tally.wrong;
        total.wrong_examples.extend(tally.wrong_examples.iter().cloned());
        total.wrong_examples.truncate(10);
    }
    // Runs are bounded to a day, so this can not grow without end.
    let index = second as usize;
    if index >= seconds.len() {
        seconds.resize_with(index + 1, Second::default);
    }
    seconds[index].measured |= measured;
    seconds[index].tally.add(&tally);
}

fn intervals(seconds: &[Second]) -> Vec<(Duration, Duration, Histogram<u64>)> {
    let measured = seconds.iter().enumerate().filter(|(_, second)| second.measured);
    measured
        .map(|(index, second)| {
            let mut latency = latency_histogram();
            for (_, operation) in second.tally.operations() {
                latency
                    .add(&operation.latency)
                    .expect("all latency histograms have the same bounds");
            }
            (Duration::from_secs(index as u64), Duration::from_secs(1), latency)
        })
        .collect()
}

/// Reads the server's CPU time at the start and at the end of the measured time.
struct ServerWatch {
    pid: Option<u32>,
    measure_at: Instant,
    end_at: Instant,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
}

impl ServerWatch {
    fn new(run: &Run, started: Instant) -> Self {
        let measure_at = started + run.warm_up;
        let end_at = measure_at.checked_add(run.duration).unwrap_or(measure_at);
        Self {
            pid: run.server_pid,
            measure_at,
            end_at,
            first_ns: None,
            last_ns: None,
        }
    }

    /// How long the collector may sleep without missing a look.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let next = [self.measure_at, self.end_at].into_iter().find(|&at| at > now);
        next.map_or(Duration::from_secs(1), |at| at - now)
            .min(Duration::from_secs(1))
    }

    fn look(&mut self) {
        let now = Instant::now();
        if self.first_ns.is_none() && now >= self.measure_at {
            self.first_ns = self.pid.and_then(|pid| process_cpu_ns(pid).ok());
        }
        if self.last_ns.is_none() && now >= self.end_at {
            self.last_ns = self.pid.and_then(|pid| process_cpu_ns(pid).ok());
        }
    }

    fn finish(self) -> Option<u64> {
        let last_ns = self
            .last_ns
            .or_else(|| self.pid.and_then(|pid| process_cpu_ns(pid).ok()));
        Some(last_ns?.saturating_sub(self.first_ns?))
    }
}

/// CPU time of all threads of a process so far, in nanoseconds, from the scheduler's own books.
///
/// # Errors
/// There is no such process, or it is not ours to look at.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look; what it had used is then missing, which is little.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        total_ns += text
            .split(' ')
            .next()
            .and_then(|ns| ns.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(total_ns)
}

impl Progress<'_> {
    /// The progress as one line.
    pub fn line(&self) -> String {
        use crate::units::{show_count, show_time};
        let phase = if self.measured { "measuring" } else { "warm-up" };
        let answered = show_count(self.tally.answered);
        let elapsed = self.elapsed.as_secs();
        let latency = self.tally.latency();
        let mut line = format!("{elapsed:>4} s  {phase:<9} {answered:>10}/s");
        if !latency.is_empty() {
            let (p50, p99) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
            line += &format!("  p50 {:>8}  p99 {:>8}", show_time(p50), show_time(p99));
        }
        let (errors, cut) = (self.tally.errors(), self.tally.count(Outcome::CUT));
        for (name, count) in [("errors", errors), ("cut", cut), ("WRONG", self.tally.wrong)] {
            if count > 0 {
                line += &format!("  {name} {}", show_count(count));
            }
        }
        line
    }
}
