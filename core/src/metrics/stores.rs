//! Metrics of servers' stores: their connections, and the breaker of each shard's share.

use std::{fmt::Write as _, sync::Arc};

use super::{Counter, Gauge};

/// Metrics of one store on one sidecar.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Open connections.
    pub connections_open: Gauge,
    /// Connections that serve a call or a batch.
    pub connections_in_use: Gauge,
    /// Calls that wait for a connection.
    pub calls_waiting: Gauge,
    /// Calls that found all connections in use.
    pub waits: Counter,
    /// Whether the breaker is open: 0 or 1.
    pub breaker_open: Gauge,
    /// Calls refused because the breaker was open.
    pub refused: Counter,
}

/// Metrics of all stores, with the name and the kind of each.
pub(super) type Stores = Vec<(String, &'static str, Arc<StoreMetrics>)>;

/// Writes the metrics of each store, summed over its sidecars.
pub(super) fn render(stores: &Stores, out: &mut String) {
    type Read = fn(&StoreMetrics) -> u64;
    const FAMILIES: [(&str, &str, &str, Read); 6] = [
        (
            "connections_open",
            "gauge",
            "Connections to the store that are open.",
            |m| m.connections_open.value(),
        ),
        (
            "connections_in_use",
            "gauge",
            "Connections to the store that serve a call or a batch of writes.",
            |m| m.connections_in_use.value(),
        ),
        (
            "calls_waiting",
            "gauge",
            "Calls that wait for a connection to the store.",
            |m| m.calls_waiting.value(),
        ),
        (
            "waits_total",
            "counter",
            "Calls that found all connections to the store in use.",
            |m| m.waits.value(),
        ),
        (
            "breakers_open",
            "gauge",
            "Shards that refuse calls because the store does not answer.",
            |m| m.breaker_open.value(),
        ),
        (
            "refused_total",
            "counter",
            "Calls refused at once because the store does not answer.",
            |m| m.refused.value(),
        ),
    ];
    let mut names: Vec<(&str, &str)> = stores.iter().map(|(name, kind, _)| (&**name, *kind)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    for (family, kind_of_family, help, read) in FAMILIES {
        let _ = writeln!(
            out,
            "# HELP prism_store_{family} {help}\n# TYPE prism_store_{family} {kind_of_family}"
        );
        for (name, kind) in &names {
            let own = stores.iter().filter(|(other, ..)| other == name);
            let sum: u64 = own.map(|(_, _, metrics)| read(metrics)).sum();
            let _ = writeln!(
                out,
                "prism_store_{family}{{store=\"{name}\",kind=\"{kind}\"}} {sum}"
            );
        }
    }
}
