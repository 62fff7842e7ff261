//! The load generator's binary: parses the command line and leaves with the status that the run
//! deserves.

use std::process::ExitCode;

use clap::Parser;
use prism_loadgen::{app, options::Options};

fn main() -> ExitCode {
    // Help, version and usage errors leave here, with status 0 or 2.
    let options = Options::parse();
    ExitCode::from(app::run(&options) as u8)
}
