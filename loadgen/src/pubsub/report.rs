//! The figures of a PubSub load, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{Common, ledger::Faults, publisher::Published, subscriber::Delivered};
use crate::{messages::Numbers, outcome::Outcome, side::Side, units::show_count};

/// Figures of a PubSub load.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Publishers, subscribers, and ordering keys of each publisher.
    pub publishers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// Further ones that did not read.
    pub stalled: u32,
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
    /// Publishes of any time, repeats included.
    pub calls: u64,
    /// Publishes that were made again because nobody knew how they had ended.
    pub again: u64,
    /// Subscriptions that went on at their position.
    pub resumed: u64,
    /// Why one of them had ended by itself.
    pub last_end: Option<String>,
    /// Most memory of the server's process that was seen; 0 without its number.
    pub server_bytes: u64,
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
    /// Answers and deliveries that are not what was published, or belong to another call.
    pub wrong: u64,
    /// The first of them, described.
    pub wrong_examples: Vec<String>,
    /// Why subscriptions ended by themselves.
    pub ended: Vec<String>,
}

impl Report {
    pub(super) fn new(
        common: &Common,
        seconds: f64,
        published: &[Published],
        delivered: &[Delivered],
        acknowledged: &[Numbers],
    ) -> Self {
        let load = &common.load;
        let faults = delivered
            .iter()
            .filter(|one| !one.is_stalled)
            .map(|one| one.seen.faults(acknowledged));
        let Faults {
            lost,
            doubled,
            disordered,
        } = faults.fold(Faults::default(), Faults::plus);
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
            stalled: load.stalled,
            ordering_keys: load.keys,
            payload_bytes: load.payload_bytes,
            mode: match load.rate {
                Some(_) => "open loop",
                None => "closed loop",
            },
            seconds,
            published: Side::new(made, seconds, published.iter().map(|one| &one.latency)),
            delivered: Side::new(got, seconds, delivered.iter().map(|one| &one.latency)),
            calls: published.iter().map(|one| one.calls + one.again).sum(),
            again: published.iter().map(|one| one.again).sum(),
            resumed: delivered.iter().map(|one| one.resumed).sum(),
            last_end: delivered.iter().find_map(|one| one.last_end.clone()),
            server_bytes: common.server_bytes.load(std::sync::atomic::Ordering::Relaxed),
            errors,
            first_error: published.iter().find_map(|one| one.first_error.clone()),
            lost,
            doubled,
            disordered,
            gaps: delivered.iter().map(|one| one.gaps).sum(),
            wrong: delivered.iter().map(|one| one.wrong).sum::<u64>()
                + published.iter().map(|one| one.wrong.len() as u64).sum::<u64>(),
            wrong_examples: published
                .iter()
                .flat_map(|one| &one.wrong)
                .chain(delivered.iter().flat_map(|one| &one.wrong_examples))
                .take(10)
                .cloned()
                .collect(),
            ended: delivered.iter().filter_map(|one| one.ended.clone()).collect(),
        }
    }

    /// Whether every message reached every subscriber once, and those of a key in order.
    pub fn is_right(&self) -> bool {
        self.lost + self.doubled + self.disordered + self.gaps + self.wrong == 0 && self.ended.is_empty()
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
        let [calls, again, resumed] = [self.calls, self.again, self.resumed].map(show_count);
        let _ = writeln!(
            out,
            "in all         {calls} requests, {again} of them again; {resumed} subscriptions went on"
        );
        if self.server_bytes > 0 {
            let _ = writeln!(out, "server         {} MiB at the most", self.server_bytes >> 20);
        }
        let faults = [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("out of order", self.disordered),
            ("removed before they were read", self.gaps),
            ("not what was published", self.wrong),
        ];
        for (name, count) in faults.into_iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(out, "WRONG          {} {name}", show_count(count));
        }
        for example in &self.wrong_examples {
            let _ = writeln!(out, "               {example}");
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
