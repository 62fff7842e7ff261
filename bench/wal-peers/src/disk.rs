//! What the disk and the rest of the machine do meanwhile: the floor below every log, and other programs.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use prism_wal::buffer::{AlignedBuffer, BLOCK_BYTES};
use prism_wal::disk::Disk;
use prism_wal::disk::file::{FileDisk, LogFile};
use prism_wal::group_commit::WriteResult;
use serde_json::Value;

use crate::logs::Failure;

/// Share of one core that other programs (and the kernel's own workers) may take during a burst.
pub(crate) const FOREIGN_MAX: f64 = 0.8;
/// A floor this many times the best is not calm.
const CALM_FACTOR: f64 = 2.0;
/// How long to wait for calm.
const CALM_WITHIN: Duration = Duration::from_secs(2);
const FLOOR_BYTES: u64 = 16 << 20;
const PROBES: usize = 24;

/// The disk's floor: durable overwrites of 4 KiB, one after the other.
pub(crate) struct Floor {
    file: LogFile,
    block: AlignedBuffer,
    at: u64,
    /// Lowest median so far, in microseconds.
    best: f64,
}

impl Floor {
    pub(crate) fn prepare(directory: &Path) -> Result<Self, Failure> {
        let mut disk = FileDisk::open(directory, true)?;
        let file = disk.create("floor", FLOOR_BYTES)?;
        disk.write_zeros(&file, 0, FLOOR_BYTES)?;
        disk.sync(&file)?;
        let block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let mut floor = Self {
            file,
            block,
            at: 0,
            best: f64::INFINITY,
        };
        for _ in 0..10 {
            floor.probe()?;
        }
        Ok(floor)
    }

    /// The median of a few writes, in microseconds.
    pub(crate) fn probe(&mut self) -> Result<f64, Failure> {
        let mut took = Vec::with_capacity(PROBES);
        for _ in 0..PROBES {
            let began = Instant::now();
            let result = self.file.write_durable(self.at, self.block.as_slice());
            took.push(began.elapsed().as_nanos() as f64 / 1e3);
            if result != WriteResult::Durable(BLOCK_BYTES) {
                return Err(format!("the disk does not write: {result:?}").into());
            }
            self.at = (self.at + BLOCK_BYTES as u64) % FLOOR_BYTES;
        }
        took.sort_by(f64::total_cmp);
        let median = took[PROBES / 2];
        self.best = self.best.min(median);
        Ok(median)
    }

    /// Probes until the disk is calm, or for some seconds. Says `end` and `begin` to `around` about each wait.
    pub(crate) fn calm(
        &mut self,
        mut around: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        let deadline = Instant::now() + CALM_WITHIN;
        loop {
            let median = self.probe()?;
            if median < CALM_FACTOR * self.best || Instant::now() > deadline {
                return Ok(median);
            }
            around("end")?;
            thread::sleep(Duration::from_millis(300));
            around("begin")?;
        }
    }

    /// Whether one of two probes was not calm.
    pub(crate) fn moved(&self, before: f64, after: f64) -> bool {
        before.max(after) > CALM_FACTOR * self.best
    }
}

/// `fio`'s p50 and p99 of the same writes, in microseconds, for a second.
pub(crate) fn fio(directory: &Path) -> Result<[f64; 2], Failure> {
    thread::sleep(Duration::from_millis(500));
    let output = Command::new("fio")
        .args([
            "--name=floor",
            "--rw=write",
            "--bs=4k",
            "--ioengine=psync",
            "--direct=1",
            "--sync=dsync",
        ])
        .args([
            "--overwrite=1",
            "--fallocate=none",
            "--time_based",
            "--runtime=1",
            "--allow_file_create=0",
        ])
        .args(["--output-format=json", "--percentile_list=50:99"])
        .arg(format!("--size={FLOOR_BYTES}"))
        .arg(format!("--filename={}", directory.join("floor").display()))
        .output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let percentiles = &found["jobs"][0]["write"]["clat_ns"]["percentile"];
    let of = |name: &str| percentiles[name].as_f64().ok_or("fio has written nothing");
    Ok([of("50.000000")? / 1e3, of("99.000000")? / 1e3])
}

/// CPU time of the whole machine so far, in seconds, and when that was.
pub(crate) fn machine_cpu() -> Result<(f64, Instant), Failure> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq; Linux counts them in hundredths of a second.
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
    Ok((busy / 100.0, Instant::now()))
}

/// The share of a core that all programs took since then.
pub(crate) fn foreign_cpu(since: (f64, Instant)) -> Result<f64, Failure> {
    let (busy, at) = machine_cpu()?;
    Ok((busy - since.0) / (at - since.1).as_secs_f64())
}
