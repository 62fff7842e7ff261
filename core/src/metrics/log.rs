//! The log's part of the metrics page.

use std::{fmt::Write as _, sync::Arc};

use super::{LogMetrics, render_histogram};

type Read = fn(&LogMetrics) -> f64;

/// Name, kind, help, value.
const FAMILIES: [(&str, &str, &str, Read); 18] = [
    (
        "log_lane_state",
        "gauge",
        "0 not needed, 1 open, 2 poisoned, 3 held.",
        |m| m.state.value() as f64,
    ),
    ("log_records_total", "counter", "Records appended.", |m| {
        m.records.value() as f64
    }),
    ("log_bytes_total", "counter", "Bytes of records appended.", |m| {
        m.bytes.value() as f64
    }),
    (
        "log_durable_groups",
        "gauge",
        "Number of the last durable group.",
        |m| m.groups.value() as f64,
    ),
    (
        "log_durable_lsn",
        "gauge",
        "Number of the last durable record.",
        |m| m.durable_lsn.value() as f64,
    ),
    (
        "log_pending_bytes",
        "gauge",
        "Bytes appended and not yet durable.",
        |m| m.pending_bytes.value() as f64,
    ),
    ("log_depth", "gauge", "Groups that may be in flight.", |m| {
        m.depth.value() as f64
    }),
    (
        "log_segments_prepared_total",
        "counter",
        "Segments prepared since the start.",
        |m| m.segments.value() as f64,
    ),
    (
        "log_refused_total",
        "counter",
        "Writes refused before the append.",
        |m| m.refused.value() as f64,
    ),
    (
        "log_eventual_skipped_total",
        "counter",
        "Writes at eventual whose record the log did not take.",
        |m| (m.eventual_skipped.value() + m.eventual_shed.value()) as f64,
    ),
    (
        "log_unapplied_records",
        "gauge",
        "Records that the store does not have yet.",
        |m| m.unapplied_records.value() as f64,
    ),
    (
        "log_unapplied_bytes",
        "gauge",
        "Bytes that the store does not have yet.",
        |m| m.unapplied_bytes.value() as f64,
    ),
    (
        "log_unapplied_seconds",
        "gauge",
        "Age of the oldest record that the store does not have yet.",
        |m| m.unapplied_age_nanos.value() as f64 / 1e9,
    ),
    (
        "log_apply_failures_total",
        "counter",
        "Batches that the store did not take.",
        |m| m.apply_failures.value() as f64,
    ),
    (
        "log_failing_namespaces",
        "gauge",
        "Namespaces whose last batch the store did not take.",
        |m| m.failing_namespaces.value() as f64,
    ),
    (
        "log_dead_letters_total",
        "counter",
        "Records that the store refused for ever.",
        |m| m.dead_letters.value() as f64,
    ),
    (
        "log_recovered_records",
        "gauge",
        "Records read when the lane was opened.",
        |m| m.recovered_records.value() as f64,
    ),
    (
        "log_recovery_seconds",
        "gauge",
        "How long opening the lane took.",
        |m| m.recovery_nanos.value() as f64 / 1e9,
    ),
];

/// Writes the figures of all shards' logs.
pub(super) fn render(logs: &[Arc<LogMetrics>], out: &mut String) {
    if logs.is_empty() {
        return;
    }
    for (name, kind, help, read) in FAMILIES {
        let _ = writeln!(out, "# HELP prism_{name} {help}\n# TYPE prism_{name} {kind}");
        for (shard, log) in logs.iter().enumerate() {
            let _ = writeln!(out, "prism_{name}{{shard=\"{shard}\"}} {}", read(log));
        }
    }
    render_servers(logs, out);
    for (name, help) in [
        ("log_durable_seconds", "Time from the append to durable."),
        (
            "log_apply_seconds",
            "Time from the append to applied in the store.",
        ),
    ] {
        let _ = writeln!(out, "# HELP prism_{name} {help}\n# TYPE prism_{name} histogram");
        for (shard, log) in logs.iter().enumerate() {
            let histogram = match name {
                "log_durable_seconds" => &log.durable_latency,
                _ => &log.apply_latency,
            };
            let buckets = histogram.buckets.each_ref().map(super::Counter::value);
            let labels = format!("shard=\"{shard}\"");
            render_histogram(out, name, &labels, &buckets, histogram.sum_nanos.value());
        }
    }
}

/// Writes what each server lacks, where there are servers.
fn render_servers(logs: &[Arc<LogMetrics>], out: &mut String) {
    if logs.iter().all(|log| log.servers.is_empty()) {
        return;
    }
    let name = "log_store_unapplied_bytes";
    let _ = writeln!(
        out,
        "# HELP prism_{name} Bytes that a server's store does not have yet.\n# TYPE prism_{name} gauge"
    );
    for (shard, log) in logs.iter().enumerate() {
        for (store, bytes) in &log.servers {
            let bytes = bytes.value();
            let _ = writeln!(out, "prism_{name}{{shard=\"{shard}\",store=\"{store}\"}} {bytes}");
        }
    }
}
