//! A contestant's process: opens its log and runs the bursts that the parent asks for, one line
//! each way.
//!
//! In a process of its own each has its own CPU account, and none suffers from another's threads.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::logs::{Contestant, Failure, Log};

/// Before this, a burst is not measured.
const WARM_UP: Duration = Duration::from_millis(100);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// Runs until the parent closes the pipe.
pub(crate) fn run(contestant: &Contestant, directory: &Path) -> Result<(), Failure> {
    // A parent that is killed cannot end it any more.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let log = (contestant.open)(directory)?;
    // What only the first append pays, such as the flush of a file that was filled beforehand, is
    // nobody's burst.
    log.append(0, &[0; 64])?;
    log.tidy()?;
    let mut out = stdout();
    writeln!(out, "ready")?;
    for line in stdin().lock().lines() {
        let line = line?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [appenders, bytes, millis] = numbers[..] else {
            return Err("three numbers are expected".into());
        };
        let found = burst(
            &*log,
            appenders as usize,
            bytes as usize,
            Duration::from_millis(millis),
        )?;
        writeln!(out, "{found}")?;
        log.tidy()?;
        writeln!(out, "tidy")?;
    }
    Ok(())
}

fn burst(log: &dyn Log, appenders: usize, bytes: usize, length: Duration) -> Result<Value, Failure> {
    let (phase, start) = (AtomicU8::new(WARMING), Barrier::new(appenders + 1));
    let mut total = Appended::new()?;
    let (mut seconds, mut cpu) = (0.0, 0.0);
    let cpu_began = process_cpu();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..appenders)
            .map(|appender| {
                let (phase, start) = (&phase, &start);
                scope.spawn(move || append(log, appender, bytes, phase, start))
            })
            .collect();
        start.wait();
        thread::sleep(WARM_UP);
        phase.store(MEASURING, Ordering::Relaxed);
        let (began, before) = (Instant::now(), process_cpu());
        thread::sleep(length);
        phase.store(OVER, Ordering::Relaxed);
        (seconds, cpu) = (began.elapsed().as_secs_f64(), process_cpu() - before);
        for thread in threads {
            total.add(&thread.join().map_err(|_| "an appender panicked")??)?;
        }
        Ok::<_, Failure>(())
    })?;
    Ok(json!({
        "appends": total.appends,
        "per_second": total.ended_within as f64 / seconds,
        "cpu_micros": cpu * 1e6 / total.ended_within.max(1) as f64,
        "p50": total.latencies.value_at_quantile(0.5) as f64 / 1e3,
        "p99": total.latencies.value_at_quantile(0.99) as f64 / 1e3,
        "cpu_seconds_began": cpu_began,
        "cpu_seconds_ended": process_cpu(),
    }))
}

/// Work of the appenders.
struct Appended {
    /// Of the appends that began within the measured time, also of those that ended after it: an
    /// append that a stall holds beyond the end is a slow one all the same.
    latencies: Histogram<u64>,
    /// Appends that ended within the measured time, also those that began before it. Otherwise each
    /// appender would lose one, which is nothing for a fast log and a tenth for a slow one.
    ended_within: u64,
    /// All, those of the warm-up included.
    appends: u64,
}

impl Appended {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
            ended_within: 0,
            appends: 0,
        })
    }

    fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.latencies.add(&other.latencies)?;
        self.ended_within += other.ended_within;
        self.appends += other.appends;
        Ok(())
    }
}

/// One appender: the next append begins when the last one is durable.
fn append(
    log: &dyn Log,
    appender: usize,
    bytes: usize,
    phase: &AtomicU8,
    start: &Barrier,
) -> Result<Appended, Failure> {
    let mut own = Appended::new()?;
    // Nothing that compresses.
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(appender as u64 + 1) | 1;
    let mut record: Vec<u8> = Vec::with_capacity(bytes);
    record.resize_with(bytes, || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    start.wait();
    loop {
        let began_in = phase.load(Ordering::Relaxed);
        if began_in == OVER {
            return Ok(own);
        }
        record[..8].copy_from_slice(&own.appends.to_le_bytes());
        let began = Instant::now();
        log.append(appender, &record)?;
        let took = began.elapsed();
        own.appends += 1;
        if began_in == MEASURING {
            own.latencies.saturating_record(took.as_nanos() as u64);
        }
        if phase.load(Ordering::Relaxed) == MEASURING {
            own.ended_within += 1;
        }
    }
}

/// CPU time of this process so far, in seconds.
fn process_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
