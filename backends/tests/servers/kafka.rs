//! A real Kafka broker in KRaft mode for tests: the program is that of the local stack; its data
//! lies in a temporary folder, and it ends with the test process, however that ends.
//!
//! A broker takes seconds to start, so tests share one: each has a prefix of its own for its
//! topics.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use self::daemon::{Daemon, free_ports};

#[allow(clippy::duplicate_mod, reason = "a test program may need several servers")]
#[allow(dead_code, reason = "not each server needs all of it")]
mod daemon;

/// Longest time that a broker takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker. It ends, and its data goes, when this is dropped.
pub(crate) struct Server {
    daemon: Daemon,
    ports: [u16; 2],
}

impl Server {
    /// Starts a broker; `more` are lines of its settings.
    pub(crate) fn start(more: &str) -> Server {
        // Nobody needs what a broker does when it is asked to end.
        let daemon = Daemon::new("kafka", "KILL");
        let ports = free_ports();
        let folder = daemon.folder();
        fs::write(folder.join("server.properties"), settings(folder, ports, more)).expect("settings");
        copy(&program().join("storage"), &folder.join("data"));
        let mut server = Server { daemon, ports };
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
            assert!(
                begun.elapsed() < PATIENCE,
                "kafka does not start: {}",
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the broker, as a crash of its process would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.daemon.await_end(self.ports[0], PATIENCE);
    }

    /// Sends a signal to the broker: STOP makes it hang, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        self.daemon.signal(name);
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

    fn spawn(&mut self) {
        let libraries = program();
        let mut jars: Vec<String> = fs::read_dir(&libraries)
            .expect("the libraries")
            .map(|file| file.expect("a file").path().display().to_string())
            .filter(|path| path.ends_with(".jar"))
            .collect();
        // The order of the class path is that with which the archive of classes was made.
        jars.sort();
        let archive = format!("-XX:SharedArchiveFile={}/classes.jsa", libraries.display());
        let mut server = Command::new("java");
        server
            .args([
                "-Xms64m",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .args([&archive, "-cp", &jars.join(":"), "kafka.Kafka"])
            .arg(self.daemon.folder().join("server.properties"));
        self.daemon.start(&server);
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
