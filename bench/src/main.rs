//! The side-by-side comparison: this gateway and other stacks serve the same Put under the same
//! load, in one run.
//!
//! Each server is a child process pinned to one core, the load to another. The figure is the
//! server's CPU time per request, which a noisy machine and a slow client distort less than rates;
//! servers take turns over several rounds, and medians are shown. See docs/BENCHMARKS.md for the
//! method.

mod beside;
mod child;
mod idle;
mod light;
mod load;
mod peer;
mod report;
mod servers;
mod sqlite;
mod start;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::servers::Kind;

#[derive(Parser)]
#[command(
    name = "prism-bench",
    about = "Measures the gateway beside other stacks; prints the machine and the commands"
)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds; in each every server has its turn, every second round in the opposite order.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Requests of one measurement with 16 connections of 32 streams; with 64 of 1 it is a fifth.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    requests: u64,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Leave out the part about the SQLite store.
    #[arg(long)]
    no_sqlite: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Measure starts after a clean drain instead
    Start {
        /// Puts in the second before each start.
        #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: u32,
    },
    /// Measure light load instead: what a call costs where the server is idle most of the time
    Light(light::Options),
    /// Measure small items of one namespace next to large values and a large delete of another
    /// instead
    Beside {
        /// Another version's `prism`, to be measured side by side.
        #[arg(long)]
        other: Option<std::path::PathBuf>,
        /// Values of 1 MB of the other namespace.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        values: u32,
        /// Items that are deleted by one call.
        #[arg(long, default_value_t = 150_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
        items: u32,
    },
    /// Run a plain client, to be measured next to the gateway (used by `bench/stores`).
    #[command(subcommand, hide = true)]
    Peer(peer::Peer),
    /// Run one of the servers (used by the comparison itself).
    #[command(hide = true)]
    Serve {
        #[arg(value_enum)]
        kind: Kind,
        #[arg(long)]
        listen: std::net::SocketAddr,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.command {
        Some(Command::Serve { kind, listen }) => servers::serve(kind, listen),
        Some(Command::Peer(ref peer)) => peer::run(peer),
        Some(Command::Light(ref light)) => {
            light::measure(light, options.rounds, (options.server_core, options.load_core))
        }
        Some(Command::Start { rate }) => start::measure(rate, options.rounds),
        Some(Command::Beside {
            ref other,
            values,
            items,
        }) => beside::measure(other.as_deref(), values, items, options.rounds),
        None => compare(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    load::require_h2load()?;
    report::print_machine(options.rounds, options.requests);
    let cores = (options.server_core, options.load_core);
    let mut results = report::Results::default();
    for round in 0..options.rounds {
        let mut kinds = Kind::ALL.to_vec();
        if round % 2 == 1 {
            kinds.reverse();
        }
        for kind in kinds {
            let child = child::Child::start(kind, cores.0)?;
            for shape in load::SHAPES {
                if let Some(measured) = load::measure(kind, &child, shape, options.requests, cores.1)? {
                    results.add(kind, shape, measured);
                }
            }
        }
        eprintln!("round {} of {} done", round + 1, options.rounds);
    }
    results.print();
    idle::measure()?;
    if !options.no_sqlite {
        sqlite::measure()?;
    }
    Ok(())
}
