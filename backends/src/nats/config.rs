//! The configuration of a NATS store, as it was checked.

use std::fmt;

use async_nats::ServerAddr;

use crate::error::StoreError;
use crate::server::{RawConfig, Tls};

/// A configuration that can be used. `Debug` shows no secret.
#[derive(Clone)]
pub struct Config {
    pub(super) server: ServerAddr,
    pub(super) credentials: Credentials,
    /// Place of the server, for messages: host and port.
    pub address: String,
    /// How the server is trusted.
    pub tls: Tls,
    /// Connections that the gateway opens at most: one for each shard.
    pub pool_max: u32,
    /// Whether the server syncs a message before it acknowledges it.
    pub syncs_always: bool,
}

/// The way in which the server knows the gateway.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    UserAndPassword(String, String),
    Token(String),
    /// Seed of an nkey.
    Seed(String),
    /// The text of a file with a JWT and its seed.
    File(String),
}

/// Connections when the configuration names no number. Calls of a shard share one.
const POOL_MAX_DEFAULT: u32 = 64;

const FORM: &str = "must be nats://[USER:PASSWORD@]HOST[:PORT], or tls:// for TLS";

impl Config {
    /// Checks the entries; the credentials are `user:password`, a token, the seed of an nkey or the
    /// text of a creds file. Errors name the entry, what is allowed and what to do.
    pub fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        let is_encrypted = raw.url.starts_with("tls://");
        let is_known = is_encrypted || raw.url.starts_with("nats://");
        // The text may hold a password, so what is wrong with it is not repeated.
        let server: Option<ServerAddr> = raw.url.parse().ok().filter(|_| is_known);
        let server = server.filter(|server| !server.host().is_empty());
        let Some(server) = server else {
            return Err(StoreError::invalid("url", FORM));
        };
        let text = |text: &str| text.to_owned();
        let in_url = match (server.username(), server.password()) {
            (None, _) => Credentials::None,
            (Some(user), Some(password)) => Credentials::UserAndPassword(text(user), text(password)),
            (Some(token), None) => Credentials::Token(text(token)),
        };
        let credentials = match raw.password(in_url != Credentials::None)? {
            None => in_url,
            Some(content) => Credentials::of(content),
        };
        let syncs_always = match raw.sync_interval.as_deref() {
            Some("always") => true,
            None => false,
            Some(time) if is_time(time) => false,
            Some(_) => {
                let reason = "must be always, or a time such as 1s, as the server's own configuration says";
                return Err(StoreError::invalid("sync_interval", reason));
            }
        };
        Ok(Config {
            address: format!("{}:{}", server.host(), server.port()),
            server,
            credentials,
            tls: raw.tls(is_encrypted),
            pool_max: raw.pool_max(POOL_MAX_DEFAULT)?,
            syncs_always,
        })
    }
}

impl Credentials {
    /// Credentials in a file's content.
    fn of(content: String) -> Credentials {
        if content.contains("BEGIN NATS USER JWT") {
            return Credentials::File(content);
        }
        let is_seed = content.starts_with("SU") && content.len() == SEED_LENGTH;
        match content.split_once(':') {
            Some((user, password)) => Credentials::UserAndPassword(user.to_owned(), password.to_owned()),
            None if is_seed => Credentials::Seed(content),
            None => Credentials::Token(content),
        }
    }
}

/// Characters of an nkey's seed.
const SEED_LENGTH: usize = 58;

fn is_time(text: &str) -> bool {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    number.len() < text.len() && number.parse::<u32>().is_ok()
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("address", &self.address)
            .field("tls", &self.tls)
            .field("pool_max", &self.pool_max)
            .field("syncs_always", &self.syncs_always)
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
    fn a_url_names_place_user_and_encryption_and_shows_no_password() {
        let config = Config::check(&raw("nats://prism:geheim@bus.internal:4223")).expect("a configuration");
        assert_eq!(config.address, "bus.internal:4223");
        assert!(config.credentials == Credentials::UserAndPassword("prism".to_owned(), "geheim".to_owned()));
        assert_eq!((config.tls.clone(), config.syncs_always), (Tls::Off, false));
        assert!(!format!("{config:?} {}", config.address).contains("geheim"));
        let config = Config::check(&raw("tls://bus")).expect("a configuration");
        assert_eq!((&*config.address, config.tls), ("bus:4222", Tls::System));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy_and_not_repeated() {
        let reason = |raw: &RawConfig| Config::check(raw).expect_err("a refusal").to_string();
        for url in ["http://geheim", "geheim", "nats://", "nats://h:geheim"] {
            let said = reason(&raw(url));
            assert!(
                said.starts_with("url: must be nats://") && !said.contains("geheim"),
                "{said}"
            );
        }
        let synced = |text: &str| RawConfig {
            sync_interval: Some(text.to_owned()),
            ..raw("nats://h")
        };
        for wrong in ["", "never", "s", "1"] {
            assert!(
                reason(&synced(wrong)).starts_with("sync_interval: must be always"),
                "{wrong}"
            );
        }
        for (right, always) in [("always", true), ("1s", false), ("2m", false)] {
            let config = Config::check(&synced(right)).expect("a configuration");
            assert_eq!(config.syncs_always, always, "{right}");
        }
    }

    #[test]
    fn credentials_come_from_their_file_in_each_form() {
        let directory = tempfile::tempdir().expect("a directory");
        let seed = format!("SU{}", "A".repeat(SEED_LENGTH - 2));
        let file = "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------";
        let cases = [
            (
                "u:p:q\n",
                Credentials::UserAndPassword("u".to_owned(), "p:q".to_owned()),
            ),
            ("a-token\n", Credentials::Token("a-token".to_owned())),
            (&seed, Credentials::Seed(seed.clone())),
            (file, Credentials::File(file.to_owned())),
        ];
        for (content, expected) in cases {
            let path = directory.path().join("credentials");
            std::fs::write(&path, content).expect("a file");
            let raw = RawConfig {
                credentials_file: Some(path),
                ..raw("nats://h")
            };
            assert!(
                Config::check(&raw).expect("a configuration").credentials == expected,
                "{content}"
            );
        }
    }
}
