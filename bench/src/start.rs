//! Time from exec to ready after a clean drain: with the records that a load has left in the log,
//! and without.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::child::{Child, sibling};

/// Longest wait for a start.
const READY_MAX: Duration = Duration::from_secs(20);
/// Pause before a start, so that writes left over from the load are no part of it.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts a gateway with two shards again and again on one data directory next to this program,
/// each time after a second of Puts at `strong`, and once more without any; prints the times.
pub(crate) fn measure(rate: u32, rounds: u32) -> Result<(), String> {
    // Not the system's folder for temporary files, which may be in memory.
    let failed = |error: io::Error| format!("a data directory: {error}");
    let own = std::env::current_exe().map_err(failed)?;
    let directory = tempfile::tempdir_in(own.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let (mut child, _) = start(directory.path())?;
    load(child.address, 1_000, true)?;
    let (mut loaded, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        load(child.address, rate, false)?;
        for times in [&mut loaded, &mut idle] {
            child.drain()?;
            thread::sleep(PAUSE);
            let (again, took) = start(directory.path())?;
            times.push(took);
            child = again;
        }
    }
    println!("\nFrom exec to `/readyz` after a clean drain, two shards, SQLite store\n");
    println!("| before it | milliseconds | target |\n|---|--:|--:|");
    println!(
        "| a second of {rate} Puts at strong | {} | 200 |",
        listed(&loaded)
    );
    println!("| nothing | {} | 200 |", listed(&idle));
    Ok(())
}

/// Starts the gateway and waits until it serves.
fn start(directory: &Path) -> Result<(Child, Duration), String> {
    let began = Instant::now();
    let child = Child::prism_in(directory, &["--shards", "2"])?;
    while !is_ready(child.address) {
        if began.elapsed() > READY_MAX {
            return Err(format!("the gateway at {} is not ready", child.address));
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok((child, began.elapsed()))
}

fn is_ready(address: SocketAddr) -> bool {
    let answer = || -> io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(READY_MAX))?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        Ok(answer)
    };
    answer().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}

/// Sends a second of Puts, after making the namespace if `setup` is set.
fn load(address: SocketAddr, rate: u32, setup: bool) -> Result<(), String> {
    let mut command = Command::new(sibling("prism-loadgen")?);
    command
        .args(["--target", &address.to_string(), "--rate", &rate.to_string()])
        .args([
            "--namespace",
            "start",
            "--durability",
            "strong",
            "--mix",
            "put=100",
        ])
        .args([
            "--keys",
            "100000",
            "-c",
            "8",
            "-m",
            "8",
            "--duration",
            "1s",
            "--quiet",
        ])
        .args(setup.then_some("--setup"))
        .stdout(Stdio::null());
    let status = command
        .status()
        .map_err(|error| format!("cannot run prism-loadgen: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("prism-loadgen ended with {status}"))
    }
}

fn listed(times: &[Duration]) -> String {
    let milliseconds: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    milliseconds.join(", ")
}
