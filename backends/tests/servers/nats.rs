//! A real NATS with JetStream for tests: the program is that of the local stack, or one on the
//! path; its data lies in a temporary folder, and it ends with the test process, however that ends.
//!
//! ```text
//!   test process ── pipe ──> sh, which waits for its end ──> nats-server
//! ```

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Longest time that a server takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one's own. It ends, and its data goes, when this is dropped.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    guard: Option<Child>,
}

impl Server {
    /// Starts a server; `more` are lines of its configuration.
    pub(crate) fn start(more: &str) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("prism-nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let port = free_port();
        let shown = folder.display();
        let config = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: 8MB\npid_file: \"{shown}/pid\"\n\
             jetstream {{ store_dir: \"{shown}/jetstream\", max_mem: 64M, max_file: 2G, sync_interval: always }}\n{more}\n"
        );
        fs::write(folder.join("nats.conf"), config).expect("a configuration");
        let mut server = Server {
            folder,
            port,
            guard: None,
        };
        server.resume();
        server
    }

    /// Starts the server on the data that is there.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        self.spawn();
        while self.greeting().is_none() {
            assert!(begun.elapsed() < PATIENCE, "nats does not start: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server, as a crash of its process would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "a killed server still listens");
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut guard) = self.guard.take() {
            // The pipe stays open until the guard has seen the server's end, so the data stays.
            let pipe = guard.stdin.take();
            let _ = guard.wait();
            drop(pipe);
        }
    }

    /// Sends a signal to the server: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let file = fs::read_to_string(self.folder.join("pid")).expect("a server that runs");
        let sent = Command::new("kill").args(["-s", name, file.trim()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
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

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log");
        // Ends the server, and removes its data, when the pipe closes: when this process ends, or
        // drops it.
        let script = r#"exec 3<&0; folder=$1; shift; "$@" </dev/null 3<&- & server=$!
            (read -r _ <&3; : >"$folder/ended"; kill -TERM $server) & reader=$!
            wait $server; kill $reader 2>/dev/null; [ ! -e "$folder/ended" ] || rm -rf "$folder""#;
        let mut guard = Command::new("sh");
        guard
            .args(["-c", script, "sh"])
            .arg(&self.folder)
            .arg(program())
            .arg("--config")
            .arg(self.folder.join("nats.conf"));
        let guard = guard
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("sh runs");
        self.guard = Some(guard);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
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

fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    probe.local_addr().expect("an address").port()
}
