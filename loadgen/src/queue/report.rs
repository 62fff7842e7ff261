//! The figures of a Queue load, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use serde::Serialize;

use super::{
    Calls, Common, Left,
    books::{Books, Fault},
    worker::Worked,
};
use crate::{outcome::Outcome, side::Side, units::show_count};

/// Figures of a Queue load.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Senders, each with one call at a time.
    pub senders: u32,
    /// Workers, each with one call at a time.
    pub workers: u32,
    /// Ordering keys of each sender; 0: a queue without order.
    pub ordering_keys: u64,
    /// Most messages of a Receive.
    pub receive_max: u32,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How calls were made due.
    pub mode: &'static str,
    /// Length of the measured time.
    pub seconds: f64,
    /// Calls of the load of any kind and time, repeats included.
    pub calls: u64,
    /// Acknowledged Sends of the measured time.
    pub sent: Side,
    /// Messages of the measured time that a worker was given, from when they were due.
    pub received: Side,
    /// Messages that were done in the measured time, by the latency of the Ack.
    pub done: Side,
    /// Acknowledged Sends of any time, and how many of them are known to be done.
    pub acknowledged: u64,
    /// Messages of any time that an answer said to be done.
    pub done_in_all: u64,
    /// Messages of earlier loads that were in the queue.
    pub of_others: u64,
    /// Calls that were made again because nobody knew how they had ended.
    pub again: u64,
    /// How calls ended that were not answered as asked, by name of the call and the outcome.
    pub errors: BTreeMap<String, u64>,
    /// The message of the first of them.
    pub first_error: Option<String>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The first of them, described.
    pub examples: Vec<String>,
}

impl Report {
    pub(super) fn new(
        common: &Common,
        seconds: f64,
        sent: &[Calls],
        worked: &[Worked],
        (books, left): (&mut Books, Left),
    ) -> Self {
        let load = &common.load;
        books.conclude(left.waiting + left.dead);
        let receives = || worked.iter().map(|one| &one.receives);
        let acks = || worked.iter().map(|one| &one.acks);
        let all = || sent.iter().chain(receives()).chain(acks());
        let mut errors = BTreeMap::new();
        let mut add = |name: &str, calls: &Calls| {
            for outcome in Outcome::all().filter(|outcome| *outcome != Outcome::OK) {
                let count = calls.outcomes[outcome.index()];
                if count > 0 {
                    *errors.entry(format!("{name} {}", outcome.name())).or_insert(0) += count;
                }
            }
        };
        sent.iter().for_each(|calls| add("send", calls));
        receives().for_each(|calls| add("receive", calls));
        acks().for_each(|calls| add("ack", calls));
        let given = worked.iter().map(|one| one.given).sum();
        let done = worked.iter().map(|one| one.done).sum();
        let faults = Fault::ALL.iter().zip(books.counts());
        Self {
            senders: load.senders,
            workers: load.workers,
            ordering_keys: load.keys,
            receive_max: load.receive_max,
            payload_bytes: load.payload_bytes,
            mode: match load.rate {
                Some(_) => "open loop",
                None => "closed loop",
            },
            seconds,
            calls: all().map(Calls::made).sum(),
            sent: Side::new(
                sent.iter().map(|one| one.measured).sum(),
                seconds,
                sent.iter().map(|one| &one.latency),
            ),
            received: Side::new(given, seconds, worked.iter().map(|one| &one.latency)),
            done: Side::new(done, seconds, acks().map(|calls| &calls.latency)),
            acknowledged: books.acknowledged_count(),
            done_in_all: common.done.load(Ordering::Relaxed),
            of_others: worked.iter().map(|one| one.of_others).sum(),
            again: all().map(|calls| calls.again).sum(),
            first_error: all().find_map(|calls| calls.first_error.clone()),
            errors,
            faults: faults
                .filter(|(_, count)| **count > 0)
                .map(|((_, words), count)| (*words, *count))
                .collect(),
            examples: books.examples().to_vec(),
        }
    }

    /// Whether every acknowledged message was done, by one worker, and nothing else was given.
    pub fn is_right(&self) -> bool {
        self.faults.is_empty()
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let order = match self.ordering_keys {
            0 => "no order".to_owned(),
            keys => format!("{keys} keys each"),
        };
        let mut out = format!(
            "{} senders, {} workers, up to {} messages at a time, {order}, {} B, {}\n\n",
            self.senders, self.workers, self.receive_max, self.payload_bytes, self.mode
        );
        self.sent.write("sent", &mut out);
        self.received.write("received", &mut out);
        self.done.write("done", &mut out);
        let [calls, acknowledged, done, again] =
            [self.calls, self.acknowledged, self.done_in_all, self.again].map(show_count);
        // Writing into a String can not fail.
        let _ = writeln!(
            out,
            "in all         {calls} requests, {again} of them again; {acknowledged} messages acknowledged, {done} done"
        );
        let errors = self.errors.iter();
        let errors = errors.map(|(name, count)| format!("{name} {}", show_count(*count)));
        let errors = errors.collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "errors         {}",
            if errors.is_empty() { "none" } else { &errors }
        );
        if let Some(first) = &self.first_error {
            let _ = writeln!(out, "               {first}");
        }
        for (words, count) in &self.faults {
            let _ = writeln!(out, "WRONG          {} {words}", show_count(*count));
        }
        for example in &self.examples {
            let _ = writeln!(out, "               {example}");
        }
        out
    }

    /// The report for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts")
    }
}
