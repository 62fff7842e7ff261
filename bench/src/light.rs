//! Light load: CPU time and latency of a call, at rates that leave the server idle most of the
//! time.
//!
//! A thread that sleeps between two calls pays for its waking, and one that polls for the next call
//! pays for the polling. At tens of thousands of calls a second neither shows. Puts of 256 bytes
//! from 16 connections are due at fixed times, each server on one core, the load on another; then
//! one client waits for each answer. Servers take turns.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    child::{Child, sibling},
    load,
    servers::Kind,
};

const NAMESPACE: &str = "light";

/// Options of the measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Leave out the others
    #[arg(long, value_enum)]
    only: Option<Store>,
    /// Another build of `prism` to measure next to this one
    #[arg(long, value_name = "FILE")]
    other: Option<PathBuf>,
}

/// Destination of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Memory,
    BestEffort,
    Strong,
}

impl Store {
    const ALL: [Self; 3] = [Self::Memory, Self::BestEffort, Self::Strong];

    fn describe(self) -> &'static str {
        match self {
            Self::Memory => "memory store",
            Self::BestEffort => "SQLite, best-effort",
            Self::Strong => "SQLite, strong",
        }
    }

    fn durability(self) -> &'static str {
        match self {
            Self::Memory | Self::BestEffort => "best-effort",
            Self::Strong => "strong",
        }
    }

    fn servers(self, other: Option<&Path>) -> Vec<Server> {
        let mut servers = vec![Server::Prism, Server::WithoutPolling];
        servers.extend(other.map(|path| Server::Other(path.to_owned())));
        if self == Self::Memory {
            servers.push(Server::Tokio);
        }
        servers
    }

    fn loads(self) -> &'static [Load] {
        match self {
            Self::Memory => &[Load::Rate(1_000), Load::Rate(5_000)],
            Self::BestEffort | Self::Strong => &[Load::Rate(1_000), Load::Rate(5_000), Load::Lone],
        }
    }
}

/// The server under load.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    Prism,
    WithoutPolling,
    Other(PathBuf),
    Tokio,
}

impl Server {
    fn describe(&self) -> &'static str {
        match self {
            Self::Prism => "this gateway",
            Self::WithoutPolling => "… with `idle_poll_us: 0`",
            Self::Other(_) => "the other build",
            Self::Tokio => "our connection code alone, tokio",
        }
    }

    fn start(&self, store: Store, core: usize) -> Result<Child, String> {
        let embedded = if store == Store::Memory {
            "memory"
        } else {
            "sqlite"
        };
        let mut arguments = vec!["--embedded", embedded, "--shards", "1"];
        let binary = match self {
            Self::Tokio => return Child::start(Kind::CodecTokio, core),
            Self::Other(path) => path.clone(),
            Self::WithoutPolling => {
                arguments.extend(["--set", "idle_poll_us=0"]);
                sibling("prism")?
            }
            Self::Prism => sibling("prism")?,
        };
        let child = Child::of_binary(&binary, &arguments, core)?;
        load::create_namespace(&child, NAMESPACE, store.durability())?;
        Ok(child)
    }
}

/// Amount of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Puts a second, of 16 connections.
    Rate(u32),
    /// One client that waits for each answer.
    Lone,
}

impl Load {
    fn describe(self) -> String {
        match self {
            Self::Rate(rate) => format!("{rate}/s"),
            Self::Lone => "one client, closed loop".to_owned(),
        }
    }
}

/// Results of one measurement, in microseconds.
struct Measured {
    store: Store,
    load: Load,
    server: Server,
    cpu: f64,
    p50: f64,
    p99: f64,
}

/// Prints CPU per call and latencies, side by side.
pub(crate) fn measure(options: &Options, rounds: u32, cores: (usize, usize)) -> Result<(), String> {
    let mut all = Vec::new();
    for round in 0..rounds {
        for store in Store::ALL {
            if options.only.is_some_and(|only| only != store) {
                continue;
            }
            let mut servers = store.servers(options.other.as_deref());
            if round % 2 == 1 {
                servers.reverse();
            }
            for server in servers {
                let child = server.start(store, cores.0)?;
                for load in store.loads() {
                    let report = run(&child, *load, options.seconds, cores.1)?;
                    all.push(read(&report, store, *load, server.clone())?);
                }
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    print(&all, options.other.as_deref());
    Ok(())
}

fn run(child: &Child, load: Load, seconds: u32, core: usize) -> Result<Value, String> {
    let report = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let mut command = Command::new(sibling("prism-loadgen")?);
    command
        .args(["--target", &child.address.to_string()])
        .args(["--server-pid", &child.pid().to_string()])
        .args(["--cores", &core.to_string(), "--namespace", NAMESPACE])
        .args(["--mix", "put=100", "--value", "256", "--keys", "10000"])
        .args(["--distribution", "uniform", "--warm-up", "500ms"])
        .args(["--duration", &format!("{seconds}s"), "--quiet", "--json"])
        .arg(report.path());
    match load {
        Load::Rate(rate) => command.args(["-c", "16", "-m", "32", "--rate", &rate.to_string()]),
        Load::Lone => command.args(["-c", "1", "-m", "1"]),
    };
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run prism-loadgen: {error}"))?;
    if !status.success() {
        return Err(format!("prism-loadgen ended with {status}"));
    }
    let text = std::fs::read_to_string(report.path()).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("prism-loadgen's report: {error}"))
}

fn read(report: &Value, store: Store, load: Load, server: Server) -> Result<Measured, String> {
    let measured = &report["measured"];
    let number = |value: &Value, name: &str| {
        value
            .as_f64()
            .ok_or_else(|| format!("prism-loadgen's report has no {name}"))
    };
    if measured["errors"] != 0 {
        return Err(format!("calls failed: {}", measured["outcomes"]));
    }
    Ok(Measured {
        store,
        load,
        server,
        cpu: number(&measured["server_cpu_us"], "server_cpu_us")?,
        p50: number(&measured["latency"]["p50_ns"], "p50_ns")? / 1e3,
        p99: number(&measured["latency"]["p99_ns"], "p99_ns")? / 1e3,
    })
}

fn print(all: &[Measured], other: Option<&Path>) {
    println!("\nPuts of 256 bytes under light load, server on one core (medians)\n");
    println!("| store | load | server | CPU per call | P50 | P99 |");
    println!("|---|---|---|--:|--:|--:|");
    for store in Store::ALL {
        for load in store.loads() {
            for server in store.servers(other) {
                let of = |figure: fn(&Measured) -> f64| {
                    let mut figures: Vec<f64> = all
                        .iter()
                        .filter(|one| one.store == store && one.load == *load && one.server == server)
                        .map(figure)
                        .collect();
                    figures.sort_by(f64::total_cmp);
                    figures.get(figures.len() / 2).copied()
                };
                let (Some(cpu), Some(p50), Some(p99)) =
                    (of(|one| one.cpu), of(|one| one.p50), of(|one| one.p99))
                else {
                    continue;
                };
                println!(
                    "| {} | {} | {} | {cpu:.0} µs | {p50:.0} µs | {p99:.0} µs |",
                    store.describe(),
                    load.describe(),
                    server.describe(),
                );
            }
        }
    }
}
