//! The SQLite store of the gateway: how many Puts a second 8 clients get, and how long they wait at
//! 70 % of that.

use std::process::Command;

use crate::child::{Child, sibling};

/// Runs the load generator's sweep and prints its report.
pub(crate) fn measure() -> Result<(), String> {
    let child = Child::prism(&["--shards", "1"], None)?;
    let arguments = [
        "--namespace",
        "bench",
        "--setup",
        "--mix",
        "put=100",
        "--value",
        "256",
        "--keys",
        "100000",
        "--distribution",
        "uniform",
        "-c",
        "8",
        "-m",
        "32",
        "--sweep",
        "--duration",
        "2s",
        "--warm-up",
        "500ms",
        "--slo",
        "p50=1ms,p99=10ms",
    ];
    println!(
        "\nSQLite store, 8 clients writing 256 bytes at best-effort durability\n\n$ prism-loadgen {}",
        arguments.join(" ")
    );
    let output = Command::new("timeout")
        .arg("180")
        .arg(sibling("prism-loadgen")?)
        .args(["--target", &child.address.to_string()])
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run prism-loadgen: {error}"))?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        println!(
            "(exit {}) {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
