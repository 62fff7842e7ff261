//! A real PostgreSQL for tests: its programs are Debian's, its data lies in a temporary folder, and
//! it ends with the test process, whatever ends that.
//!
//! A test binary that needs no crash of the server uses the [`shared`] one, with a database for
//! each test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::daemon::{Daemon, free_port};

#[allow(clippy::duplicate_mod, reason = "a test program may need several servers")]
#[allow(dead_code, reason = "not each server needs all of it")]
mod daemon;

/// Longest time that a server takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one test. Dropping it ends it and removes its data.
pub(crate) struct Server {
    daemon: Daemon,
    port: u16,
    settings: &'static [&'static str],
}

/// The server shared by all tests of a binary. It syncs nothing: its tests neither kill it nor
/// depend on its state after a crash.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&["fsync=off", "full_page_writes=off"]))
}

/// A shared server that syncs before it acknowledges, as a durable namespace demands.
#[allow(dead_code)] // Not each binary that has this module needs it.
pub(crate) fn durable() -> &'static Server {
    static DURABLE: OnceLock<Server> = OnceLock::new();
    DURABLE.get_or_init(|| Server::start(&[]))
}

impl Server {
    /// Makes a database cluster and starts its server; `settings` are `name=value`.
    pub(crate) fn start(settings: &'static [&'static str]) -> Server {
        let daemon = Daemon::new("postgres", "INT");
        let mut server = Server {
            daemon,
            port: free_port(),
            settings,
        };
        let user = server.as_user();
        let made = command(&user, "initdb")
            .args([
                "-U",
                "prism",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(server.data())
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.resume();
        server
    }

    /// Starts the server on its existing data.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        loop {
            self.spawn();
            while begun.elapsed() < PATIENCE {
                if self.is_ready() {
                    return;
                }
                // Sessions of a killed server may still hold its memory: then the start fails at
                // once.
                if self.daemon.has_ended() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "postgres does not start: {}",
                self.daemon.log()
            );
        }
    }

    /// Kills the server and its sessions, as a crash of the machine would.
    pub(crate) fn kill(&mut self) {
        let sessions = self.sessions();
        self.signal("KILL");
        for pid in sessions {
            send_signal("KILL", pid);
        }
        self.daemon.await_end(self.port, PATIENCE);
    }

    /// Sends a signal to the server and all its sessions: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal_all(&self, name: &str) {
        for pid in self.sessions() {
            send_signal(name, pid);
        }
        self.signal(name);
    }

    /// Lets connections be encrypted, with a certificate for 127.0.0.1. Returns the file with the
    /// certificate that signs it, and one with another that signs nothing.
    #[allow(dead_code)] // Not each binary that has this module needs it.
    pub(crate) fn encrypt(&self) -> [PathBuf; 2] {
        let openssl = |arguments: &[&str]| {
            let done = Command::new("openssl")
                .current_dir(self.daemon.folder())
                .args(arguments)
                .output()
                .expect("openssl runs; `stack/setup test` installs it");
            assert!(
                done.status.success(),
                "openssl {arguments:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let signers = ["right", "wrong"].map(|name| {
            let (secret, certificate) = (format!("{name}.key"), format!("{name}.pem"));
            let subject = format!("/CN={name}");
            let rest = [
                "-keyout",
                &secret,
                "-out",
                &certificate,
                "-subj",
                &subject,
                "-days",
                "30",
            ];
            openssl(&[&["req", "-x509"], &key[..], &rest[..]].concat());
            self.daemon.folder().join(certificate)
        });
        let names = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        fs::write(self.daemon.folder().join("names"), names).expect("a file");
        let rest = [
            "-keyout",
            "data/server.key",
            "-out",
            "request",
            "-subj",
            "/CN=server",
        ];
        openssl(&[&["req"], &key[..], &rest[..]].concat());
        openssl(&[
            "x509",
            "-req",
            "-in",
            "request",
            "-CA",
            "right.pem",
            "-CAkey",
            "right.key",
            "-CAcreateserial",
            "-out",
            "data/server.crt",
            "-days",
            "30",
            "-extfile",
            "names",
        ]);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.data().join("server.key"), mode).expect("a key");
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        self.sql("postgres", "SELECT pg_reload_conf()");
        let begun = Instant::now();
        while self.sql("postgres", "SHOW ssl") != "on" {
            assert!(begun.elapsed() < PATIENCE, "no encryption: {}", self.daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        signers
    }

    /// Makes a new, empty database. Returns its URL.
    pub(crate) fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql://prism@127.0.0.1:{}/{database}", self.port)
    }

    /// Output of psql, a plain client, for a statement, without decoration.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        match self.try_sql(database, statement) {
            Ok(printed) => printed,
            Err(said) => panic!("{statement}: {said}"),
        }
    }

    /// The same, or what psql says against it.
    pub(crate) fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let done = Command::new(program("psql"))
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
                &self.url(database),
            ])
            .output()
            .expect("psql runs");
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    fn data(&self) -> PathBuf {
        self.daemon.folder().join("data")
    }

    fn is_ready(&self) -> bool {
        let ready = Command::new(program("pg_isready"))
            .args([
                "-q",
                "-h",
                "127.0.0.1",
                "-U",
                "prism",
                "-p",
                &self.port.to_string(),
            ])
            .status();
        ready.is_ok_and(|status| status.success())
    }

    fn spawn(&mut self) {
        let mut server = command(&self.as_user(), "postgres");
        server.arg("-D").arg(self.data());
        let port = format!("port={}", self.port);
        let settings = [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=60",
        ];
        for setting in settings.iter().chain(self.settings) {
            server.args(["-c", setting]);
        }
        self.daemon.start(&server);
    }

    /// A prefix that runs the server as another user, since it refuses to run as root.
    fn as_user(&self) -> Vec<String> {
        let id = Command::new("id").arg("-u").output().expect("id runs");
        if String::from_utf8_lossy(&id.stdout).trim() != "0" {
            return Vec::new();
        }
        let namespace = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];
        let tried = Command::new(namespace[0])
            .args(&namespace[1..])
            .arg("true")
            .output();
        if tried.is_ok_and(|tried| tried.status.success()) {
            return namespace.map(str::to_owned).to_vec();
        }
        // Without user namespaces: the package's own user.
        let given = Command::new("chown")
            .arg("postgres")
            .arg(self.daemon.folder())
            .status();
        assert!(
            given.is_ok_and(|status| status.success()),
            "chown to the user postgres"
        );
        [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    fn sessions(&self) -> Vec<u32> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    fn signal(&self, name: &str) {
        send_signal(name, self.pid().expect("a server that runs"));
    }
}

fn send_signal(name: &str, pid: u32) {
    // A session may have ended by itself.
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).output();
    assert!(sent.is_ok(), "kill runs");
}

fn command(user: &[String], name: &str) -> Command {
    match user.split_first() {
        None => Command::new(program(name)),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program(name));
            command
        }
    }
}

/// A program of the newest installed PostgreSQL.
fn program(name: &str) -> PathBuf {
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|folder| folder.join("bin/initdb").is_file())
        .max_by_key(|folder| version(folder));
    let folder = newest.expect(
        "PostgreSQL's programs are not installed; run `stack/setup test`, or `apt-get install postgresql`",
    );
    folder.join("bin").join(name)
}
