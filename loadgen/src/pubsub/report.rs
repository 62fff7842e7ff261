//! The figures of a PubSub load, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Load,
    ledger::{Faults, Numbers},
    publisher::Published,
    subscriber::Delivered,
};
use crate::{
    outcome::Outcome,
    tally::latency_histogram,
    units::{show_count, show_time},
};

/// Figures of a PubSub load.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Publishers, subscribers, and ordering keys of each publisher.
    pub publishers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// Ordering keys of each publisher.
    pub ordering_keys: u32,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How calls were made due.
    pub mode: &'static str,
    /// Length of the measured time.
    pub seconds: f64,
    /// Acknowledged publishes of the measured time.
    pub published: Side,
    /// Messages of the measured time that reached a subscriber, each counted for each of them.
    pub delivered: Side,
    /// How publishes ended that were not acknowledged, by the name of the outcome.
    pub errors: BTreeMap<&'static str, u64>,
    /// The message of the first of them.
    pub first_error: Option<String>,
    /// Acknowledged messages that a subscriber did not get.
    pub lost: u64,
    /// Messages that a subscriber got once more.
    pub doubled: u64,
    /// Messages that a subscriber got after a later one of their key.
    pub disordered: u64,
    /// Messages that the server says it has removed before a subscriber had them.
    pub gaps: u64,
    /// Why subscriptions ended by themselves.
    pub ended: Vec<String>,
}

/// Figures of one side.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// How many.
    pub count: u64,
    /// How many in a second.
    pub per_second: f64,
    /// Half of them took at most so long, from when they were due.
    pub p50_ns: u64,
    /// All but a hundredth took at most so long.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Side {
    fn new(count: u64, seconds: f64, latency: &Histogram<u64>) -> Self {
        Self {
            count,
            per_second: if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            },
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
        }
    }

    fn write(&self, name: &str, out: &mut String) {
        let rate = show_count(self.per_second.round() as u64);
        let [p50, p99, max] = [self.p50_ns, self.p99_ns, self.max_ns].map(show_time);
        // Writing into a String can not fail.
        let _ = writeln!(
            out,
            "{name:<14} {rate:>10}/s  p50 {p50:>8}  p99 {p99:>8}  max {max:>8}"
        );
    }
}

impl Report {
    pub(super) fn new(
        load: &Load,
        seconds: f64,
        published: &[Published],
        delivered: &[Delivered],
        acknowledged: &[Numbers],
    ) -> Self {
        let faults = delivered.iter().map(|one| one.seen.faults(acknowledged));
        let Faults {
            lost,
            doubled,
            disordered,
        } = faults.fold(Faults::default(), Faults::plus);
        let side = |measured: u64, latencies: &mut dyn Iterator<Item = &Histogram<u64>>| {
            let mut all = latency_histogram();
            for latency in latencies {
                all.add(latency)
                    .expect("all latency histograms have the same bounds");
            }
            Side::new(measured, seconds, &all)
        };
        let mut errors = BTreeMap::new();
        for outcome in Outcome::all().filter(|outcome| *outcome != Outcome::OK) {
            let count: u64 = published.iter().map(|one| one.outcomes[outcome.index()]).sum();
            if count > 0 {
                errors.insert(outcome.name(), count);
            }
        }
        let made: u64 = published.iter().map(|one| one.measured).sum();
        let got: u64 = delivered.iter().map(|one| one.measured).sum();
        Self {
            publishers: load.publishers,
            subscribers: load.subscribers,
            ordering_keys: load.keys,
            payload_bytes: load.payload_bytes,
            mode: match load.rate {
                Some(_) => "open loop",
                None => "closed loop",
            },
            seconds,
            published: side(made, &mut published.iter().map(|one| &one.latency)),
            delivered: side(got, &mut delivered.iter().map(|one| &one.latency)),
            errors,
            first_error: published.iter().find_map(|one| one.first_error.clone()),
            lost,
            doubled,
            disordered,
            gaps: delivered.iter().map(|one| one.gaps).sum(),
            ended: delivered.iter().filter_map(|one| one.ended.clone()).collect(),
        }
    }

    /// Whether every message reached every subscriber once, and those of a key in order.
    pub fn is_right(&self) -> bool {
        self.lost + self.doubled + self.disordered + self.gaps == 0 && self.ended.is_empty()
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "{} publishers, {} subscribers, {} keys each, {} B, {}\n\n",
            self.publishers, self.subscribers, self.ordering_keys, self.payload_bytes, self.mode
        );
        self.published.write("published", &mut out);
        self.delivered.write("delivered", &mut out);
        let errors = self
            .errors
            .iter()
            .map(|(name, count)| format!("{name} {}", show_count(*count)));
        let errors = errors.collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "errors         {}",
            if errors.is_empty() { "none" } else { &errors }
        );
        if let Some(first) = &self.first_error {
            let _ = writeln!(out, "               {first}");
        }
        let faults = [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("out of order", self.disordered),
            ("removed before they were read", self.gaps),
        ];
        for (name, count) in faults.into_iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(out, "WRONG          {} {name}", show_count(count));
        }
        for why in &self.ended {
            let _ = writeln!(out, "WRONG          a subscription ended: {why}");
        }
        out
    }

    /// The report for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts")
    }
}
