//! Unknown variables of the environment.

use std::process::{Command, Stdio};

use crate::support::Setup;

#[test]
fn a_misspelt_variable_is_warned_of_and_those_of_kubernetes_are_not() {
    let mut gateway = Setup::new()
        .env("PRISM_SERVICE_HOST", "10.0.0.11")
        .env("PRISM_PORT_8980_TCP", "tcp://10.0.0.11:8980")
        .env("PRISM_LIMIT_DRAIN_TIMEOUT", "1s")
        .stderr(Stdio::piped())
        .start();
    let line = gateway.lines().find("PRISM_");
    assert!(
        line.contains("WARN") && line.contains("PRISM_LIMIT_DRAIN_TIMEOUT"),
        "{line}"
    );
    assert!(
        line.contains("did you mean PRISM_LIMITS_DRAIN_TIMEOUT?"),
        "{line}"
    );
}

#[test]
fn the_commands_of_clients_warn_as_well() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prism"));
    command
        .args(["config", "print"])
        .env("PRISM_SERVR", "127.0.0.1:1")
        .env("PRISM_SHARDS", "2");
    let done = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("PRISM_SERVR") && said.contains("did you mean PRISM_SERVER?"),
        "{said}"
    );
    assert!(done.status.success() && !said.contains("PRISM_SHARDS"), "{said}");
}
