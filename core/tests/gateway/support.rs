//! Starts a gateway in this process on a free loopback port, with a data directory of its own.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use prism_codec::proto::prism::admin::v1::{CreateRequest, CreateResponse};
use prism_core::{
    client::Client,
    config::{EmbeddedStore, LogLimits, ServeOptions},
    runtime::reactor::DriverChoice,
    serve::Server,
};
use tempfile::TempDir;

/// How long any call of a test may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A running gateway; it is drained when the test is done with it.
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

    /// Starts a gateway whose options `change` has changed.
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
            // Three shards on two cores, beside other tests: the kernel places them better.
            pin_shards: false,
            driver: DriverChoice::Auto,
            embedded: store,
            wal: LogLimits {
                segment_bytes: 16 << 20,
                // What is tested here is not the power cut.
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

    /// Drains the gateway and starts it again on the same data, with options that `change` has changed.
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
