//! The configuration of `prism serve`: raw text from flags, environment and file in, a checked [`ServeOptions`] out.
//!
//! A `ServeOptions` exists only if every value in it is legal, so whoever holds one does not check again. Defaults stand
//! in one place ([`ServeOptions::default`]).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What `prism serve` runs with. Every value has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Folder of the catalog and of the embedded store. Created when missing.
    pub data_dir: PathBuf,
    /// Address of the one port that speaks gRPC, Connect and HTTP. Loopback unless `insecure_listen`.
    pub listen: SocketAddr,
    /// The user has accepted that anybody who reaches `listen` may read and write: there is no TLS or authentication yet.
    pub insecure_listen: bool,
    /// Number of shard threads, 1 to [`SHARDS_MAX`]. Default: one per available core.
    pub shards: NonZeroUsize,
    /// Whether each shard is pinned to one core.
    pub pin_shards: bool,
    /// How the shards wait for the network.
    pub driver: DriverChoice,
    /// The store of namespaces for which no other store is configured.
    pub embedded: EmbeddedStore,
    /// Every maximum that the operator can move.
    pub limits: ServeLimits,
    /// What is written to standard error, and how.
    pub log: LogOptions,
}

/// Most shards that may be asked for.
pub const SHARDS_MAX: usize = 256;

/// How the shards wait for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the kernel allows it, otherwise epoll.
    Auto,
    /// io_uring, or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// The embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedStore {
    /// SQLite files in the data directory.
    Sqlite,
    /// The process's memory; everything but the catalog is gone after a restart.
    Memory,
}

/// Every maximum that the operator can move. At the maximum the answer is `RESOURCE_EXHAUSTED`, or the connection is
/// not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Open connections of the whole gateway; more are closed when accepted. About 20 KiB each.
    pub connections_max: usize,
    /// Calls of one shard that wait for a store or for another shard.
    pub inflight_per_shard_max: usize,
    /// Bytes of one gRPC message after decompression, in or out.
    pub message_bytes_max: usize,
    /// Bytes that may wait for one slow reader before the gateway stops reading from it.
    pub output_bytes_max: usize,
    /// How long a new connection may take to send its first complete request or HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// How long a connection without open calls is kept; zero: for ever.
    pub idle_timeout: Duration,
    /// How long a drain waits for the calls that were taken before it closes their connections.
    pub drain_timeout: Duration,
    /// How far an idempotency token's generation time may lie from the gateway's clock.
    pub clock_drift_max: Duration,
    /// Highest `needs.write_rps` that a namespace may ask for.
    pub namespace_write_rps_max: u64,
    /// Namespaces in the catalog.
    pub namespaces_max: usize,
}

/// What is written to standard error, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A `tracing` filter such as `info` or `info,prism_core::shard=debug`.
    pub level: String,
    /// Lines for people or JSON for machines.
    pub format: LogFormat,
}

/// Form of the diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./prism-data"),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8980),
            insecure_listen: false,
            shards: available_cores(),
            pin_shards: true,
            driver: DriverChoice::Auto,
            embedded: EmbeddedStore::Sqlite,
            limits: ServeLimits::default(),
            log: LogOptions {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
        }
    }
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            inflight_per_shard_max: 8_192,
            message_bytes_max: 16 << 20,
            output_bytes_max: 32 << 20,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30 * 60),
            drain_timeout: Duration::from_secs(10),
            clock_drift_max: Duration::from_secs(60 * 60),
            namespace_write_rps_max: 50_000,
            namespaces_max: 10_000,
        }
    }
}

/// Cores that this process may use, at least one and at most [`SHARDS_MAX`].
fn available_cores() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    cores.min(NonZeroUsize::new(SHARDS_MAX).unwrap_or(NonZeroUsize::MIN))
}
