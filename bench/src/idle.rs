//! Memory of an idle gateway, alone and with 1,000 idle connections.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use prism_codec::h2::{Config, Connection};

use crate::child::Child;

const CONNECTIONS: usize = 1_000;

/// Prints both figures with their targets.
pub(crate) fn measure() -> Result<(), String> {
    let child = Child::prism(&[], None)?;
    let alone = settled_kib(&child)?;
    let failed = |error: std::io::Error| format!("idle connections: {error}");
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut socket = TcpStream::connect(child.address).map_err(failed)?;
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .map_err(failed)?;
        let opening = Connection::new(Config::client()).take_output(Vec::new());
        socket.write_all(&opening).map_err(failed)?;
        // The gateway's SETTINGS: the connection is established.
        let mut settings = [0; 64];
        socket.read(&mut settings).map_err(failed)?;
        sockets.push(socket);
    }
    let with_connections = settled_kib(&child)?;
    println!("\nMemory (resident), SQLite store, default options\n");
    println!("| state | measured | target |\n|---|--:|--:|");
    println!("| idle | {:.1} MB | 20 MB |", alone as f64 * 1.024e-3);
    println!(
        "| {CONNECTIONS} idle connections | {:.1} MB | 64 MB |",
        with_connections as f64 * 1.024e-3
    );
    Ok(())
}

/// Resident memory once it has stopped growing: a start goes on after the port answers.
fn settled_kib(child: &Child) -> Result<u64, String> {
    let deadline = Instant::now() + SETTLE_MAX;
    let (mut highest, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET {
        if Instant::now() > deadline {
            return Err(format!("the memory still grows after {} s", SETTLE_MAX.as_secs()));
        }
        let now = child.resident_kib()?;
        if now > highest {
            (highest, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(highest)
}

/// Time without growth after which memory counts as settled.
const QUIET: Duration = Duration::from_secs(3);
const SETTLE_MAX: Duration = Duration::from_secs(60);
