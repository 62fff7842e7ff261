//! Placeholder of the server on this branch: the real one replaces this file.

use crate::config::ServeOptions;

/// Why the server could not start or had to end.
#[derive(Debug)]
pub struct ServeError(pub String);

impl std::fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// Runs the server until it has drained.
pub fn run(options: ServeOptions) -> Result<(), ServeError> {
    Err(ServeError(format!(
        "this build has no server yet; it would listen on {}",
        options.listen
    )))
}
