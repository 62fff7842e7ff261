//! The configuration of a Redis store, as it was checked.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use crate::error::StoreError;
use crate::server::{IDLE_MAX, RawConfig, Tls, WINDOW};

/// A configuration that can be used. `Debug` shows no password.
#[derive(Clone)]
pub struct Config {
    /// User, password and database.
    pub(super) session: RedisConnectionInfo,
    pub(super) host: String,
    pub(super) port: u16,
    /// Place of the server, for messages: host, port and database.
    pub address: String,
    /// How the server is trusted.
    pub tls: Tls,
    /// Connections that the gateway opens at most.
    pub pool_max: u32,
    /// Time that an unused connection stays open.
    pub idle_max: Duration,
    /// Time that deletes, and the answers to swaps, are remembered.
    pub window: Duration,
}

/// Connections when the configuration names no number: many calls share one.
const POOL_MAX_DEFAULT: u32 = 4;

const FORM: &str = "must be redis://[USER@]HOST[:PORT][/DATABASE], or rediss:// for TLS";

impl Config {
    /// Checks the entries; the credentials are the password. Errors name the entry, what is allowed
    /// and what to do.
    pub fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        let (plain, is_encrypted) = match raw.url.strip_prefix("rediss://") {
            Some(rest) => (format!("redis://{rest}"), true),
            None => (raw.url.clone(), false),
        };
        // The text may hold a password, so what is wrong with it is not repeated.
        let info = plain
            .into_connection_info()
            .map_err(|_| StoreError::invalid("url", FORM))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(StoreError::invalid("url", FORM));
        };
        let mut session = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = raw.password(session.password().is_some())? {
            session = session.set_password(password);
        }
        let database = match session.db() {
            0 => String::new(),
            number => format!("/{number}"),
        };
        Ok(Config {
            address: format!("{host}:{port}{database}"),
            host: host.clone(),
            port: *port,
            session,
            tls: raw.tls(is_encrypted),
            pool_max: raw.pool_max(POOL_MAX_DEFAULT)?,
            idle_max: IDLE_MAX,
            window: WINDOW,
        })
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
    use super::*;

    fn raw(url: &str) -> RawConfig {
        RawConfig {
            url: url.to_owned(),
            ..RawConfig::default()
        }
    }

    #[test]
    fn a_url_names_place_database_user_and_encryption_and_shows_no_password() {
        let config =
            Config::check(&raw("redis://prism:geheim@cache.internal:6380/3")).expect("a configuration");
        assert_eq!(config.address, "cache.internal:6380/3");
        assert_eq!(
            (config.session.username(), config.session.password()),
            (Some("prism"), Some("geheim"))
        );
        assert_eq!((config.session.db(), config.tls.clone()), (3, Tls::Off));
        assert!(!format!("{config:?} {}", config.address).contains("geheim"));
        let config = Config::check(&raw("rediss://cache")).expect("a configuration");
        assert_eq!((config.port, config.tls.clone()), (6379, Tls::System));
        assert_eq!(config.address, "cache:6379");
        let plain = RawConfig {
            tls: Some("off".to_owned()),
            ..raw("rediss://cache")
        };
        assert_eq!(Config::check(&plain).expect("a configuration").tls, Tls::Off);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy_and_not_repeated() {
        let reason = |raw: &RawConfig| Config::check(raw).expect_err("a refusal").to_string();
        for url in ["http://geheim", "geheim", "redis://", "unix:///tmp/geheim"] {
            let said = reason(&raw(url));
            assert!(
                said.starts_with("url: must be redis://") && !said.contains("geheim"),
                "{said}"
            );
        }
        let many = RawConfig {
            pool_max: Some(0),
            ..raw("redis://h")
        };
        assert_eq!(reason(&many), "pool_max: must be 1 to 1000, is 0");
        let missing = RawConfig {
            credentials_file: Some("/does/not/exist".into()),
            ..raw("redis://h")
        };
        assert!(reason(&missing).starts_with("credentials_file: /does/not/exist cannot be read"));
        let twice = RawConfig {
            url: "redis://:p@h".to_owned(),
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
            ..raw("redis://prism@h")
        };
        let config = Config::check(&raw).expect("a configuration");
        assert_eq!(config.session.password(), Some("geheim"));
    }
}
