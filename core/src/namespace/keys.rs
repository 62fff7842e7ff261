//! The keys of a namespace file: one table, from which the reader takes what is allowed where, a
//! plan its differences, and editors their JSON Schema ([`super::schema`]).

use super::{
    model::{ClientApi, Compliance, Consistency, Durability, NamespaceConfig, Permission, Switch},
    units::{format_duration, format_size},
};

/// The form of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The name of a namespace.
    Name,
    /// The name of a team or service.
    Identity,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words, or a list of them.
    OneOrMany(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// Operations a second.
    Rate,
    /// Bytes with a unit.
    Size,
    /// A time with a unit.
    Duration,
    /// `true` or `false`.
    Boolean,
    /// A map of the keys whose paths begin with this one's.
    Map,
    /// A list of such maps; the paths of their keys begin with this one's and `[]`.
    List,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The path, for example `needs.write_rps` or `access.owners[].team`.
    pub path: &'static str,
    /// The name for people, for example `Write RPS`.
    pub title: &'static str,
    /// The form of the value.
    pub form: Form,
    /// Whether the map that it belongs to must have it.
    pub is_required: bool,
    /// Meaning and default, for editors.
    pub doc: &'static str,
    /// The value that a configuration has, in the spelling of a file; `None` where it has none, or
    /// the key is one of a list's.
    pub show: fn(&NamespaceConfig) -> Option<String>,
}

const fn key(
    path: &'static str,
    title: &'static str,
    form: Form,
    doc: &'static str,
    show: fn(&NamespaceConfig) -> Option<String>,
) -> Key {
    Key {
        path,
        title,
        form,
        is_required: false,
        doc,
        show,
    }
}

const fn required(key: Key) -> Key {
    Key {
        is_required: true,
        ..key
    }
}

fn none(_: &NamespaceConfig) -> Option<String> {
    None
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// All keys, each map's together, in the order of the documentation.
pub const KEYS: &[Key] = &[
    required(key(
        "namespace",
        "Namespace",
        Form::Name,
        "Name of the namespace: 1 to 63 lower-case letters, digits and hyphens.",
        |config| some(&config.name),
    )),
    key(
        "team",
        "Team",
        Form::Identity,
        "The owning team; default: the first of access.owners.",
        |config| some(&config.team),
    ),
    required(key(
        "client_api",
        "Client API",
        Form::Choice(ClientApi::ALLOWED),
        "The API through which it is used; fixed for its life.",
        |config| some(config.client_api.as_str()),
    )),
    key("needs", "Needs", Form::Map, "Capacity and promises.", none),
    key("access", "Access", Form::Map, "Who may use it.", none),
    key("policies", "Policies", Form::Map, "Duties with the data.", none),
    key(
        "needs.write_rps",
        "Write RPS",
        Form::Rate,
        "Peak writes a second.",
        |config| config.needs.write_rps.map(|rate| rate.to_string()),
    ),
    key(
        "needs.read_rps",
        "Read RPS",
        Form::Rate,
        "Peak reads a second.",
        |config| config.needs.read_rps.map(|rate| rate.to_string()),
    ),
    key(
        "needs.data_size",
        "Data size",
        Form::Size,
        "Expected size of all data, such as 10GB.",
        |config| config.needs.data_size.map(format_size),
    ),
    key(
        "needs.retention",
        "Retention",
        Form::Duration,
        "How long data is kept, such as 7days. Default: messages 7days, items until they are deleted.",
        |config| config.needs.retention.map(format_duration),
    ),
    key(
        "needs.durability",
        "Durability",
        Form::Choice(Durability::ALLOWED),
        "When a write is acknowledged. Default: strong.",
        |config| {
            let durability = config.needs.durability?;
            some(durability.as_str())
        },
    ),
    key(
        "needs.ordered",
        "Ordered",
        Form::Boolean,
        "Whether messages keep their order. Default: false.",
        |config| config.needs.ordered.map(|on| on.to_string()),
    ),
    key(
        "needs.consistency",
        "Consistency",
        Form::Choice(Consistency::ALLOWED),
        "Freshness that reads promise.",
        |config| {
            let consistency = config.needs.consistency?;
            some(consistency.as_str())
        },
    ),
    key(
        "needs.max_message_size",
        "Message size",
        Form::Size,
        "Largest value or message, such as 100KB.",
        |config| config.needs.max_message_size.map(format_size),
    ),
    key(
        "needs.ttl",
        "TTL",
        Form::Duration,
        "Life of an item that is written without one of its own; at most the retention.",
        |config| config.needs.ttl.map(format_duration),
    ),
    key(
        "needs.replay",
        "Replay",
        Form::Boolean,
        "Whether messages can be read again; needs a retention.",
        |config| config.needs.replay.map(|on| on.to_string()),
    ),
    key("access.owners", "Owners", Form::List, "Owning teams.", |config| {
        some(&config.access.owners.join(", "))
    }),
    key(
        "access.consumers",
        "Consumers",
        Form::List,
        "Services that may use it.",
        consumers,
    ),
    required(key(
        "access.owners[].team",
        "Team",
        Form::Identity,
        "Name of a team.",
        none,
    )),
    required(key(
        "access.consumers[].service",
        "Service",
        Form::Identity,
        "Name of a service.",
        none,
    )),
    key(
        "access.consumers[].permissions",
        "Permissions",
        Form::Choices(Permission::ALLOWED),
        "What the service may do. Default: [read].",
        none,
    ),
    key(
        "policies.pii_handling",
        "PII handling",
        Form::Choice(Switch::ALLOWED),
        "Whether marked personal data is encrypted and masked.",
        |config| {
            let switch = config.policies.pii_handling?;
            some(switch.as_str())
        },
    ),
    key(
        "policies.audit_logging",
        "Audit logging",
        Form::Choice(Switch::ALLOWED),
        "Whether every access is written to the audit file.",
        |config| {
            let switch = config.policies.audit_logging?;
            some(switch.as_str())
        },
    ),
    key(
        "policies.compliance",
        "Compliance",
        Form::OneOrMany(Compliance::ALLOWED),
        "Standards whose controls apply.",
        |config| {
            let standards = &config.policies.compliance;
            let names: Vec<_> = standards.iter().map(|standard| standard.as_str()).collect();
            some(&names.join(", "))
        },
    ),
];

/// Consumers with their permissions: `web (read, write), jobs (read)`.
fn consumers(config: &NamespaceConfig) -> Option<String> {
    let show = |consumer: &super::model::Consumer| {
        let permissions: Vec<_> = consumer.permissions.iter().map(|one| one.as_str()).collect();
        format!("{} ({})", consumer.service, permissions.join(", "))
    };
    let all: Vec<_> = config.access.consumers.iter().map(show).collect();
    some(&all.join(", "))
}

/// The keys of the map at a path, which may hold indexes, such as `access.owners[3]`; empty: the
/// file itself.
pub fn keys_of(path: &str) -> impl Iterator<Item = (&'static str, &'static Key)> {
    let map = without_indexes(path);
    KEYS.iter().filter_map(move |key| {
        let (home, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        (home == map).then_some((name, key))
    })
}

/// The path of the map to which a key of this name belongs, if one has such a key.
pub(super) fn home_of(name: &str) -> Option<&'static str> {
    KEYS.iter().find_map(|key| {
        let (home, known) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        (known == name).then_some(home)
    })
}

/// `access.owners[3]` as `access.owners[]`.
fn without_indexes(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut is_inside = false;
    for letter in path.chars() {
        is_inside &= letter != ']';
        if !is_inside {
            plain.push(letter);
        }
        is_inside |= letter == '[';
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::namespace::file::{FileLimits, parse};

    /// A file with one key set to a value, and what else it then needs.
    fn file(key: &Key, value: &str) -> String {
        let api = match key.path {
            "needs.ordered" | "needs.replay" => "pubsub",
            _ => "keyvalue",
        };
        let mut lines = vec![format!("namespace: a\nclient_api: {api}")];
        match key.path.split_once('.') {
            None if key.is_required => {
                lines[0] = lines[0]
                    .lines()
                    .map(|line| match line.starts_with(key.path) {
                        true => format!("{}: {value}", key.path),
                        false => line.to_owned(),
                    })
                    .collect::<Vec<_>>()
                    .join("\n");
            }
            None => lines.push(format!("{}: {value}", key.path)),
            Some(("access", "owners[].team")) => {
                lines.push(format!("access: {{owners: [{{team: {value}}}]}}"))
            }
            Some(("access", "consumers[].service")) => {
                lines.push(format!("access: {{consumers: [{{service: {value}}}]}}"));
            }
            Some(("access", "consumers[].permissions")) => {
                lines.push(format!(
                    "access: {{consumers: [{{service: a, permissions: {value}}}]}}"
                ));
            }
            Some(("needs", "replay")) => lines.push(format!("needs: {{retention: 1day, replay: {value}}}")),
            Some((map, name)) => lines.push(format!("{map}: {{{name}: {value}}}")),
        }
        lines.join("\n") + "\n"
    }

    fn good_and_bad(form: Form) -> (Vec<String>, Vec<&'static str>) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match form {
            Form::Name => (words(&["web-1"]), vec!["Web", "[a]"]),
            Form::Identity => (words(&["web", "'Web:1'"]), vec!["'a b'", "[a]"]),
            Form::Choice(allowed) => (words(allowed), vec!["sometimes", "[strong]"]),
            Form::OneOrMany(allowed) => (
                allowed
                    .iter()
                    .flat_map(|one| [(*one).to_owned(), format!("[{one}]")])
                    .collect(),
                vec!["sometimes", "[]"],
            ),
            Form::Choices(allowed) => (
                vec![format!("[{}]", allowed.join(", "))],
                vec!["read", "[]", "[sometimes]"],
            ),
            Form::Rate => (words(&["1", "50000"]), vec!["0", "1.5", "5k"]),
            Form::Size => (words(&["1B", "10KB", "1KiB"]), vec!["10", "0B"]),
            Form::Duration => (words(&["1s", "7days", "2weeks"]), vec!["7", "1ms", "1year"]),
            Form::Boolean => (words(&["true", "false"]), vec!["yes", "1"]),
            Form::Map => (words(&["{}"]), vec!["5", "[a]"]),
            Form::List => (words(&["[]"]), vec!["5", "[5]"]),
        }
    }

    #[test]
    fn the_reader_takes_each_key_in_its_form_and_no_other() {
        for key in KEYS {
            let (good, bad) = good_and_bad(key.form);
            for value in good {
                let text = file(key, &value);
                let about = |problems: Vec<crate::namespace::Problem>| {
                    problems
                        .into_iter()
                        .any(|problem| problem.field.starts_with(key.path))
                };
                // Some words ask for more than this file has, such as a standard's retention.
                let refused = parse(&text, &FileLimits::NONE).err().is_some_and(about);
                assert!(!refused, "{text}");
            }
            for value in bad {
                let text = file(key, value);
                assert!(parse(&text, &FileLimits::NONE).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn each_path_stands_once_and_each_map_is_a_key() {
        let paths: HashSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for key in KEYS {
            if let Some((home, _)) = key.path.rsplit_once('.') {
                let (home, form) = match home.strip_suffix("[]") {
                    Some(list) => (list, Form::List),
                    None => (home, Form::Map),
                };
                let map = KEYS.iter().find(|key| key.path == home);
                assert_eq!(map.map(|map| map.form), Some(form), "{home}");
            }
        }
        let of_owner: Vec<_> = keys_of("access.owners[17]").map(|(name, _)| name).collect();
        assert_eq!(of_owner, ["team"]);
        assert_eq!(home_of("ttl"), Some("needs"));
        assert_eq!(home_of("permissions"), Some("access.consumers[]"));
        assert_eq!(home_of("colour"), None);
    }
}
