//! Measurements as tables for docs/BENCHMARKS.md.

use std::{fs, process::Command};

use crate::{
    load::{Measured, SHAPES, Shape},
    servers::Kind,
};

/// All measurements of a run.
#[derive(Default)]
pub(crate) struct Results(Vec<(Kind, Shape, Measured)>);

impl Results {
    pub(crate) fn add(&mut self, kind: Kind, shape: Shape, measured: Measured) {
        self.0.push((kind, shape, measured));
    }

    fn median(&self, kind: Kind, shape: Shape, figure: impl Fn(&Measured) -> f64) -> Option<f64> {
        let mut all: Vec<f64> = self
            .0
            .iter()
            .filter(|(k, s, _)| *k == kind && *s == shape)
            .map(|(_, _, measured)| figure(measured))
            .collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// Medians over the rounds, with the ratio to the gateway.
    pub(crate) fn print(&self) {
        for shape in SHAPES {
            println!(
                "\nPut of 256 bytes, {} connections x {} streams (medians)\n",
                shape.connections, shape.streams
            );
            println!("| server | CPU per request | relative to prism | requests/s |");
            println!("|---|--:|--:|--:|");
            let own = self
                .median(Kind::Prism, shape, |measured| measured.cpu_ns)
                .unwrap_or(f64::NAN);
            for kind in Kind::ALL {
                let Some(cpu) = self.median(kind, shape, |measured| measured.cpu_ns) else {
                    continue;
                };
                let rate = self
                    .median(kind, shape, |measured| measured.per_second)
                    .unwrap_or(f64::NAN);
                println!(
                    "| {} | {:.2} µs | {:.2} x | {rate:.0} |",
                    kind.describe(),
                    cpu / 1_000.0,
                    cpu / own
                );
            }
        }
    }
}

/// Prints the machine, the versions and the command, so that others can repeat the run.
pub(crate) fn print_machine(rounds: u32, requests: u64) {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or("unknown")
            .to_owned()
    };
    let output = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.map_or("unknown".to_owned(), |output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "machine   {} , {cores} cores",
        first("/proc/cpuinfo", "model name")
    );
    println!("kernel    {}", output("uname", "-r"));
    println!("rustc     {}", output("rustc", "--version"));
    println!("h2load    {}", output("h2load", "--version"));
    println!(
        "load      h2load -t1 -c16 -m32 -n{requests} and -c64 -m1 -n{}, one core; server on another",
        requests / 5
    );
    println!("rounds    {rounds}, the order of the servers reversed in every second");
}
