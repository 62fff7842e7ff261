//! Keys of the configuration: path, variable, allowed values, cost, reading and showing.
//!
//! Adding a key means a field in [`ServeOptions`], its default, and one row here; flag `--set`,
//! environment, file and `config print` follow.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::stores::{TLS_ALLOWED, tls};
use super::values::{
    boolean, catalog_url, choice, duration, group_lease, host, list, listen_address, log_filter, origin,
    size, size_of, whole,
};
use super::{EmbeddedStore, LogFormat, LogWriterKind, SHARDS_MAX, ServeOptions};
use crate::namespace::problem::Problem;
use crate::namespace::units::{DURATION_MAX, format_duration, format_size};
use crate::runtime::reactor::DriverChoice;

/// One key of the configuration.
pub struct Key {
    /// Path in the file, for example `limits.drain_timeout`.
    pub path: &'static str,
    /// Environment variable of the key.
    pub env: &'static str,
    /// Allowed values, in words.
    pub allowed: &'static str,
    /// Effect, unit and cost.
    pub doc: &'static str,
    /// Reads and checks a value.
    pub set: fn(&mut ServeOptions, &str) -> Result<(), Problem>,
    /// Shows the value in the form that `set` reads.
    pub show: fn(&ServeOptions) -> String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.path)
    }
}

/// All keys, in the order of printing: the top level first, then each section in one piece.
pub const KEYS: &[Key] = &[
    Key {
        path: "data_dir",
        env: "PRISM_DATA_DIR",
        allowed: "a path",
        doc: "Folder of the catalog and of the embedded store; made when missing. One gateway at a time may use it.",
        set: |options, text| {
            if text.is_empty() || text.contains('\0') {
                return Err(Problem::new("", 0, "the path is empty or holds a NUL byte"));
            }
            options.data_dir = PathBuf::from(text);
            Ok(())
        },
        show: |options| options.data_dir.display().to_string(),
    },
    Key {
        path: "listen",
        env: "PRISM_LISTEN",
        allowed: "an address or a name with a port such as 127.0.0.1:8980, [::1]:8980 or localhost:8980",
        doc: "Address of the one port for gRPC, Connect/JSON and HTTP. Port 0: any free one. Of a name with several addresses\n\
              the first IPv4 one. Beyond loopback only with tls.client_ca_file, or with insecure_listen.",
        set: |options, text| {
            options.listen = listen_address(text)?;
            Ok(())
        },
        show: |options| options.listen.to_string(),
    },
    Key {
        path: "insecure_listen",
        env: "PRISM_INSECURE_LISTEN",
        allowed: "true or false",
        doc: "Allow an address beyond loopback although clients need no certificate: whoever reaches the port may read\n\
              and write everything.",
        set: |options, text| {
            options.insecure_listen = boolean(text)?;
            Ok(())
        },
        show: |options| options.insecure_listen.to_string(),
    },
    Key {
        path: "shards",
        env: "PRISM_SHARDS",
        allowed: "a whole number from 1 to 256",
        doc: "Threads that serve connections, one per core; default: the cores this process may use, but for one that SQLite's writer\n\
              gets if there are two or more. Each costs a few MiB.",
        set: |options, text| {
            let shards = whole(text, 1, SHARDS_MAX)?;
            options.shards = NonZeroUsize::new(shards).unwrap_or(NonZeroUsize::MIN);
            Ok(())
        },
        show: |options| options.shards.to_string(),
    },
    Key {
        path: "pin_shards",
        env: "PRISM_PIN_SHARDS",
        allowed: "true or false",
        doc: "Pin each shard to one core. Turn it off where other busy programs share the cores.",
        set: |options, text| {
            options.pin_shards = boolean(text)?;
            Ok(())
        },
        show: |options| options.pin_shards.to_string(),
    },
    Key {
        path: "raise_priority",
        env: "PRISM_RAISE_PRIORITY",
        allowed: "true or false",
        doc: "Run the threads that calls wait for before others (nice -10), where the system allows it (CAP_SYS_NICE, or a\n\
              RLIMIT_NICE of 30): shards, the log's writers, the store's writer and readers. Shortens the median under load where cores are shared.",
        set: |options, text| {
            options.raise_priority = boolean(text)?;
            Ok(())
        },
        show: |options| options.raise_priority.to_string(),
    },
    Key {
        path: "driver",
        env: "PRISM_DRIVER",
        allowed: "auto, io_uring or epoll",
        doc: "How shards wait for the network. auto: io_uring where the kernel allows it, otherwise epoll.",
        set: |options, text| {
            let choices = [
                ("auto", DriverChoice::Auto),
                ("io_uring", DriverChoice::IoUring),
                ("epoll", DriverChoice::Epoll),
            ];
            options.driver = choice(text, &choices)?;
            Ok(())
        },
        show: |options| {
            match options.driver {
                DriverChoice::Auto => "auto",
                DriverChoice::IoUring => "io_uring",
                DriverChoice::Epoll => "epoll",
            }
            .to_owned()
        },
    },
    Key {
        path: "idle_poll_us",
        env: "PRISM_IDLE_POLL_US",
        allowed: "a whole number from 0 to 10000",
        doc: "For how many microseconds a shard with few calls looks for an answer that is due from the store or the log\n\
              before it sleeps, if the last ones came so soon. Saves a call a wake-up, and costs CPU time. 0: never.",
        set: |options, text| {
            options.idle_poll = Duration::from_micros(whole(text, 0, 10_000)? as u64);
            Ok(())
        },
        show: |options| options.idle_poll.as_micros().to_string(),
    },
    Key {
        path: "embedded",
        env: "PRISM_EMBEDDED",
        allowed: "sqlite or memory",
        doc: "Store of namespaces for which no other store is configured. memory: fastest, and empty after a restart.",
        set: |options, text| {
            options.embedded = choice(
                text,
                &[
                    ("sqlite", EmbeddedStore::Sqlite),
                    ("memory", EmbeddedStore::Memory),
                ],
            )?;
            Ok(())
        },
        show: |options| {
            match options.embedded {
                EmbeddedStore::Sqlite => "sqlite",
                EmbeddedStore::Memory => "memory",
            }
            .to_owned()
        },
    },
    super::tls::CERT_FILE,
    super::tls::KEY_FILE,
    super::tls::CLIENT_CA_FILE,
    super::tls::TRUST_DOMAIN,
    super::tls::ADMINS,
    super::tls::VIEWERS,
    Key {
        path: "catalog.url",
        env: "PRISM_CATALOG_URL",
        allowed: "a URL such as postgresql://prism@db:5432/prism, or nothing",
        doc: "PostgreSQL database with the catalog that several gateways share: namespaces that one of them makes are served by\n\
              all. It holds no password. Nothing: the gateway keeps a catalog of its own in data_dir.",
        set: |options, text| {
            options.catalog.url = catalog_url(text)?;
            Ok(())
        },
        show: |options| options.catalog.url.clone().unwrap_or_default(),
    },
    Key {
        path: "catalog.credentials_file",
        env: "PRISM_CATALOG_CREDENTIALS_FILE",
        allowed: "a path, or nothing",
        doc: "File with the password for it.",
        set: |options, text| {
            if text.contains('\0') {
                return Err(Problem::new("", 0, "the path holds a NUL byte"));
            }
            options.catalog.credentials_file = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |options| {
            let path = options.catalog.credentials_file.as_ref();
            path.map_or_else(String::new, |path| path.display().to_string())
        },
    },
    Key {
        path: "catalog.tls",
        env: "PRISM_CATALOG_TLS",
        allowed: TLS_ALLOWED,
        doc: "Whether connections to it are encrypted, and who signs its certificate: true, the system's roots; a path, the\n\
              certificates in that file. Nothing: as the URL says.",
        set: |options, text| {
            options.catalog.tls = match text {
                "" => None,
                text => Some(tls(text).map_err(|what| Problem::new("", 0, what))?),
            };
            Ok(())
        },
        show: |options| {
            options
                .catalog
                .tls
                .as_ref()
                .map_or_else(String::new, ToString::to_string)
        },
    },
    Key {
        path: "limits.connections_max",
        env: "PRISM_LIMITS_CONNECTIONS_MAX",
        allowed: "a whole number from 1 to 1000000",
        doc: "Open connections of the whole gateway; more are closed at once. An idle one costs some 20 KiB.",
        set: |options, text| {
            options.limits.connections_max = whole(text, 1, 1_000_000)?;
            Ok(())
        },
        show: |options| options.limits.connections_max.to_string(),
    },
    Key {
        path: "limits.connections_per_client_max",
        env: "PRISM_LIMITS_CONNECTIONS_PER_CLIENT_MAX",
        allowed: "auto, or a whole number from 1 to 1000000",
        doc: "Of these, connections of one client address (IPv6: one network of 64 bits), so that no client takes the last places\n\
              from others. auto: nine tenths.",
        set: |options, text| {
            options.limits.connections_per_client_max = match text {
                "auto" => None,
                number => Some(whole(number, 1, 1_000_000)?),
            };
            Ok(())
        },
        show: |options| match options.limits.connections_per_client_max {
            None => "auto".to_owned(),
            Some(number) => number.to_string(),
        },
    },
    Key {
        path: "limits.inflight_per_shard_max",
        env: "PRISM_LIMITS_INFLIGHT_PER_SHARD_MAX",
        allowed: "a whole number from 1 to 1000000",
        doc: "Calls of one shard that may wait for a store or another shard; more are refused with RESOURCE_EXHAUSTED.",
        set: |options, text| {
            options.limits.inflight_per_shard_max = whole(text, 1, 1_000_000)?;
            Ok(())
        },
        show: |options| options.limits.inflight_per_shard_max.to_string(),
    },
    Key {
        path: "limits.streams_per_namespace_max",
        env: "PRISM_LIMITS_STREAMS_PER_NAMESPACE_MAX",
        allowed: "a whole number from 1 to 4096",
        doc: "Scans and subscriptions of one namespace that a shard keeps open; more are refused with RESOURCE_EXHAUSTED.",
        set: |options, text| whole(text, 1, 4_096).map(|max| options.limits.streams_per_namespace_max = max),
        show: |options| options.limits.streams_per_namespace_max.to_string(),
    },
    Key {
        path: "limits.group_lease",
        env: "PRISM_LIMITS_GROUP_LEASE",
        allowed: "a duration from 1s to 1min",
        doc: "How long a group's subscriber that gives no sign of life keeps its partitions. To hand one over it gets three times that.",
        set: |options, text| group_lease(text).map(|lease| options.limits.group_lease = lease),
        show: |options| format_duration(options.limits.group_lease),
    },
    Key {
        path: "limits.message_bytes_max",
        env: "PRISM_LIMITS_MESSAGE_BYTES_MAX",
        allowed: "a size from 1KiB to 1GiB",
        doc: "Largest gRPC message, in or out, after decompression; by default a value of 16 MiB fits with its id and key.\n\
              A connection may hold this much of it in memory. Bounds needs.max_message_size of new namespaces.",
        set: |options, text| {
            options.limits.message_bytes_max = size(text, 1 << 10, 1 << 30)?;
            Ok(())
        },
        show: |options| format_size(options.limits.message_bytes_max as u64),
    },
    Key {
        path: "limits.output_bytes_max",
        env: "PRISM_LIMITS_OUTPUT_BYTES_MAX",
        allowed: "a size from 64KiB to 4GiB",
        doc: "What may wait for one slow reader before the gateway stops taking its calls.",
        set: |options, text| {
            options.limits.output_bytes_max = size(text, 64 << 10, 4 << 30)?;
            Ok(())
        },
        show: |options| format_size(options.limits.output_bytes_max as u64),
    },
    Key {
        path: "limits.handshake_timeout",
        env: "PRISM_LIMITS_HANDSHAKE_TIMEOUT",
        allowed: "a duration from 100ms to 10min",
        doc: "How long a new connection may take to send its first complete request head or HTTP/2 preface.",
        set: |options, text| {
            options.limits.handshake_timeout =
                duration(text, Duration::from_millis(100), Duration::from_secs(600))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.handshake_timeout),
    },
    Key {
        path: "limits.idle_timeout",
        env: "PRISM_LIMITS_IDLE_TIMEOUT",
        allowed: "0s or a duration up to 30days",
        doc: "How long a connection without open calls is kept. 0s: for ever.",
        set: |options, text| {
            options.limits.idle_timeout = duration(text, Duration::ZERO, Duration::from_secs(30 * 86_400))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.idle_timeout),
    },
    Key {
        path: "limits.receive_timeout",
        env: "PRISM_LIMITS_RECEIVE_TIMEOUT",
        allowed: "a duration from 1s to 1h",
        doc: "How long a request may take to become complete, besides a second for each body_rate_min bytes of it; then it is\n\
              refused. Also how long a frame or a header block may take.",
        set: |options, text| {
            options.limits.receive_timeout =
                duration(text, Duration::from_secs(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.receive_timeout),
    },
    Key {
        path: "limits.body_rate_min",
        env: "PRISM_LIMITS_BODY_RATE_MIN",
        allowed: "a size from 1B to 1GiB",
        doc: "Least rate of a request's body, bytes a second.",
        set: |options, text| {
            options.limits.body_rate_min = size(text, 1, 1 << 30)?;
            Ok(())
        },
        show: |options| format_size(options.limits.body_rate_min as u64),
    },
    Key {
        path: "limits.keepalive_interval",
        env: "PRISM_LIMITS_KEEPALIVE_INTERVAL",
        allowed: "0s or a duration up to 1day",
        doc: "How long a client may be silent before the gateway asks for a sign of life (PING of HTTP/2, keepalive of TCP).\n\
              0s: never; then the connections of machines that vanish stay.",
        set: |options, text| {
            options.limits.keepalive_interval = duration(text, Duration::ZERO, Duration::from_secs(86_400))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.keepalive_interval),
    },
    Key {
        path: "limits.keepalive_timeout",
        env: "PRISM_LIMITS_KEEPALIVE_TIMEOUT",
        allowed: "a duration from 1s to 1h",
        doc: "How long the client then has for an answer before its connection is closed.",
        set: |options, text| {
            options.limits.keepalive_timeout =
                duration(text, Duration::from_secs(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.keepalive_timeout),
    },
    Key {
        path: "limits.connection_age_max",
        env: "PRISM_LIMITS_CONNECTION_AGE_MAX",
        allowed: "0s or a duration up to 30days",
        doc: "Age at which a client is asked to open another connection, give or take a tenth, so that a balancer can spread the\n\
              load anew. 0s: none.",
        set: |options, text| {
            options.limits.connection_age_max =
                duration(text, Duration::ZERO, Duration::from_secs(30 * 86_400))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.connection_age_max),
    },
    Key {
        path: "limits.connection_age_grace",
        env: "PRISM_LIMITS_CONNECTION_AGE_GRACE",
        allowed: "a duration from 1s to 30days",
        doc: "How long the calls of a connection that is too old may still run before it is closed.",
        set: |options, text| {
            options.limits.connection_age_grace =
                duration(text, Duration::from_secs(1), Duration::from_secs(30 * 86_400))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.connection_age_grace),
    },
    Key {
        path: "limits.drain_timeout",
        env: "PRISM_LIMITS_DRAIN_TIMEOUT",
        allowed: "0s or a duration up to 1h",
        doc: "How long a drain (SIGTERM) waits for the calls it took before it closes their connections.",
        set: |options, text| {
            options.limits.drain_timeout = duration(text, Duration::ZERO, Duration::from_secs(3_600))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.drain_timeout),
    },
    Key {
        path: "limits.clock_drift_max",
        env: "PRISM_LIMITS_CLOCK_DRIFT_MAX",
        allowed: "a duration from 1s to 365days",
        doc: "How far an idempotency token's generation_time may lie from this machine's clock; beyond it writes are refused.",
        set: |options, text| {
            options.limits.clock_drift_max =
                duration(text, Duration::from_secs(1), Duration::from_secs(365 * 86_400))?;
            Ok(())
        },
        show: |options| format_duration(options.limits.clock_drift_max),
    },
    Key {
        path: "limits.namespace_write_rps_max",
        env: "PRISM_LIMITS_NAMESPACE_WRITE_RPS_MAX",
        allowed: "a whole number from 1 to 1000000000",
        doc: "Highest needs.write_rps that a namespace file may ask for, writes a second.",
        set: |options, text| {
            options.limits.namespace_write_rps_max = whole(text, 1, 1_000_000_000)? as u64;
            Ok(())
        },
        show: |options| options.limits.namespace_write_rps_max.to_string(),
    },
    Key {
        path: "limits.namespace_read_rps_max",
        env: "PRISM_LIMITS_NAMESPACE_READ_RPS_MAX",
        allowed: "a whole number from 1 to 1000000000",
        doc: "Highest needs.read_rps that a namespace file may ask for, reads a second.",
        set: |options, text| {
            options.limits.namespace_read_rps_max = whole(text, 1, 1_000_000_000)? as u64;
            Ok(())
        },
        show: |options| options.limits.namespace_read_rps_max.to_string(),
    },
    Key {
        path: "limits.namespace_data_size_max",
        env: "PRISM_LIMITS_NAMESPACE_DATA_SIZE_MAX",
        allowed: "a size from 1MB to 1000PB",
        doc: "Highest needs.data_size that a namespace file may ask for.",
        set: |options, text| {
            options.limits.namespace_data_size_max = size(text, 1_000_000, 1_000_000_000_000_000_000)? as u64;
            Ok(())
        },
        show: |options| format_size(options.limits.namespace_data_size_max),
    },
    Key {
        path: "limits.namespace_retention_max",
        env: "PRISM_LIMITS_NAMESPACE_RETENTION_MAX",
        allowed: "a duration from 1s to 36525days",
        doc: "Highest needs.retention that a namespace file may ask for.",
        set: |options, text| {
            options.limits.namespace_retention_max = duration(text, Duration::from_secs(1), DURATION_MAX)?;
            Ok(())
        },
        show: |options| format_duration(options.limits.namespace_retention_max),
    },
    Key {
        path: "limits.namespaces_max",
        env: "PRISM_LIMITS_NAMESPACES_MAX",
        allowed: "a whole number from 1 to 100000",
        doc: "Namespaces that may exist. Every shard knows all of them, at some hundred bytes each.",
        set: |options, text| {
            options.limits.namespaces_max = whole(text, 1, 100_000)?;
            Ok(())
        },
        show: |options| options.limits.namespaces_max.to_string(),
    },
    Key {
        path: "http.allowed_hosts",
        env: "PRISM_HTTP_ALLOWED_HOSTS",
        allowed: "host names with commas between them, or nothing",
        doc: "Names that requests may be for (host, :authority) beside localhost and loopback addresses, while the gateway\n\
              listens on a loopback address: those that a proxy on this machine passes on. Others are refused, because a\n\
              page can have its own name lead to 127.0.0.1.",
        set: |options, text| {
            options.http.allowed_hosts = list(text, host)?;
            Ok(())
        },
        show: |options| options.http.allowed_hosts.join(","),
    },
    Key {
        path: "http.allowed_origins",
        env: "PRISM_HTTP_ALLOWED_ORIGINS",
        allowed: "origins such as https://app.example with commas between them, * for all, or nothing",
        doc: "Origins whose pages may call the gateway from a browser (CORS). None by default; pages that the gateway itself\n\
              serves need none.",
        set: |options, text| {
            options.http.allowed_origins = list(text, origin)?;
            Ok(())
        },
        show: |options| options.http.allowed_origins.join(","),
    },
    Key {
        path: "http.compress_above",
        env: "PRISM_HTTP_COMPRESS_ABOVE",
        allowed: "off, or a size from 256B to 1GiB",
        doc: "Replies longer than this are compressed with zstd or gzip for clients that say that they accept it, gRPC's\n\
              included. It costs the shard 2 to 7 ns a byte.",
        set: |options, text| {
            options.http.compress_above = match text {
                "off" => None,
                text => Some(size(text, 256, 1 << 30)?),
            };
            Ok(())
        },
        show: |options| {
            options
                .http
                .compress_above
                .map_or_else(|| "off".to_owned(), |bytes| format_size(bytes as u64))
        },
    },
    Key {
        path: "wal.segment_bytes",
        env: "PRISM_WAL_SEGMENT_BYTES",
        allowed: "a size from 4MiB to 1GiB, a multiple of 4KiB",
        doc: "Length of one file of the write-ahead log. Each shard keeps four of them at least, filled ahead of time.",
        set: |options, text| {
            options.wal.segment_bytes = size_of(text, 4 << 20, 1 << 30, 4096)?;
            Ok(())
        },
        show: |options| format_size(options.wal.segment_bytes as u64),
    },
    Key {
        path: "wal.segments_max",
        env: "PRISM_WAL_SEGMENTS_MAX",
        allowed: "a whole number from 4 to 1000",
        doc: "Files that the log of one shard may have. When all of them hold what the store does not have yet, writes at strong\n\
              are refused with RESOURCE_EXHAUSTED.",
        set: |options, text| {
            options.wal.segments_max = whole(text, 4, 1_000)?;
            Ok(())
        },
        show: |options| options.wal.segments_max.to_string(),
    },
    Key {
        path: "wal.unapplied_bytes_max",
        env: "PRISM_WAL_UNAPPLIED_BYTES_MAX",
        allowed: "a size from 64KiB to 16GiB",
        doc: "Acknowledged writes of one namespace that may wait for the store, in each shard's log; they are held in memory as\n\
              well. More are refused with RESOURCE_EXHAUSTED; four times as much for all namespaces together. Also the longest\n\
              single write at strong.",
        set: |options, text| {
            options.wal.unapplied_bytes_max = size(text, 64 << 10, 16 << 30)?;
            Ok(())
        },
        show: |options| format_size(options.wal.unapplied_bytes_max as u64),
    },
    Key {
        path: "wal.writer",
        env: "PRISM_WAL_WRITER",
        allowed: "auto, ring or thread",
        doc: "How the log gets to the disk: by the shard's own io_uring (ring), by threads beside it (thread), or as it is faster:\n\
              ring for groups of few records, threads for others (auto).",
        set: |options, text| {
            let choices = [
                ("auto", LogWriterKind::Auto),
                ("ring", LogWriterKind::Ring),
                ("thread", LogWriterKind::Thread),
            ];
            options.wal_writer = choice(text, &choices)?;
            Ok(())
        },
        show: |options| {
            match options.wal_writer {
                LogWriterKind::Auto => "auto",
                LogWriterKind::Ring => "ring",
                LogWriterKind::Thread => "thread",
            }
            .to_owned()
        },
    },
    Key {
        path: "wal.depth",
        env: "PRISM_WAL_DEPTH",
        allowed: "auto, or a whole number from 1 to 8",
        doc: "Log writes of one shard that are in flight at a time. auto: 1 or 2, as the disk likes it better.",
        set: |options, text| {
            options.wal.depth_fixed = match text {
                "auto" => None,
                number => Some(whole(number, 1, 8)?),
            };
            options.wal.depth_max = options.wal.depth_fixed.unwrap_or(2);
            Ok(())
        },
        show: |options| {
            options
                .wal
                .depth_fixed
                .map_or_else(|| "auto".to_owned(), |depth| depth.to_string())
        },
    },
    Key {
        path: "wal.key_file",
        env: "PRISM_WAL_KEY_FILE",
        allowed: "a path, or nothing",
        doc: "File with the 32-byte key (raw, or 64 hexadecimal digits) that wraps the data keys of the log. Only its owner may be\n\
              able to read it. Without one the log is not protected against whoever can read the disk.",
        set: |options, text| {
            if text.contains('\0') {
                return Err(Problem::new("", 0, "the path holds a NUL byte"));
            }
            options.wal_key_file = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |options| {
            let path = options.wal_key_file.as_ref();
            path.map_or_else(String::new, |path| path.display().to_string())
        },
    },
    Key {
        path: "wal.on_corruption",
        env: "PRISM_WAL_ON_CORRUPTION",
        allowed: "hold or continue_and_report",
        doc: "What to do with a lane of which something durable cannot be read. hold: its shard refuses what needs it, until an\n\
              operator has looked. continue_and_report: start without what is lost, and say what that is.",
        set: |options, text| {
            let choices = [("hold", false), ("continue_and_report", true)];
            options.wal.accept_loss = choice(text, &choices)?;
            Ok(())
        },
        show: |options| {
            match options.wal.accept_loss {
                false => "hold",
                true => "continue_and_report",
            }
            .to_owned()
        },
    },
    Key {
        path: "wal.allow_unsafe_filesystem",
        env: "PRISM_WAL_ALLOW_UNSAFE_FILESYSTEM",
        allowed: "true or false",
        doc: "Create namespaces at strong although the data directory's file system (tmpfs, overlayfs, NFS and others) cannot\n\
              keep that promise.",
        set: |options, text| {
            options.wal.allow_unsafe_filesystem = boolean(text)?;
            Ok(())
        },
        show: |options| options.wal.allow_unsafe_filesystem.to_string(),
    },
    Key {
        path: "log.level",
        env: "PRISM_LOG_LEVEL",
        allowed: "a tracing filter such as info or info,prism_core=debug",
        doc: "Diagnostics on standard error: off, error, warn, info, debug or trace, also by module. debug and trace cost time\n\
              on every call.",
        set: |options, text| {
            options.log.level = log_filter(text)?;
            Ok(())
        },
        show: |options| options.log.level.clone(),
    },
    Key {
        path: "log.format",
        env: "PRISM_LOG_FORMAT",
        allowed: "text or json",
        doc: "Diagnostics as lines for people or as JSON lines for machines.",
        set: |options, text| {
            options.log.format = choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
            Ok(())
        },
        show: |options| {
            match options.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }
            .to_owned()
        },
    },
];
