//! The start-up banner: which parts run, and what to do next.

use super::Server;
use prism_backends::kind::StoreKind;

use crate::{
    config::{EMBEDDED, StoreOptions},
    runtime::reactor::DriverInUse,
};

impl Server {
    /// Makes the banner, and writes the same to the diagnostics as one line.
    pub(super) fn greet(&self) -> String {
        let mut stores = self.options.all_stores();
        // The embedded store, which every gateway has, comes first here.
        stores.rotate_right(1);
        let stores: Vec<_> = stores.iter().map(|store| self.describe(store)).collect();
        let store = stores.join(", ");
        tracing::info!(
            address = %self.address,
            driver = self.driver.name(),
            shards = self.options.shards.get(),
            store,
            namespaces = self.namespaces,
            "ready"
        );
        let driver = match self.driver {
            DriverInUse::IoUring => "io_uring".to_owned(),
            DriverInUse::Epoll => "epoll (io_uring is not in use)".to_owned(),
        };
        let (scheme, tls) = match (&self.options.tls.cert_file, &self.options.tls.client_ca_file) {
            (None, _) => ("http", ""),
            (Some(_), None) => ("https", "  tls         on\n"),
            (Some(_), Some(_)) => ("https", "  tls         on; clients need a certificate\n"),
        };
        let identity = match &self.options.identity.trust_domain {
            None => "  identity    none: whoever reaches this address may do everything\n".to_owned(),
            Some(domain) => format!("  identity    certificates of {domain}\n"),
        };
        let limited = match self.connections_max < self.options.limits.connections_max {
            true => format!(
                "  connections {} at most: the process may open no more files (ulimit -n)\n",
                self.connections_max
            ),
            false => String::new(),
        };
        format!(
            "Prism {version} listens on {address}\n\
             \x20 driver      {driver}\n\
             \x20 shards      {shards}\n\
             \x20 store       {store}\n\
             \x20 namespaces  {namespaces}\n\
             {identity}{tls}{limited}\
             \n\
             What next, in another terminal:\n\
             \x20 prism namespace create examples/user-sessions.yaml\n\
             \x20 prism kv put user-sessions alice theme dark\n\
             \x20 prism kv get user-sessions alice\n\
             \x20 curl {scheme}://{address}/metrics\n\
             Ctrl-C drains and stops it.\n",
            version = env!("CARGO_PKG_VERSION"),
            address = self.address,
            shards = self.options.shards,
            namespaces = self.namespaces,
        )
    }

    fn describe(&self, store: &StoreOptions) -> String {
        let name = match &*store.name {
            EMBEDDED => String::new(),
            name => format!(" \"{name}\""),
        };
        match store.kind {
            StoreKind::Memory => format!("memory{name} (everything is gone after a restart)"),
            StoreKind::Sqlite => format!("SQLite{name} in {}", self.options.data_dir.display()),
            kind => format!("{}{name}", kind.title()),
        }
    }
}
