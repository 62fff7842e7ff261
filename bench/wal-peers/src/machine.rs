//! Where a run was made: what somebody else needs to repeat it, and what other programs do
//! meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bounded;
use crate::logs::Failure;

/// The versions that this program was built with.
const LOCK_FILE: &str = include_str!("../Cargo.lock");
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The version of a package in the lock file.
pub(crate) fn package_version(package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK_FILE.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.split('"').nth(1));
    version.unwrap_or("of unknown version").to_owned()
}

/// The commit that is checked out where this program was built, and whether anything was changed
/// since.
pub(crate) fn revision() -> String {
    let git = |arguments: &[&str]| {
        answer(
            Command::new("git")
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .args(arguments),
        )
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "of unknown commit".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        None => commit,
        Some(_) => format!("{commit} and changes"),
    }
}

/// The hour, of the world's time.
pub(crate) fn hour() -> String {
    answer(Command::new("date").args(["-u", "+%-d %B %Y, %H:%M UTC"])).unwrap_or_default()
}

/// Processor, cores and memory.
pub(crate) fn machine() -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split(':').nth(1))
            .map_or("unknown".to_owned(), |value| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes = first("/proc/meminfo", "MemTotal");
    let kilobytes: f64 = kilobytes.trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    let gibibytes = kilobytes / f64::from(1 << 20);
    format!(
        "{}, {cores} cores, {gibibytes:.0} GiB of memory",
        first("/proc/cpuinfo", "model name")
    )
}

/// The kernel's version.
pub(crate) fn kernel() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", version.trim())
}

/// The compiler on this machine, which has most probably built this program.
pub(crate) fn compiler() -> String {
    answer(Command::new("rustc").arg("--version")).unwrap_or("rustc of unknown version".to_owned())
}

/// The file system that holds the folder, and the disk below it.
pub(crate) fn file_system(directory: &Path) -> Result<String, Failure> {
    let directory = directory.canonicalize()?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    // The innermost mount that holds the folder; of several at one place the last, which hides the
    // others.
    let mount = text
        .lines()
        .filter_map(Mount::read)
        .filter(|mount| directory.starts_with(mount.point))
        .max_by_key(|mount| mount.point.len())
        .ok_or("no file system holds the folder")?;
    Ok(format!(
        "{} on {} ({}){}",
        mount.kind,
        mount.source,
        mount.options,
        Disk::below(&directory)?.description()
    ))
}

/// The disk below a folder, as the kernel shows it in a folder of its own; nothing may be known
/// about it.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn below(directory: &Path) -> Result<Self, Failure> {
        let device = directory.metadata()?.dev();
        let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Self(Path::new("/sys/dev/block").join(numbers)))
    }

    /// Bytes that the disk has written so far, for all programs. Not what the kernel holds against
    /// each process: there, a changed byte of a file in memory counts as much as the piece that the
    /// kernel keeps together, which may be many pages.
    pub(crate) fn written_bytes(&self) -> f64 {
        let text = fs::read_to_string(self.0.join("stat")).unwrap_or_default();
        let sectors = text
            .split_whitespace()
            .nth(6)
            .and_then(|text| text.parse::<f64>().ok());
        sectors.map_or(f64::NAN, |sectors| sectors * 512.0)
    }

    fn description(&self) -> String {
        // A partition's queue is its disk's.
        let queue = [self.0.join("queue"), self.0.join("../queue")]
            .into_iter()
            .find(|queue| queue.is_dir());
        let Some(queue) = queue else {
            return String::new();
        };
        let of = |name: &str| {
            let text = fs::read_to_string(queue.join(name)).unwrap_or_default();
            text.trim().to_owned()
        };
        format!("; {} cache, scheduler {}", of("write_cache"), of("scheduler"))
    }
}

/// A line of /proc/self/mountinfo.
struct Mount<'a> {
    point: &'a str,
    options: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (own, file_system) = line.split_once(" - ")?;
        let mut own = own.split(' ').skip(4);
        let mut file_system = file_system.split(' ');
        Some(Self {
            point: own.next()?,
            options: own.next()?,
            kind: file_system.next()?,
            source: file_system.next()?,
        })
    }
}

/// How many tasks ran or waited for the disk, in the mean of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Share of one core that other programs (and the kernel's own workers) may take during a burst or
/// a run of `fio`. Above it a woken thread may wait for the end of another's turn, which is 4 ms
/// where the kernel's clock ticks 250 times a second: that looks like a slow disk.
pub(crate) const FOREIGN_MAX: f64 = 0.8;

/// Finds out what others take of the processor meanwhile.
pub(crate) struct Watch {
    busy: f64,
    at: Instant,
}

impl Watch {
    pub(crate) fn begin() -> Result<Self, Failure> {
        let (busy, at) = (machine_cpu()?, Instant::now());
        Ok(Self { busy, at })
    }

    /// The share of a core that others took since the beginning, in addition to the `own_seconds`
    /// of the program in question.
    pub(crate) fn foreign(&self, own_seconds: f64) -> Result<f64, Failure> {
        let busy = machine_cpu()? - self.busy - own_seconds;
        Ok(busy.max(0.0) / self.at.elapsed().as_secs_f64())
    }
}

/// CPU time in seconds of the programs that this one has started and seen end.
pub(crate) fn ended_children_cpu() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name, which may hold anything, ends with the last bracket; the fields that are wanted are
    // the 16th and 17th.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields
        .skip(13)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// CPU time of the whole machine so far, in seconds.
fn machine_cpu() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, and what other machines on the same processor
    // stole; Linux counts them in hundredths of a second.
    let busy: f64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum();
    Ok(busy / 100.0)
}

/// Output of a program; `None` where it prints nothing, fails, or is not there.
fn answer(command: &mut Command) -> Option<String> {
    let output = bounded::output(command, ANSWER_WITHIN).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_versions() {
        assert_eq!(package_version("prism-wal-peers"), env!("CARGO_PKG_VERSION"));
        assert_eq!(package_version("no-such-package"), "of unknown version");
    }

    #[test]
    fn a_mount_is_read() {
        let mount =
            Mount::read("22 1 254:0 / /data rw,relatime shared:1 - ext4 /dev/vda rw,discard").unwrap();
        assert_eq!((mount.point, mount.options), ("/data", "rw,relatime"));
        assert_eq!((mount.kind, mount.source), ("ext4", "/dev/vda"));
    }
}
