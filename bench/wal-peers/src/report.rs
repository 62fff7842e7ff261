//! The tables: medians over the rounds (over the undisturbed bursts, where there are any), and our log against each other one.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::logs::CONTESTANTS;

/// What is measured at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) bytes: u64,
    pub(crate) appenders: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x {} B", self.appenders, self.bytes)
    }
}

/// What a burst showed. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    /// The disk's floor moved, or other programs ran, at every attempt.
    disturbed: bool,
}

impl Burst {
    pub(crate) fn read(found: &Value, disturbed: bool) -> Self {
        let of = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        Self {
            per_second: of("per_second"),
            p50: of("p50"),
            p99: of("p99"),
            cpu: of("cpu_micros"),
            disturbed,
        }
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            per_second,
            p50,
            p99,
            cpu,
            ..
        } = self;
        let mark = if self.disturbed { " (disturbed)" } else { "" };
        write!(
            formatter,
            "{per_second:.0}/s, p50 {p50:.0} us, p99 {p99:.0} us, CPU {cpu:.1} us{mark}"
        )
    }
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Table {
    bursts: BTreeMap<Cell, BTreeMap<&'static str, Vec<Burst>>>,
    fio: Vec<[f64; 2]>,
}

impl Table {
    pub(crate) fn add(&mut self, cell: Cell, name: &'static str, burst: Burst) {
        self.bursts
            .entry(cell)
            .or_default()
            .entry(name)
            .or_default()
            .push(burst);
    }

    pub(crate) fn add_fio(&mut self, percentiles: [f64; 2]) {
        self.fio.push(percentiles);
    }

    /// Prints the tables as Markdown.
    pub(crate) fn print(&self) {
        let [p50, p99] = [0, 1].map(|index| median(self.fio.iter().map(|floor| floor[index])));
        let calmest = self
            .fio
            .iter()
            .map(|floor| floor[0])
            .fold(f64::INFINITY, f64::min);
        println!(
            "fio, 4 KiB durable overwrites, one at a time: p50 {p50:.0} us (in the calmest run {calmest:.0} us), p99 {p99:.0} us\n"
        );
        for contestant in CONTESTANTS {
            println!("- {}: {}", contestant.name, contestant.setup);
        }
        println!(
            "\n| appenders x record | log | appends/s | p50 us | p99 us | CPU us | rate to ours | disturbed |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|");
        let mut lost = Vec::new();
        for (cell, logs) in &self.bursts {
            let ours = logs.get(CONTESTANTS[0].name).map(|bursts| rate(bursts));
            for name in CONTESTANTS.iter().map(|contestant| contestant.name) {
                let Some(bursts) = logs.get(name) else { continue };
                let of = |figure: fn(&Burst) -> f64| median(counted(bursts).map(figure));
                let ratio = ours.map_or(f64::NAN, |ours| rate(bursts) / ours);
                if ratio > 1.0 {
                    lost.push(format!("{cell}: {name} {ratio:.2} x"));
                }
                println!(
                    "| {cell} | {name} | {:.0} | {:.0} | {:.0} | {:.1} | {ratio:.2} | {} of {} |",
                    rate(bursts),
                    of(|burst| burst.p50),
                    of(|burst| burst.p99),
                    of(|burst| burst.cpu),
                    bursts.iter().filter(|burst| burst.disturbed).count(),
                    bursts.len(),
                );
            }
        }
        match lost.is_empty() {
            true => println!("\nNo cell is lost."),
            false => println!("\nLost: {}.", lost.join("; ")),
        }
    }
}

fn rate(bursts: &[Burst]) -> f64 {
    median(counted(bursts).map(|burst| burst.per_second))
}

/// The bursts that nothing disturbed; all, if there is none.
fn counted(bursts: &[Burst]) -> impl Iterator<Item = &Burst> {
    let all = bursts.iter().all(|burst| burst.disturbed);
    bursts.iter().filter(move |burst| all || !burst.disturbed)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
