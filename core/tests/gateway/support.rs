//! Starts a gateway in this process on a free loopback port, with a data directory of its own.

use std::{num::NonZeroUsize, time::Duration};

use prism_codec::proto::prism::admin::v1::{CreateRequest, CreateResponse};
use prism_core::{
    client::Client,
    config::{DriverChoice, EmbeddedStore, ServeOptions},
    serve::Server,
};
use tempfile::TempDir;

/// How long any call of a test may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A running gateway; it is drained when the test is done with it.
pub(crate) struct Gateway {
    server: Option<Server>,
    address: String,
    _directory: TempDir,
}

impl Gateway {
    pub(crate) fn start(store: EmbeddedStore, shards: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = ServeOptions {
            data_dir: directory.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            shards: NonZeroUsize::new(shards).expect("at least one shard"),
            // Three shards on two cores, beside other tests: the kernel places them better.
            pin_shards: false,
            driver: DriverChoice::Auto,
            embedded: store,
            ..ServeOptions::default()
        };
        let server = Server::start(options).expect("the gateway starts");
        let address = server.address().to_string();
        Self {
            server: Some(server),
            address,
            _directory: directory,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address, CALL_TIMEOUT).expect("the gateway takes connections")
    }

    pub(crate) fn create_namespace(&self, name: &str) {
        let yaml = format!(
            "namespace: {name}\nteam: tests\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n"
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
