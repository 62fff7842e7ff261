//! The section `stores:` of the configuration: stores in addition to the embedded one.
//!
//! ```yaml
//! stores:
//!   cache: {kind: memory}
//!   orders:
//!     kind: postgres
//!     url: postgresql://prism@db.internal:5432/orders
//!     credentials_file: /etc/prism/orders
//! ```
//!
//! Only the file names stores: an environment variable cannot name the entries of a map. A value
//! may hold `${VARIABLE}`, which stands for an environment variable. Configurations are always
//! printed with the reference, so a password from a variable or a file is never shown. A password
//! in the text itself is refused.

use std::fmt;
use std::path::PathBuf;

use prism_backends::{kind::StoreKind, server::RawConfig};

use crate::namespace::problem::{Problem, did_you_mean};
use crate::namespace::units::parse_duration;
use crate::namespace::yaml::{Node, Value};

/// The section's key.
pub(super) const SECTION: &str = "stores";
/// The name of the store that the key `embedded` makes.
pub const EMBEDDED: &str = "embedded";
/// Most entries of the section.
const STORES_MAX: usize = 64;
/// Longest name of a store, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// One store that the gateway may use. Every value has been checked.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Unique name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The kind, which has a driver in this version.
    pub kind: StoreKind,
    /// URL, or addresses with commas between them; `None` for kinds that have none. May hold a
    /// password.
    pub address: Option<String>,
    /// File with the store's credentials, `user:password` or a token.
    pub credentials_file: Option<PathBuf>,
    /// Whether the connection is encrypted, and who signs the server's certificate; `None`: as the
    /// URL demands.
    pub tls: Option<StoreTls>,
    /// Most connections of this gateway to it; `None`: the driver's default.
    pub pool_max: Option<u32>,
    /// When the server syncs what it acknowledges: `always` or a time, as it is configured itself;
    /// `None`: not said.
    pub sync_interval: Option<String>,
    /// Beginning of the names of what is made there; `None`: `prism`.
    pub prefix: Option<String>,
    /// Keys and values as written.
    written: Vec<(&'static str, String)>,
    /// Line of the file, for `config print`.
    line: u32,
}

impl fmt::Debug for StoreOptions {
    /// Shows the text as written, so that no secret of a variable gets into a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("StoreOptions");
        shown.field("name", &self.name);
        for (key, value) in &self.written {
            shown.field(key, value);
        }
        shown.finish()
    }
}

impl StoreOptions {
    /// A store without any setting, such as the embedded one.
    pub fn plain(name: &str, kind: StoreKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            address: None,
            credentials_file: None,
            tls: None,
            pool_max: None,
            sync_interval: None,
            prefix: None,
            written: vec![("kind", kind.name().to_owned())],
            line: 0,
        }
    }

    /// The entries for the driver of a server.
    pub fn raw(&self) -> RawConfig {
        RawConfig {
            url: self.address.clone().unwrap_or_default(),
            credentials_file: self.credentials_file.clone(),
            tls: self.tls.as_ref().map(StoreTls::entry),
            pool_max: self.pool_max,
            sync_interval: self.sync_interval.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// Keys and values as written.
    pub fn written(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.written.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// Whether the other is the same store with the same settings, at any place of the file.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let anywhere = |store: &Self| Self {
            line: 0,
            ..store.clone()
        };
        anywhere(self) == anywhere(other)
    }

    /// Line of the file, from 1; 0 without one.
    pub fn line(&self) -> u32 {
        self.line
    }
}

/// Encryption of a connection, and who signs the certificate of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTls {
    /// No encryption.
    Off,
    /// The roots of this system.
    System,
    /// The certificates of a file in PEM.
    File(PathBuf),
}

impl fmt::Display for StoreTls {
    /// The value as it is written in the configuration.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("false"),
            Self::System => formatter.write_str("true"),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

impl StoreTls {
    /// The entry of a PostgreSQL store.
    pub(crate) fn entry(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::System => "system".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

pub(super) const TLS_ALLOWED: &str =
    "true, false, or the path of a file with the certificates that sign the server's";

/// Reads a value of the key `tls`. A path has a slash or a dot, so that a misspelled word is none.
pub(super) fn tls(text: &str) -> Result<StoreTls, String> {
    match text {
        "true" => Ok(StoreTls::System),
        "false" => Ok(StoreTls::Off),
        path if path.contains(['/', '.']) && !path.contains('\0') => Ok(StoreTls::File(PathBuf::from(path))),
        _ => Err(format!("{text:?} is not known; allowed: {TLS_ALLOWED}")),
    }
}

/// One key of an entry.
struct EntryKey {
    name: &'static str,
    allowed: &'static str,
    /// Kinds that accept it.
    kinds: fn(StoreKind) -> bool,
    required: bool,
    set: fn(&mut StoreOptions, &str) -> Result<(), String>,
}

const URL: &str = "url";
const ADDRESS: &str = "address";

/// The keys in addition to `kind`.
const KEYS: [EntryKey; 7] = [
    EntryKey {
        name: URL,
        allowed: "a URL",
        kinds: |kind| scheme_of(kind).is_some(),
        required: true,
        set: |store, text| {
            check_url(store.kind, text)?;
            store.address = Some(text.to_owned());
            Ok(())
        },
    },
    EntryKey {
        name: ADDRESS,
        allowed: "addresses with ports such as broker-1:9092, with commas between them",
        kinds: |kind| kind == StoreKind::Kafka,
        required: true,
        set: |store, text| {
            for address in text.split(',') {
                check_address(address.trim())?;
            }
            store.address = Some(text.to_owned());
            Ok(())
        },
    },
    EntryKey {
        name: "credentials_file",
        allowed: "a path",
        kinds: is_remote,
        required: false,
        set: |store, text| {
            if text.is_empty() || text.contains('\0') {
                return Err("the path is empty or holds a NUL byte".to_owned());
            }
            store.credentials_file = Some(PathBuf::from(text));
            Ok(())
        },
    },
    EntryKey {
        name: "tls",
        allowed: TLS_ALLOWED,
        kinds: is_remote,
        required: false,
        set: |store, text| {
            store.tls = Some(tls(text)?);
            Ok(())
        },
    },
    EntryKey {
        name: "pool_max",
        allowed: "a whole number from 1 to 10000",
        kinds: is_remote,
        required: false,
        set: |store, text| match text.parse() {
            Ok(number @ 1..=10_000) => {
                store.pool_max = Some(number);
                Ok(())
            }
            _ => Err(format!(
                "{text:?} is not allowed; a whole number from 1 to 10000 is"
            )),
        },
    },
    EntryKey {
        name: "sync_interval",
        allowed: "always, or a time such as 1s, as the server's own configuration says",
        kinds: |kind| kind == StoreKind::Nats,
        required: false,
        set: |store, text| {
            if text != "always" && parse_duration(text).is_err() {
                return Err(format!(
                    "{text:?} is not allowed; always, or a time such as 1s is"
                ));
            }
            store.sync_interval = Some(text.to_owned());
            Ok(())
        },
    },
    EntryKey {
        name: "prefix",
        allowed: "up to 100 letters, digits and -",
        kinds: |kind| kind == StoreKind::Kafka,
        required: false,
        set: |store, text| {
            if text.is_empty()
                || !text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            {
                return Err(format!("{text:?} is not allowed; letters, digits and - are"));
            }
            store.prefix = Some(text.to_owned());
            Ok(())
        },
    },
];

fn is_remote(kind: StoreKind) -> bool {
    !matches!(kind, StoreKind::Memory | StoreKind::Sqlite)
}

/// The schemes of a kind's URL; `None` for kinds without one.
fn scheme_of(kind: StoreKind) -> Option<&'static [&'static str]> {
    match kind {
        StoreKind::Postgres => Some(&["postgresql", "postgres"]),
        StoreKind::Redis => Some(&["redis", "rediss"]),
        StoreKind::Nats => Some(&["nats", "tls"]),
        StoreKind::ClickHouse => Some(&["http", "https"]),
        StoreKind::Gremlin => Some(&["ws", "wss"]),
        StoreKind::Neo4j => Some(&["neo4j", "neo4j+s", "bolt", "bolt+s"]),
        StoreKind::Memory | StoreKind::Sqlite | StoreKind::Kafka => None,
    }
}

pub(super) fn check_url(kind: StoreKind, text: &str) -> Result<(), String> {
    let schemes = scheme_of(kind).unwrap_or_default();
    let found = text
        .split_once("://")
        .filter(|(scheme, rest)| schemes.contains(scheme) && !rest.is_empty() && !rest.starts_with('/'));
    match found {
        Some(_) if !text.contains(char::is_whitespace) => Ok(()),
        // The text may hold a secret, so it is not shown.
        _ => Err(format!(
            "this is not a URL of {}; allowed: {}://HOST:PORT and what the server needs after it",
            kind.title(),
            schemes.join(":// or ")
        )),
    }
}

fn check_address(text: &str) -> Result<(), String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains([' ', '/', '@']) && is_port(port) => Ok(()),
        _ => Err(format!(
            "{text:?} is not an address with a port; allowed: broker-1:9092 and the like"
        )),
    }
}

/// Whether a URL has a password in any form.
pub(super) fn names_password(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || text.contains("password=")
}

/// Whether the text of a URL contains a password.
fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else {
        return false;
    };
    let by_variable = |password: &str| password.starts_with("${") && password.ends_with('}');
    user.split_once(':')
        .is_some_and(|(_, password)| !password.is_empty() && !by_variable(password))
}

/// Reads the section. Its problems are pushed to `problems`.
pub(super) fn parse(
    node: &Node,
    variables: &[(String, String)],
    problems: &mut Vec<Problem>,
) -> Vec<StoreOptions> {
    let mut stores = Vec::new();
    let entries = match &node.value {
        Value::Null => return stores,
        Value::Map(entries) => entries,
        _ => {
            let what = format!(
                "names of stores with their keys are expected here, not {}",
                node.kind()
            );
            problems.push(Problem::new(SECTION, node.line, what));
            return stores;
        }
    };
    if entries.len() > STORES_MAX {
        let what = format!(
            "{} stores are configured; at most {STORES_MAX} are allowed",
            entries.len()
        );
        problems.push(Problem::new(SECTION, node.line, what));
        return stores;
    }
    for entry in entries {
        let path = format!("{SECTION}.{}", entry.key);
        if let Err(problem) = check_name(&entry.key) {
            problems.push(Problem {
                field: path,
                line: entry.line,
                ..problem
            });
            continue;
        }
        let mut parser = EntryParser {
            path: &path,
            variables,
            problems,
        };
        if let Some(mut store) = parser.parse(&entry.key, &entry.value) {
            store.line = entry.line;
            stores.push(store);
        }
    }
    stores
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name == EMBEDDED {
        let what = "this name is that of the store that the key `embedded` makes";
        return Err(Problem::new("", 0, what).suggest("give this store another name"));
    }
    let legal = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.as_bytes()[0].is_ascii_lowercase()
        && !name.ends_with('-');
    if legal {
        return Ok(());
    }
    let what = format!(
        "this is not a name for a store; allowed: 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, starting \
         with a letter and not ending with a hyphen"
    );
    Err(Problem::new("", 0, what))
}

/// Reads one entry.
struct EntryParser<'a> {
    path: &'a str,
    variables: &'a [(String, String)],
    problems: &'a mut Vec<Problem>,
}

impl EntryParser<'_> {
    fn parse(&mut self, name: &str, node: &Node) -> Option<StoreOptions> {
        let Value::Map(entries) = &node.value else {
            let what = format!("keys are expected here, at least `kind`, not {}", node.kind());
            self.push("", node.line, what, "");
            return None;
        };
        let kind = self.kind(node)?;
        let mut store = StoreOptions::plain(name, kind);
        let before = self.problems.len();
        for entry in entries.iter().filter(|entry| entry.key != "kind") {
            self.set(&mut store, &entry.key, &entry.value);
        }
        let known = KEYS.iter().filter(|key| (key.kinds)(kind));
        for key in known.filter(|key| key.required) {
            if !entries.iter().any(|entry| entry.key == key.name) {
                let what = format!("kind {} needs the key {}: {}", kind.name(), key.name, key.allowed);
                self.push("", node.line, what, "");
            }
        }
        if kind.offers().is_empty() {
            let drivers: Vec<_> = StoreKind::ALL
                .iter()
                .filter(|kind| !kind.offers().is_empty())
                .map(|kind| kind.name())
                .collect();
            let what = format!(
                "this version has no driver for {}; it has those for {}",
                kind.title(),
                drivers.join(" and ")
            );
            self.push("kind", node.line, what, "take the entry out");
        }
        (self.problems.len() == before).then_some(store)
    }

    fn kind(&mut self, node: &Node) -> Option<StoreKind> {
        let names = StoreKind::ALL.map(StoreKind::name);
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let Some(entry) = entries.iter().find(|entry| entry.key == "kind") else {
            let what = format!("the key kind is missing; one of {}", names.join(", "));
            self.push("", node.line, what, "");
            return None;
        };
        let Value::Scalar(text) = &entry.value.value else {
            let what = format!("a kind of store is expected here, not {}", entry.value.kind());
            self.push("kind", entry.line, what, "");
            return None;
        };
        let kind = StoreKind::of_name(text);
        if kind.is_none() {
            let what = format!("{text:?} is no kind of store; allowed: {}", names.join(", "));
            self.push("kind", entry.line, what, &did_you_mean(text, &names));
        }
        kind
    }

    fn set(&mut self, store: &mut StoreOptions, key: &str, node: &Node) {
        let kind = store.kind;
        let known: Vec<_> = KEYS.iter().filter(|key| (key.kinds)(kind)).collect();
        let Some(found) = known.iter().find(|known| known.name == key) else {
            let names: Vec<_> = known.iter().map(|key| key.name).collect();
            let allowed = match names.is_empty() {
                true => "it has none beside kind".to_owned(),
                false => format!("it has {}", names.join(", ")),
            };
            let what = format!("kind {} has no such key; {allowed}", kind.name());
            return self.push(key, node.line, what, &did_you_mean(key, &names));
        };
        let Value::Scalar(written) = &node.value else {
            let what = format!("{} is expected here, not {}", found.allowed, node.kind());
            return self.push(key, node.line, what, "");
        };
        if has_password(written) {
            return self.push(
                key,
                node.line,
                "a password is written out here, where everybody who sees the configuration sees it"
                    .to_owned(),
                "write ${VARIABLE} for it, or name a credentials_file",
            );
        }
        let set = fill_in(written, self.variables).and_then(|text| (found.set)(store, &text));
        match set {
            Ok(()) => store.written.push((found.name, written.clone())),
            Err(what) => self.push(key, node.line, what, ""),
        }
    }

    fn push(&mut self, key: &str, line: u32, what: String, suggestion: &str) {
        let field = match key {
            "" => self.path.to_owned(),
            key => format!("{}.{key}", self.path),
        };
        self.problems
            .push(Problem::new(field, line, what).suggest(suggestion));
    }
}

/// Replaces each `${VARIABLE}` in the text by its value.
fn fill_in(text: &str, variables: &[(String, String)]) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err("a \"${\" has no \"}\"; write ${VARIABLE}".to_owned());
        };
        let Some((_, value)) = variables.iter().find(|(known, _)| known == name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::yaml;

    /// The entry of one store, also of a kind without a driver, and its other problems.
    fn entry(text: &str) -> (Option<StoreOptions>, Vec<String>) {
        let variables = [("PASSWORD".to_owned(), "secret".to_owned())];
        let mut problems = Vec::new();
        let root = yaml::parse(text, &mut problems).unwrap();
        let stores = parse(&root, &variables, &mut problems);
        let said = problems
            .iter()
            .filter(|problem| !problem.description.contains("has no driver"))
            .map(|problem| format!("{}: {}", problem.field, problem.description))
            .collect();
        (stores.into_iter().next(), said)
    }

    /// The entry of a kind, as if this version had its driver.
    fn with_keys(kind: StoreKind, keys: &[(&str, &str)]) -> (StoreOptions, Vec<Problem>) {
        let variables = [("PASSWORD".to_owned(), "secret".to_owned())];
        let mut problems = Vec::new();
        let mut store = StoreOptions::plain("s", kind);
        let mut parser = EntryParser {
            path: "stores.s",
            variables: &variables,
            problems: &mut problems,
        };
        for (key, value) in keys {
            let node = Node {
                line: 1,
                value: Value::Scalar((*value).to_owned()),
            };
            parser.set(&mut store, key, &node);
        }
        (store, problems)
    }

    #[test]
    fn a_variable_stands_for_its_value_and_is_shown_as_itself() {
        let keys = [
            ("url", "postgresql://prism:${PASSWORD}@db:5432/orders"),
            ("credentials_file", "/etc/prism/orders"),
            ("tls", "true"),
            ("pool_max", "20"),
        ];
        let (store, problems) = with_keys(StoreKind::Postgres, &keys);
        assert_eq!(problems, []);
        assert_eq!(
            store.address.as_deref(),
            Some("postgresql://prism:secret@db:5432/orders")
        );
        assert_eq!((&store.tls, store.pool_max), (&Some(StoreTls::System), Some(20)));
        assert_eq!(store.credentials_file, Some(PathBuf::from("/etc/prism/orders")));
        let shown = format!("{store:?}");
        assert!(
            shown.contains("${PASSWORD}") && !shown.contains("secret"),
            "{shown}"
        );
        assert!(store.written().any(|written| written == keys[0]));
    }

    #[test]
    fn secrets_that_are_written_out_are_refused_and_not_repeated() {
        for url in [
            "postgresql://prism:hunter2@db/x",
            "postgresql://prism:x${PASSWORD}hunter2@db",
        ] {
            let (store, problems) = with_keys(StoreKind::Postgres, &[("url", url)]);
            assert_eq!(store.address, None);
            let said = format!("{}", problems[0]);
            assert!(
                said.contains("a password is written out") && !said.contains("hunter2"),
                "{said}"
            );
            assert!(said.contains("credentials_file"), "{said}");
        }
        let (_, problems) = with_keys(StoreKind::Redis, &[("url", "hunter2")]);
        assert!(!problems[0].description.contains("hunter2"), "{}", problems[0]);
    }

    #[test]
    fn values_are_checked_by_kind() {
        let said = |kind, key: &str, value: &str| {
            let (_, problems) = with_keys(kind, &[(key, value)]);
            problems.first().map_or(String::new(), ToString::to_string)
        };
        for (kind, key, value) in [
            (StoreKind::Postgres, "url", "postgres://a"),
            (StoreKind::Redis, "url", "rediss://a:1"),
            (StoreKind::Nats, "url", "nats://a:4222"),
            (StoreKind::ClickHouse, "url", "http://a:8123"),
            (StoreKind::Gremlin, "url", "wss://a:8182/gremlin"),
            (StoreKind::Neo4j, "url", "neo4j+s://a"),
            (StoreKind::Kafka, "address", "a:9092, b:9092"),
        ] {
            assert_eq!(said(kind, key, value), "", "{value}");
        }
        for (kind, key, value, wanted) in [
            (
                StoreKind::Postgres,
                "url",
                "mysql://a",
                "allowed: postgresql:// or postgres://HOST:PORT",
            ),
            (StoreKind::Postgres, "url", "postgresql://", "is not a URL"),
            (
                StoreKind::Postgres,
                "address",
                "a:1",
                "kind postgres has no such key; it has url, credentials_file, tls, pool_max",
            ),
            (StoreKind::Postgres, "poolmax", "1", "did you mean \"pool_max\"?"),
            (
                StoreKind::Kafka,
                "address",
                "a:9092,b",
                "\"b\" is not an address with a port",
            ),
            (StoreKind::Kafka, "address", "a:0", "is not an address"),
            (
                StoreKind::Redis,
                "tls",
                "yes",
                "allowed: true, false, or the path of a file",
            ),
            (StoreKind::Redis, "pool_max", "0", "from 1 to 10000"),
            (StoreKind::Redis, "credentials_file", "", "the path is empty"),
            (
                StoreKind::Redis,
                "credentials_file",
                "${NOBODY}",
                "the environment variable NOBODY is not set",
            ),
            (StoreKind::Redis, "credentials_file", "${PASSWORD", "has no \"}\""),
        ] {
            let found = said(kind, key, value);
            assert!(found.contains(wanted), "{found}");
        }
    }

    #[test]
    fn what_a_kind_needs_must_be_there() {
        assert_eq!(
            entry("s: {kind: kafka}\n"),
            (
                None,
                vec!["stores.s: kind kafka needs the key address: addresses with ports such as broker-1:9092, with commas between them".to_owned()]
            )
        );
        let (store, said) = entry("s: {kind: memory}\n");
        assert_eq!((store.map(|store| store.line()), said), (Some(1), Vec::new()));
    }
}
