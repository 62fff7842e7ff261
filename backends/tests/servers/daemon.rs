//! The process of a server for tests: its data lies in a temporary folder, and it ends with the
//! test process, however that ends.
//!
//! ```text
//!   test process ── pipe ──> sh, which waits for its end ──> the server
//! ```

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Ends the server, and removes its data, when the pipe closes: when the test process ends, or
/// drops it.
const GUARD: &str = r#"exec 3<&0; folder=$1; signal=$2; shift 2
    "$@" </dev/null 3<&- & server=$!; echo $server >"$folder/pid"
    (read -r _ <&3; : >"$folder/ended"; kill -s "$signal" $server) & reader=$!
    wait $server; kill $reader 2>/dev/null; [ ! -e "$folder/ended" ] || rm -rf "$folder""#;

/// A server that runs, or ran. Dropping it ends it and removes its data.
pub(crate) struct Daemon {
    folder: PathBuf,
    /// Name of the signal that ends it.
    signal: &'static str,
    guard: Option<Child>,
}

impl Daemon {
    /// Makes the folder of a server that is not started yet; `signal` ends it.
    pub(crate) fn new(name: &str, signal: &'static str) -> Daemon {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("prism-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        Daemon {
            folder,
            signal,
            guard: None,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Output of the server so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts the server's program with its arguments.
    pub(crate) fn start(&mut self, server: &Command) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&self.folder)
            .arg(self.signal)
            .arg(server.get_program())
            .args(server.get_args())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("sh runs");
        self.guard = Some(guard);
    }

    /// Whether the server has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let guard = self.guard.as_mut();
        guard.is_none_or(|guard| guard.try_wait().is_ok_and(|end| end.is_some()))
    }

    /// Sends a signal to the server: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let file = fs::read_to_string(self.folder.join("pid")).expect("a server that runs");
        let sent = Command::new("kill").args(["-s", name, file.trim()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Waits for the end of a server that was killed and listened on this port. Its data stays.
    pub(crate) fn await_end(&mut self, port: u16, patience: Duration) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_ok() {
            assert!(begun.elapsed() < patience, "a killed server still listens");
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut guard) = self.guard.take() {
            // The pipe stays open until the guard has seen the server's end, so the data stays.
            let pipe = guard.stdin.take();
            let _ = guard.wait();
            drop(pipe);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Free ports: all are held until all are known.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let probes = [(); COUNT].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    probes.map(|probe| probe.local_addr().expect("an address").port())
}

/// A free port.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}
