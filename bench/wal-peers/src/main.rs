//! Our log beside others: the same appends, on the same disk, in the same run.
//!
//! Every contestant is a process. They take turns in short bursts with pauses, because a disk that is shared or limited by
//! rate is calm for a few seconds only; every second round goes in the opposite order. Before and after each burst the
//! disk's floor is probed; a burst between two floors that differ too much is repeated, as is one beside which other
//! programs ran. Medians over the rounds are shown.
//!
//! An appender is a thread that waits until its record is durable before it appends the next one.

mod contestant;
mod disk;
mod logs;
mod report;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use crate::disk::{Floor, foreign_cpu};
use crate::logs::{CONTESTANTS, Contestant, Failure};
use crate::report::{Burst, Cell, Table};

/// Measures our log beside others.
#[derive(Parser)]
struct Options {
    /// Folder on the disk in question; emptied afterwards
    #[arg(long, default_value = "wal-peers-data")]
    directory: PathBuf,
    /// Bursts of each cell
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a burst in milliseconds
    #[arg(long, default_value_t = 700)]
    burst: u64,
    /// Pause after a burst in milliseconds
    #[arg(long, default_value_t = 400)]
    pause: u64,
    /// Numbers of appenders
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128,256")]
    appenders: Vec<u64>,
    /// Record lengths in bytes
    #[arg(long, value_delimiter = ',', default_value = "128,1024,4096")]
    records: Vec<u64>,
    /// A command that is run with `begin` before and `end` after each burst, for example to hold other programs still
    #[arg(long)]
    around: Option<PathBuf>,
    /// Only these contestants
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A contestant's own process; for the program itself
    #[arg(long, hide = true)]
    contestant: Option<String>,
}

impl Options {
    fn around(&self, what: &str) -> Result<(), Failure> {
        if let Some(command) = &self.around
            && !Command::new(command).arg(what).status()?.success()
        {
            return Err("the command around the bursts fails".into());
        }
        Ok(())
    }
}

/// Attempts at a burst that something disturbs; the last one counts whatever happens, and is marked.
const ATTEMPTS: usize = 2;

/// Between opening the logs and the first burst.
const SETTLING: Duration = Duration::from_secs(10);

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    if let Some(name) = &options.contestant {
        let found = CONTESTANTS.iter().find(|contestant| contestant.name == name);
        return contestant::run(found.ok_or("no such contestant")?, &options.directory);
    }
    std::fs::create_dir_all(&options.directory)?;
    let directory = tempfile::tempdir_in(&options.directory)?;
    let table = measure(&options, directory.path())?;
    drop(directory);
    // Only if nobody else has put anything there.
    let _ = std::fs::remove_dir(&options.directory);
    table.print();
    Ok(())
}

fn measure(options: &Options, directory: &Path) -> Result<Table, Failure> {
    let mut floor = Floor::prepare(directory)?;
    let mut table = Table::default();
    table.add_fio(disk::fio(directory)?);
    let mut running = Vec::new();
    for contestant in CONTESTANTS {
        if options.only.is_empty() || options.only.iter().any(|name| name == contestant.name) {
            eprintln!("opening {}", contestant.name);
            running.push(Running::start(contestant, directory)?);
        }
    }
    // Opening has written a lot; the disk may still be paying for it.
    thread::sleep(SETTLING);
    for round in 0..options.rounds {
        for &bytes in &options.records {
            for &appenders in &options.appenders {
                let cell = Cell { bytes, appenders };
                running.reverse();
                for process in &mut running {
                    let burst = process.clean_burst(options, cell, &mut floor)?;
                    eprintln!("round {round} {cell} {}: {burst}", process.contestant.name);
                    table.add(cell, process.contestant.name, burst);
                }
            }
            table.add_fio(disk::fio(directory)?);
        }
    }
    Ok(table)
}

/// A contestant's process.
struct Running {
    contestant: &'static Contestant,
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Running {
    fn start(contestant: &'static Contestant, directory: &Path) -> Result<Self, Failure> {
        let directory = directory.join(contestant.name);
        std::fs::create_dir(&directory)?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--contestant")
            .arg(contestant.name)
            .arg("--directory")
            .arg(&directory)
            .env("WALRUS_DATA_DIR", &directory)
            .env("WALRUS_QUIET", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut running = Self {
            contestant,
            process,
            orders,
            answers,
        };
        running.await_line("ready")?;
        Ok(running)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("{} has ended: {}", self.contestant.name, self.process.wait()?).into());
        }
        Ok(line)
    }

    fn await_line(&mut self, wanted: &str) -> Result<(), Failure> {
        // Some contestants print things of their own.
        while self.line()?.trim_end() != wanted {}
        Ok(())
    }

    fn clean_burst(&mut self, options: &Options, cell: Cell, floor: &mut Floor) -> Result<Burst, Failure> {
        for attempt in 1.. {
            thread::sleep(Duration::from_millis(options.pause));
            options.around("begin")?;
            let before = floor.calm(|what| options.around(what))?;
            let machine = disk::machine_cpu()?;
            writeln!(self.orders, "{} {} {}", cell.appenders, cell.bytes, options.burst)?;
            let answer = loop {
                let line = self.line()?;
                if line.starts_with('{') {
                    break line;
                }
            };
            let foreign = foreign_cpu(machine)?;
            let after = floor.probe()?;
            options.around("end")?;
            self.await_line("tidy")?;
            let found: Value = serde_json::from_str(&answer)?;
            let foreign = foreign - found["cpu_seconds"].as_f64().unwrap_or(0.0) * 1e3 / options.burst as f64;
            let disturbed = floor.moved(before, after) || foreign > disk::FOREIGN_MAX;
            if !disturbed || attempt == ATTEMPTS {
                return Ok(Burst::read(&found, disturbed));
            }
        }
        unreachable!("the last attempt counts")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ends by itself when its orders end; this only makes it sure and quick.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
