//! The configuration of `prism serve`: text from flags, environment and file in, checked
//! [`ServeOptions`] out.
//!
//! A `ServeOptions` exists only if every value in it is legal, so its users do not check again.
//! Defaults stand in one place ([`ServeOptions::default`]); every key, its environment variable and
//! its documentation in another ([`KEYS`]). A flag takes precedence over the environment, the
//! environment over the file, the file over the default. Leaves to others: reading the process's
//! arguments and the file.

mod environment;
mod keys;
mod stores;
mod tls;
mod values;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prism_backends::kind::StoreKind;

pub use environment::{PREFIX, unknown_variables};
pub use keys::{KEYS, Key};
pub use stores::{EMBEDDED, StoreOptions, StoreTls};

use crate::identity::Rules;
use crate::namespace::problem::{Problem, did_you_mean};
use crate::namespace::yaml::{self, Node, Value, join};
use crate::runtime::{clock::WallClock, reactor::DriverChoice};

/// Options of `prism serve`. Every value has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Folder of the catalog and of the embedded store. Created when missing.
    pub data_dir: PathBuf,
    /// Address of the one port that speaks gRPC, Connect and HTTP. Loopback unless
    /// `insecure_listen`.
    pub listen: SocketAddr,
    /// The user has accepted that everybody who reaches `listen` may read and write.
    pub insecure_listen: bool,
    /// Encryption of connections to `listen`.
    pub tls: TlsOptions,
    /// Proof of who calls.
    pub identity: IdentityOptions,
    /// Number of shard threads, 1 to [`SHARDS_MAX`]. Default: one per available core; with SQLite
    /// one core is left to the store's writer, if there is another.
    pub shards: NonZeroUsize,
    /// Whether each shard is pinned to one core.
    pub pin_shards: bool,
    /// Whether the threads that calls wait for run before others of the machine, where the system
    /// allows it.
    pub raise_priority: bool,
    /// Kernel interface by which the shards wait for the network.
    pub driver: DriverChoice,
    /// Time for which a shard with little to do polls before it sleeps; zero: not at all.
    pub idle_poll: Duration,
    /// The store of namespaces for which no other store is configured.
    pub embedded: EmbeddedStore,
    /// Stores in addition to it, in the order of the file; each name once.
    pub stores: Vec<StoreOptions>,
    /// The catalog that it shares with other gateways, if it does.
    pub catalog: CatalogOptions,
    /// Maxima that the operator can change.
    pub limits: ServeLimits,
    /// Options for browsers and for the compression of replies.
    pub http: HttpOptions,
    /// The write-ahead log, which `strong` and `eventual` need.
    pub wal: LogLimits,
    /// Way in which groups reach the disk.
    pub wal_writer: LogWriterKind,
    /// The file with the key that wraps the log's data keys; without it they are stored in the
    /// clear.
    pub wal_key_file: Option<PathBuf>,
    /// Diagnostics on standard error.
    pub log: LogOptions,
    /// The wall clock. Not configured; tests shift it.
    pub wall_clock: WallClock,
}

/// Encryption of connections to the gateway; without a certificate there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// File with the gateway's certificate and those that lead from it to a root, in PEM.
    pub cert_file: Option<PathBuf>,
    /// File with its private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// File with the certificates that sign those of clients, in PEM. With it every client needs
    /// one.
    pub client_ca_file: Option<PathBuf>,
}

/// Proof of who calls; without a trust domain everybody may do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityOptions {
    /// The domain whose SPIFFE ids count.
    pub trust_domain: Option<String>,
    /// Services that may change the configuration of every namespace.
    pub admins: Vec<String>,
    /// Services that may see every namespace and the metrics.
    pub viewers: Vec<String>,
}

impl IdentityOptions {
    /// The rules that follow, where identity is on.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        let trust_domain = self.trust_domain.as_deref()?;
        Some(Rules::new(trust_domain, &self.admins, &self.viewers))
    }
}

/// The database with a catalog that several gateways share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogOptions {
    /// URL of PostgreSQL, without a password; `None`: the gateway has a catalog of its own.
    pub url: Option<String>,
    /// File with the password.
    pub credentials_file: Option<PathBuf>,
    /// Encryption; `None`: as the URL says.
    pub tls: Option<StoreTls>,
}

/// Options for browsers and for the compression of replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Host names, in addition to those of loopback, that requests may name while the gateway
    /// listens on loopback.
    pub allowed_hosts: Vec<String>,
    /// Origins (scheme, host and port) whose pages may call the gateway; `*`: all.
    pub allowed_origins: Vec<String>,
    /// Replies longer than this are compressed for clients that accept it; `None`: never.
    pub compress_above: Option<usize>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            // A network of 1 Gb/s carries 16 KiB in about the time that compressing them takes.
            compress_above: Some(16 << 10),
        }
    }
}

/// Limits of the write-ahead log. They apply to each shard's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes of one segment file: 4 MiB to 1 GiB, whole blocks of 4 KiB. A lane needs four at
    /// least.
    pub segment_bytes: usize,
    /// Most segments of a lane.
    pub segments_max: usize,
    /// Bytes of acknowledged writes of one namespace that may wait for the store, in each lane.
    pub unapplied_bytes_max: usize,
    /// Most groups in flight, 1 to 8.
    pub depth_max: usize,
    /// Fixed number of groups in flight; `None`: adapted to the disk.
    pub depth_fixed: Option<usize>,
    /// Whether a damaged lane starts without its damaged part, instead of being held.
    pub accept_loss: bool,
    /// Whether `strong` is promised also on file systems that are not known to keep it.
    pub allow_unsafe_filesystem: bool,
}

impl LogLimits {
    /// Segment length in blocks.
    pub fn segment_blocks(&self) -> u32 {
        u32::try_from(self.segment_bytes / 4096).unwrap_or(u32::MAX)
    }
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_max: 32,
            unapplied_bytes_max: 64 << 20,
            depth_max: 2,
            depth_fixed: None,
            accept_loss: false,
            allow_unsafe_filesystem: false,
        }
    }
}

/// Way in which groups of the log reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogWriterKind {
    /// Groups of few records as with [`LogWriterKind::Ring`], others as with
    /// [`LogWriterKind::Thread`].
    Auto,
    /// By the shard's own io_uring; where that is forbidden, as [`LogWriterKind::Thread`].
    Ring,
    /// By threads next to the shard.
    Thread,
}

/// Most shards that can be configured.
pub const SHARDS_MAX: usize = 256;

/// The embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedStore {
    /// SQLite files in the data directory.
    Sqlite,
    /// The process's memory; everything but the catalog is gone after a restart.
    Memory,
}

/// Maxima that the operator can change. At a maximum the answer is `RESOURCE_EXHAUSTED`, or the
/// connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Open connections of the whole gateway; more are closed when accepted. About 20 KiB each.
    pub connections_max: usize,
    /// Those of one client address; `None`: nine tenths.
    pub connections_per_client_max: Option<usize>,
    /// Calls of one shard that wait for a store or for another shard.
    pub inflight_per_shard_max: usize,
    /// Streams that one shard keeps open for one namespace: scans and subscriptions.
    pub streams_per_namespace_max: usize,
    /// Time for which a group's subscriber keeps its partitions without a sign of life.
    pub group_lease: Duration,
    /// Bytes of one gRPC message after decompression, in or out. The default holds the longest
    /// value with its id and key.
    pub message_bytes_max: usize,
    /// Bytes that may wait for one slow reader before the gateway stops reading from it.
    pub output_bytes_max: usize,
    /// Longest time until a new connection has sent its first complete request or HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Time for which a connection without open calls is kept; zero: for ever.
    pub idle_timeout: Duration,
    /// Longest time until a request is complete, in addition to a second for each `body_rate_min`
    /// bytes of it.
    pub receive_timeout: Duration,
    /// Least bytes a second of a request's body.
    pub body_rate_min: usize,
    /// Silence of a client after which it is probed; zero: never.
    pub keepalive_interval: Duration,
    /// Longest wait for the answer to that probe.
    pub keepalive_timeout: Duration,
    /// Age of a connection at which its client is asked to open another one; zero: none.
    pub connection_age_max: Duration,
    /// Time for which calls of such a connection may still run.
    pub connection_age_grace: Duration,
    /// Longest wait of a drain for the calls accepted before, after which their connections are
    /// closed.
    pub drain_timeout: Duration,
    /// Largest difference between an idempotency token's generation time and the gateway's clock.
    pub clock_drift_max: Duration,
    /// Highest `needs.write_rps` that a namespace may ask for.
    pub namespace_write_rps_max: u64,
    /// Highest `needs.read_rps` that a namespace may ask for.
    pub namespace_read_rps_max: u64,
    /// Highest `needs.data_size` in bytes.
    pub namespace_data_size_max: u64,
    /// Highest `needs.retention`.
    pub namespace_retention_max: Duration,
    /// Namespaces in the catalog.
    pub namespaces_max: usize,
}

impl ServeLimits {
    /// Number of a shard's `places` for connections that one client may have.
    pub(crate) fn places_per_client(&self, places: usize) -> usize {
        match self.connections_per_client_max {
            Some(max) => (max * places).div_ceil(self.connections_max).max(1),
            // Where there are several places, at least one is left to other clients.
            None => places - places.div_ceil(10).min(places.saturating_sub(1)),
        }
    }
}

impl EmbeddedStore {
    /// The kind of the store.
    pub fn kind(self) -> StoreKind {
        match self {
            Self::Sqlite => StoreKind::Sqlite,
            Self::Memory => StoreKind::Memory,
        }
    }
}

impl ServeOptions {
    /// All stores, the embedded one last.
    pub fn all_stores(&self) -> Vec<StoreOptions> {
        let embedded = StoreOptions::plain(EMBEDDED, self.embedded.kind());
        self.stores.iter().cloned().chain([embedded]).collect()
    }

    /// Whether the data directory is used: any store but memory needs the catalog and the log in
    /// it, and SQLite's file, which keeps the dead letters of all.
    pub fn has_disk(&self) -> bool {
        let on_disk = |store: &StoreOptions| store.kind != StoreKind::Memory;
        self.catalog.url.is_some() || self.all_stores().iter().any(on_disk)
    }
}

/// Options of the diagnostics on standard error.
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
            tls: TlsOptions::default(),
            identity: IdentityOptions::default(),
            shards: default_shards(true, available_cores()),
            pin_shards: true,
            raise_priority: true,
            driver: DriverChoice::Auto,
            idle_poll: Duration::from_micros(200),
            embedded: EmbeddedStore::Sqlite,
            stores: Vec::new(),
            catalog: CatalogOptions::default(),
            limits: ServeLimits::default(),
            http: HttpOptions::default(),
            wal: LogLimits::default(),
            wal_writer: LogWriterKind::Auto,
            wal_key_file: None,
            log: LogOptions {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
            wall_clock: WallClock::default(),
        }
    }
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_client_max: None,
            inflight_per_shard_max: 8_192,
            streams_per_namespace_max: 2_000,
            group_lease: Duration::from_secs(10),
            message_bytes_max: 17 << 20,
            output_bytes_max: 32 << 20,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30 * 60),
            receive_timeout: Duration::from_secs(20),
            body_rate_min: 4 << 10,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::ZERO,
            connection_age_grace: Duration::from_secs(5 * 60),
            drain_timeout: Duration::from_secs(10),
            clock_drift_max: Duration::from_secs(60 * 60),
            namespace_write_rps_max: 50_000,
            namespace_read_rps_max: 200_000,
            namespace_data_size_max: 1_000_000_000_000,
            namespace_retention_max: Duration::from_secs(3_650 * 86_400),
            namespaces_max: 10_000,
        }
    }
}

/// Cores that this process may use.
fn available_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Default number of shards: one per core, at most [`SHARDS_MAX`]. With SQLite one core is left to
/// the store's writer, if there is another: it does most of the work of a write, and a shard pinned
/// to its core would delay it.
fn default_shards(has_sqlite: bool, cores: NonZeroUsize) -> NonZeroUsize {
    let shards = cores.get() - usize::from(has_sqlite);
    NonZeroUsize::new(shards.min(SHARDS_MAX)).unwrap_or(NonZeroUsize::MIN)
}

/// The text of each source of configuration, as the process found it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file: its name for messages, and its text.
    pub file: Option<(String, String)>,
    /// Environment variables: those of keys, and those that values of the file name.
    pub environment: Vec<(String, String)>,
    /// Flags: key such as `limits.drain_timeout`, value, and the flag for messages.
    pub flags: Vec<(String, String, String)>,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No source sets it.
    Default,
    /// The configuration file, with the line.
    File(String, u32),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

/// The checked options and the source of each, in the order of [`KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Options in force.
    pub options: ServeOptions,
    /// One for each of [`KEYS`].
    pub origins: Vec<Origin>,
}

/// Merges the sources and checks every value, including those that another source overrides.
///
/// # Errors
/// All problems: illegal values, unknown keys, and conflicts between keys (listening beyond
/// loopback).
pub fn load(sources: &Sources) -> Result<Effective, Vec<Problem>> {
    let mut effective = Effective {
        options: ServeOptions::default(),
        origins: vec![Origin::Default; KEYS.len()],
    };
    let mut problems = Vec::new();
    if let Some((name, text)) = &sources.file {
        let before = problems.len();
        match yaml::parse(text, &mut problems) {
            Ok(root) => {
                let source = FileSource {
                    name,
                    variables: &sources.environment,
                };
                effective.apply_file("", &root, &source, &mut problems);
            }
            Err(problem) => problems.push(problem),
        }
        for problem in &mut problems[before..] {
            problem.field = if problem.field.is_empty() {
                name.clone()
            } else {
                format!("{name}: {}", problem.field)
            };
        }
    }
    for (index, key) in KEYS.iter().enumerate() {
        // An empty variable is the shell's way to unset one.
        if let Some((name, value)) = sources
            .environment
            .iter()
            .find(|(name, value)| name == key.env && !value.is_empty())
        {
            effective.set(
                index,
                value,
                Origin::Environment(name.clone()),
                name,
                &mut problems,
            );
        }
    }
    for (path, value, flag) in &sources.flags {
        match KEYS.iter().position(|key| key.path == path) {
            Some(index) => effective.set(index, value, Origin::Flag(flag.clone()), flag, &mut problems),
            None => problems.push(unknown_key(flag, path, 0)),
        }
    }
    effective.set_default_shards();
    let options = &effective.options;
    problems.extend(second_sqlite(options, sources));
    problems.extend(tls::half_of(options));
    problems.extend(open_to_all(options));
    if problems.is_empty() {
        Ok(effective)
    } else {
        Err(problems)
    }
}

impl Effective {
    /// The default that depends on another key.
    fn set_default_shards(&mut self) {
        let origin = KEYS
            .iter()
            .zip(&self.origins)
            .find(|(key, _)| key.path == "shards");
        if matches!(origin, Some((_, Origin::Default))) {
            self.options.shards = default_shards(self.options.has_disk(), available_cores());
        }
    }

    fn set(&mut self, index: usize, value: &str, origin: Origin, field: &str, problems: &mut Vec<Problem>) {
        match (KEYS[index].set)(&mut self.options, value) {
            Ok(()) => self.origins[index] = origin,
            Err(mut problem) => {
                field.clone_into(&mut problem.field);
                problems.push(problem);
            }
        }
    }

    /// Walks the file's tree; every leaf must be a key.
    fn apply_file(&mut self, path: &str, node: &Node, source: &FileSource<'_>, problems: &mut Vec<Problem>) {
        if path == stores::SECTION {
            self.options.stores = stores::parse(node, source.variables, problems);
            return;
        }
        if let Some(index) = KEYS.iter().position(|key| key.path == path) {
            match &node.value {
                Value::Scalar(text) => {
                    let before = problems.len();
                    self.set(
                        index,
                        text,
                        Origin::File(source.name.to_owned(), node.line),
                        path,
                        problems,
                    );
                    problems[before..]
                        .iter_mut()
                        .for_each(|problem| problem.line = node.line);
                }
                _ => {
                    let what = format!("{} is expected here, not {}", KEYS[index].allowed, node.kind());
                    problems.push(Problem::new(path, node.line, what));
                }
            }
            return;
        }
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        let section = KEYS.iter().any(|key| key.path.starts_with(&prefix));
        match &node.value {
            // A file of comments only, or a section without a value in it, changes nothing.
            Value::Null if section => {}
            Value::Map(entries) if section => {
                for entry in entries {
                    self.apply_file(&join(path, &entry.key), &entry.value, source, problems);
                }
            }
            _ if section => {
                let what = format!("keys are expected here, not {}", node.kind());
                problems.push(Problem::new(path, node.line, what));
            }
            _ => problems.push(unknown_key(path, path, node.line)),
        }
    }

    /// The effective configuration as a YAML file that [`load`] reads back to the same options,
    /// with documentation and the origin of each value as comments.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from(
            "# Effective configuration of `prism serve`. Usable as a file: prism serve --config FILE\n",
        );
        let mut section = "";
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            let (parent, leaf) = key.path.split_once('.').unwrap_or(("", key.path));
            if parent != section {
                // Writing to a String cannot fail.
                let _ = write!(out, "\n{parent}:\n");
                section = parent;
            } else {
                out.push('\n');
            }
            let indent = if parent.is_empty() { "" } else { "  " };
            for line in key.doc.lines() {
                let _ = writeln!(out, "{indent}# {}", line.trim());
            }
            let value = quote((key.show)(&self.options));
            let _ = writeln!(out, "{indent}{leaf}: {value}  # {origin}");
        }
        self.write_stores(&mut out);
        out
    }

    /// Writes the section of the stores, with references to variables as written.
    fn write_stores(&self, out: &mut String) {
        out.push_str("\n# Stores beside the embedded one, by name; a namespace gets the first that can keep what it needs.\n");
        if self.options.stores.is_empty() {
            let _ = writeln!(out, "{}: {{}}  # default", stores::SECTION);
            return;
        }
        let _ = writeln!(out, "{}:", stores::SECTION);
        for store in &self.options.stores {
            let _ = writeln!(out, "  {}:  # from line {}", store.name, store.line());
            for (key, value) in store.written() {
                let _ = writeln!(out, "    {key}: {}", quote(value.to_owned()));
            }
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(name, line) => {
                write!(formatter, "from {}, line {line}", name.replace(['\n', '\r'], " "))
            }
            Self::Environment(name) => write!(formatter, "from {name}"),
            Self::Flag(flag) => write!(formatter, "from {}", flag.replace(['\n', '\r'], " ")),
        }
    }
}

/// The configuration file, while it is applied.
struct FileSource<'a> {
    name: &'a str,
    /// Environment variables that values may name.
    variables: &'a [(String, String)],
}

/// The problem of an address that others reach, where nobody has to prove who they are.
fn open_to_all(options: &ServeOptions) -> Option<Problem> {
    if options.listen.ip().is_loopback() || options.insecure_listen || options.tls.client_ca_file.is_some() {
        return None;
    }
    let lacks = match options.tls.cert_file {
        Some(_) => "clients need no certificate (tls.client_ca_file)",
        None => "there is no TLS (tls.cert_file, tls.key_file, tls.client_ca_file)",
    };
    let what = format!(
        "{} is not a loopback address, and {lacks}: whoever reaches it may read and write everything",
        options.listen
    );
    let suggestion = "listen on 127.0.0.1, or add --insecure-listen if the network itself is trusted";
    Some(Problem::new("listen", 0, what).suggest(suggestion))
}

/// The problem of a second store of SQLite: one file holds the data of all namespaces that have no
/// other store.
fn second_sqlite(options: &ServeOptions, sources: &Sources) -> Option<Problem> {
    let mut sqlite = options
        .stores
        .iter()
        .filter(|store| store.kind == StoreKind::Sqlite);
    let first = sqlite.next()?;
    let (second, taken) = match options.embedded {
        EmbeddedStore::Sqlite => (first, EMBEDDED),
        EmbeddedStore::Memory => (sqlite.next()?, &*first.name),
    };
    let file = sources.file.as_ref().map_or("", |(name, _)| name);
    let field = format!("{file}: {}.{}.kind", stores::SECTION, second.name);
    let what = format!(
        "the store {taken} is SQLite already, and one file in the data directory serves all its namespaces"
    );
    Some(Problem::new(field, second.line(), what).suggest("take the entry out"))
}

fn unknown_key(field: &str, path: &str, line: u32) -> Problem {
    if path.starts_with(stores::SECTION) {
        let what = "stores are named in the configuration file only";
        return Problem::new(field, line, what).suggest("write them there, and pass it with --config");
    }
    let paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    let mut suggestion = did_you_mean(path, &paths);
    if suggestion.is_empty() {
        // Someone who writes `drain_timeout` at the top level means `limits.drain_timeout`.
        let leaf = path.rsplit('.').next().unwrap_or(path);
        let home = KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(leaf));
        suggestion = home.map_or(String::new(), |key| format!("did you mean \"{}\"?", key.path));
    }
    Problem::new(field, line, "unknown key; `prism config print` lists all").suggest(suggestion)
}

/// A value as a YAML scalar that reads back as the same text.
fn quote(value: String) -> String {
    let plain = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '.' | '/' | '_' | '-' | ':' | '=' | ',')
    };
    let safe_start =
        value.starts_with(|letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '/'));
    if safe_start && value.chars().all(plain) && !value.ends_with(':') {
        return value;
    }
    // Double quotes with JSON's escapes are YAML's, too.
    serde_json::to_string(&value).unwrap_or(value)
}

#[cfg(test)]
mod tests;
