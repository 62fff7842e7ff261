//! The real program on a free loopback port, with a data directory of its own, and checks of its
//! end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use prism_codec::proto::prism::{
    admin::v1::{CreateRequest, CreateResponse},
    keyvalue::v1::{GetRequest, GetResponse, Item, PutRequest, PutResponse},
};
use prism_core::client::{Client, ClientError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest time of any step of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// `limits.drain_timeout` of the gateways of these tests.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time that the process may run after a signal or a failure: a second to drain and two
/// more, and a lot for a busy machine. Without its own bound a process that hangs never ends.
pub(crate) const END_MAX: Duration = Duration::from_secs(1 + 2 + 27);

/// First of the ports below those that the kernel assigns, to connections as well.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// A loopback port for one gateway. No other test of any process takes it meanwhile: each binds the
/// port's abstract socket name first.
struct Port {
    address: SocketAddr,
    _name: UnixListener,
}

impl Port {
    fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let taken = (0..PORTS).find_map(|_| {
            let number = std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed);
            let port = FIRST_PORT + u16::try_from(number % u32::from(PORTS)).ok()?;
            let name = UnixAddress::from_abstract_name(format!("prism-test-port-{port}")).ok()?;
            let name = UnixListener::bind_addr(&name).ok()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpListener::bind(address).ok()?;
            Some(Self { address, _name: name })
        });
        taken.expect("a free port")
    }
}

/// A gateway to be started.
pub(crate) struct Setup {
    command: Command,
    port: Port,
    directory: TempDir,
}

impl Setup {
    /// A gateway on SQLite without diagnostics.
    pub(crate) fn new() -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_prism")))
    }

    /// Makes a setup that starts the gateway by a shell, which sets the limits of the process
    /// first.
    pub(crate) fn with_limits(limits: &str) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{limits}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_prism")]);
        Self::of(command)
    }

    /// A gateway on the data directory of one that has ended.
    pub(crate) fn on(directory: TempDir) -> Self {
        Self::within(Command::new(env!("CARGO_BIN_EXE_prism")), directory)
    }

    fn of(command: Command) -> Self {
        Self::within(command, tempfile::tempdir().expect("a temporary directory"))
    }

    fn within(mut command: Command, directory: TempDir) -> Self {
        let port = Port::take();
        command
            .args(["serve", "--listen", &port.address.to_string(), "--data-dir"])
            .arg(directory.path().join("data"))
            .args(["--set", "wal.allow_unsafe_filesystem=true"])
            .args(["--set", "wal.segment_bytes=4MiB"])
            .args(["--set", "pin_shards=false"])
            .args([
                "--set",
                &format!("limits.drain_timeout={}s", DRAIN_TIMEOUT.as_secs()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            command,
            port,
            directory,
        }
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    pub(crate) fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stderr(to);
        self
    }

    /// A file of the test next to the data directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn spawn(mut self) -> Gateway {
        let child = self.command.spawn().expect("the program starts");
        Gateway {
            child,
            port: self.port,
            directory: Some(self.directory),
        }
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start(self) -> Gateway {
        let mut gateway = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while gateway.readyz().is_none_or(|answer| !answer.starts_with("200 ")) {
            assert!(Instant::now() < deadline, "the gateway is not ready");
            if let Some(status) = gateway.child.try_wait().expect("a child") {
                panic!("the gateway has ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }
}

/// A running gateway. Dropping it kills it.
pub(crate) struct Gateway {
    child: Child,
    port: Port,
    /// The data directory; `None` once it has been handed on.
    directory: Option<TempDir>,
}

impl Gateway {
    /// Kills the process, as a power cut or the kernel would. Returns its data directory.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().expect("a running process");
        self.child.wait().expect("a child");
        self.directory.take().expect("a directory")
    }

    /// A file of the data directory.
    pub(crate) fn data_file(&self, name: &str) -> PathBuf {
        let directory = self.directory.as_ref().expect("a directory");
        directory.path().join("data").join(name)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.port.address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.port.address.to_string(), PATIENCE).expect("the gateway takes connections")
    }

    /// The answer of `/readyz`: status code and body; `None` if no process listens.
    pub(crate) fn readyz(&self) -> Option<String> {
        self.get("/readyz")
    }

    /// The answer of a path: status code and body; `None` if no process listens.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.port.address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?;
        Some(format!("{code} {body}"))
    }

    /// A value of the metrics page.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").expect("a metrics page");
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .expect("a number")
    }

    /// A value of the metrics page, as soon as it is the expected one and a connection is free for
    /// the page.
    pub(crate) fn metric_when(&self, name: &str, is_right: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.get("/metrics").unwrap_or_default();
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            match value.filter(|value| is_right(*value)) {
                Some(value) => return value,
                None => assert!(Instant::now() < deadline, "{name} is {value:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn create_namespace(&self, name: &str, durability: &str) -> Result<(), ClientError> {
        self.create_namespace_with(&mut self.client(), name, durability)
    }

    pub(crate) fn create_namespace_with(
        &self,
        client: &mut Client,
        name: &str,
        durability: &str,
    ) -> Result<(), ClientError> {
        let yaml = format!(
            "namespace: {name}\nteam: tests\nclient_api: keyvalue\nneeds:\n  durability: {durability}\n"
        );
        client
            .unary::<CreateResponse>("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
            .map(drop)
    }

    /// Puts a value and gets it back. A log whose disk is busy may refuse the first attempts.
    pub(crate) fn put_and_get(&self, namespace: &str, id: &str) {
        let mut client = self.client();
        let began = Instant::now();
        while let Err(refused) = put(&mut client, namespace, id, id.as_bytes()) {
            assert!(began.elapsed() < PATIENCE, "a put: {refused}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(get(&mut client, namespace, id).expect("a get"), id.as_bytes());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a running process");
    }

    /// Waits for the end of the process, no longer than `within`.
    #[track_caller]
    pub(crate) fn await_end(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(
                began.elapsed() < within,
                "still running after {:?}",
                began.elapsed()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Closes the reading end of standard error, which must be piped.
    pub(crate) fn drop_stderr(&mut self) {
        drop(self.child.stderr.take().expect("a pipe"));
    }

    /// Lines of standard error, which must be piped, as they arrive.
    pub(crate) fn lines(&mut self) -> Lines {
        let stderr = self.child.stderr.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Lines(lines)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts one item.
pub(crate) fn put(client: &mut Client, namespace: &str, id: &str, value: &[u8]) -> Result<(), ClientError> {
    let item = Item {
        key: b"k".to_vec(),
        value: value.to_vec(),
        ..Item::default()
    };
    let request = PutRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        items: vec![item],
        ..PutRequest::default()
    };
    client
        .unary::<PutResponse>("/prism.keyvalue.v1.KeyValue/Put", &request)
        .map(drop)
}

/// Gets the value of the only item.
pub(crate) fn get(client: &mut Client, namespace: &str, id: &str) -> Result<Vec<u8>, ClientError> {
    let request = GetRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        ..GetRequest::default()
    };
    let got: GetResponse = client.unary("/prism.keyvalue.v1.KeyValue/Get", &request)?;
    Ok(got.items[0].value.clone())
}

/// Lines of standard error.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    /// The first line from here on that holds `text`.
    #[track_caller]
    pub(crate) fn find(&self, text: &str) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .0
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {text:?} in {seen:#?}"),
            }
        }
    }

    /// All lines up to the end of the process.
    pub(crate) fn rest(&self) -> String {
        let mut all = String::new();
        while let Ok(line) = self.0.recv_timeout(PATIENCE) {
            all.push_str(&line);
            all.push('\n');
        }
        all
    }
}
