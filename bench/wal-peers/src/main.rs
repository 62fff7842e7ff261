//! Comparison of our log with others: the same appends, on the same disk, in the same run, with the
//! floor of that disk.
//!
//! Every contestant is a process. They take turns in short bursts with pauses, because a disk that
//! is shared or limited by rate is calm for a few seconds only. A round of a cell (a number of
//! appenders, a length of records) is one burst of each, between two runs of `fio`; it is dropped,
//! and repeated later, when the floor has moved meanwhile. Every second round goes in the opposite
//! order. A burst during which other programs ran is repeated at once. Medians over the rounds are
//! shown.
//!
//! An appender is a thread that waits until its record is durable before it appends the next one.

mod bounded;
mod contestant;
mod figures;
mod floor;
mod logs;
mod machine;
mod report;
mod run;
mod running;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::figures::Results;
use crate::logs::{CONTESTANTS, Failure};

/// Measures our log and others, together with the disk's floor.
///
/// A part of the report can be repeated alone, for example
/// `--sizes 1024 --appenders 8,32 --logs prism,okaywal`.
#[derive(Parser)]
struct Options {
    /// Folder on the disk in question; emptied afterwards, or by the next run if this one is killed
    #[arg(long, default_value = "wal-peers-data")]
    directory: PathBuf,
    /// Rounds of each cell: bursts of each log
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Length of a burst in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    burst: u64,
    /// Pause after each burst and each run of fio in milliseconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pause: u64,
    /// Length of each run of fio in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    floor: u64,
    /// Numbers of appenders
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128,256",
        value_parser = clap::value_parser!(u64).range(1..=1024))]
    appenders: Vec<u64>,
    /// Record lengths in bytes
    #[arg(long, value_delimiter = ',', default_value = "128,1024,4096", alias = "records",
        value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    sizes: Vec<u64>,
    /// Only these logs (all, if none is named)
    #[arg(long, value_delimiter = ',', alias = "only",
        value_parser = CONTESTANTS.iter().map(|contestant| contestant.name).collect::<Vec<_>>())]
    logs: Vec<String>,
    /// No round begins that would probably end after so many minutes; what is left out is said
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// A command that is run with `begin` before and `end` after each burst and each run of fio,
    /// for example to hold other programs still
    #[arg(long)]
    around: Option<PathBuf>,
    /// A contestant's own process; for the program itself
    #[arg(long, hide = true)]
    contestant: Option<String>,
}

/// Folders of runs are named so; the process's id follows.
const RUN_PREFIX: &str = "run-";

fn main() -> ExitCode {
    match start(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<(), Failure> {
    if let Some(name) = &options.contestant {
        let found = CONTESTANTS.iter().find(|contestant| contestant.name == name);
        return contestant::run(found.ok_or("no such contestant")?, &options.directory);
    }
    let fio = floor::fio_version()?;
    std::fs::create_dir_all(&options.directory)?;
    remove_leftovers(&options.directory)?;
    let prefix = format!("{RUN_PREFIX}{}-", std::process::id());
    let directory = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&options.directory)?;
    let head = report::Head::collect(directory.path(), &fio)?;
    let mut results = Results::default();
    let measured = run::measure(options, directory.path(), &mut results);
    drop(directory);
    // Only if nobody else has put anything there.
    let _ = std::fs::remove_dir(&options.directory);
    // Also what was measured before an error: it took its time.
    if measured.is_ok() || !results.rounds.is_empty() {
        report::print(options, &head, &results, measured.is_ok());
    }
    measured
}

/// Removes what runs that were killed have left, which may be gigabytes.
fn remove_leftovers(directory: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(RUN_PREFIX));
        let process = name
            .and_then(|name| name.split('-').next())
            .and_then(|id| id.parse::<u32>().ok());
        if let Some(id) = process
            && !Path::new(&format!("/proc/{id}")).exists()
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
