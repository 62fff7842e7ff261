//! `prism serve`: flags, environment and file to checked options, and the process to the server.

use std::path::PathBuf;

use clap::Args;
use prism_core::{
    config::{self, Effective, Sources},
    namespace::Problem,
};

use super::{Exit, Failure};

/// Flags of `serve` and of `config print`. Values stay text here: the configuration checks them,
/// whatever they come from.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A flag counts more than the environment, the environment more than the file. Every key of the file has an environment
variable: PRISM_DATA_DIR, PRISM_LIMITS_DRAIN_TIMEOUT and so on; `prism config print` shows all keys with what they do.")]
pub(super) struct ServeArgs {
    /// Folder of the catalog and the embedded store [env: PRISM_DATA_DIR] [default: ./prism-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the one port for gRPC and HTTP [env: PRISM_LISTEN] [default: 127.0.0.1:8980]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Allow --listen beyond loopback although there is no TLS or authentication [env:
    /// PRISM_INSECURE_LISTEN]
    #[arg(long)]
    insecure_listen: bool,
    /// Threads that serve connections [env: PRISM_SHARDS] [default: one per core; with SQLite one
    /// less]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// How shards wait for the network [env: PRISM_DRIVER] [default: auto]
    #[arg(long, value_name = "DRIVER", value_parser = ["auto", "io_uring", "epoll"])]
    driver: Option<String>,
    /// Store of namespaces for which no other is configured [env: PRISM_EMBEDDED] [default: sqlite]
    #[arg(long, value_name = "STORE", value_parser = ["sqlite", "memory"])]
    embedded: Option<String>,
    /// File with the key that protects the log on disk [env: PRISM_WAL_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    wal_key_file: Option<String>,
    /// Diagnostics: off, error, warn, info, debug, trace, or by module [env: PRISM_LOG_LEVEL]
    /// [default: info]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Form of the diagnostics [env: PRISM_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORM", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Any key of the configuration, for example limits.drain_timeout=30s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Configuration file, YAML
    #[arg(long, env = "PRISM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let effective = effective(args)?;
    let again = args.clone();
    let problem = |problem: &Problem| format!("{}: {}", problem.field, problem.description);
    let reload = move || match self::effective(&again) {
        Ok(reloaded) => Ok(reloaded.options),
        Err(failure) if failure.problems.is_empty() => Err(failure.message),
        Err(failure) => {
            let problems: Vec<_> = failure.problems.iter().map(problem).collect();
            Err(problems.join("; "))
        }
    };
    let warnings = config::unknown_variables(&environment());
    prism_core::serve::run(effective.options, &warnings, reload)
        .map_err(|error| Failure::new(Exit::Serve, error.to_string()))
}

/// The configuration that these flags, the environment and the file make.
pub(super) fn effective(args: &ServeArgs) -> Result<Effective, Failure> {
    let sources = Sources {
        file: read_file(args)?,
        environment: environment(),
        flags: flags(args)?,
    };
    // Every problem names its flag, variable or file itself.
    config::load(&sources).map_err(|problems| Failure::problems(Exit::Usage, "", problems))
}

fn read_file(args: &ServeArgs) -> Result<Option<(String, String)>, Failure> {
    let Some(path) = &args.config else { return Ok(None) };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((name, text))),
        Err(error) => {
            let failure = Failure::new(
                Exit::Usage,
                format!("cannot read the configuration file {name}: {error}"),
            );
            Err(failure.solution("`prism config print > FILE` writes one to start from"))
        }
    }
}

/// Variables that are not UTF-8 cannot be a key's.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

fn flags(args: &ServeArgs) -> Result<Vec<(String, String, String)>, Failure> {
    let given = [
        ("data_dir", "--data-dir", &args.data_dir),
        ("listen", "--listen", &args.listen),
        ("shards", "--shards", &args.shards),
        ("driver", "--driver", &args.driver),
        ("embedded", "--embedded", &args.embedded),
        ("wal.key_file", "--wal-key-file", &args.wal_key_file),
        ("log.level", "--log-level", &args.log_level),
        ("log.format", "--log-format", &args.log_format),
    ];
    let mut flags = Vec::new();
    // First the general flag, so that the special one counts.
    for pair in &args.set {
        let Some((key, value)) = pair.split_once('=') else {
            let failure = Failure::new(Exit::Usage, format!("--set {pair}: there is no \"=\""));
            return Err(failure.solution("write --set limits.drain_timeout=30s"));
        };
        flags.push((key.to_owned(), value.to_owned(), format!("--set {key}")));
    }
    for (key, flag, value) in given {
        if let Some(value) = value {
            flags.push((key.to_owned(), value.clone(), flag.to_owned()));
        }
    }
    if args.insecure_listen {
        flags.push((
            "insecure_listen".to_owned(),
            "true".to_owned(),
            "--insecure-listen".to_owned(),
        ));
    }
    Ok(flags)
}
