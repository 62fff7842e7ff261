//! Configuration of a PostgreSQL store, as written and as checked.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use crate::error::StoreError;
use crate::server::{IDLE_MAX, RawConfig, Tls, WINDOW};

/// A configuration that can be used. `Debug` shows no password.
#[derive(Clone)]
pub struct Config {
    pub(super) connection: tokio_postgres::Config,
    /// Address of the server, for messages: host, port and database.
    pub address: String,
    /// Trust in the server's certificate.
    pub tls: Tls,
    /// Connections that the gateway opens at most.
    pub pool_max: u32,
    /// Time that an unused connection stays open.
    pub idle_max: Duration,
    /// Time that deletes, and the answers to swaps, are remembered.
    pub window: Duration,
}

/// Connections if the configuration sets no number. PostgreSQL allows 100 by default, to all
/// clients.
const POOL_MAX_DEFAULT: u32 = 10;

/// Longest time to connect, with TLS and authentication.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Longest time that sent bytes may stay unacknowledged by the server's host.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Longest time of one statement. The server ends it then, so that no call is forgotten there.
const STATEMENT_MAX_MS: u32 = 30_000;

/// Longest wait for a lock, and longest pause within a transaction: both mean that another session
/// is stuck.
const LOCK_MAX_MS: u32 = 10_000;
const IDLE_IN_TRANSACTION_MAX_MS: u32 = 60_000;

impl Config {
    /// Checks the entries. The URL is `postgresql://USER[:PASSWORD]@HOST[:PORT]/DATABASE`, or
    /// libpq's `key=value` form; the credentials are the password. Errors name the entry, what is
    /// allowed and what to do.
    pub fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        let mut connection: tokio_postgres::Config = raw.url.parse().map_err(|error| {
            let cause = source_of(&error);
            StoreError::invalid(
                "url",
                format!("must be postgresql://USER@HOST:PORT/DATABASE: {cause}"),
            )
        })?;
        if connection.get_hosts().is_empty() {
            return Err(StoreError::invalid(
                "url",
                "names no host; write postgresql://USER@HOST:PORT/DATABASE",
            ));
        }
        if connection.get_user().is_none() {
            return Err(StoreError::invalid(
                "url",
                "names no user; write postgresql://USER@HOST:PORT/DATABASE",
            ));
        }
        if let Some(password) = raw.password(connection.get_password().is_some())? {
            connection.password(password);
        }
        let tls = raw.tls(connection.get_ssl_mode() == SslMode::Require);
        connection.ssl_mode(match tls {
            Tls::Off => SslMode::Disable,
            Tls::System | Tls::File(_) => SslMode::Require,
        });
        let address = address_of(&connection);
        let options = session_options(connection.get_options());
        connection
            .application_name("prism")
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(UNACKNOWLEDGED_MAX)
            .options(options);
        Ok(Config {
            connection,
            address,
            tls,
            pool_max: raw.pool_max(POOL_MAX_DEFAULT)?,
            idle_max: IDLE_MAX,
            window: WINDOW,
        })
    }
}

fn session_options(own: Option<&str>) -> String {
    let own = own.map_or_else(String::new, |own| format!("{own} "));
    format!(
        "{own}-c statement_timeout={STATEMENT_MAX_MS} -c lock_timeout={LOCK_MAX_MS} \
         -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MAX_MS}"
    )
}

fn address_of(connection: &tokio_postgres::Config) -> String {
    let ports = connection.get_ports();
    let hosts = connection.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    let database = connection
        .get_dbname()
        .or(connection.get_user())
        .unwrap_or_default();
    format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
}

/// The cause within one of the driver's errors, whose own text only names the step that failed.
pub(super) fn source_of(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("address", &self.address)
            .field("tls", &self.tls)
            .field("pool_max", &self.pool_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn raw(url: &str) -> RawConfig {
        RawConfig {
            url: url.to_owned(),
            ..RawConfig::default()
        }
    }

    #[test]
    fn no_text_of_it_shows_the_password() {
        let raw = raw("postgresql://prism:geheim@127.0.0.1:5433/app");
        let config = Config::check(&raw).expect("a configuration");
        assert_eq!(config.address, "127.0.0.1:5433/app");
        assert!(!format!("{raw:?} {config:?} {}", config.address).contains("geheim"));
        assert_eq!(config.connection.get_password(), Some(&b"geheim"[..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let reason = |raw: &RawConfig| Config::check(raw).expect_err("a refusal").to_string();
        assert!(reason(&raw("mysql://x@y/z")).starts_with("url: must be postgresql://USER@HOST"));
        assert!(reason(&raw("postgresql:///app?user=x")).starts_with("url: names no host"));
        assert!(reason(&raw("postgresql://127.0.0.1/app")).starts_with("url: names no user"));
        let many = RawConfig {
            pool_max: Some(0),
            ..raw("postgresql://u@h/d")
        };
        assert_eq!(reason(&many), "pool_max: must be 1 to 1000, is 0");
        let missing = RawConfig {
            credentials_file: Some(PathBuf::from("/does/not/exist")),
            ..raw("postgresql://u@h/d")
        };
        assert!(reason(&missing).starts_with("credentials_file: /does/not/exist cannot be read"));
        let twice = RawConfig {
            url: "postgresql://u:p@h/d".to_owned(),
            ..missing
        };
        assert!(reason(&twice).starts_with("credentials_file: is given, and url holds a password"));
    }

    #[test]
    fn a_password_comes_from_its_file_without_its_line_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        std::fs::write(&file, "geheim\n").expect("a file");
        let raw = RawConfig {
            credentials_file: Some(file),
            ..raw("postgresql://u@h/d")
        };
        let config = Config::check(&raw).expect("a configuration");
        assert_eq!(config.connection.get_password(), Some(&b"geheim"[..]));
    }

    #[test]
    fn tls_is_what_the_entry_says_or_the_url_asks_for() {
        let tls = |url: &str, entry: Option<&str>| {
            let raw = RawConfig {
                tls: entry.map(str::to_owned),
                ..raw(url)
            };
            Config::check(&raw).expect("a configuration").tls
        };
        assert_eq!(tls("postgresql://u@h/d", None), Tls::Off);
        assert_eq!(tls("postgresql://u@h/d?sslmode=require", None), Tls::System);
        assert_eq!(tls("postgresql://u@h/d", Some("system")), Tls::System);
        assert_eq!(
            tls("postgresql://u@h/d", Some("/etc/ca.pem")),
            Tls::File(PathBuf::from("/etc/ca.pem"))
        );
        assert_eq!(tls("postgresql://u@h/d?sslmode=require", Some("off")), Tls::Off);
    }
}
