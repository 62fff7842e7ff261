//! Figures of a namespace, summed over all shards and methods since the start.

use std::{collections::HashMap, time::Duration};

use prism_codec::{grpc::Code, method::Permissions};

use super::{LATENCY_BOUNDS_MICROS, NamespaceMetrics, Registry, lock};

/// Codes of failures that are not their callers'.
const ERRORS: [Code; 5] = [
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
];

/// Sums since the start, but for the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that need the permission to write.
    pub writes: u64,
    /// All other calls.
    pub reads: u64,
    /// Calls that failed for no fault of their callers.
    pub errors: u64,
    /// Calls refused as a declared rate was used up.
    pub limited: u64,
    /// Streams open now.
    pub streams: u64,
    /// Calls by latency; the bounds are [`LATENCY_BOUNDS_MICROS`].
    pub buckets: [u64; LATENCY_BOUNDS_MICROS.len() + 1],
}

impl Totals {
    /// Calls of both kinds.
    pub fn calls(&self) -> u64 {
        self.writes + self.reads
    }

    fn add(&mut self, metrics: &NamespaceMetrics) {
        self.streams += metrics.streams.value();
        self.limited += metrics.limited.iter().map(super::Counter::value).sum::<u64>();
        for (spec, method) in metrics.api.methods().iter().zip(metrics.methods()) {
            let calls: u64 = method.by_code.iter().map(super::Counter::value).sum();
            match Permissions::READ.allow(spec.permissions) {
                true => self.reads += calls,
                false => self.writes += calls,
            }
            self.errors += ERRORS
                .iter()
                .map(|code| method.by_code[*code as usize].value())
                .sum::<u64>();
            for (sum, bucket) in self.buckets.iter_mut().zip(&method.latency.buckets) {
                *sum += bucket.value();
            }
        }
    }

    /// The growth since an earlier moment; streams as they are.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut buckets = self.buckets;
        for (bucket, before) in buckets.iter_mut().zip(&before.buckets) {
            *bucket = bucket.saturating_sub(*before);
        }
        Self {
            writes: self.writes.saturating_sub(before.writes),
            reads: self.reads.saturating_sub(before.reads),
            errors: self.errors.saturating_sub(before.errors),
            limited: self.limited.saturating_sub(before.limited),
            streams: self.streams,
            buckets,
        }
    }

    /// The latency that a part of all calls stays below, such as 0.99, interpolated within its
    /// bucket; `None` without calls.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let calls: u64 = self.buckets.iter().sum();
        let wanted = calls as f64 * part;
        let mut below = 0.0;
        let mut lower = 0;
        for (index, count) in self.buckets.iter().enumerate().filter(|_| calls > 0) {
            // What is slower than the last bound has none.
            let upper = LATENCY_BOUNDS_MICROS.get(index).copied().unwrap_or(lower);
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let within = ((wanted - below) / count).clamp(0.0, 1.0);
                let micros = lower as f64 + (upper - lower) as f64 * within;
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
            below += count;
            lower = upper;
        }
        None
    }
}

impl Registry {
    /// The sums of each namespace.
    pub fn totals(&self) -> HashMap<String, Totals> {
        let mut totals: HashMap<String, Totals> = HashMap::new();
        for (name, metrics) in lock(&self.namespaces).iter() {
            match totals.get_mut(name) {
                Some(known) => known.add(metrics),
                None => {
                    let mut first = Totals::default();
                    first.add(metrics);
                    totals.insert(name.clone(), first);
                }
            }
        }
        totals
    }

    /// The sums of one namespace.
    pub fn totals_of(&self, name: &str) -> Totals {
        let mut totals = Totals::default();
        for (_, metrics) in lock(&self.namespaces).iter().filter(|(known, _)| known == name) {
            totals.add(metrics);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use prism_codec::method::{Api, KeyValueMethod, Method};

    use super::*;

    #[test]
    fn the_shards_are_summed_and_quantiles_lie_within_their_buckets() {
        let registry = Registry::default();
        for _ in 0..2 {
            let metrics = registry.add_namespace("a", Api::KeyValue);
            let put = metrics.method(Method::KeyValue(KeyValueMethod::Put));
            put.by_code[Code::Ok as usize].add(9);
            put.by_code[Code::Unavailable as usize].add(1);
            put.latency.record(Duration::from_micros(900), 10);
            let get = metrics.method(Method::KeyValue(KeyValueMethod::Get));
            get.by_code[Code::InvalidArgument as usize].add(5);
            metrics.streams.set(3);
        }
        let totals = registry.totals_of("a");
        assert_eq!(
            (totals.writes, totals.reads, totals.errors, totals.streams),
            (20, 10, 2, 6)
        );
        assert_eq!(registry.totals().get("a"), Some(&totals));
        assert_eq!(registry.totals_of("b"), Totals::default());
        // 20 calls between 500 us and 1 ms.
        assert_eq!(totals.quantile(0.5), Some(Duration::from_micros(750)));
        assert_eq!(totals.quantile(1.0), Some(Duration::from_millis(1)));
        assert_eq!(Totals::default().quantile(0.5), None);
        assert_eq!(totals.since(&totals).calls(), 0);
        let mut slow = Totals::default();
        slow.buckets[LATENCY_BOUNDS_MICROS.len()] = 1;
        assert_eq!(slow.quantile(0.99), Some(Duration::from_secs(10)));
    }
}
