//! The command line: arguments in, one subcommand run, an exit code out.
//!
//! Promises: exit codes as in [`Exit`]; results on standard output, everything else on standard error; an
//! error is one line that says what is wrong and one that says what to do. Leaves to others: what the
//! commands do (one file each).

mod completions;
mod config;
mod dlq;
mod kv;
mod namespace;
mod output;
mod serve;
mod wal;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use prism_core::client::{Client, ClientError};
use prism_core::namespace::Problem;
use prism_core::namespace::units::parse_duration;

use output::Printer;

/// A data gateway: one gRPC and HTTP API in front of many stores.
#[derive(Debug, Parser)]
#[command(name = "prism", version, propagate_version = true, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand understands.
#[derive(Debug, clap::Args)]
struct Global {
    /// Address of the gateway that client commands talk to
    #[arg(
        long,
        global = true,
        env = "PRISM_SERVER",
        default_value = "127.0.0.1:8980",
        value_name = "HOST:PORT"
    )]
    server: String,
    /// Form of the results
    #[arg(
        long,
        global = true,
        env = "PRISM_OUTPUT",
        value_enum,
        default_value = "text",
        value_name = "FORM"
    )]
    output: Form,
    /// How long to wait for an answer of the gateway
    #[arg(long, global = true, env = "PRISM_TIMEOUT", default_value = "10s", value_name = "DURATION", value_parser = timeout)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs; bytes as base64
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a gateway
    Serve(serve::ServeArgs),
    /// Create, check, list, show and delete namespaces
    #[command(subcommand, visible_alias = "ns")]
    Namespace(namespace::NamespaceCommand),
    /// Read and write items of a keyvalue namespace
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// List, show, redrive and drop acknowledged writes that the store refuses
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Show the configuration that `serve` would run with
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Inspect, verify and salvage the log of a stopped gateway
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: refused, not valid, no such item, not swapped, a damaged log
  2  wrong usage, an unreadable file or a wrong configuration
  3  no gateway reached, or no answer in time
  4  the gateway (`prism serve`) could not start or failed

First steps:
  prism serve                                              start a gateway
  prism namespace create examples/user-sessions.yaml       make a place for data
  prism kv put user-sessions alice theme dark              write
  prism kv get user-sessions alice                         read";

/// How the program ends. Part of the interface: scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Nothing is wrong, there is only nobody left to tell.
    Done = 0,
    /// The answer is no.
    No = 1,
    /// The user has to change the command, a file or the configuration.
    Usage = 2,
    /// No gateway, or no answer.
    Unreachable = 3,
    /// `serve` failed.
    Serve = 4,
}

/// A command that did not succeed: how to end, and what to say.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    /// What is wrong; empty if there is nothing to say (the result has said it).
    message: String,
    /// What to do; may be empty.
    solution: String,
    /// Single problems of a file or configuration.
    problems: Vec<Problem>,
    /// The gRPC code's name and the reason in ErrorInfo, where the gateway has refused.
    /// Boxed to keep what every function here may return small.
    status: Option<Box<(String, String)>>,
    /// The file that the problems are about.
    place: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        let (message, solution, place) = (message.into(), String::new(), String::new());
        Self {
            exit,
            message,
            solution,
            problems: Vec::new(),
            status: None,
            place,
        }
    }

    /// The result itself was the bad news.
    fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    fn solution(mut self, solution: impl Into<String>) -> Self {
        self.solution = solution.into();
        self
    }

    /// The failure of a file with problems; one of them speaks for itself, many are listed.
    fn problems(exit: Exit, place: &str, problems: Vec<Problem>) -> Self {
        let failure = match problems.as_slice() {
            [only] => Self::new(exit, only.description.clone()).solution(only.suggestion.clone()),
            _ => Self::new(exit, format!("{place} has {} problems", problems.len())),
        };
        Self {
            problems,
            place: place.to_owned(),
            ..failure
        }
    }
}

impl From<io::Error> for Failure {
    /// Only for writing results: whoever closed the pipe has seen enough, and that is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Done),
            _ => Self::new(Exit::No, format!("cannot write the result: {error}")),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, message)
                .solution("start a gateway with `prism serve`, or name another one with --server HOST:PORT or PRISM_SERVER"),
            ClientError::TimedOut { .. } => {
                Self::new(Exit::Unreachable, message).solution("look at the gateway, or allow more time with --timeout")
            }
            ClientError::Broken { .. } => {
                Self::new(Exit::Unreachable, message).solution("check that --server is the address of a Prism gateway")
            }
            ClientError::Status(status) => output::status_failure(&status),
        }
    }
}

/// Runs the program with the process's arguments.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut printer = Printer::new(cli.global.output);
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Namespace(command) => namespace::run(&command, &cli.global, &mut printer),
        Command::Kv(command) => kv::run(&command, &cli.global, &mut printer),
        Command::Dlq(command) => dlq::run(&command, &cli.global, &mut printer),
        Command::Config(command) => config::run(&command, &mut printer),
        Command::Wal(command) => wal::run(&command, &mut printer),
        Command::Completions(args) => completions::run(&args),
    };
    match result.and_then(|()| printer.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn connect(global: &Global) -> Result<Client, Failure> {
    Ok(Client::connect(&global.server, global.timeout)?)
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration =
        parse_duration(text).map_err(|error| format!("{} {}", error.description, error.suggestion))?;
    if duration.is_zero() {
        Err("at least 1ms".to_owned())
    } else {
        Ok(duration)
    }
}
