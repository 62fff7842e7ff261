//! A gateway in this process on a free loopback port, with a data directory of its own.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use prism_codec::proto::prism::admin::v1::{CreateRequest, CreateResponse};
use prism_core::{
    client::Client,
    config::{EmbeddedStore, LogLimits, ServeOptions},
    runtime::reactor::DriverChoice,
    serve::Server,
};
use tempfile::TempDir;

/// Longest time of any call of a test.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Least size of a segment of the log: for images, which are read as a whole.
pub(crate) const SMALL_SEGMENT_BYTES: usize = 4 << 20;

/// A running gateway. Dropping it drains it.
pub(crate) struct Gateway {
    server: Option<Server>,
    address: String,
    options: ServeOptions,
    directory: TempDir,
}

impl Gateway {
    pub(crate) fn start(store: EmbeddedStore, shards: usize) -> Self {
        Self::start_with(store, shards, |_| {})
    }

    /// Starts a gateway with options changed by `change`.
    pub(crate) fn start_with(
        store: EmbeddedStore,
        shards: usize,
        change: impl FnOnce(&mut ServeOptions),
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut options = ServeOptions {
            data_dir: directory.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            shards: NonZeroUsize::new(shards).expect("at least one shard"),
            // Three shards on two cores, next to other tests: the kernel places them better.
            pin_shards: false,
            driver: DriverChoice::Auto,
            embedded: store,
            wal: LogLimits {
                segment_bytes: 16 << 20,
                // These tests are not about power cuts.
                allow_unsafe_filesystem: true,
                ..LogLimits::default()
            },
            ..ServeOptions::default()
        };
        change(&mut options);
        let server = Server::start(options.clone()).expect("the gateway starts");
        let address = server.address().to_string();
        Self {
            server: Some(server),
            address,
            options,
            directory,
        }
    }

    /// Drains the gateway and starts it again on the same data, with options changed by `change`.
    pub(crate) fn restart(&mut self, change: impl FnOnce(&mut ServeOptions)) {
        self.stop();
        self.start_again(change);
    }

    /// Drains the gateway.
    pub(crate) fn stop(&mut self) {
        let server = self.server.take().expect("a running gateway");
        server.stop().expect("the gateway drains");
    }

    /// Starts a gateway that was stopped.
    pub(crate) fn start_again(&mut self, change: impl FnOnce(&mut ServeOptions)) {
        change(&mut self.options);
        let server = Server::start(self.options.clone()).expect("the gateway starts again");
        self.address = server.address().to_string();
        self.server = Some(server);
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address, CALL_TIMEOUT).expect("the gateway takes connections")
    }

    pub(crate) fn create_namespace(&self, name: &str) {
        self.create_namespace_at(name, "best-effort");
    }

    pub(crate) fn create_namespace_at(&self, name: &str, durability: &str) {
        let yaml = format!(
            "namespace: {name}\nteam: tests\nclient_api: keyvalue\nneeds:\n  durability: {durability}\n"
        );
        let _: CreateResponse = self
            .client()
            .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
            .expect("the namespace is created");
    }
}

/// Contents of a gateway's log on disk at one moment: a state that a power cut could leave.
pub(crate) struct LogImage(Vec<(OsString, Vec<u8>)>);

impl LogImage {
    /// Makes an image of a running gateway's log. Files read one after the other may be of
    /// different moments: a segment from before it was prepared, with a manifest that lists it. So
    /// they are read until two readings agree: then nothing was written between the two.
    pub(crate) fn of(gateway: &Gateway) -> Self {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut last = read_log(gateway);
        loop {
            let next = read_log(gateway);
            if next.is_some() && next == last {
                return Self(next.unwrap_or_default());
            }
            assert!(Instant::now() < deadline, "the log is written to without end");
            last = next;
        }
    }

    /// Replaces the log of a stopped gateway by the image.
    pub(crate) fn restore(&self, gateway: &Gateway) {
        let directory = gateway.directory().join("wal");
        fs::create_dir_all(&directory).expect("the log's directory");
        for path in log_files(gateway) {
            fs::remove_file(path).expect("a file of another log");
        }
        for (name, bytes) in &self.0 {
            fs::write(directory.join(name), bytes).expect("a file of the image");
        }
    }
}

/// Contents of the log's files; nothing if one of them was renamed or removed meanwhile.
fn read_log(gateway: &Gateway) -> Option<Vec<(OsString, Vec<u8>)>> {
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_owned();
        match fs::read(&path) {
            Ok(bytes) => Some((name, bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    };
    log_files(gateway).into_iter().map(read).collect()
}

/// Files of the log, in the order of their names.
pub(crate) fn log_files(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = fs::read_dir(gateway.directory().join("wal")).expect("the log's directory");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let stopped = server.stop();
            if !std::thread::panicking() {
                stopped.expect("the gateway drains");
            }
        }
    }
}
