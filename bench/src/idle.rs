//! Memory of a gateway that has nothing to do, alone and with 1,000 idle connections.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use prism_codec::h2::{Config, Connection};

use crate::child::Child;

const CONNECTIONS: usize = 1_000;

/// Prints both figures beside their targets.
pub(crate) fn measure() -> Result<(), String> {
    let child = Child::prism(&[], None)?;
    let alone = child.resident_kib()?;
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
    let with_connections = child.resident_kib()?;
    println!("\nMemory (resident), SQLite store, default options\n");
    println!("| state | measured | target |\n|---|--:|--:|");
    println!("| idle | {:.1} MB | 20 MB |", alone as f64 * 1.024e-3);
    println!(
        "| {CONNECTIONS} idle connections | {:.1} MB | 64 MB |",
        with_connections as f64 * 1.024e-3
    );
    Ok(())
}
