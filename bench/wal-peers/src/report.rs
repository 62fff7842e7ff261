//! The report, as Markdown for docs/BENCHMARKS.md: where it was measured, the figures, ours against
//! each other log.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Options;
use crate::figures::{Burst, Cell, Floor, MOVED_FACTOR, Results, Summary, geometric_mean, median};
use crate::logs::{CONTESTANTS, Contestant, Failure};
use crate::machine::{self, FOREIGN_MAX};

/// From so many appenders on a cell is in the geometric mean: below, there is little to be grouped.
const MEAN_FROM: u64 = 8;

/// Knowledge about the machine before the run.
pub(crate) struct Head {
    lines: Vec<(&'static str, String)>,
}

impl Head {
    pub(crate) fn collect(directory: &Path, fio: &str) -> Result<Self, Failure> {
        let command: Vec<String> = std::env::args().skip(1).collect();
        let command = match command.is_empty() {
            true => "`make bench-wal`".to_owned(),
            false => format!("`make bench-wal BENCH_WAL=\"{}\"`", command.join(" ")),
        };
        let lines = vec![
            ("command", command),
            ("begun", machine::hour()),
            ("machine", machine::machine()),
            ("kernel", machine::kernel()),
            ("file system", machine::file_system(directory)?),
            ("tools", format!("{fio}, {}", machine::compiler())),
            ("load before", machine::load()),
        ];
        Ok(Self { lines })
    }
}

/// Prints the whole report. `complete` is false where an error ended the run.
pub(crate) fn print(options: &Options, head: &Head, results: &Results, complete: bool) {
    let summaries = results.summaries();
    print_head(options, head, results, complete);
    print_legend(results);
    print_figures(options, results, &summaries);
    if results.versions.len() > 1 && results.versions.contains_key(CONTESTANTS[0].name) {
        print_ratios(results, &summaries);
        print_lost(&summaries);
    }
    print_upkeep(results);
}

/// The contestants that were measured, ours first.
fn measured(results: &Results) -> impl Iterator<Item = &'static Contestant> {
    let versions = &results.versions;
    CONTESTANTS
        .iter()
        .filter(|contestant| versions.contains_key(contestant.name))
}

fn print_head(options: &Options, head: &Head, results: &Results, complete: bool) {
    println!("| | |\n|---|---|");
    for (what, text) in &head.lines {
        println!("| {what} | {text} |");
    }
    println!("| load after | {} |", machine::load());
    if let Some(floor) = results.first_floor {
        println!("| floor before the logs were opened | {floor} |");
    }
    let mut dropped: BTreeMap<(Cell, &str), usize> = BTreeMap::new();
    for round in &results.rounds {
        if let Some(why) = round.dropped() {
            *dropped.entry((round.cell, why)).or_default() += 1;
        }
    }
    println!(
        "| rounds | {} of each cell wanted; {} measured, {} of them dropped; bursts of {} ms, {} of them repeated |",
        options.rounds,
        results.rounds.len(),
        dropped.values().sum::<usize>(),
        options.burst,
        results.repeated_bursts
    );
    if !dropped.is_empty() {
        let dropped: Vec<String> = dropped
            .iter()
            .map(|((cell, why), times)| format!("{cell}: {times} ({why})"))
            .collect();
        println!("| dropped | {} |", dropped.join("; "));
    }
    let counted = results.rounds.iter().filter(|round| round.dropped().is_none());
    let foreign: Vec<f64> = counted
        .flat_map(|round| &round.bursts)
        .filter(|(_, burst)| !burst.disturbed)
        .map(|(_, burst)| burst.foreign)
        .collect();
    if !foreign.is_empty() {
        println!(
            "| cores that others, and the kernel's workers, took beside bursts that count | median {:.2}, highest {:.2} |",
            median(foreign.iter().copied()),
            foreign.iter().copied().fold(0.0, f64::max)
        );
    }
    if results.rounds_left > 0 {
        println!(
            "| not measured, because the time was over | {} rounds |",
            results.rounds_left
        );
    }
    if !complete {
        println!("| **incomplete** | an error ended the run |");
    }
    println!();
    for contestant in measured(results) {
        let version = &results.versions[contestant.name];
        let space = if version.is_empty() { "" } else { " " };
        println!("- {}{space}{version}: {}", contestant.name, contestant.setup);
    }
}

fn print_legend(results: &Results) {
    println!(
        "\nEach log: appends per second; p50 / p99 of an append in µs; CPU of the process per append in µs. Medians over the \
         rounds that are not\ndropped: those whose floor was not disturbed, and did not move by more than {MOVED_FACTOR} × \
         in p50. `*`: there is no such round, or every burst was\ndisturbed (other programs took more than {FOREIGN_MAX} of \
         a core, or the disk was not calm before it)."
    );
    println!(
        "\nFloor: `fio`, psync, `O_DIRECT`, `sync=dsync`, overwrite of a prepared file, one write at a time: writes per \
         second; p50 / p99 in µs; lowest–\nhighest p50 of its runs. *4 KiB*: before and after each round. *Together*: after \
         it, one write as large as a record of each appender (at most\n1 MiB); times the appenders, its rate is what a log \
         carries that never has two writes on their way."
    );
    if results.rounds.is_empty() {
        println!("\nNothing was measured.");
    }
}

fn print_figures(options: &Options, results: &Results, summaries: &BTreeMap<Cell, Summary>) {
    let mut sizes: Vec<u64> = summaries.keys().map(|cell| cell.bytes).collect();
    sizes.dedup();
    for bytes in sizes {
        println!("\nRecords of {}:\n", size(bytes));
        print!("| appenders | floor, 4 KiB | floor, together |");
        for contestant in measured(results) {
            match contestant.name == CONTESTANTS[0].name {
                true => print!(" **{}** |", contestant.name),
                false => print!(" {} |", contestant.name),
            }
        }
        println!("\n|--:|---|---|{}", "---|".repeat(results.versions.len()));
        for (cell, summary) in summaries.iter().filter(|(cell, _)| cell.bytes == bytes) {
            let rounds = match summary.rounds {
                0 => "<br>no good round".to_owned(),
                1 if options.rounds != 1 => "<br>1 round".to_owned(),
                rounds if rounds as u64 != options.rounds => format!("<br>{rounds} rounds"),
                _ => String::new(),
            };
            let [low, high] = summary.floor_range;
            print!(
                "| {}{rounds} | {}<br>{low:.0}–{high:.0} | {} |",
                cell.appenders,
                floor_text(&summary.floor),
                summary.together.map_or("–".to_owned(), |floor| format!(
                    "{}: {}",
                    size(floor.bytes),
                    floor_text(&floor)
                ))
            );
            for contestant in measured(results) {
                print!(
                    " {} |",
                    summary
                        .logs
                        .get(contestant.name)
                        .map_or(String::new(), burst_text)
                );
            }
            println!();
        }
    }
}

fn floor_text(floor: &Floor) -> String {
    let rate = thousands(floor.per_second);
    format!("{rate}<br>{} / {}", thousands(floor.p50), thousands(floor.p99))
}

fn burst_text(burst: &Burst) -> String {
    let mark = mark(burst.disturbed);
    let rate = thousands(burst.per_second);
    let cpu = match burst.cpu < 9.95 {
        true => format!("{:.1}", burst.cpu),
        false => thousands(burst.cpu),
    };
    format!(
        "{rate}{mark}<br>{} / {}<br>{cpu}",
        thousands(burst.p50),
        thousands(burst.p99)
    )
}

/// Ours against another in a cell: rates, 99th percentiles, and whether one of them was disturbed.
fn ratio(summary: &Summary, other: &str) -> Option<([f64; 2], bool)> {
    let (ours, theirs) = (summary.logs.get(CONTESTANTS[0].name)?, summary.logs.get(other)?);
    let ratios = [ours.per_second / theirs.per_second, ours.p99 / theirs.p99];
    Some((ratios, ours.disturbed || theirs.disturbed))
}

fn print_ratios(results: &Results, summaries: &BTreeMap<Cell, Summary>) {
    println!(
        "\nOurs divided by each other's: rate / p99. The floor's column: p50 / p99 of ours divided by those of 4 KiB.\n"
    );
    let others: Vec<&str> = measured(results)
        .skip(1)
        .map(|contestant| contestant.name)
        .collect();
    println!("| appenders × record | to the floor | {} |", others.join(" | "));
    println!("|---|--:|{}", "--:|".repeat(others.len()));
    for (cell, summary) in summaries {
        let Some(ours) = summary.logs.get(CONTESTANTS[0].name) else {
            continue;
        };
        let floor = summary.floor;
        print!(
            "| {cell} | {:.2} / {:.2} |",
            ours.p50 / floor.p50,
            ours.p99 / floor.p99
        );
        for other in &others {
            match ratio(summary, other) {
                Some((ratios, disturbed)) => print!(" {}{} |", pair(ratios), mark(disturbed)),
                None => print!(" |"),
            }
        }
        println!();
    }
    let in_mean = || summaries.iter().filter(|(cell, _)| cell.appenders >= MEAN_FROM);
    let any_disturbed = in_mean().any(|(_, summary)| {
        others
            .iter()
            .any(|other| ratio(summary, other).is_some_and(|(_, disturbed)| disturbed))
    });
    // With the disturbed cells, which are otherwise easily left out where they are inconvenient,
    // and without them.
    for with_disturbed in [true, false] {
        if in_mean().next().is_none() || (!with_disturbed && !any_disturbed) {
            continue;
        }
        let which = if with_disturbed { "" } else { ", undisturbed only" };
        print!("| **geometric mean, {MEAN_FROM} appenders and more{which}** | |");
        for other in &others {
            let ratios: Vec<[f64; 2]> = in_mean()
                .filter_map(|(_, summary)| ratio(summary, other))
                .filter(|(_, disturbed)| with_disturbed || !disturbed)
                .map(|(ratios, _)| ratios)
                .collect();
            let of = |index: usize| geometric_mean(ratios.iter().map(|ratios| ratios[index]));
            match (of(0), of(1)) {
                (Some(rate), Some(p99)) => {
                    print!(" **{}** of {} |", pair([rate, p99]), ratios.len());
                }
                _ => print!(" – |"),
            }
        }
        println!();
    }
}

fn pair([rate, p99]: [f64; 2]) -> String {
    format!("{rate:.2} / {p99:.2}")
}

fn mark(disturbed: bool) -> &'static str {
    if disturbed { "*" } else { "" }
}

/// Names the cells in which ours is not the fastest, and those in which it is not the steadiest.
fn print_lost(summaries: &BTreeMap<Cell, Summary>) {
    let lists = [
        ("Lost cells, in which another's rate is higher than ours", 0),
        ("Cells in which another's p99 is lower than ours", 1),
    ];
    for (title, index) in lists {
        let lost = lost(summaries, index);
        match lost.is_empty() {
            true => println!("\n{title}: none."),
            false => println!("\n{title}:\n\n- {}", lost.join("\n- ")),
        }
    }
}

/// Cells where ours is worse in rate (0) or p99 (1), each with all that are better, the best first.
fn lost(summaries: &BTreeMap<Cell, Summary>, index: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (cell, summary) in summaries {
        let mut ahead: Vec<(f64, String)> = CONTESTANTS[1..]
            .iter()
            .filter_map(|other| {
                let (ratios, disturbed) = ratio(summary, other.name)?;
                let theirs = 1.0 / ratios[index];
                let is_ahead = if index == 0 { theirs > 1.0 } else { theirs < 1.0 };
                let mark = mark(disturbed);
                is_ahead.then(|| (theirs, format!("{} {theirs:.2} ×{mark}", other.name)))
            })
            .collect();
        ahead.sort_by(|left, right| left.0.total_cmp(&right.0));
        if index == 0 {
            ahead.reverse();
        }
        if !ahead.is_empty() {
            let ahead: Vec<String> = ahead.into_iter().map(|(_, text)| text).collect();
            lines.push(format!("{cell}: {}", ahead.join(", ")));
        }
    }
    lines
}

fn print_upkeep(results: &Results) {
    println!(
        "\nWhat the bursts leave for the time after them, which no figure above contains; over all bursts that nothing \
         disturbed. Bytes that the disk\nwrote (for whomever) per byte that was appended, in the bursts and until the end of \
         the pause after each; CPU of the process per append in\nµs, in the bursts and until the next; the longest upkeep that \
         a log asked to wait for before others had their turn.\n"
    );
    println!("| log | written in bursts | written after | CPU in bursts | CPU between | longest wait |");
    println!("|---|--:|--:|--:|--:|--:|");
    for contestant in measured(results) {
        let Some(upkeep) = results.upkeep.get(contestant.name) else {
            continue;
        };
        if upkeep.appends == 0.0 {
            println!("| {} | | | | | |", contestant.name);
            continue;
        }
        println!(
            "| {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.0} ms |",
            contestant.name,
            upkeep.written_within / upkeep.appended_bytes,
            upkeep.written_after / upkeep.appended_bytes,
            upkeep.cpu_seconds_within * 1e6 / upkeep.appends,
            upkeep.cpu_seconds_between * 1e6 / upkeep.appends,
            upkeep.wait_seconds_max * 1e3,
        );
    }
}

fn size(bytes: u64) -> String {
    match bytes % 1024 {
        0 if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        0 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// Rounded, with commas.
fn thousands(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::round;

    #[test]
    fn numbers() {
        assert_eq!(thousands(0.4), "0");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1234567.0), "1,234,567");
        assert_eq!([128, 1024, 1 << 20].map(size), ["128 bytes", "1 KiB", "1 MiB"]);
    }

    #[test]
    fn lost_cells_are_named_with_those_ahead() {
        let cell = |appenders| Cell {
            bytes: 128,
            appenders,
        };
        let ours = ("prism", 100.0, 10.0, false);
        let floors = [100.0, 100.0];
        let results = Results {
            rounds: vec![
                round(
                    cell(1),
                    floors,
                    &[
                        ours,
                        ("okaywal", 150.0, 5.0, false),
                        ("textbook", 200.0, 20.0, true),
                    ],
                ),
                round(cell(8), floors, &[ours, ("okaywal", 50.0, 20.0, false)]),
            ],
            ..Results::default()
        };
        let summaries = results.summaries();
        assert_eq!(
            lost(&summaries, 0),
            ["1 × 128 B: textbook 2.00 ×*, okaywal 1.50 ×"]
        );
        assert_eq!(lost(&summaries, 1), ["1 × 128 B: okaywal 0.50 ×"]);
    }
}
