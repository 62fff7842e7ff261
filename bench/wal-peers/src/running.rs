//! A contestant's process, seen from the parent: orders to it, answers from it, each within a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bounded;
use crate::figures::{Burst, Cell, Upkeep};
use crate::logs::{Contestant, Failure};
use crate::machine::{Disk, Watch};

/// To open a log and to fill what it fills beforehand.
const OPEN_WITHIN: Duration = Duration::from_secs(180);
/// Beyond the burst itself; a disk that stalls may hold the last appends for long.
const BURST_WITHIN: Duration = Duration::from_secs(60);
/// For upkeep after a burst.
const TIDY_WITHIN: Duration = Duration::from_secs(60);

/// Where things stood at the end of a burst.
struct Last {
    /// CPU time of the process.
    cpu_seconds: f64,
    /// Bytes that the disk had written.
    written: f64,
}

/// A contestant's process; killed, by its own id, when this is dropped.
pub(crate) struct Running {
    pub(crate) contestant: &'static Contestant,
    pub(crate) upkeep: Upkeep,
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// At the end of the last burst, if nothing disturbed it.
    last: Option<Last>,
}

impl Running {
    /// Starts the process; returns when its log is open.
    pub(crate) fn start(contestant: &'static Contestant, directory: &Path) -> Result<Self, Failure> {
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
        let printed = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let (lines, answers) = channel();
        // Ends with the process.
        thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut running = Self {
            contestant,
            upkeep: Upkeep::default(),
            process,
            orders,
            answers,
            last: None,
        };
        running.await_line("open its log", OPEN_WITHIN, |line| line == "ready")?;
        Ok(running)
    }

    /// One burst, and the log's upkeep after it. `calm` says whether the disk was before it.
    pub(crate) fn burst(
        &mut self,
        cell: Cell,
        length: Duration,
        calm: bool,
        disk: &Disk,
    ) -> Result<Burst, Failure> {
        let (watch, written) = (Watch::begin()?, disk.written_bytes());
        // Fails where the process has ended, which the wait for its answer finds out and says
        // better.
        let _ = writeln!(
            self.orders,
            "{} {} {}",
            cell.appenders,
            cell.bytes,
            length.as_millis()
        );
        let what = format!("do a burst of {cell}");
        let answer = self.await_line(&what, length + BURST_WITHIN, |line| line.starts_with('{'))?;
        let written_ended = disk.written_bytes();
        let found: Value = serde_json::from_str(&answer)?;
        let of = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        let (cpu_began, cpu_ended) = (of("cpu_seconds_began"), of("cpu_seconds_ended"));
        let foreign = watch.foreign(cpu_ended - cpu_began)?;
        let over = Instant::now();
        self.await_line("tidy up", TIDY_WITHIN, |line| line == "tidy")?;
        let burst = Burst::read(&found, calm, foreign);
        let upkeep = &mut self.upkeep;
        if let Some(last) = self.last.take() {
            upkeep.cpu_seconds_between += cpu_began - last.cpu_seconds;
        }
        // Otherwise the disk wrote for others too.
        if !burst.disturbed {
            upkeep.wait_seconds_max = upkeep.wait_seconds_max.max(over.elapsed().as_secs_f64());
            upkeep.appends += of("appends");
            upkeep.appended_bytes += of("appends") * cell.bytes as f64;
            upkeep.cpu_seconds_within += cpu_ended - cpu_began;
            upkeep.written_within += written_ended - written;
            self.last = Some(Last {
                cpu_seconds: cpu_ended,
                written: written_ended,
            });
        }
        Ok(burst)
    }

    /// Says that the pause after a burst is over, and that others have their turn.
    pub(crate) fn pause_is_over(&mut self, disk: &Disk) {
        if let Some(last) = &self.last {
            self.upkeep.written_after += disk.written_bytes() - last.written;
        }
    }

    /// The next line that is wanted; a contestant may print things of its own before it.
    fn await_line(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let name = self.contestant.name;
        let deadline = Instant::now() + within;
        loop {
            match self
                .answers
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if wanted(line.trim_end()) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bounded::end(&mut self.process, name);
                    let seconds = within.as_secs();
                    return Err(format!("{name} did not {what} within {seconds} s and was killed").into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bounded::end(&mut self.process, name);
                    let status = self.process.try_wait()?;
                    let status = status.map_or("still there".to_owned(), |status| status.to_string());
                    return Err(format!("{name} has ended and did not {what}: {status}").into());
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It would end by itself when its orders end; its files are thrown away, so nothing is
        // lost.
        bounded::end(&mut self.process, self.contestant.name);
    }
}
