//! A real Kafka broker in KRaft mode for tests: the program is that of the local stack; its data
//! lies in a temporary folder, and it ends with the test process, however that ends.
//!
//! ```text
//!   test process ── pipe ──> sh, which waits for its end ──> java kafka.Kafka
//! ```
//!
//! A broker takes seconds to start, so tests share one: each has a prefix of its own for its
//! topics.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Longest time that a broker takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker. It ends, and its data goes, when this is dropped.
pub(crate) struct Server {
    folder: PathBuf,
    ports: [u16; 2],
    guard: Option<Child>,
}

impl Server {
    /// Starts a broker; `more` are lines of its settings.
    pub(crate) fn start(more: &str) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("prism-kafka-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let ports = free_ports();
        fs::write(folder.join("server.properties"), settings(&folder, ports, more)).expect("settings");
        copy(&program().join("storage"), &folder.join("data"));
        let mut server = Server {
            folder,
            ports,
            guard: None,
        };
        server.resume();
        server
    }

    /// One that syncs each message before it acknowledges it, as a durable namespace demands.
    pub(crate) fn durable() -> Server {
        Server::start("log.flush.interval.messages=1")
    }

    /// Starts the broker on the data that is there.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        self.spawn();
        while !self.is_ready() {
            assert!(begun.elapsed() < PATIENCE, "kafka does not start: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the broker, as a crash of its process would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.ports[0])).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "a killed broker still listens");
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut guard) = self.guard.take() {
            // The pipe stays open until the guard has seen the broker's end, so the data stays.
            let pipe = guard.stdin.take();
            let _ = guard.wait();
            drop(pipe);
        }
    }

    /// Sends a signal to the broker: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let file = fs::read_to_string(self.folder.join("pid")).expect("a broker that runs");
        let sent = Command::new("kill").args(["-s", name, file.trim()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Address of the broker.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// A prefix of topics that no other test has.
    pub(crate) fn prefix(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether it takes calls: the port opens before it does, so an ApiVersions request (KIP-511,
    /// version 0) must be answered.
    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<[u8; 10]> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0]))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255])?;
            let mut answer = [0; 10];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer[4..] == [0, 0, 0, 1, 0, 0])
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
        let libraries = program();
        let mut jars: Vec<String> = fs::read_dir(&libraries)
            .expect("the libraries")
            .map(|file| file.expect("a file").path().display().to_string())
            .filter(|path| path.ends_with(".jar"))
            .collect();
        // The order of the class path is that with which the archive of classes was made.
        jars.sort();
        let archive = format!("-XX:SharedArchiveFile={}/classes.jsa", libraries.display());
        // Ends the broker, and removes its data, when the pipe closes: when this process ends, or
        // drops it. Nobody needs what a broker does when it is asked to end.
        let script = r#"exec 3<&0; folder=$1; shift; "$@" </dev/null 3<&- & server=$!
            echo $server >"$folder/pid"
            (read -r _ <&3; : >"$folder/ended"; kill -KILL $server) & reader=$!
            wait $server; kill $reader 2>/dev/null; [ ! -e "$folder/ended" ] || rm -rf "$folder""#;
        let mut guard = Command::new("sh");
        guard
            .args(["-c", script, "sh"])
            .arg(&self.folder)
            .args([
                "java",
                "-Xms64m",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .args([&archive, "-cp", &jars.join(":"), "kafka.Kafka"])
            .arg(self.folder.join("server.properties"));
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

/// The broker's libraries, an archive of its classes and its formatted storage: of the local stack.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = root.join(".tools/stack/kafka").canonicalize();
    let found = found.ok().filter(|folder| folder.join("ready").is_file());
    found.expect("no Kafka is installed; run `stack/setup test`")
}

fn settings(folder: &Path, [port, controller]: [u16; 2], more: &str) -> String {
    let folder = folder.display();
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={folder}/data\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\nauto.create.topics.enable=false\n\
         log.cleaner.dedupe.buffer.size=16777216\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n{more}\n"
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        let place = to.join(file.file_name());
        match file.file_type().expect("a type").is_dir() {
            true => copy(&file.path(), &place),
            false => drop(fs::copy(file.path(), place).expect("a copy")),
        }
    }
}

/// Two free ports: both are held until both are known.
fn free_ports() -> [u16; 2] {
    let probe = || TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let probes = [probe(), probe()];
    probes.map(|probe| probe.local_addr().expect("an address").port())
}
