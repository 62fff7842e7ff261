//! Measurements, and which of them count: medians over rounds whose floor stood still and bursts
//! that nothing disturbed.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::machine::FOREIGN_MAX;

/// A round is dropped when the floor's p50 before it and after it differ by more than this factor.
pub(crate) const MOVED_FACTOR: f64 = 1.5;

/// Measurements of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) bytes: u64,
    pub(crate) appenders: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} × {} B", self.appenders, self.bytes)
    }
}

/// Figures of `fio` with writes of `bytes`. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    pub(crate) bytes: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Other programs ran at the same time, at every attempt.
    pub(crate) disturbed: bool,
}

impl fmt::Display for Floor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bytes,
            per_second,
            p50,
            p99,
            disturbed,
        } = self;
        let (kib, mark) = (bytes >> 10, if *disturbed { " (disturbed)" } else { "" });
        write!(
            formatter,
            "{kib} KiB {per_second:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs{mark}"
        )
    }
}

/// Figures of a burst. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu: f64,
    /// The share of a core that others took.
    pub(crate) foreign: f64,
    /// The disk was not calm before it, or other programs ran at the same time, at every attempt.
    pub(crate) disturbed: bool,
}

impl Burst {
    pub(crate) fn read(found: &Value, calm: bool, foreign: f64) -> Self {
        let of = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        Self {
            per_second: of("per_second"),
            p50: of("p50"),
            p99: of("p99"),
            cpu: of("cpu_micros"),
            foreign,
            disturbed: !calm || foreign > FOREIGN_MAX,
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
            foreign,
            disturbed,
        } = self;
        let mark = if *disturbed { " (disturbed)" } else { "" };
        write!(
            formatter,
            "{per_second:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs, CPU {cpu:.1} µs; others {foreign:.1} cores{mark}"
        )
    }
}

/// One burst of each log in one cell, between two runs of `fio`.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) cell: Cell,
    pub(crate) before: Floor,
    pub(crate) after: Floor,
    /// Writes as large as all records that wait together.
    pub(crate) together: Option<Floor>,
    pub(crate) bursts: Vec<(&'static str, Burst)>,
}

impl Round {
    /// The reason why it does not count: the disk changed between its beginning and its end, or its
    /// state is unknown.
    pub(crate) fn dropped(&self) -> Option<&'static str> {
        let (before, after) = (self.before.p50, self.after.p50);
        if self.before.disturbed || self.after.disturbed {
            Some("the floor was disturbed")
        } else if before.max(after) > MOVED_FACTOR * before.min(after) {
            Some("the floor moved")
        } else {
            None
        }
    }
}

/// Work of a log within its bursts, and the work that it leaves for the time between them, over all
/// bursts of a run that nothing disturbed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Upkeep {
    pub(crate) appends: f64,
    pub(crate) appended_bytes: f64,
    pub(crate) cpu_seconds_within: f64,
    /// Until its next burst.
    pub(crate) cpu_seconds_between: f64,
    /// By the disk, for whomever.
    pub(crate) written_within: f64,
    /// By the disk, until the end of the pause after the burst.
    pub(crate) written_after: f64,
    /// The longest that it asked to wait after a burst.
    pub(crate) wait_seconds_max: f64,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Before any log was opened.
    pub(crate) first_floor: Option<Floor>,
    pub(crate) versions: BTreeMap<&'static str, String>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) upkeep: BTreeMap<&'static str, Upkeep>,
    /// Bursts that were measured again, because something disturbed them.
    pub(crate) repeated_bursts: usize,
    /// Rounds that the time did not suffice for.
    pub(crate) rounds_left: usize,
}

/// A cell, summed up.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) rounds: usize,
    pub(crate) floor: Floor,
    /// Lowest and highest p50 of `fio`.
    pub(crate) floor_range: [f64; 2],
    pub(crate) together: Option<Floor>,
    /// Of each log; `disturbed` where no burst counts as it should.
    pub(crate) logs: BTreeMap<&'static str, Burst>,
}

impl Results {
    /// The cells in order, each summed up.
    pub(crate) fn summaries(&self) -> BTreeMap<Cell, Summary> {
        let mut cells: BTreeMap<Cell, Vec<&Round>> = BTreeMap::new();
        for round in &self.rounds {
            cells.entry(round.cell).or_default().push(round);
        }
        cells
            .into_iter()
            .map(|(cell, rounds)| (cell, summary(&rounds)))
            .collect()
    }
}

/// Sums the rounds of a cell up: those whose floor stood still, or all if there is none.
fn summary(rounds: &[&Round]) -> Summary {
    let all_dropped = rounds.iter().all(|round| round.dropped().is_some());
    let counted: Vec<&Round> = rounds
        .iter()
        .copied()
        .filter(|round| all_dropped || round.dropped().is_none())
        .collect();
    let floors: Vec<Floor> = counted
        .iter()
        .flat_map(|round| [round.before, round.after])
        .collect();
    let together: Vec<Floor> = counted.iter().filter_map(|round| round.together).collect();
    let mut bursts: BTreeMap<&'static str, Vec<Burst>> = BTreeMap::new();
    for (name, burst) in counted.iter().flat_map(|round| &round.bursts) {
        bursts.entry(*name).or_default().push(*burst);
    }
    Summary {
        rounds: if all_dropped { 0 } else { counted.len() },
        floor: median_floor(&floors),
        floor_range: [
            floors.iter().map(|floor| floor.p50).fold(f64::INFINITY, f64::min),
            floors.iter().map(|floor| floor.p50).fold(0.0, f64::max),
        ],
        together: (!together.is_empty()).then(|| median_floor(&together)),
        logs: bursts
            .into_iter()
            .map(|(name, bursts)| (name, median_burst(&bursts, all_dropped)))
            .collect(),
    }
}

fn median_floor(floors: &[Floor]) -> Floor {
    let of = |figure: fn(&Floor) -> f64| median(floors.iter().map(figure));
    Floor {
        bytes: floors.first().map_or(0, |floor| floor.bytes),
        per_second: of(|floor| floor.per_second),
        p50: of(|floor| floor.p50),
        p99: of(|floor| floor.p99),
        disturbed: floors.iter().any(|floor| floor.disturbed),
    }
}

/// Over the bursts that nothing disturbed, or over all if there is none.
fn median_burst(bursts: &[Burst], dropped: bool) -> Burst {
    let all_disturbed = bursts.iter().all(|burst| burst.disturbed);
    let counted = || {
        bursts
            .iter()
            .filter(move |burst| all_disturbed || !burst.disturbed)
    };
    let of = |figure: fn(&Burst) -> f64| median(counted().map(figure));
    Burst {
        per_second: of(|burst| burst.per_second),
        p50: of(|burst| burst.p50),
        p99: of(|burst| burst.p99),
        cpu: of(|burst| burst.cpu),
        foreign: of(|burst| burst.foreign),
        disturbed: all_disturbed || dropped,
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The geometric mean; `None` of nothing.
pub(crate) fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value.ln()));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn round(cell: Cell, floors: [f64; 2], bursts: &[(&'static str, f64, f64, bool)]) -> Round {
        let floor = |p50| Floor {
            bytes: 4096,
            per_second: 1e6 / p50,
            p50,
            p99: 2.0 * p50,
            disturbed: false,
        };
        Round {
            cell,
            before: floor(floors[0]),
            after: floor(floors[1]),
            together: None,
            bursts: bursts
                .iter()
                .map(|&(name, per_second, p99, disturbed)| {
                    let (p50, cpu) = (p99 / 2.0, 10.0);
                    let burst = Burst {
                        per_second,
                        p50,
                        p99,
                        cpu,
                        foreign: 0.0,
                        disturbed,
                    };
                    (name, burst)
                })
                .collect(),
        }
    }

    const CELL: Cell = Cell {
        bytes: 128,
        appenders: 8,
    };

    #[test]
    fn a_round_whose_floor_moved_does_not_count_beside_one_whose_floor_stood_still() {
        let results = Results {
            rounds: vec![
                round(CELL, [100.0, 160.0], &[("prism", 900.0, 1.0, false)]),
                round(CELL, [100.0, 140.0], &[("prism", 500.0, 1.0, false)]),
            ],
            ..Results::default()
        };
        let summary = &results.summaries()[&CELL];
        assert_eq!((summary.rounds, summary.logs["prism"].per_second), (1, 500.0));
        assert!(!summary.logs["prism"].disturbed);
        assert_eq!(summary.floor_range, [100.0, 140.0]);
    }

    #[test]
    fn where_every_floor_moved_all_count_and_are_marked() {
        let results = Results {
            rounds: vec![
                round(CELL, [160.0, 100.0], &[("prism", 900.0, 1.0, false)]),
                round(CELL, [100.0, 160.0], &[("prism", 500.0, 1.0, false)]),
            ],
            ..Results::default()
        };
        let summary = &results.summaries()[&CELL];
        assert_eq!((summary.rounds, summary.logs["prism"].per_second), (0, 700.0));
        assert!(summary.logs["prism"].disturbed);
    }

    #[test]
    fn a_disturbed_burst_counts_only_where_there_is_no_other() {
        let results = Results {
            rounds: vec![
                round(
                    CELL,
                    [100.0, 100.0],
                    &[("prism", 1.0, 1.0, true), ("okaywal", 3.0, 1.0, true)],
                ),
                round(
                    CELL,
                    [100.0, 100.0],
                    &[("prism", 9.0, 1.0, false), ("okaywal", 5.0, 1.0, true)],
                ),
            ],
            ..Results::default()
        };
        let logs = &results.summaries()[&CELL].logs;
        assert_eq!((logs["prism"].per_second, logs["prism"].disturbed), (9.0, false));
        assert_eq!(
            (logs["okaywal"].per_second, logs["okaywal"].disturbed),
            (4.0, true)
        );
    }

    #[test]
    fn means() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(geometric_mean([2.0, 8.0].into_iter()), Some(4.0));
        assert_eq!(geometric_mean([].into_iter()), None);
    }
}
