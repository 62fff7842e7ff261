//! A real NATS with JetStream for tests: the program is that of the local stack, or one on the
//! path; its data lies in a temporary folder, and it ends with the test process, however that ends.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use self::daemon::{Daemon, free_port};

#[allow(clippy::duplicate_mod, reason = "a test program may need several servers")]
#[allow(dead_code, reason = "not each server needs all of it")]
mod daemon;

/// Longest time that a server takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one's own. It ends, and its data goes, when this is dropped.
pub(crate) struct Server {
    daemon: Daemon,
    port: u16,
}

impl Server {
    /// Starts a server; `more` are lines of its configuration.
    pub(crate) fn start(more: &str) -> Server {
        let daemon = Daemon::new("nats", "TERM");
        let port = free_port();
        let shown = daemon.folder().display();
        let config = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: \"{shown}/jetstream\", max_mem: 64M, max_file: 2G, sync_interval: always }}\n{more}\n"
        );
        fs::write(daemon.folder().join("nats.conf"), config).expect("a configuration");
        let mut server = Server { daemon, port };
        server.resume();
        server
    }

    /// Starts the server on the data that is there.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        self.spawn();
        while self.greeting().is_none() {
            assert!(
                begun.elapsed() < PATIENCE,
                "nats does not start: {}",
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server, as a crash of its process would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.daemon.await_end(self.port, PATIENCE);
    }

    /// Sends a signal to the server: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// URL of the server, without credentials.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Answer to a request of a plain client, without its headers.
    pub(crate) fn ask(&self, subject: &str, payload: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a server");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        let mut reader = BufReader::new(stream);
        let length = payload.len();
        let asked = format!(
            "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
             PUB {subject} answer {length}\r\n{payload}\r\n"
        );
        reader.get_mut().write_all(asked.as_bytes()).expect("a request");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |from_end: usize| words[words.len() - from_end].parse::<usize>().expect("a length");
            let (skipped, length) = match words[0] {
                "MSG" => (0, number(1)),
                "HMSG" => (number(2), number(1)),
                _ => continue,
            };
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).expect("an answer");
            return String::from_utf8_lossy(&bytes[skipped..]).into_owned();
        }
    }

    fn greeting(&self) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line).filter(|line| line.starts_with("INFO"))
    }

    fn spawn(&mut self) {
        let mut server = Command::new(program());
        server.arg("--config").arg(self.daemon.folder().join("nats.conf"));
        self.daemon.start(&server);
    }
}

/// The program: on the path, or of the local stack.
fn program() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&paths).map(|folder| folder.join("nats-server"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stack = root.join(".tools/stack/python/bin/nats-server");
    let found = installed.chain([stack]).find(|path| path.is_file());
    found.expect("no nats-server is installed; run `stack/setup test`")
}
