//! Reports of a run: as text for people, as JSON for programs, and as an HdrHistogram interval log
//! for plots.

use std::{fmt::Write as _, io, time::Duration, time::SystemTime};

use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log},
};
use serde::Serialize;

use crate::{
    outcome::Outcome,
    slo::{Figures, Verdict},
    sweep::Step,
    tally::Measured,
    units::{show_count, show_share, show_time},
};

/// Everything about a run. Its JSON form is `serde_json` of this; fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `prism-loadgen` and its version.
    pub tool: String,
    /// Options of the run as name and value, in the order of the help text.
    pub settings: Vec<(String, String)>,
    /// `open loop` or `closed loop`. Latencies of a closed loop do not count waiting clients: do
    /// not compare the two.
    pub mode: &'static str,
    /// The steps of a rate sweep, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepSummary>,
    /// The measurement: of a sweep, the one at 70 % of the saturation.
    pub measured: Summary,
    /// How the demands came out.
    pub slo: Vec<Verdict>,
    /// Whether all demands were met and no answer was wrong.
    pub met: bool,
}

/// Findings of a rate sweep.
#[derive(Clone, Debug, Serialize)]
pub struct SweepSummary {
    /// The most that was served at a rate of which 95 % was, in requests per second; `None` when
    /// not even of the least it was.
    pub saturation: Option<f64>,
    /// Whether a rate that is not served was found; if not, the sweep's upper limit ended the
    /// search.
    pub saturated: bool,
    /// Measurements on the way.
    pub steps: Vec<Step>,
}

/// The figures of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The measured time in seconds.
    pub seconds: f64,
    /// Requests due per second; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_due: Option<f64>,
    /// Requests answered per second.
    pub rate: f64,
    /// Answered in time and without an error, as a share of what was due; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_share: Option<f64>,
    /// Requests that ended in the measured time, however they ended.
    pub requests: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Errors as a share of the requests that were not cut on purpose.
    pub error_share: f64,
    /// Outcomes by name, only those that occurred.
    pub outcomes: Vec<(&'static str, u64)>,
    /// The first message that came with each kind of error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<(&'static str, String)>,
    /// Wrong answers since the start of the run, warm-up included.
    pub wrong: u64,
    /// The first few wrong answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong_examples: Vec<String>,
    /// Latency over all operations.
    pub latency: Latency,
    /// Each operation by itself.
    pub operations: Vec<OperationSummary>,
    /// How late requests left although a stream was free: the load generator's own delay (open
    /// loop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Latency>,
    /// CPU time of the load generator's threads per answered request, in microseconds.
    pub client_cpu_us: f64,
    /// CPU time of the server's process per answered request, in microseconds (`--server-pid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us: Option<f64>,
    /// Bytes sent per second.
    pub sent_per_second: f64,
    /// Bytes received per second.
    pub received_per_second: f64,
    /// Connections opened again.
    pub reconnects: u64,
}

/// One operation of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct OperationSummary {
    /// The operation's name.
    pub name: &'static str,
    /// Requests that ended.
    pub requests: u64,
    /// Outcomes by name, only those that occurred.
    pub outcomes: Vec<(&'static str, u64)>,
    /// The operation's latency.
    pub latency: Latency,
}

/// A latency distribution in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// How many requests it covers.
    pub count: u64,
    /// The least.
    pub min_ns: u64,
    /// The mean.
    pub mean_ns: f64,
    /// The median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// 99.99th percentile.
    pub p9999_ns: u64,
    /// The greatest.
    pub max_ns: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
        }
    }
}

impl From<&Measured> for Summary {
    fn from(measured: &Measured) -> Self {
        let tally = &measured.tally;
        let answered = tally.answered.max(1) as f64;
        let seconds = measured.seconds.max(f64::MIN_POSITIVE);
        let named = |outcomes: &dyn Fn(Outcome) -> u64| {
            Outcome::all()
                .map(|o| (o.name(), outcomes(o)))
                .filter(|&(_, count)| count > 0)
                .collect::<Vec<_>>()
        };
        Self {
            seconds: measured.seconds,
            rate_due: measured.rate_due,
            rate: measured.rate(),
            served_share: measured.served_share(),
            requests: tally.ended(),
            errors: tally.errors(),
            error_share: measured.error_share(),
            outcomes: named(&|outcome| tally.count(outcome)),
            messages: tally
                .messages
                .iter()
                .map(|(outcome, text)| (outcome.name(), text.clone()))
                .collect(),
            wrong: tally.wrong,
            wrong_examples: tally.wrong_examples.clone(),
            latency: Latency::from(&measured.latency),
            operations: tally
                .operations()
                .map(|(operation, counts)| OperationSummary {
                    name: operation.name(),
                    requests: counts.outcomes.iter().sum(),
                    outcomes: named(&|outcome| counts.outcomes[outcome.index()]),
                    latency: Latency::from(&counts.latency),
                })
                .collect(),
            lag: tally.lag.as_deref().map(Latency::from),
            client_cpu_us: tally.cpu_ns as f64 / 1e3 / answered,
            server_cpu_us: measured.server_cpu_ns.map(|ns| ns as f64 / 1e3 / answered),
            sent_per_second: tally.bytes_sent as f64 / seconds,
            received_per_second: tally.bytes_received as f64 / seconds,
            reconnects: tally.reconnects,
        }
    }
}

impl Report {
    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing into a String can not fail, so the results are not looked at.
        for (name, value) in &self.settings {
            let _ = writeln!(out, "{name:<14} {value}");
        }
        if let Some(sweep) = &self.sweep {
            sweep.write_text(&mut out);
        }
        let mode = match self.mode {
            "open loop" => "open loop: latency from the time at which each request was due",
            _ => {
                "closed loop: a slow server slows the load, so this latency hides waiting; use --rate to see it"
            }
        };
        let _ = writeln!(out, "\n{mode}");
        self.measured.write_text(&mut out);
        if !self.slo.is_empty() {
            let _ = writeln!(out);
        }
        for verdict in &self.slo {
            let word = if verdict.met { "met" } else { "MISSED" };
            let _ = writeln!(
                out,
                "SLO {:<16} measured {:<12} {word}",
                verdict.objective, verdict.measured
            );
        }
        out
    }

    /// The report for programs, one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain structs with string keys always serialise")
    }
}

impl SweepSummary {
    fn write_text(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nrate sweep     due/s      served/s    served        p50        p99"
        );
        for step in &self.steps {
            let _ = writeln!(
                out,
                "{:>20} {:>13} {:>9} {:>10} {:>10}",
                show_count(step.rate.round() as u64),
                show_count(step.achieved.round() as u64),
                show_share(step.served_share),
                show_time(step.p50_ns),
                show_time(step.p99_ns)
            );
        }
        let _ = match (self.saturation, self.saturated) {
            (Some(rate), true) => writeln!(out, "saturation: {}/s", show_count(rate.round() as u64)),
            (Some(rate), false) => {
                writeln!(
                    out,
                    "not saturated up to the limit of the sweep: {}/s were served",
                    show_count(rate.round() as u64)
                )
            }
            (None, _) => writeln!(out, "no rate was served"),
        };
    }
}

impl Summary {
    fn write_text(&self, out: &mut String) {
        let due = match (self.rate_due, self.served_share) {
            (Some(due), Some(share)) => {
                format!(
                    "  (due {}/s, served {})",
                    show_count(due.round() as u64),
                    show_share(share)
                )
            }
            _ => String::new(),
        };
        let rate = show_count(self.rate.round() as u64);
        let _ = writeln!(
            out,
            "{} requests in {:.1} s: {rate}/s{due}",
            show_count(self.requests),
            self.seconds
        );
        let _ = writeln!(
            out,
            "\n{:<8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "latency", "requests", "mean", "p50", "p90", "p99", "p99.9", "max"
        );
        if self.operations.len() != 1 {
            self.latency.write_row("all", self.requests, out);
        }
        for operation in &self.operations {
            operation
                .latency
                .write_row(operation.name, operation.requests, out);
        }
        if let Some(lag) = &self.lag {
            lag.write_row("own lag", lag.count, out);
        }
        let _ = writeln!(out);
        let _ = writeln!(
            out,
            "errors         {} ({})",
            show_count(self.errors),
            show_share(self.error_share)
        );
        for (name, count) in self.outcomes.iter().filter(|(name, _)| *name != "OK") {
            let message = self.messages.iter().find(|(known, _)| known == name);
            let message = message
                .map(|(_, text)| format!("  first: {text}"))
                .unwrap_or_default();
            let _ = writeln!(out, "  {name:<20} {}{message}", show_count(*count));
        }
        if self.wrong > 0 {
            let _ = writeln!(out, "WRONG ANSWERS  {}", show_count(self.wrong));
            for example in &self.wrong_examples {
                let _ = writeln!(out, "  {example}");
            }
        }
        if self.reconnects > 0 {
            let _ = writeln!(out, "reconnects     {}", show_count(self.reconnects));
        }
        let _ = write!(
            out,
            "cpu            client {:.2} µs per request",
            self.client_cpu_us
        );
        if let Some(server) = self.server_cpu_us {
            let _ = write!(out, ", server {server:.2} µs per request");
        }
        let (sent, received) = (self.sent_per_second / 1e6, self.received_per_second / 1e6);
        let _ = writeln!(
            out,
            "\nbytes          sent {sent:.1} MB/s, received {received:.1} MB/s"
        );
    }
}

impl Latency {
    fn write_row(&self, name: &str, requests: u64, out: &mut String) {
        let _ = write!(out, "{name:<8} {:>12}", show_count(requests));
        for ns in [
            self.mean_ns.round() as u64,
            self.p50_ns,
            self.p90_ns,
            self.p99_ns,
            self.p999_ns,
            self.max_ns,
        ] {
            let _ = write!(out, " {:>10}", show_time(ns));
        }
        let _ = writeln!(out);
    }
}

/// Writes the interval histograms of a run (start within the run, length, latencies in nanoseconds)
/// as an HdrHistogram log, values in nanoseconds, maxima in milliseconds.
pub fn write_hdr_log<W: io::Write>(
    out: &mut W,
    started: SystemTime,
    intervals: &[(Duration, Duration, Histogram<u64>)],
) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = interval_log::IntervalLogWriterBuilder::new()
        .add_comment("prism-loadgen: latency in nanoseconds, maxima in milliseconds")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1_000_000.0)
        .begin_log_with(out, &mut serializer)?;
    for (start, length, histogram) in intervals {
        log.write_histogram(histogram, *start, *length, None)
            .map_err(|error| io::Error::other(format!("the HDR log can not be written: {error:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mix::Operation, slo::Slo, tally::Tally};

    fn report() -> Report {
        let mut tally = Tally::default();
        for i in 1..=1_000u64 {
            tally.record(Operation::Put, Outcome::OK, i * 1_000);
        }
        tally.record(Operation::Get, Outcome::UNAVAILABLE, 5);
        tally.record_lag(700);
        (tally.due, tally.answered, tally.cpu_ns) = (1_001, 1_001, 1_501_500);
        let measured = Measured::new(tally, 2.0, Some(500.0), Some(2_002_000));
        let slo = "p50=1ms,errors=0%"
            .parse::<Slo>()
            .expect("valid")
            .judge(&measured);
        let met = slo.iter().all(|verdict| verdict.met);
        Report {
            tool: "prism-loadgen 0".into(),
            settings: vec![("target".into(), "127.0.0.1:1".into())],
            mode: "open loop",
            sweep: Some(SweepSummary {
                saturation: Some(700.0),
                saturated: true,
                steps: vec![Step {
                    rate: 700.0,
                    achieved: 699.0,
                    served_share: 0.999,
                    p50_ns: 1,
                    p99_ns: 2,
                }],
            }),
            measured: Summary::from(&measured),
            slo,
            met,
        }
    }

    #[test]
    fn json_has_its_promised_shape() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).expect("JSON");
        assert_eq!(json["mode"], "open loop");
        assert_eq!(json["met"], false);
        assert_eq!(json["measured"]["requests"], 1_001);
        assert_eq!(json["measured"]["errors"], 1);
        assert_eq!(
            json["measured"]["outcomes"],
            serde_json::json!([["OK", 1_000], ["UNAVAILABLE", 1]])
        );
        assert_eq!(json["measured"]["client_cpu_us"], 1.5);
        assert_eq!(json["measured"]["server_cpu_us"], 2.0);
        assert_eq!(json["measured"]["rate"], 500.5);
        assert_eq!(json["measured"]["operations"][0]["name"], "put");
        let p50 = json["measured"]["latency"]["p50_ns"].as_u64().expect("a number");
        assert!(p50.abs_diff(500_000) <= 1_000, "{p50}");
        assert_eq!(
            json["slo"][0],
            serde_json::json!({"objective": "p50=1ms", "measured": "500 µs", "met": true})
        );
        assert_eq!(json["slo"][1]["met"], false);
        assert_eq!(json["sweep"]["saturation"], 700.0);
    }

    #[test]
    fn text_names_mode_codes_and_verdicts() {
        let text = report().to_text();
        for part in [
            "open loop",
            "UNAVAILABLE",
            "saturation: 700/s",
            "MISSED",
            "own lag",
            "client 1.50 µs",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
        let closed = Report {
            mode: "closed loop",
            ..report()
        };
        assert!(closed.to_text().contains("closed loop"));
    }

    #[test]
    fn the_hdr_log_is_read_back() {
        let mut histogram = crate::tally::latency_histogram();
        (1..100u64).for_each(|i| histogram.record(i * 10_000).expect("in range"));
        let second = Duration::from_secs(1);
        let intervals = [
            (Duration::ZERO, second, histogram.clone()),
            (second, second, histogram),
        ];
        let mut out = Vec::new();
        write_hdr_log(&mut out, SystemTime::UNIX_EPOCH, &intervals).expect("written");
        let entries = interval_log::IntervalLogIterator::new(&out)
            .filter(|entry| matches!(entry, Ok(interval_log::LogEntry::Interval(_))))
            .count();
        assert_eq!(entries, 2, "{}", String::from_utf8_lossy(&out));
    }
}
