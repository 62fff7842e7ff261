//! Contents of a namespace file, once checked: types that cannot hold an illegal value.
//!
//! Also [`unsupported`]: what is legal to ask for and cannot be created by this version yet. That
//! is apart from validation on purpose: a file that will work one day is not a wrong file.

use std::fmt;
use std::time::Duration;

use prism_backends::api::queue::Terms;
use prism_codec::method::Api;

use super::problem::Problem;
use super::terms::RETENTION_MS;

/// Declares an enum whose values have one spelling in namespace files.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every spelling, in the order of the documentation.
            pub const ALLOWED: &'static [&'static str] = &[$($text,)+];

            /// The spelling in namespace files.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value spelled exactly so.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// Which service a namespace is used through.
    ClientApi {
        /// Store and retrieve by key.
        KeyValue = "keyvalue",
        /// Publish and subscribe.
        PubSub = "pubsub",
        /// Work items.
        Queue = "queue",
        /// Read-only queries.
        Reader = "reader",
        /// Atomic multi-operation transactions.
        Transact = "transact",
        /// Append-only streams with time.
        TimeSeries = "timeseries",
        /// Nodes and edges.
        Graph = "graph",
    }
}

choice! {
    /// When a write is acknowledged.
    Durability {
        /// When it is in the gateway's log on disk.
        Strong = "strong",
        /// When the store has it.
        Eventual = "eventual",
        /// At once, or when the store has it in memory.
        BestEffort = "best-effort",
    }
}

choice! {
    /// Freshness that reads promise.
    Consistency {
        /// Every acknowledged write.
        Strong = "strong",
        /// Sooner or later every write.
        Eventual = "eventual",
        /// No older than a bound.
        BoundedStaleness = "bounded_staleness",
    }
}

choice! {
    /// Right of a consumer.
    Permission {
        /// Get, scan, subscribe, consume, query.
        Read = "read",
        /// Put, publish, send, append, commit.
        Write = "write",
        /// Everything, and changes of the configuration.
        Admin = "admin",
    }
}

choice! {
    /// A policy that is on or off.
    Switch {
        /// On.
        Enabled = "enabled",
        /// Off.
        Disabled = "disabled",
    }
}

choice! {
    /// A compliance standard whose controls apply.
    Compliance {
        /// Payment cards.
        Pci = "pci",
        /// Health data in the US.
        Hipaa = "hipaa",
        /// Personal data in the EU.
        Gdpr = "gdpr",
        /// Financial reporting in the US.
        Sox = "sox",
    }
}

/// A legal namespace file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// 1 to 63 bytes: lower-case letters, digits and hyphens; starts with a letter, does not end
    /// with a hyphen.
    pub name: String,
    /// The owning team; where the file has no `team`, the first of `access.owners`; where it has
    /// neither, empty.
    pub team: String,
    /// The service it is used through.
    pub client_api: ClientApi,
    /// Capacity and promises.
    pub needs: Needs,
    /// Who may use it.
    pub access: Access,
    /// Duties with the data.
    pub policies: Policies,
}

/// Capacity and promises, as far as the file declares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Peak writes a second, at least 1.
    pub write_rps: Option<u64>,
    /// Peak reads a second, at least 1.
    pub read_rps: Option<u64>,
    /// Expected data in bytes, at least 1.
    pub data_size: Option<u64>,
    /// How long data is kept, at least a second.
    pub retention: Option<Duration>,
    /// As declared; see [`NamespaceConfig::durability`].
    pub durability: Option<Durability>,
    /// Messages keep their order.
    pub ordered: Option<bool>,
    /// Freshness that reads promise.
    pub consistency: Option<Consistency>,
    /// Largest value or message in bytes, at least 1.
    pub max_message_size: Option<u64>,
    /// Life of an item that brings none of its own; at least a second, at most `retention`.
    pub ttl: Option<Duration>,
    /// Old messages can be read again.
    pub replay: Option<bool>,
}

/// Who may use a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Owning teams, each once.
    pub owners: Vec<String>,
    /// Services, each once.
    pub consumers: Vec<Consumer>,
}

/// One service that may use a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The service's identity.
    pub service: String,
    /// At least one, each once. A consumer without `permissions` may read and nothing else.
    pub permissions: Vec<Permission>,
}

/// Duties with the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Marked personal data is encrypted and masked.
    pub pii_handling: Option<Switch>,
    /// Every access is written to the audit file.
    pub audit_logging: Option<Switch>,
    /// Standards whose controls apply, each once.
    pub compliance: Vec<Compliance>,
}

impl NamespaceConfig {
    /// The durability that holds: undeclared means `strong`, since nobody should lose data by
    /// leaving a line out.
    pub fn durability(&self) -> Durability {
        self.needs.durability.unwrap_or(Durability::Strong)
    }

    /// Life of an item that is written without one of its own: `ttl`, or else `retention`, or else
    /// without end. A message lives for the shorter of both, and for 7 days where neither is
    /// declared.
    pub fn item_ttl(&self) -> Option<Duration> {
        let (ttl, retention) = (self.needs.ttl, self.needs.retention);
        match self.client_api {
            ClientApi::PubSub => {
                let retention = retention.unwrap_or(MESSAGE_RETENTION);
                Some(ttl.map_or(retention, |ttl| ttl.min(retention)))
            }
            _ => ttl.or(retention),
        }
    }

    /// The terms of a queue's messages, for each that is sent from now on.
    pub(crate) fn queue_terms(&self) -> Terms {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Terms {
            ordered: self.needs.ordered == Some(true),
            replay: self.needs.replay == Some(true),
            ttl_ms: self.needs.ttl.map(millis),
            retention_ms: self.needs.retention.map_or(RETENTION_MS, millis),
        }
    }
}

impl ClientApi {
    /// The service that takes its calls, if this version has one.
    pub fn service(self) -> Option<Api> {
        match self {
            Self::KeyValue => Some(Api::KeyValue),
            Self::PubSub => Some(Api::PubSub),
            Self::Queue => Some(Api::Queue),
            _ => None,
        }
    }
}

/// Features that a legal configuration asks for and this version lacks, one entry each; empty if it
/// can be created.
///
/// Each description says what does not work and each suggestion what works today.
pub fn unsupported(config: &NamespaceConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut refuse = |field: &str, what: String, instead: &str| {
        found.push(Problem::new(field, 0, what).suggest(instead));
    };
    if config.client_api.service().is_none() {
        let what = format!("client_api {} cannot be created yet", config.client_api);
        refuse(
            "client_api",
            what,
            "this version serves client_api: keyvalue, pubsub and queue",
        );
    }
    let policies = [
        ("pii_handling", policies_on(config.policies.pii_handling)),
        ("audit_logging", policies_on(config.policies.audit_logging)),
    ];
    for (name, _) in policies.iter().filter(|(_, on)| *on) {
        let what = format!("{name} is not done yet, and pretending would be worse than refusing");
        refuse(
            &format!("policies.{name}"),
            what,
            "leave the line out, and do not store such data yet",
        );
    }
    if let Some(standard) = config.policies.compliance.first() {
        let what = format!("the controls of compliance {standard} are not there yet");
        refuse(
            "policies.compliance",
            what,
            "leave the line out, and do not store such data yet",
        );
    }
    found
}

fn policies_on(switch: Option<Switch>) -> bool {
    switch == Some(Switch::Enabled)
}

/// Why `name` is not a legal namespace name; `Ok` if it is.
///
/// # Errors
/// What is wrong and what is allowed, with a legal name that is near as the suggestion where there
/// is one.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let legal = |name: &str| {
        (1..=NAME_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && name.as_bytes()[0].is_ascii_lowercase()
            && !name.ends_with('-')
    };
    if legal(name) {
        return Ok(());
    }
    let mut shown: String = name.chars().take(80).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let what = format!(
        "{shown:?} is not a name for a namespace; allowed: 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, \
         starting with a letter and not ending with a hyphen"
    );
    let near: String = name
        .to_lowercase()
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let near = near.trim_matches(|letter: char| letter == '-');
    let suggestion = if legal(near) {
        format!("did you mean \"{near}\"?")
    } else {
        String::new()
    };
    Err(Problem::new("namespace", 0, what).suggest(suggestion))
}

/// How long messages are kept where the namespace does not say.
pub const MESSAGE_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Longest name of a namespace; it fits every store's identifiers.
pub const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "user-sessions", "a1", "x--y", &"n".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a_b",
            "ä",
            "a.b",
            &"n".repeat(64),
            "a b",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_name("User_Sessions").unwrap_err().suggestion,
            "did you mean \"user-sessions\"?"
        );
        assert!(check_name(&"x".repeat(1 << 20)).unwrap_err().description.len() < 400);
    }

    #[test]
    fn spellings_are_complete() {
        for text in ClientApi::ALLOWED {
            assert_eq!(ClientApi::parse(text).map(ClientApi::as_str), Some(*text));
        }
        assert_eq!(Durability::parse("best_effort"), None);
    }
}
