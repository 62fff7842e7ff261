//! `prism store`: the stores of a configuration, a measurement of one, and its tables moved on.
//! Speaks to the stores themselves, with what the configuration file says; no gateway is asked.
//!
//! Promises: nothing secret is printed; `probe` leaves nothing in the store; `migrate --dry-run`
//! changes nothing.

use std::time::Duration;

use clap::{Args, Subcommand};
use prism_backends::{
    StoreError,
    kafka::{self, Kafka},
    kind::StoreKind,
    nats::{self, Nats},
    offer::Acked,
    postgres::{self, FORMAT, Observed, Postgres},
    rate::{Level, Rate},
    redis::{self, Redis},
    server::{RawConfig, ServerConfig, ServerStore, Share},
};
use prism_core::{
    config::StoreOptions,
    namespace::units::{format_size, parse_duration, parse_size},
};
use serde_json::json;

use super::output::Printer;
use super::serve::{ServeArgs, effective};
use super::{Exit, Failure};

/// Longest measurement, and largest value of it.
const PROBE_MAX: Duration = Duration::from_secs(60);
const VALUE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// List the stores of the configuration
    List(ServeArgs),
    /// Measure a store with rows of its own, which are removed afterwards
    Probe(ProbeArgs),
    /// Make the tables of a store, or move older ones on to this version's format
    Migrate(MigrateArgs),
}

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Name of the store in the configuration
    name: String,
    /// Time to measure, up to 60s
    #[arg(long = "for", value_name = "TIME", default_value = "6s", value_parser = probe_time)]
    time: Duration,
    /// Size of a value, up to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = probe_size)]
    size: u64,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Name of the store in the configuration
    name: String,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

fn probe_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.description)?;
    match (Duration::from_secs(1)..=PROBE_MAX).contains(&time) {
        true => Ok(time),
        false => Err(format!("{text:?} is out of range; from 1s to 60s")),
    }
}

fn probe_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.description)?;
    match (1..=VALUE_BYTES_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("{text:?} is out of range; from 1B to 1MiB")),
    }
}

pub(super) fn run(command: &StoreCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        StoreCommand::List(args) => list(args, printer),
        StoreCommand::Probe(args) => probe(args, printer),
        StoreCommand::Migrate(args) => migrate(args, printer),
    }
}

fn list(args: &ServeArgs, printer: &mut Printer) -> Result<(), Failure> {
    let options = effective(args)?.options;
    for store in options.all_stores() {
        let checked = store
            .kind
            .is_server()
            .then(|| ServerConfig::check(store.kind, &store.raw()));
        let (address, problem) = match &checked {
            Some(Ok(config)) => (config.address().to_owned(), None),
            Some(Err(problem)) => (String::new(), Some(problem.to_string())),
            None => (String::new(), None),
        };
        let connections = checked.and_then(Result::ok).map(|config| config.pool_max());
        if printer.is_json() {
            printer.json(&json!({
                "name": store.name, "kind": store.kind.name(), "address": address,
                "connections_max": connections, "problem": problem,
            }))?;
            continue;
        }
        let most = connections.map_or_else(String::new, |most| format!("  up to {most} connections"));
        let problem = problem.map_or_else(String::new, |problem| format!("cannot be used: {problem}"));
        let line = format!(
            "{:<20} {:<12} {address}{most}{problem}",
            store.name,
            store.kind.title()
        );
        printer.line(line.trim_end())?;
    }
    Ok(())
}

/// The store of this name.
fn find(args: &ServeArgs, name: &str) -> Result<StoreOptions, Failure> {
    let options = effective(args)?.options;
    let stores = options.all_stores();
    stores
        .iter()
        .find(|store| store.name == name)
        .cloned()
        .ok_or_else(|| {
            let names: Vec<_> = stores.iter().map(|store| &*store.name).collect();
            let what = format!(
                "the configuration has no store {name:?}; it has {}",
                names.join(", ")
            );
            Failure::new(Exit::Usage, what).solution("`prism store list` shows all; --config names the file")
        })
}

/// The configuration of a store, as its kind checks it.
fn checked<C>(
    store: &StoreOptions,
    check: impl FnOnce(&RawConfig) -> Result<C, StoreError>,
) -> Result<C, Failure> {
    check(&store.raw()).map_err(|cause| Failure::new(Exit::Usage, format!("stores.{}.{cause}", store.name)))
}

/// The refusal of a kind with which this cannot be done.
fn not_on(store: &StoreOptions, what: &str) -> Failure {
    let kind = store.kind.title();
    let what = format!("store \"{}\" is {kind}: this version {what}", store.name);
    Failure::new(Exit::Usage, what).solution("the gateway itself moves files of SQLite on when it starts")
}

/// Runs a question to a store, made by `open` with all of its connections.
fn ask<S, T>(
    connections: u32,
    open: impl FnOnce(Share) -> Result<S, StoreError>,
    question: impl AsyncFnOnce(S) -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new(Exit::No, format!("cannot start a runtime: {cause}")))?;
    let share = Share {
        shard: 0,
        shards: 1,
        cap: connections,
    };
    let asked = tokio::task::LocalSet::new().block_on(&runtime, async { question(open(share)?).await });
    asked.map_err(|cause| match cause {
        StoreError::Unreachable { .. } => Failure::new(Exit::Unreachable, cause.to_string()),
        _ => Failure::new(Exit::No, cause.to_string()),
    })
}

fn ask_postgres<T>(
    config: &postgres::Config,
    question: impl AsyncFnOnce(Postgres) -> Result<T, StoreError>,
) -> Result<T, Failure> {
    ask(config.pool_max, |share| Postgres::new(config, share), question)
}

/// A measurement with what else is said of the store.
struct Measured {
    levels: Vec<Level>,
    /// The line above the figures, and in JSON.
    title: String,
    facts: serde_json::Value,
}

fn probe(args: &ProbeArgs, printer: &mut Printer) -> Result<(), Failure> {
    let store = find(&args.serve, &args.name)?;
    let bytes = usize::try_from(args.size).unwrap_or(usize::MAX);
    let measured = match store.kind {
        StoreKind::Postgres => probe_postgres(&store, args.time, bytes)?,
        StoreKind::Nats => probe_nats(&store, args.time, bytes)?,
        StoreKind::Redis => probe_redis(&store, args.time, bytes)?,
        StoreKind::Kafka => probe_kafka(&store, args.time, bytes)?,
        _ => return Err(not_on(&store, "measures PostgreSQL, Redis, NATS and Kafka only")),
    };
    if printer.is_json() {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let rate = |rate: &Rate| json!({ "per_second": rate.per_second, "p50_us": micros(rate.p50), "p99_us": micros(rate.p99) });
        let levels = measured.levels.iter().map(|level| {
            json!({ "outstanding": level.outstanding, "writes": rate(&level.writes), "reads": rate(&level.reads) })
        });
        let mut shown = measured.facts;
        shown["store"] = json!(store.name);
        shown["kind"] = json!(store.kind.name());
        shown["value_bytes"] = json!(args.size);
        shown["levels"] = levels.collect();
        return printer.json(&shown);
    }
    printer.line(&measured.title)?;
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    for level in &measured.levels {
        printer.line(&format!(
            "  {:>3} at a time, {}: {:>6} writes/s (P50 {}, P99 {})  {:>6} reads/s (P50 {}, P99 {})",
            level.outstanding,
            format_size(args.size),
            level.writes.per_second,
            millis(level.writes.p50),
            millis(level.writes.p99),
            level.reads.per_second,
            millis(level.reads.p50),
            millis(level.reads.p99),
        ))?;
    }
    printer.done("Measured; what was written is removed. A gateway sends the writes of many calls together, so it writes more")
}

fn probe_postgres(store: &StoreOptions, time: Duration, bytes: usize) -> Result<Measured, Failure> {
    let config = checked(store, postgres::Config::check)?;
    let probe = ask_postgres(&config, async |store| store.probe(time, bytes).await)?;
    let facts = probe.facts;
    let syncs = match facts.is_durable {
        true => "syncs each commit",
        false => "syncs nothing (fsync = off): for best-effort only",
    };
    Ok(Measured {
        levels: probe.levels,
        title: format!(
            "PostgreSQL {} \"{}\" at {}, {syncs}, {} connections allowed to all",
            facts.version, store.name, config.address, facts.connections_max
        ),
        facts: json!({
            "version": facts.version, "durable": facts.is_durable, "read_only": facts.is_read_only,
            "connections_max": facts.connections_max,
        }),
    })
}

fn probe_redis(store: &StoreOptions, time: Duration, bytes: usize) -> Result<Measured, Failure> {
    let config = checked(store, redis::Config::check)?;
    let probe = ask(
        config.pool_max,
        |share| Redis::open(&config, share),
        async |store| store.probe(time, bytes).await,
    )?;
    let acked = probe.facts.acked();
    let syncs = match acked {
        Acked::Durable => "syncs each write (appendfsync always): for every durability",
        Acked::DurableOnSync => "syncs each second: for best-effort and eventual",
        _ => "may lose what it acknowledged: for best-effort only",
    };
    Ok(Measured {
        levels: probe.levels,
        title: format!("Redis \"{}\" at {}, {syncs}", store.name, config.address),
        facts: json!({ "durable": acked == Acked::Durable, "durable_on_sync": acked >= Acked::DurableOnSync }),
    })
}

fn probe_nats(store: &StoreOptions, time: Duration, bytes: usize) -> Result<Measured, Failure> {
    let config = checked(store, nats::Config::check)?;
    let levels = ask(
        config.pool_max,
        |share| Nats::open(&config, share),
        async |store| store.probe(time, bytes).await,
    )?;
    let syncs = match config.syncs_always {
        true => "syncs each message, as its entry says",
        false => "syncs later (no sync_interval: always in its entry): not for strong",
    };
    Ok(Measured {
        levels,
        title: format!("NATS \"{}\" at {}, {syncs}", store.name, config.address),
        facts: json!({ "durable": config.syncs_always }),
    })
}

fn probe_kafka(store: &StoreOptions, time: Duration, bytes: usize) -> Result<Measured, Failure> {
    let config = checked(store, kafka::Config::check)?;
    let levels = ask(
        config.pool_max,
        |share| Kafka::open(&config, share),
        async |store| store.probe(time, bytes).await,
    )?;
    Ok(Measured {
        levels,
        title: format!(
            "Kafka \"{}\" at {}, reads one after the other",
            store.name, config.address
        ),
        facts: json!({}),
    })
}

fn migrate(args: &MigrateArgs, printer: &mut Printer) -> Result<(), Failure> {
    let store = find(&args.serve, &args.name)?;
    if store.kind != StoreKind::Postgres {
        return Err(not_on(&store, "moves on tables of PostgreSQL only"));
    }
    let config = checked(&store, postgres::Config::check)?;
    let before = ask_postgres(&config, async |store| store.inspect().await)?;
    let after = ask_postgres(&config, async |store| store.ensure(args.dry_run).await)?;
    let is_behind = before.format < FORMAT;
    if printer.is_json() {
        return printer.json(&json!({
            "store": store.name, "kind": store.kind.name(), "format": after.format, "format_before": before.format,
            "format_newest": FORMAT, "usable_from": after.usable_from, "dry_run": args.dry_run,
            "moved": is_behind && !args.dry_run,
        }));
    }
    let place = format!("PostgreSQL \"{}\" at {}", store.name, config.address);
    let now = match before {
        Observed { format: 0, .. } => "has no tables".to_owned(),
        Observed { format, .. } => format!("has tables of format {format}"),
    };
    printer.line(&format!("{place} {now}; this version writes format {FORMAT}"))?;
    match (is_behind, args.dry_run) {
        (false, _) => printer.done("Nothing is to be done"),
        (true, true) => printer.line(&format!(
            "Would be moved on to format {FORMAT}; nothing was changed"
        )),
        (true, false) => printer.done(&format!("Moved on to format {FORMAT}")),
    }
}
