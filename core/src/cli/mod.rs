//! The command line: arguments in, one subcommand run, an exit code out.
//!
//! Promises: exit codes as in [`Exit`]; results on standard output, everything else on standard
//! error; an error is one line that says what is wrong and one that says what to do. Leaves to
//! others: what the commands do (one file each).

mod apply;
mod ca;
mod completions;
mod config;
mod dlq;
mod kv;
mod namespace;
mod output;
mod pubsub;
mod queue;
mod serve;
mod status;
mod store;
mod wal;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use prism_core::client::{Client, ClientError, Credentials};
use prism_core::config::unknown_variables;
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

/// Options that every subcommand understands, but for those of [`MEANINGLESS`].
#[derive(Debug, clap::Args)]
struct Global {
    /// Address of the gateway that client commands talk to; with https:// before it by TLS
    #[arg(
        long,
        global = true,
        env = "PRISM_SERVER",
        default_value = "127.0.0.1:8980",
        value_name = "HOST:PORT",
        help_heading = GLOBAL_HEADING
    )]
    server: String,
    /// Form of the results
    #[arg(
        long,
        global = true,
        env = "PRISM_OUTPUT",
        value_enum,
        default_value = "text",
        value_name = "FORM",
        help_heading = GLOBAL_HEADING
    )]
    output: Form,
    /// How long to wait for an answer of the gateway
    #[arg(
        long,
        global = true,
        env = "PRISM_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = timeout,
        help_heading = GLOBAL_HEADING
    )]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Files for a gateway with TLS.
#[derive(Debug, clap::Args)]
struct TlsArgs {
    /// Certificates that sign the gateway's, for https://, in PEM; without it those of the system
    #[arg(long, global = true, env = "PRISM_CA", value_name = "FILE", help_heading = GLOBAL_HEADING)]
    ca: Option<PathBuf>,
    /// Your certificate, for a gateway that asks for one, in PEM
    #[arg(long, global = true, env = "PRISM_CERT", value_name = "FILE", help_heading = GLOBAL_HEADING)]
    cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(
        id = "cert-key",
        long,
        global = true,
        env = "PRISM_CERT_KEY",
        value_name = "FILE",
        help_heading = GLOBAL_HEADING
    )]
    cert_key: Option<PathBuf>,
}

const GLOBAL_HEADING: &str = "Global options";

/// A global option that some commands do not have, and why.
struct Meaningless {
    /// Names of the subcommands from the root.
    command: &'static [&'static str],
    option: &'static str,
    because: &'static str,
}

const ASKS_NOBODY: &str = "it asks no gateway";
const NO_RESULT: &str = "it has no result that could take a form";

/// Global options where they mean nothing: hidden there, and refused.
const MEANINGLESS: &[Meaningless] = &[
    Meaningless::new(&["serve"], "server", "it is the gateway; --listen is its address"),
    Meaningless::new(&["serve"], "output", NO_RESULT),
    Meaningless::new(&["serve"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["namespace", "validate"], "server", ASKS_NOBODY),
    Meaningless::new(&["namespace", "validate"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["namespace", "schema"], "server", ASKS_NOBODY),
    Meaningless::new(&["namespace", "schema"], "output", NO_RESULT),
    Meaningless::new(&["namespace", "schema"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["config"], "server", ASKS_NOBODY),
    Meaningless::new(&["config"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["store"], "server", ASKS_NOBODY),
    Meaningless::new(&["store"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["wal"], "server", ASKS_NOBODY),
    Meaningless::new(&["wal"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["ca"], "server", ASKS_NOBODY),
    Meaningless::new(&["ca"], "output", NO_RESULT),
    Meaningless::new(&["ca"], "timeout", ASKS_NOBODY),
    Meaningless::new(&["completions"], "server", ASKS_NOBODY),
    Meaningless::new(&["completions"], "output", NO_RESULT),
    Meaningless::new(&["completions"], "timeout", ASKS_NOBODY),
];

/// Options about the connection to the server: meaningless where it is.
const OF_SERVER: [&str; 3] = ["ca", "cert", "cert-key"];

/// All of [`MEANINGLESS`], those that follow from it among them.
fn meaningless() -> impl Iterator<Item = Meaningless> {
    MEANINGLESS.iter().flat_map(|given| {
        let implied = OF_SERVER.iter().filter(|_| given.option == "server");
        let options = std::iter::once(&given.option).chain(implied);
        options.map(|option| Meaningless::new(given.command, option, given.because))
    })
}

impl Meaningless {
    const fn new(command: &'static [&'static str], option: &'static str, because: &'static str) -> Self {
        Self {
            command,
            option,
            because,
        }
    }

    /// Puts a hidden option in the place of the global one.
    fn hide(&self, root: clap::Command) -> clap::Command {
        fn at(command: clap::Command, path: &[&'static str], option: &'static str) -> clap::Command {
            match path {
                [] => command.arg(Arg::new(option).long(option).global(true).hide(true)),
                [first, rest @ ..] => command.mut_subcommand(*first, |inner| at(inner, rest, option)),
            }
        }
        at(root, self.command, self.option)
    }

    /// Whether the user gave the option to this command.
    fn is_given(&self, root: &ArgMatches) -> bool {
        let given =
            |matches: &ArgMatches| matches.value_source(self.option) == Some(ValueSource::CommandLine);
        let mut matches = root;
        let mut any = given(matches);
        for name in self.command {
            match matches.subcommand_matches(name) {
                Some(inner) => matches = inner,
                None => return false,
            }
            any |= given(matches);
        }
        any || matches.subcommand().is_some_and(|(_, leaf)| given(leaf))
    }
}

/// The definition of all arguments, for parsing and for completions.
fn command() -> clap::Command {
    meaningless().fold(Cli::command(), |command, option| option.hide(command))
}

/// Reads the process's arguments; wrong ones end it with [`Exit::Usage`].
fn arguments() -> Cli {
    let mut command = command();
    let matches = command.get_matches_mut();
    if let Some(option) = meaningless().find(|option| option.is_given(&matches)) {
        let what = format!(
            "--{} means nothing to `prism {}`: {}",
            option.option,
            option.command.join(" "),
            option.because
        );
        command.error(ErrorKind::UnknownArgument, what).exit();
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
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
    /// Make the namespaces be as the files of a directory say
    Apply(apply::ApplyArgs),
    /// Write the files of all namespaces into a directory
    Export(apply::ExportArgs),
    /// Read and write items of a keyvalue namespace
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Publish and subscribe to messages of a pubsub namespace
    #[command(subcommand)]
    Pubsub(pubsub::PubSubCommand),
    /// Send, receive and look after messages of a queue namespace
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Show whether the gateway is ready, and how it is doing
    Status,
    /// List, show, redrive and drop acknowledged writes that the store refuses
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Show the configuration that `serve` would run with
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List and measure stores, and move their tables on
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Inspect, verify and salvage the log of a stopped gateway
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// Make a development authority, and sign certificates with it
    #[command(subcommand)]
    Ca(ca::CaCommand),
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
  prism status                                             see whether it is ready
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
    /// The fault; empty if the result has shown it already.
    message: String,
    /// Advice on what to do; may be empty.
    solution: String,
    /// Single problems of a file or configuration.
    problems: Vec<Problem>,
    /// The gRPC code's name and the reason in ErrorInfo, where the gateway has refused.
    /// Boxed to keep what every function here may return small.
    status: Option<Box<(String, String)>>,
    /// The file that the problems are about.
    place: String,
    /// Problems that the gateway found and did not send.
    more: usize,
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
            more: 0,
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

    /// The failure of a file or configuration with problems.
    fn problems(exit: Exit, place: &str, problems: Vec<Problem>) -> Self {
        let failure = match problems.as_slice() {
            [only] => Self::new(exit, only.description.clone()).solution(only.suggestion.clone()),
            _ if place.is_empty() => Self::new(exit, format!("{} problems", problems.len())),
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
            ClientError::Address { .. } => {
                Self::new(Exit::Usage, message).solution("write HOST:PORT, such as 127.0.0.1:8980")
            }
            ClientError::Credentials { .. } => Self::new(Exit::Usage, message)
                .solution("see --ca, --cert and --cert-key, or PRISM_CA, PRISM_CERT and PRISM_CERT_KEY"),
            ClientError::Untrusted { .. } => Self::new(Exit::Unreachable, message)
                .solution("name the certificates that sign the gateway's with --ca, and use the name that they are for"),
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
    let cli = arguments();
    let mut printer = Printer::new(cli.global.output);
    // The gateway says it in its diagnostics.
    if !matches!(cli.command, Command::Serve(_)) {
        for unknown in unknown_variables(&serve::environment()) {
            printer.note(&unknown);
        }
    }
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Namespace(command) => namespace::run(&command, &cli.global, &mut printer),
        Command::Apply(args) => apply::run(&args, &cli.global, &mut printer),
        Command::Export(args) => apply::export(&args, &cli.global, &mut printer),
        Command::Kv(command) => kv::run(&command, &cli.global, &mut printer),
        Command::Pubsub(command) => pubsub::run(&command, &cli.global, &mut printer),
        Command::Queue(command) => queue::run(&command, &cli.global, &mut printer),
        Command::Status => status::run(&cli.global, &mut printer),
        Command::Dlq(command) => dlq::run(&command, &cli.global, &mut printer),
        Command::Config(command) => config::run(&command, &mut printer),
        Command::Store(command) => store::run(&command, &mut printer),
        Command::Wal(command) => wal::run(&command, &mut printer),
        Command::Ca(command) => ca::run(&command, &mut printer),
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
    connect_for(global, global.timeout)
}

/// Connects with another timeout for each call.
fn connect_for(global: &Global, timeout: Duration) -> Result<Client, Failure> {
    let credentials = Credentials {
        ca: global.tls.ca.clone(),
        cert: global.tls.cert.clone(),
        cert_key: global.tls.cert_key.clone(),
    };
    Ok(Client::connect_as(&credentials, &global.server, timeout)?)
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text, "a timeout is at least 1ms")
}

/// A duration above zero; `zero` says why that is not one.
fn duration(text: &str, zero: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| match error.suggestion(|millis| millis > 0) {
        suggestion if suggestion.is_empty() => error.description,
        suggestion => format!("{} ({suggestion})", error.description),
    })?;
    if duration.is_zero() {
        Err(zero.to_owned())
    } else {
        Ok(duration)
    }
}
