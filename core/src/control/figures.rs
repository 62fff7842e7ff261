//! Figures of the last minutes for `Status`: sums of the registry, noted at regular times.
//!
//! Only namespaces that have had a call are noted, at some 4 KB each. The marks are made by the
//! control thread and cost the shards nothing.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use prism_codec::proto::prism::admin::v1 as admin;

use super::catalog::CatalogEntry;
use crate::{
    metrics::{Registry, Totals},
    namespace::{NamespaceConfig, state::NamespaceState},
};

/// Time between two marks.
const MARK_EVERY: Duration = Duration::from_secs(5);
/// Marks that are kept: a minute.
const MARKS_MAX: usize = 12;
/// Marks between two of those that are kept for an hour, and how many of these there are.
const MARKS_PER_MINUTE: usize = 12;
const MINUTES_MAX: usize = 61;
/// Time over which rates are meant.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Latency from which a namespace is degraded.
const SLOW: Duration = Duration::from_millis(50);

/// The marks of all namespaces.
#[derive(Debug)]
pub(crate) struct Figures {
    start: Instant,
    start_time: SystemTime,
    next: Instant,
    marks_made: usize,
    histories: HashMap<String, History>,
}

#[derive(Debug, Default)]
struct History {
    /// The last minute, the oldest first.
    marks: VecDeque<(Instant, Totals)>,
    /// Calls and errors at each minute of the last hour, the oldest first.
    minutes: VecDeque<(u64, u64)>,
    write_peak: f64,
    read_peak: f64,
}

impl Figures {
    pub(crate) fn new(start: Instant, start_time: SystemTime) -> Self {
        Self {
            start,
            start_time,
            next: start + MARK_EVERY,
            marks_made: 0,
            histories: HashMap::new(),
        }
    }

    /// When the next marks are due.
    pub(super) fn next_time(&self) -> Instant {
        self.next
    }

    /// Makes the marks that are due.
    pub(super) fn handle_time(&mut self, now: Instant, registry: &Registry) {
        if now < self.next {
            return;
        }
        // What a pause of this thread left out is not made up for.
        self.next = now + MARK_EVERY;
        self.mark(now, registry.totals());
    }

    fn mark(&mut self, now: Instant, totals: HashMap<String, Totals>) {
        self.histories.retain(|name, _| totals.contains_key(name));
        let is_minute = self.marks_made.is_multiple_of(MARKS_PER_MINUTE);
        self.marks_made += 1;
        for (name, totals) in totals {
            if totals.calls() == 0 {
                continue;
            }
            let history = self.histories.entry(name).or_default();
            if is_minute {
                history.minutes.push_back((totals.calls(), totals.errors));
                while history.minutes.len() > MINUTES_MAX {
                    history.minutes.pop_front();
                }
            }
            let (writes, reads) = history.rates(self.start, now, &totals);
            history.write_peak = history.write_peak.max(writes);
            history.read_peak = history.read_peak.max(reads);
            history.marks.push_back((now, totals));
            while history.marks.len() > MARKS_MAX {
                history.marks.pop_front();
            }
        }
    }

    /// The state of a namespace.
    pub(super) fn status(
        &self,
        now: Instant,
        entry: &CatalogEntry,
        config: &NamespaceConfig,
        totals: &Totals,
    ) -> admin::StatusResponse {
        let none = History::default();
        let history = self.histories.get(&entry.name).unwrap_or(&none);
        let (write_rps, read_rps) = history.rates(self.start, now, totals);
        let minute = match history.marks.front() {
            Some((_, first)) if history.marks.len() == MARKS_MAX => totals.since(first),
            // The gateway, or the namespace, is younger than that.
            _ => totals.clone(),
        };
        let (calls, errors) = match history.minutes.front() {
            Some(first) if history.minutes.len() == MINUTES_MAX => *first,
            _ => (0, 0),
        };
        let p99 = minute.quantile(0.99);
        let (status, reason) = match entry.state {
            NamespaceState::Active => health(&minute, p99),
            state => (state.as_str(), ""),
        };
        let seconds = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64());
        admin::StatusResponse {
            name: entry.name.clone(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            backend: entry.backend.clone(),
            streams: totals.streams,
            write_rps,
            read_rps,
            write_rps_declared: config.needs.write_rps.unwrap_or(0),
            read_rps_declared: config.needs.read_rps.unwrap_or(0),
            data_size_declared: config.needs.data_size.unwrap_or(0),
            p50_seconds: seconds(minute.quantile(0.5)),
            p99_seconds: seconds(p99),
            errors: totals.errors.saturating_sub(errors),
            calls: totals.calls().saturating_sub(calls),
            write_rps_peak: history.write_peak.max(write_rps),
            read_rps_peak: history.read_peak.max(read_rps),
            peak_since: Some(self.start_time.into()),
            limited: minute.limited,
        }
    }
}

impl History {
    /// Writes and reads a second since the mark that is about ten seconds old, or since the start
    /// where there is none.
    fn rates(&self, start: Instant, now: Instant, totals: &Totals) -> (f64, f64) {
        let enough = |at: &Instant| now.saturating_duration_since(*at) + MARK_EVERY / 2 >= RATE_OVER;
        let base = self.marks.iter().rev().find(|(at, _)| enough(at));
        let base = base.or_else(|| self.marks.front());
        let none = Totals::default();
        let (at, before) = base.map_or((start, &none), |(at, before)| (*at, before));
        let grown = totals.since(before);
        let seconds = now.saturating_duration_since(at).as_secs_f64().max(1.0);
        (grown.writes as f64 / seconds, grown.reads as f64 / seconds)
    }
}

/// The word for the last minute, and why it is not `healthy`.
fn health(minute: &Totals, p99: Option<Duration>) -> (&'static str, &'static str) {
    if minute.errors * 100 > minute.calls() {
        ("degraded", "backend connectivity")
    } else if p99.is_some_and(|p99| p99 > SLOW) {
        ("degraded", "backend overloaded")
    } else {
        ("healthy", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::catalog::StoreRef;

    const YAML: &str = "namespace: a\nclient_api: keyvalue\nneeds: {write_rps: 1000}\n";

    fn entry() -> CatalogEntry {
        CatalogEntry {
            id: 1,
            name: "a".into(),
            team: String::new(),
            client_api: "keyvalue".into(),
            durability: "strong".into(),
            backend: "SQLite table \"a\"".into(),
            store: StoreRef {
                name: "embedded".into(),
                kind: "sqlite".into(),
            },
            create_time_ns: 0,
            yaml: YAML.into(),
            state: NamespaceState::Active,
            version: 1,
            pending: None,
        }
    }

    /// Sums after so many seconds of 100 writes and 200 reads each, of which some fail.
    fn after(seconds: u64, failed_percent: u64) -> Totals {
        let mut buckets = [0; crate::metrics::LATENCY_BOUNDS_MICROS.len() + 1];
        buckets[6] = 300 * seconds;
        Totals {
            writes: 100 * seconds,
            reads: 200 * seconds,
            errors: 3 * seconds * failed_percent,
            limited: 0,
            streams: 4,
            buckets,
        }
    }

    fn run(seconds: u64, failed_percent: u64) -> admin::StatusResponse {
        let start = Instant::now();
        let mut figures = Figures::new(start, SystemTime::UNIX_EPOCH);
        let at = |second| start + Duration::from_secs(second);
        for second in (5..=seconds).step_by(5) {
            let totals = HashMap::from([("a".to_owned(), after(second, failed_percent))]);
            figures.mark(at(second), totals);
        }
        let entry = entry();
        let config = entry.config().expect("a file");
        figures.status(at(seconds), &entry, &config, &after(seconds, failed_percent))
    }

    #[test]
    fn rates_latency_and_errors_of_the_last_while() {
        for seconds in [7, 10, 60, 7_200] {
            let status = run(seconds, 0);
            let is_near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.01;
            assert!(
                is_near(status.write_rps, 100.0),
                "{seconds}: {}",
                status.write_rps
            );
            assert!(is_near(status.read_rps, 200.0), "{seconds}: {}", status.read_rps);
            assert!(is_near(status.write_rps_peak, 100.0), "{seconds}");
            assert_eq!((&*status.status, status.streams), ("healthy", 4));
            assert_eq!((status.write_rps_declared, status.read_rps_declared), (1_000, 0));
            assert!(
                status.p50_seconds > 0.0005 && status.p99_seconds <= 0.001,
                "{status:?}"
            );
        }
        let status = run(7_200, 2);
        assert_eq!(
            (&*status.status, &*status.reason),
            ("degraded", "backend connectivity")
        );
        // An hour and what is left of the running minute, not all two of them.
        assert!(
            (1_080_000..=1_116_000).contains(&status.calls),
            "{}",
            status.calls
        );
        assert_eq!(status.errors * 50, status.calls);
    }

    #[test]
    fn a_namespace_without_a_call_is_healthy_and_costs_nothing() {
        let start = Instant::now();
        let mut figures = Figures::new(start, SystemTime::UNIX_EPOCH);
        figures.mark(start, HashMap::from([("a".to_owned(), Totals::default())]));
        assert!(figures.histories.is_empty());
        let entry = entry();
        let status = figures.status(
            start,
            &entry,
            &entry.config().expect("a file"),
            &Totals::default(),
        );
        assert_eq!(
            (&*status.status, status.calls, status.p99_seconds),
            ("healthy", 0, 0.0)
        );
        assert_eq!(status.write_rps, 0.0);
    }
}
