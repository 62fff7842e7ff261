//! The disk's floor: durable overwrites of a prepared file in the same run as the logs, a bound
//! that no log can beat one by one.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use prism_wal::buffer::{AlignedBuffer, BLOCK_BYTES};
use prism_wal::disk::Disk;
use prism_wal::disk::file::{FileDisk, LogFile};
use prism_wal::group_commit::WriteResult;
use serde_json::Value;

use crate::bounded;
use crate::figures::Floor;
use crate::logs::Failure;
use crate::machine::{FOREIGN_MAX, Watch, ended_children_cpu};

/// As long as a segment of our log and the files of most others.
const FILE_BYTES: u64 = 64 << 20;
const FILE_NAME: &str = "floor";
/// Writes of one probe.
const PROBES: usize = 24;
/// A probe has fewer writes when they take longer than this.
const PROBE_WITHIN: Duration = Duration::from_millis(500);
/// Between two probes of a disk that is not calm.
const PROBE_PAUSE: Duration = Duration::from_millis(300);
/// Beyond its own running time; it needs half a second to begin and to end.
const FIO_WITHIN: Duration = Duration::from_secs(30);

/// `fio`'s version.
pub(crate) fn fio_version() -> Result<String, Failure> {
    match Command::new("fio").arg("--version").output() {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(
            "fio is not there, and without it nothing says what the disk can do.\n\
             Install it: `stack/setup bench-wal`, or as root `apt-get install fio`."
                .into(),
        ),
        Err(error) => Err(format!("fio does not start: {error}").into()),
    }
}

/// The prepared file.
pub(crate) struct FloorFile {
    path: PathBuf,
    file: LogFile,
    block: AlignedBuffer,
    at: u64,
}

impl FloorFile {
    /// Creates it, really filled, in the folder that holds the logs.
    pub(crate) fn prepare(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE_NAME);
        let mut filled = std::fs::File::create(&path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() as u64 {
            filled.write_all(&zeros)?;
        }
        filled.sync_all()?;
        drop(filled);
        let mut disk = FileDisk::open(directory, true)?;
        let file = disk.open(FILE_NAME)?;
        Ok(Self {
            path,
            file,
            block: AlignedBuffer::zeroed(BLOCK_BYTES),
            at: 0,
        })
    }

    /// Figures of `fio`: durable overwrites of `bytes`, one at a time, one after the other.
    pub(crate) fn fio(&self, bytes: u64, length: Duration) -> Result<Floor, Failure> {
        let mut command = Command::new("fio");
        command
            .args(["--name=floor", "--rw=write", "--ioengine=psync", "--direct=1"])
            .args([
                "--sync=dsync",
                "--overwrite=1",
                "--fallocate=none",
                "--time_based",
            ])
            // A thread, not a process of its own: then one id ends it all.
            .args(["--thread", "--allow_file_create=0", "--eta=never"])
            .args(["--output-format=json", "--percentile_list=50:99"])
            .arg(format!("--bs={bytes}"))
            .arg(format!("--runtime={}ms", length.as_millis()))
            .arg(format!("--size={FILE_BYTES}"))
            .arg(format!("--filename={}", self.path.display()));
        let (watch, ended) = (Watch::begin()?, ended_children_cpu()?);
        let output = bounded::output(&mut command, length + FIO_WITHIN)?;
        let foreign = watch.foreign(ended_children_cpu()? - ended)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("fio fails: {}{}", said.trim(), printed.trim()).into());
        }
        // It may print warnings before.
        let json = printed.find('{').map_or("", |start| &printed[start..]);
        let found: Value = serde_json::from_str(json)?;
        let write = &found["jobs"][0]["write"];
        let of = |value: &Value| value.as_f64().ok_or("fio has written nothing");
        let percentiles = &write["clat_ns"]["percentile"];
        Ok(Floor {
            bytes,
            per_second: of(&write["iops"])?,
            p50: of(&percentiles["50.000000"])? / 1e3,
            p99: of(&percentiles["99.000000"])? / 1e3,
            disturbed: foreign > FOREIGN_MAX,
        })
    }

    /// The median of a few writes of 4 KiB, in microseconds, which shows at once whether the disk
    /// is calm.
    pub(crate) fn probe(&mut self) -> Result<f64, Failure> {
        let mut took = Vec::with_capacity(PROBES);
        let deadline = Instant::now() + PROBE_WITHIN;
        while took.len() < PROBES && (took.is_empty() || Instant::now() < deadline) {
            let began = Instant::now();
            let result = self.file.write_durable(self.at, self.block.as_slice());
            took.push(began.elapsed().as_nanos() as f64 / 1e3);
            if result != WriteResult::Durable(BLOCK_BYTES) {
                return Err(format!("the disk does not write: {result:?}").into());
            }
            self.at = (self.at + BLOCK_BYTES as u64) % FILE_BYTES;
        }
        took.sort_by(f64::total_cmp);
        Ok(took[took.len() / 2])
    }

    /// Waits until `times` probes one after the other are at most `calm` microseconds, but no
    /// longer than `within`. Whether they were.
    pub(crate) fn await_calm(&mut self, calm: f64, times: usize, within: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + within;
        let mut calm_probes = 0;
        loop {
            if self.probe()? <= calm {
                calm_probes += 1;
                if calm_probes == times {
                    return Ok(true);
                }
            } else {
                calm_probes = 0;
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(PROBE_PAUSE);
        }
    }
}
