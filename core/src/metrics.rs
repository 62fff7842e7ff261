//! Counters and latency histograms, written by one shard each and read by the control thread.
//!
//! Every counter has one writer, so it is raised by a plain load and store, not by a locked
//! instruction. Readers may see values that are a few requests old. Rendering follows the
//! Prometheus text format 0.0.4.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prism_codec::{
    grpc::Code,
    method::{Api, Method},
};

use crate::runtime::{clock::HybridClock, diagnostics, threads::Failure};

mod certificates;
mod log;
mod process;
mod stores;
mod totals;

pub use certificates::CertificateMetrics;
pub(crate) use process::render_disk;
pub use stores::StoreMetrics;
pub use totals::Totals;

/// Upper bounds of the latency buckets in microseconds; a last bucket takes the rest.
pub const LATENCY_BOUNDS_MICROS: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// A number that only grows, with a single writing thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread calls this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// The value; any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, with a single writing thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value. Only the owning thread calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value; any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations with fixed buckets from 10 µs to 10 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; LATENCY_BOUNDS_MICROS.len() + 1],
    sum_nanos: Counter,
}

impl Histogram {
    /// Counts `count` calls that took `elapsed` each.
    #[inline]
    pub fn record(&self, elapsed: Duration, count: u64) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let index = LATENCY_BOUNDS_MICROS.partition_point(|bound| bound.saturating_mul(1_000) < nanos);
        self.buckets[index].add(count);
        self.sum_nanos.add(nanos.saturating_mul(count));
    }

    /// Counts one call that took `nanos` nanoseconds.
    pub fn record_nanos(&self, nanos: u64) {
        self.record(Duration::from_nanos(nanos), 1);
    }
}

/// State of a shard's lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum LaneState {
    /// Not opened: no namespace needs it.
    Absent = 0,
    /// It takes appends.
    Open = 1,
    /// A durable write failed.
    Poisoned = 2,
    /// Recovery found damage; an operator must act.
    Held = 3,
}

/// Metrics of one shard's log.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Bytes of records that each server does not have yet, by its name.
    pub servers: Vec<(String, Gauge)>,
    /// State of the lane, a [`LaneState`].
    pub state: Gauge,
    /// Records appended.
    pub records: Counter,
    /// Bytes appended.
    pub bytes: Counter,
    /// Durable groups since the lane was made.
    pub groups: Gauge,
    /// LSN up to which records are durable.
    pub durable_lsn: Gauge,
    /// Bytes appended and not yet durable.
    pub pending_bytes: Gauge,
    /// Most groups in flight at present.
    pub depth: Gauge,
    /// Segments prepared.
    pub segments: Counter,
    /// Writes refused before the append.
    pub refused: Counter,
    /// Writes at `eventual` without a record, as the log did not take it.
    pub eventual_skipped: Counter,
    /// Writes at `eventual` without a record, as it did not reach the shard. The store's writer
    /// counts them.
    pub eventual_shed: Counter,
    /// Records that the store does not have yet.
    pub unapplied_records: Gauge,
    /// Bytes of those records.
    pub unapplied_bytes: Gauge,
    /// Age of the oldest of those records.
    pub unapplied_age_nanos: Gauge,
    /// Batches that the store failed to apply.
    pub apply_failures: Counter,
    /// Namespaces whose last batch the store failed to apply.
    pub failing_namespaces: Gauge,
    /// Records that became dead letters.
    pub dead_letters: Counter,
    /// Records read when the lane was opened.
    pub recovered_records: Gauge,
    /// Duration of that recovery.
    pub recovery_nanos: Gauge,
    /// Time from the append to durable.
    pub durable_latency: Histogram,
    /// Time from the append to applied.
    pub apply_latency: Histogram,
}

/// gRPC status codes.
const CODES: usize = Code::ALL.len();

/// Metrics of one shard about one method of one namespace.
#[derive(Debug, Default)]
pub struct MethodMetrics {
    /// Calls by gRPC status code.
    pub by_code: [Counter; CODES],
    /// Time from the arrival of the request's last byte to the hand-over of the reply to the
    /// kernel.
    pub latency: Histogram,
    /// Bytes of request messages.
    pub request_bytes: Counter,
    /// Bytes of response messages.
    pub response_bytes: Counter,
}

/// Metrics of one shard about one namespace.
#[derive(Debug)]
pub struct NamespaceMetrics {
    api: Api,
    /// Streams open now.
    pub streams: Gauge,
    /// Calls refused as a declared rate was used up, writes first.
    pub limited: [Counter; 2],
    /// Metrics of the methods of its API, by their indexes.
    methods: Box<[MethodMetrics]>,
}

impl NamespaceMetrics {
    fn new(api: Api) -> Self {
        let methods = api.methods().iter().map(|_| MethodMetrics::default());
        Self {
            api,
            streams: Gauge::default(),
            limited: Default::default(),
            methods: methods.collect(),
        }
    }

    /// The figures of all methods of its API, by their indexes.
    pub fn methods(&self) -> &[MethodMetrics] {
        &self.methods
    }

    /// The figures of one method of the namespace's API.
    #[inline]
    pub fn method(&self, method: Method) -> &MethodMetrics {
        debug_assert!(
            method.api() == self.api,
            "a namespace takes the calls of its own API only"
        );
        &self.methods[method.index()]
    }
}

/// Metrics of one shard about itself.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Connections accepted since the start.
    pub connections_accepted: Counter,
    /// Connections open now.
    pub connections_open: Gauge,
    /// Connections refused at the maximum.
    pub connections_refused: Counter,
    /// Connections closed for a protocol error or an exhausted defence budget.
    pub connections_failed: Counter,
    /// Calls that wait for a store or another shard.
    pub calls_waiting: Gauge,
    /// Calls that passed to another shard.
    pub hops: Counter,
    /// Calls refused with RESOURCE_EXHAUSTED at one of the shard's maxima.
    pub shed: Counter,
    /// Writes that were acknowledged when they were queued, and that the store has refused.
    pub queued_lost: Counter,
    /// Calls cancelled, or with a client that disconnected, before the reply.
    pub cancelled: Counter,
    /// Bytes received from clients.
    pub received_bytes: Counter,
    /// Bytes sent to clients.
    pub sent_bytes: Counter,
    /// Waits in which the shard polled.
    pub idle_polls: Counter,
    /// Total time spent polling.
    pub idle_poll_nanos: Counter,
}

/// All counters of the process, as the control thread sees them.
#[derive(Debug, Default)]
pub struct Registry {
    clock: Arc<HybridClock>,
    shards: Mutex<Vec<Arc<ShardMetrics>>>,
    namespaces: Mutex<Vec<(String, Arc<NamespaceMetrics>)>>,
    logs: Mutex<Vec<Arc<LogMetrics>>>,
    stores: Mutex<stores::Stores>,
    certificates: Arc<CertificateMetrics>,
    failure: Arc<Failure>,
}

impl Registry {
    /// Makes a registry of a gateway with this clock. `failure` is that of its threads.
    pub(crate) fn new(clock: Arc<HybridClock>, failure: Arc<Failure>) -> Self {
        Self {
            clock,
            failure,
            ..Self::default()
        }
    }

    /// The failure of a thread that ends the gateway; `None` while all work.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get()
    }

    /// The gateway's clock.
    pub fn clock(&self) -> &Arc<HybridClock> {
        &self.clock
    }

    /// The figures of the listener's certificate.
    pub(crate) fn certificates(&self) -> Arc<CertificateMetrics> {
        self.certificates.clone()
    }

    /// Adds a shard; its index is the order of adding.
    pub fn add_shard(&self) -> Arc<ShardMetrics> {
        let metrics = Arc::new(ShardMetrics::default());
        lock(&self.shards).push(metrics.clone());
        metrics
    }

    /// Adds a shard's log with the names of the servers that it gives records to; its index is the
    /// order of adding.
    pub fn add_log(&self, servers: &[String]) -> Arc<LogMetrics> {
        let servers = servers.iter().map(|name| (name.clone(), Gauge::default()));
        let metrics = Arc::new(LogMetrics {
            servers: servers.collect(),
            ..LogMetrics::default()
        });
        lock(&self.logs).push(metrics.clone());
        metrics
    }

    /// Adds the share of a sidecar in a server's store.
    pub fn add_store(&self, name: &str, kind: &'static str) -> Arc<StoreMetrics> {
        let metrics = Arc::new(StoreMetrics::default());
        lock(&self.stores).push((name.to_owned(), kind, metrics.clone()));
        metrics
    }

    /// Notes that the lanes of these shards must not be used.
    pub fn hold_lanes(&self, shards: &[usize]) {
        let logs = lock(&self.logs);
        for log in shards.iter().filter_map(|shard| logs.get(*shard)) {
            log.state.set(LaneState::Held as u64);
        }
    }

    /// Trouble with the log of any shard; `None` if there is none.
    pub fn lane_trouble(&self) -> Option<String> {
        let logs = lock(&self.logs);
        logs.iter().enumerate().find_map(|(shard, log)| {
            let what = match log.state.value() {
                state if state == LaneState::Poisoned as u64 => "failed on its disk; restart the gateway",
                state if state == LaneState::Held as u64 => "is held; an operator must look",
                _ => return None,
            };
            Some(format!("the log of shard {shard} {what}"))
        })
    }

    /// Adds one shard's counters of a namespace.
    pub fn add_namespace(&self, name: &str, api: Api) -> Arc<NamespaceMetrics> {
        let metrics = Arc::new(NamespaceMetrics::new(api));
        lock(&self.namespaces).push((name.to_owned(), metrics.clone()));
        metrics
    }

    /// Forgets a deleted namespace.
    pub fn remove_namespace(&self, name: &str) {
        lock(&self.namespaces).retain(|(known, _)| known != name);
    }

    /// The whole registry in Prometheus' text format.
    pub fn render(&self, driver: &str) -> String {
        let mut out = String::with_capacity(8 << 10);
        let _ = writeln!(
            out,
            "# HELP prism_info Version and driver of this gateway.\n# TYPE prism_info gauge\n\
             prism_info{{version=\"{}\",driver=\"{driver}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        let _ = writeln!(
            out,
            "# HELP prism_diagnostics_lost_total Lines of diagnostics that standard error did not take.\n\
             # TYPE prism_diagnostics_lost_total counter\nprism_diagnostics_lost_total {}",
            diagnostics::lost()
        );
        let _ = writeln!(
            out,
            "# HELP prism_clock_ahead_seconds How far the stamps of writes are ahead of the wall clock, which has stepped back.\n\
             # TYPE prism_clock_ahead_seconds gauge\nprism_clock_ahead_seconds {}",
            self.clock.ahead_ns() as f64 / 1e9
        );
        process::render(&mut out);
        self.certificates.render(&mut out);
        self.render_shards(&mut out);
        log::render(&lock(&self.logs), &mut out);
        stores::render(&lock(&self.stores), &mut out);
        self.render_namespaces(&mut out);
        out
    }

    fn render_shards(&self, out: &mut String) {
        type Read = fn(&ShardMetrics) -> u64;
        const FAMILIES: [(&str, &str, &str, Read); 12] = [
            (
                "connections_accepted_total",
                "counter",
                "Connections accepted.",
                |m| m.connections_accepted.value(),
            ),
            ("connections_open", "gauge", "Connections open now.", |m| {
                m.connections_open.value()
            }),
            (
                "connections_refused_total",
                "counter",
                "Connections refused at the maximum.",
                |m| m.connections_refused.value(),
            ),
            (
                "connections_failed_total",
                "counter",
                "Connections closed for breaking the protocol.",
                |m| m.connections_failed.value(),
            ),
            (
                "calls_waiting",
                "gauge",
                "Calls that wait for a store or another shard.",
                |m| m.calls_waiting.value(),
            ),
            (
                "hops_total",
                "counter",
                "Calls handed to the shard that owns the key.",
                |m| m.hops.value(),
            ),
            (
                "shed_total",
                "counter",
                "Calls refused because a maximum was reached.",
                |m| m.shed.value(),
            ),
            (
                "queued_lost_total",
                "counter",
                "Writes at best-effort that were acknowledged when they were queued, and that the store refused.",
                |m| m.queued_lost.value(),
            ),
            (
                "cancelled_total",
                "counter",
                "Calls given up by the client.",
                |m| m.cancelled.value(),
            ),
            (
                "received_bytes_total",
                "counter",
                "Bytes received from clients.",
                |m| m.received_bytes.value(),
            ),
            ("sent_bytes_total", "counter", "Bytes sent to clients.", |m| {
                m.sent_bytes.value()
            }),
            (
                "idle_polls_total",
                "counter",
                "Waits in which the shard looked for an answer that was due instead of sleeping.",
                |m| m.idle_polls.value(),
            ),
        ];
        let shards = lock(&self.shards);
        for (name, kind, help, read) in FAMILIES {
            let _ = writeln!(out, "# HELP prism_{name} {help}\n# TYPE prism_{name} {kind}");
            for (index, shard) in shards.iter().enumerate() {
                let _ = writeln!(out, "prism_{name}{{shard=\"{index}\"}} {}", read(shard));
            }
        }
        let _ = writeln!(
            out,
            "# HELP prism_idle_poll_seconds_total Time that was spent looking.\n\
             # TYPE prism_idle_poll_seconds_total counter"
        );
        for (index, shard) in shards.iter().enumerate() {
            let seconds = shard.idle_poll_nanos.value() as f64 / 1e9;
            let _ = writeln!(
                out,
                "prism_idle_poll_seconds_total{{shard=\"{index}\"}} {seconds}"
            );
        }
    }

    fn render_namespaces(&self, out: &mut String) {
        // Each shard has added each of them.
        let namespaces = lock(&self.namespaces).len() / lock(&self.shards).len().max(1);
        let _ = writeln!(
            out,
            "# HELP prism_namespaces Namespaces that exist.\n# TYPE prism_namespaces gauge\nprism_namespaces {namespaces}"
        );
        let mut by_name: Vec<(String, Vec<Arc<NamespaceMetrics>>)> = Vec::new();
        for (name, metrics) in lock(&self.namespaces).iter() {
            match by_name.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(metrics.clone()),
                None => by_name.push((name.clone(), vec![metrics.clone()])),
            }
        }
        by_name.sort_by(|left, right| left.0.cmp(&right.0));
        let _ = writeln!(
            out,
            "# HELP prism_requests_total Calls by method and status.\n# TYPE prism_requests_total counter"
        );
        for_each_method(&by_name, |labels, sums| {
            for (code, count) in Code::ALL
                .iter()
                .zip(&sums.by_code)
                .filter(|(_, count)| **count > 0)
            {
                let _ = writeln!(out, "prism_requests_total{{{labels},code=\"{code}\"}} {count}");
            }
        });
        let _ = writeln!(
            out,
            "# HELP prism_rate_limited_total Calls refused because a declared rate was used up.\n\
             # TYPE prism_rate_limited_total counter"
        );
        for (name, shards) in &by_name {
            for (direction, limit) in ["write_rps", "read_rps"].iter().enumerate() {
                let limited = shards.iter().map(|shard| shard.limited[direction].value());
                let limited: u64 = limited.sum();
                if limited > 0 {
                    let labels = format!("namespace=\"{name}\",limit=\"{limit}\"");
                    let _ = writeln!(out, "prism_rate_limited_total{{{labels}}} {limited}");
                }
            }
        }
        for (name, help) in [("request", "request"), ("response", "response")] {
            let _ = writeln!(
                out,
                "# HELP prism_{name}_bytes_total Bytes of {help} messages.\n# TYPE prism_{name}_bytes_total counter"
            );
            for_each_method(&by_name, |labels, sums| {
                let value = if name == "request" {
                    sums.request_bytes
                } else {
                    sums.response_bytes
                };
                let _ = writeln!(out, "prism_{name}_bytes_total{{{labels}}} {value}");
            });
        }
        let _ = writeln!(
            out,
            "# HELP prism_request_seconds Time from the last byte of a request to its reply.\n\
             # TYPE prism_request_seconds histogram"
        );
        for_each_method(&by_name, |labels, sums| {
            render_histogram(out, "request_seconds", labels, &sums.buckets, sums.sum_nanos);
        });
    }
}

/// One method's figures, summed over the shards.
#[derive(Default)]
struct Sums {
    by_code: [u64; CODES],
    buckets: [u64; LATENCY_BOUNDS_MICROS.len() + 1],
    sum_nanos: u64,
    request_bytes: u64,
    response_bytes: u64,
}

fn for_each_method(by_name: &[(String, Vec<Arc<NamespaceMetrics>>)], mut each: impl FnMut(&str, &Sums)) {
    for (name, shards) in by_name {
        let Some(api) = shards.first().map(|metrics| metrics.api) else {
            continue;
        };
        for (index, method) in api.methods().iter().enumerate() {
            let mut sums = Sums::default();
            for metrics in shards.iter().filter_map(|shard| shard.methods.get(index)) {
                for (sum, counter) in sums.by_code.iter_mut().zip(&metrics.by_code) {
                    *sum += counter.value();
                }
                for (sum, counter) in sums.buckets.iter_mut().zip(&metrics.latency.buckets) {
                    *sum += counter.value();
                }
                sums.sum_nanos += metrics.latency.sum_nanos.value();
                sums.request_bytes += metrics.request_bytes.value();
                sums.response_bytes += metrics.response_bytes.value();
            }
            if sums.by_code.iter().any(|count| *count > 0) {
                // Namespace names are made of [a-z0-9-], so they need no escaping.
                each(&format!("namespace=\"{name}\",method=\"{}\"", method.name), &sums);
            }
        }
    }
}

fn render_histogram(out: &mut String, name: &str, labels: &str, buckets: &[u64], sum_nanos: u64) {
    let mut total = 0;
    for (index, count) in buckets.iter().enumerate() {
        total += count;
        let bound = LATENCY_BOUNDS_MICROS
            .get(index)
            .map_or_else(|| "+Inf".to_owned(), |bound| (*bound as f64 / 1e6).to_string());
        let _ = writeln!(out, "prism_{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(out, "prism_{name}_sum{{{labels}}} {}", sum_nanos as f64 / 1e9);
    let _ = writeln!(out, "prism_{name}_count{{{labels}}} {total}");
}

/// A panic while holding one of these locks leaves the lists intact, so poisoning is ignored.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use prism_codec::method::KeyValueMethod;

    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounded_above() {
        let registry = Registry::default();
        let metrics = registry.add_namespace("sessions", Api::KeyValue);
        let put = metrics.method(Method::KeyValue(KeyValueMethod::Put));
        put.by_code[0].add(3);
        put.latency.record(Duration::from_micros(10), 1);
        put.latency.record(Duration::from_micros(11), 1);
        put.latency.record(Duration::from_secs(60), 1);
        let text = registry.render("epoll");
        let bucket = |bound: &str| format!("namespace=\"sessions\",method=\"Put\",le=\"{bound}\"}}");
        assert!(text.contains(&format!("{} 1\n", bucket("0.00001"))), "{text}");
        assert!(text.contains(&format!("{} 2\n", bucket("0.00002"))), "{text}");
        assert!(text.contains(&format!("{} 2\n", bucket("10"))), "{text}");
        assert!(text.contains(&format!("{} 3\n", bucket("+Inf"))), "{text}");
        assert!(text.contains("prism_requests_total{namespace=\"sessions\",method=\"Put\",code=\"OK\"} 3\n"));
    }
}
