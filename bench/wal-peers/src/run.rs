//! A run: which cell when, in which order the logs take their turns, and between which floors.
//!
//! ```text
//!   round of a cell:  await calm, fio, pause, (await calm, burst, upkeep, pause) of each log,
//!                     fio, pause, larger fio, pause
//! ```

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::bounded;
use crate::figures::{Burst, Cell, Floor, Results, Round};
use crate::floor::FloorFile;
use crate::logs::{CONTESTANTS, Failure};
use crate::machine::Disk;
use crate::running::Running;

/// Attempts at a burst that something disturbs; the last one counts whatever happens, and is
/// marked.
const BURST_ATTEMPTS: usize = 2;
/// The same for runs of `fio`.
const FLOOR_ATTEMPTS: usize = 2;
/// Attempts at a round that is dropped. A repetition waits until all others had their turn: the
/// disk may be calmer then.
const ROUND_ATTEMPTS: usize = 3;

/// A burst begins when a probe is below this many times the round's floor, and a round below this
/// many times the lowest.
const CALM_FACTOR: f64 = 2.0;
const CALM_BEFORE_BURST: Duration = Duration::from_secs(2);
const CALM_BEFORE_ROUND: Duration = Duration::from_secs(10);
/// Opening the logs writes more than a gigabyte; the disk may be paying for it for long.
const CALM_AFTER_OPENING: Duration = Duration::from_secs(90);

const BLOCK_BYTES: u64 = 4096;
/// The largest write that `fio` is asked for.
const TOGETHER_BYTES_MAX: u64 = 1 << 20;
const AROUND_WITHIN: Duration = Duration::from_secs(60);

/// A round of a cell that is still to be measured.
#[derive(Clone, Copy)]
struct Turn {
    cell: Cell,
    cell_index: usize,
    number: usize,
    attempt: usize,
}

/// Measures; what was measured until an error is in `results`.
pub(crate) fn measure(options: &Options, directory: &Path, results: &mut Results) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(60 * options.minutes);
    let mut run = Run::open(options, directory, results)?;
    let mut turns = turns(options);
    let began = Instant::now();
    while let Some(turn) = turns.pop_front() {
        let rounds = results.rounds.len() as u32;
        let usual = began.elapsed().checked_div(rounds).unwrap_or_default();
        if Instant::now() + usual > deadline {
            results.rounds_left = turns.len() + 1;
            eprintln!("the time is over; {} rounds are left", results.rounds_left);
            break;
        }
        let round = run.round(turn, results)?;
        if round.dropped().is_some() && turn.attempt < ROUND_ATTEMPTS {
            turns.push_back(Turn {
                attempt: turn.attempt + 1,
                ..turn
            });
        }
        results.rounds.push(round);
        for process in &run.running {
            results.upkeep.insert(process.contestant.name, process.upkeep);
        }
    }
    Ok(())
}

/// All rounds: each cell once, then each cell again, because the disk changes with the time.
fn turns(options: &Options) -> VecDeque<Turn> {
    let cells = || {
        options.sizes.iter().flat_map(|&bytes| {
            options
                .appenders
                .iter()
                .map(move |&appenders| Cell { bytes, appenders })
        })
    };
    (0..options.rounds as usize)
        .flat_map(|number| {
            cells().enumerate().map(move |(cell_index, cell)| Turn {
                cell,
                cell_index,
                number,
                attempt: 1,
            })
        })
        .collect()
}

/// The order of the logs: A B C, C B A, then from another one on. Each cell begins with another
/// log, so that none has the first place, or the same neighbour, everywhere.
fn order(logs: usize, cell_index: usize, number: usize) -> Vec<usize> {
    let first = cell_index + number / 2 * (1 + logs / 3);
    let mut order: Vec<usize> = (0..logs).map(|log| (first + log) % logs).collect();
    if number % 2 == 1 {
        order.reverse();
    }
    order
}

/// The size of one write that holds a record of each appender; `None` where that is not more than a
/// block.
fn together_bytes(cell: Cell) -> Option<u64> {
    let bytes = (cell.bytes * cell.appenders).next_multiple_of(BLOCK_BYTES);
    (bytes > BLOCK_BYTES).then_some(bytes.min(TOGETHER_BYTES_MAX))
}

/// The open logs and the disk below them.
struct Run<'a> {
    options: &'a Options,
    disk: Disk,
    floor_file: FloorFile,
    running: Vec<Running>,
    /// The floor's lowest p50 so far.
    lowest: f64,
}

impl<'a> Run<'a> {
    fn open(options: &'a Options, directory: &Path, results: &mut Results) -> Result<Self, Failure> {
        let mut run = Self {
            options,
            disk: Disk::below(directory)?,
            floor_file: FloorFile::prepare(directory)?,
            running: Vec::new(),
            lowest: f64::INFINITY,
        };
        thread::sleep(Duration::from_secs(1));
        let first = run.fio(BLOCK_BYTES)?;
        eprintln!("floor before the logs are opened: {first}");
        results.first_floor = Some(first);
        for contestant in CONTESTANTS {
            if options.logs.is_empty() || options.logs.iter().any(|name| name == contestant.name) {
                eprintln!("opening {}", contestant.name);
                run.running.push(Running::start(contestant, directory)?);
                let version = (contestant.version)(&directory.join(contestant.name));
                results.versions.insert(contestant.name, version);
            }
        }
        let began = Instant::now();
        // Otherwise the kernel would write their remaining pages during the first burst of another.
        rustix::fs::syncfs(std::fs::File::open(directory)?)?;
        let calm = run
            .floor_file
            .await_calm(CALM_FACTOR * first.p50, 3, CALM_AFTER_OPENING)?;
        let seconds = began.elapsed().as_secs_f64();
        let found = if calm { "calm" } else { "not calm" };
        eprintln!("{seconds:.0} s after opening them the disk is {found}");
        Ok(run)
    }

    /// One burst of each log, between two floors.
    fn round(&mut self, turn: Turn, results: &mut Results) -> Result<Round, Failure> {
        let cell = turn.cell;
        let title = format!("round {} of {cell}", turn.number + 1);
        self.floor_file
            .await_calm(CALM_FACTOR * self.lowest, 1, CALM_BEFORE_ROUND)?;
        let before = self.fio(BLOCK_BYTES)?;
        eprintln!("{title}, attempt {}: before it {before}", turn.attempt);
        let mut bursts = Vec::new();
        for log in order(self.running.len(), turn.cell_index, turn.number) {
            let burst = self.burst(log, cell, before.p50, results)?;
            let name = self.running[log].contestant.name;
            eprintln!("{title}: {name}: {burst}");
            bursts.push((name, burst));
        }
        let after = self.fio(BLOCK_BYTES)?;
        let mut round = Round {
            cell,
            before,
            after,
            together: None,
            bursts,
        };
        eprintln!("{title}: after it {after}");
        if let Some(why) = round.dropped() {
            eprintln!("{title}: dropped, because {why}");
        }
        if let Some(bytes) = together_bytes(cell)
            && round.dropped().is_none()
        {
            let together = self.fio(bytes)?;
            eprintln!("{title}: after it {together}");
            round.together = Some(together);
        }
        Ok(round)
    }

    /// A burst that nothing disturbs, if it can be had.
    fn burst(&mut self, log: usize, cell: Cell, floor: f64, results: &mut Results) -> Result<Burst, Failure> {
        let length = Duration::from_millis(self.options.burst);
        for attempt in 1.. {
            let calm = self
                .floor_file
                .await_calm(CALM_FACTOR * floor, 1, CALM_BEFORE_BURST)?;
            self.around("begin")?;
            let burst = self.running[log].burst(cell, length, calm, &self.disk);
            self.around("end")?;
            let burst = burst?;
            self.pause();
            self.running[log].pause_is_over(&self.disk);
            if !burst.disturbed || attempt == BURST_ATTEMPTS {
                return Ok(burst);
            }
            results.repeated_bursts += 1;
        }
        unreachable!("the last attempt counts")
    }

    /// A run of `fio` that nothing disturbs, if it can be had.
    fn fio(&mut self, bytes: u64) -> Result<Floor, Failure> {
        let length = Duration::from_millis(self.options.floor);
        for attempt in 1.. {
            self.around("begin")?;
            let floor = self.floor_file.fio(bytes, length);
            self.around("end")?;
            let floor = floor?;
            self.pause();
            if !floor.disturbed || attempt == FLOOR_ATTEMPTS {
                if bytes == BLOCK_BYTES {
                    self.lowest = self.lowest.min(floor.p50);
                }
                return Ok(floor);
            }
        }
        unreachable!("the last attempt counts")
    }

    fn pause(&self) {
        thread::sleep(Duration::from_millis(self.options.pause));
    }

    fn around(&self, what: &str) -> Result<(), Failure> {
        if let Some(program) = &self.options.around {
            let status = bounded::status(Command::new(program).arg(what), AROUND_WITHIN)?;
            if !status.success() {
                return Err(format!("{} {what} fails: {status}", program.display()).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_goes_in_the_opposite_order() {
        for logs in 1..9 {
            for cell_index in 0..16 {
                let mut there = order(logs, cell_index, 0);
                assert_eq!(there[0], cell_index % logs);
                there.reverse();
                assert_eq!(there, order(logs, cell_index, 1));
            }
        }
        assert_eq!(order(8, 0, 2), [3, 4, 5, 6, 7, 0, 1, 2]);
        assert_eq!([order(2, 0, 0), order(2, 0, 1)], [[0, 1], [1, 0]]);
        assert_eq!([order(2, 0, 2), order(2, 0, 3)], [[1, 0], [0, 1]]);
    }

    #[test]
    fn what_waits_together_is_rounded_up_to_blocks_and_bounded() {
        let of = |appenders, bytes| together_bytes(Cell { bytes, appenders });
        assert_eq!(of(1, 4096), None);
        assert_eq!(of(32, 128), None);
        assert_eq!(of(33, 128), Some(8192));
        assert_eq!(of(8, 1024), Some(8192));
        assert_eq!(of(1024, 4096), Some(TOGETHER_BYTES_MAX));
    }
}
