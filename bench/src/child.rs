//! A server under measurement: a child process on its own core, with its CPU time, its memory and
//! its end.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::servers::Kind;

/// Longest wait until a server listens.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills the process, by its own id.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    _directory: Option<TempDir>,
}

impl Child {
    /// Starts one of the servers on `core`.
    pub(crate) fn start(kind: Kind, core: usize) -> Result<Self, String> {
        match kind {
            Kind::Prism => Self::prism(&["--embedded", "memory", "--shards", "1"], Some(core)),
            kind => {
                let address = free_address()?;
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                let mut command = Command::new(own);
                command.args(["serve", kind.name(), "--listen", &address.to_string()]);
                Self::spawn(command, address, Some(core), None)?.listening()
            }
        }
    }

    /// Starts the gateway with a data directory of its own.
    pub(crate) fn prism(arguments: &[&str], core: Option<usize>) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (command, address) = serve(&sibling("prism")?, directory.path(), arguments)?;
        Self::spawn(command, address, core, Some(directory))?.listening()
    }

    /// Starts this binary as a gateway, with its data next to this program: not in the system's
    /// folder for temporary files, which may be in memory.
    pub(crate) fn of_binary(binary: &Path, arguments: &[&str], core: usize) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = own.parent().unwrap_or(Path::new("."));
        let directory = tempfile::tempdir_in(beside).map_err(|error| error.to_string())?;
        let (command, address) = serve(binary, directory.path(), arguments)?;
        Self::spawn(command, address, Some(core), Some(directory))?.listening()
    }

    /// Starts the gateway with an existing data directory; it may not listen yet.
    pub(crate) fn prism_in(directory: &Path, arguments: &[&str]) -> Result<Self, String> {
        let (command, address) = serve(&sibling("prism")?, directory, arguments)?;
        Self::spawn(command, address, None, None)
    }

    /// Starts a gateway of this or another version with an existing data directory, and waits until
    /// it listens.
    pub(crate) fn version(prism: &Path, directory: &Path, arguments: &[&str]) -> Result<Self, String> {
        let address = free_address()?;
        let mut command = Command::new(prism);
        command.args(["serve", "--listen", &address.to_string(), "--data-dir"]);
        command.arg(directory).args(arguments);
        Self::spawn(command, address, None, None)?.listening()
    }

    /// Ends the process with SIGTERM and waits for its end.
    pub(crate) fn drain(mut self) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot end the server: {error}");
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).map_err(|error| failed(&error))?;
        let status = self.process.wait().map_err(|error| failed(&error))?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(&status))
        }
    }

    fn spawn(
        mut command: Command,
        address: SocketAddr,
        core: Option<usize>,
        directory: Option<TempDir>,
    ) -> Result<Self, String> {
        if let Some(core) = core {
            command = on_core(&command, core);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {command:?}: {error}"))?;
        Ok(Self {
            process,
            address,
            _directory: directory,
        })
    }

    /// Waits until the server listens.
    fn listening(self) -> Result<Self, String> {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("the server at {} does not listen", self.address));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// CPU time of all threads so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Result<u64, String> {
        let tasks = format!("/proc/{}/task", self.pid());
        let mut sum = 0;
        for task in fs::read_dir(&tasks)
            .map_err(|error| format!("{tasks}: {error}"))?
            .flatten()
        {
            let path = task.path().join("schedstat");
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            sum += text
                .split(' ')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(sum)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap_or_default();
        Ok(line
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The process may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the command under `taskset`, so that all its threads stay on one core.
pub(crate) fn on_core(command: &Command, core: usize) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .arg("-c")
        .arg(core.to_string())
        .arg(command.get_program())
        .args(command.get_args());
    pinned
}

/// The command that serves a data directory on a free port.
fn serve(binary: &Path, directory: &Path, arguments: &[&str]) -> Result<(Command, SocketAddr), String> {
    let address = free_address()?;
    let mut command = Command::new(binary);
    command.args(["serve", "--listen", &address.to_string(), "--data-dir"]);
    command.arg(directory).args(arguments);
    Ok((command, address))
}

/// A program built into the same folder as this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; build it with `cargo build --release -p prism-core -p prism-loadgen`",
        path.display()
    ))
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}
