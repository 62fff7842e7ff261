//! The configuration of a Kafka store, as it was checked.

use std::fmt;

use rdkafka::ClientConfig;

use crate::error::StoreError;
use crate::server::{RawConfig, Tls};

/// A configuration that can be used. `Debug` shows no secret.
#[derive(Clone)]
pub struct Config {
    /// The brokers that are asked first: hosts and ports, with commas between them.
    pub address: String,
    credentials: Option<Credentials>,
    /// Name of the topic of the marks, and the beginning of all others.
    pub(super) prefix: String,
    /// How the brokers are trusted.
    pub tls: Tls,
    /// Clients that the gateway has at most: one for each shard.
    pub pool_max: u32,
}

/// The way in which the brokers know the gateway.
#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    mechanism: &'static str,
    user: String,
    password: String,
}

/// Ways to prove a password.
const MECHANISMS: [&str; 3] = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"];

/// Clients when the configuration names no number. Calls of a shard share one.
const POOL_MAX_DEFAULT: u32 = 64;

/// Longest time that a broker may take to answer one request.
const SOCKET_TIMEOUT_MS: &str = "10000";

/// Largest message with its headers that a client sends.
pub(super) const MESSAGE_BYTES_MAX: &str = "18000000";

impl Config {
    /// Checks the entries. The credentials are `user:password`, with a mechanism and a space before
    /// it if it is not SCRAM-SHA-512. Errors name the entry, what is allowed and what to do.
    pub fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        let addresses: Vec<&str> = raw.url.split(',').map(str::trim).collect();
        let is_place = |text: &&str| {
            let parts = text.rsplit_once(':');
            parts.is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if !addresses.iter().all(is_place) {
            let form = "must be addresses with ports such as broker-1:9092, with commas between them";
            return Err(StoreError::invalid("address", form));
        }
        let credentials = raw
            .password(false)?
            .map(|text| Credentials::of(&text))
            .transpose()?;
        Ok(Config {
            address: addresses.join(","),
            credentials,
            prefix: prefix(raw.prefix.as_deref())?,
            tls: raw.tls(false),
            pool_max: raw.pool_max(POOL_MAX_DEFAULT)?,
        })
    }

    /// Settings of a client of any purpose.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("client.id", "prism")
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // A connection that nobody used for long is no loss.
            .set("log.connection.close", "false");
        let is_encrypted = self.tls != Tls::Off;
        if let Tls::File(path) = &self.tls {
            config.set("ssl.ca.location", path.display().to_string());
        }
        let protocol = match (is_encrypted, &self.credentials) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(known) = &self.credentials {
            config
                .set("sasl.mechanisms", known.mechanism)
                .set("sasl.username", &known.user)
                .set("sasl.password", &known.password);
        }
        config
    }
}

/// Prefix without an entry, and the longest one.
const PREFIX_DEFAULT: &str = "prism";
const PREFIX_LENGTH_MAX: usize = 100;

fn prefix(text: Option<&str>) -> Result<String, StoreError> {
    let text = text.unwrap_or(PREFIX_DEFAULT);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match (1..=PREFIX_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => Err(StoreError::invalid(
            "prefix",
            format!("must be 1 to {PREFIX_LENGTH_MAX} letters, digits and -"),
        )),
    }
}

impl Credentials {
    /// Credentials in a file's content.
    fn of(content: &str) -> Result<Credentials, StoreError> {
        let named = MECHANISMS.iter().find_map(|mechanism| {
            let rest = content.strip_prefix(mechanism)?.strip_prefix(' ')?;
            Some((*mechanism, rest))
        });
        let (mechanism, rest) = named.unwrap_or((MECHANISMS[0], content));
        match rest.split_once(':') {
            Some((user, password)) if !user.is_empty() && !content.contains('\0') => Ok(Credentials {
                mechanism,
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err(StoreError::invalid(
                "credentials_file",
                format!(
                    "must hold user:password, or one of {} and a space before it",
                    MECHANISMS.join(", ")
                ),
            )),
        }
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

    fn raw(address: &str) -> RawConfig {
        RawConfig {
            url: address.to_owned(),
            ..RawConfig::default()
        }
    }

    #[test]
    fn addresses_have_ports_and_wrong_ones_are_refused_with_the_form() {
        let config = Config::check(&raw("a:9092, b:9093")).expect("a configuration");
        assert_eq!((&*config.address, config.tls), ("a:9092,b:9093", Tls::Off));
        for wrong in ["", "a", "a:0", "a:9092,", ":9092"] {
            let said = Config::check(&raw(wrong)).expect_err("a refusal").to_string();
            assert!(
                said.starts_with("address: must be addresses with ports"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_prefix_is_what_a_topic_may_begin_with() {
        let with = |prefix: &str| {
            Config::check(&RawConfig {
                prefix: Some(prefix.to_owned()),
                ..raw("a:9092")
            })
        };
        assert_eq!(
            Config::check(&raw("a:9092")).expect("a configuration").prefix,
            "prism"
        );
        assert_eq!(with("team-7").expect("a configuration").prefix, "team-7");
        for wrong in ["", "a b", "a/b", "a_b", &"a".repeat(101)] {
            let said = with(wrong).expect_err("a refusal").to_string();
            assert!(said.starts_with("prefix: must be 1 to 100"), "{said}");
        }
    }

    #[test]
    fn credentials_come_from_their_file_and_are_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        let checked = |content: &str, tls: Option<&str>| {
            std::fs::write(&path, content).expect("a file");
            Config::check(&RawConfig {
                credentials_file: Some(path.clone()),
                tls: tls.map(str::to_owned),
                ..raw("a:9092")
            })
        };
        let config = checked("prism:ge:heim\n", Some("system")).expect("a configuration");
        assert!(!format!("{config:?}").contains("heim"));
        let client = config.client();
        let of = |name| client.get(name);
        assert_eq!(of("security.protocol"), Some("sasl_ssl"));
        assert_eq!(of("sasl.mechanisms"), Some("SCRAM-SHA-512"));
        assert_eq!(
            (of("sasl.username"), of("sasl.password")),
            (Some("prism"), Some("ge:heim"))
        );
        let config = checked("PLAIN prism:geheim", None).expect("a configuration");
        assert_eq!(config.client().get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(config.client().get("sasl.mechanisms"), Some("PLAIN"));
        let said = checked("geheim", None).expect_err("a refusal").to_string();
        assert!(
            said.starts_with("credentials_file: must hold user:password") && !said.contains("geheim"),
            "{said}"
        );
    }
}
