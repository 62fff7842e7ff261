//! Every fuzz target, briefly, on stable Rust: legal inputs, damaged ones, and a corpus grown from
//! both.
//!
//! `PRISM_FUZZ_ITERATIONS` sets the number of inputs of each target, `PRISM_FUZZ_SEED` repeats a
//! run (both are printed).
#![allow(missing_docs, unreachable_pub)]

#[path = "../fuzz/generate.rs"]
mod generate;
#[path = "../fuzz/targets.rs"]
mod targets;

use generate::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Inputs kept to be damaged again.
const CORPUS_MAX: usize = 64;

/// Number of inputs that takes each target a few seconds at the test profile's optimisation.
const ITERATIONS_DEFAULT: usize = 3_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn run(name: &str) {
    let (_, target) = targets::ALL
        .into_iter()
        .find(|(other, _)| *other == name)
        .expect("a target of that name");
    let iterations = number("PRISM_FUZZ_ITERATIONS", ITERATIONS_DEFAULT as u64) as usize;
    let seed = number("PRISM_FUZZ_SEED", 20_261_122);
    println!("{name}: PRISM_FUZZ_SEED={seed} PRISM_FUZZ_ITERATIONS={iterations}");
    let mut random = Random::new(seed);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for iteration in 0..iterations {
        let mut input = match corpus.len() {
            0 => generate::legal(name, &mut random),
            len if random.once_in(2) => corpus[random.below(len)].clone(),
            _ => generate::legal(name, &mut random),
        };
        // One input in five stays undamaged.
        if !random.once_in(5) {
            match name {
                "h2_server" if random.once_in(2) => generate::damage_frames(&mut input, 1 + 24, &mut random),
                "h2_client" if random.once_in(2) => generate::damage_frames(&mut input, 1, &mut random),
                _ => generate::damage(&mut input, &mut random),
            }
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            eprintln!("{name}: input {iteration} of seed {seed}: {input:02x?}");
            std::panic::resume_unwind(panic);
        }
        if corpus.len() < CORPUS_MAX {
            corpus.push(input);
        } else if input.len() < 10_000 && random.once_in(4) {
            let at = random.below(CORPUS_MAX);
            corpus[at] = input;
        }
    }
}

#[test]
fn h2_server() {
    run("h2_server");
}

#[test]
fn h2_client() {
    run("h2_client");
}

#[test]
fn hpack() {
    run("hpack");
}

#[test]
fn grpc() {
    run("grpc");
}

#[test]
fn http1() {
    run("http1");
}

#[test]
fn connect_json() {
    run("connect_json");
}

#[test]
fn views() {
    run("views");
}
