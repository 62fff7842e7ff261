//! Diagnostics of the process on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::ServeError;
use crate::config::{LogFormat, LogOptions};

/// Sends diagnostics to standard error as configured.
pub(super) fn install(log: &LogOptions) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|cause| ServeError(format!("log.level: {cause}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let installed = match log.format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    installed.map_err(|cause| ServeError(format!("cannot set up diagnostics: {cause}")))
}
