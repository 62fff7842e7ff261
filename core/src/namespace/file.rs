//! The namespace file: YAML text to a checked [`NamespaceConfig`], or every problem that it has.
//!
//! ```yaml
//! namespace: user-events
//! team: analytics-team
//! client_api: pubsub            # keyvalue | pubsub | queue | reader | transact | timeseries | graph
//! needs:
//!   write_rps: 1000
//!   retention: 7days
//!   durability: strong          # strong | eventual | best-effort
//! access:
//!   owners: [{team: analytics-team}]
//!   consumers: [{service: analytics-api, permissions: [read, write]}]
//! policies: {pii_handling: enabled}
//! ```
//!
//! `namespace` and `client_api` are required, all else is optional. Unknown keys, wrong types, bad
//! units and combinations that cannot be kept are problems. Leaves to others: whether this version
//! can serve it ([`super::model::unsupported`]) and whether the name is free (the catalog).

use std::collections::HashMap;

pub use super::limits::FileLimits;
use super::{
    keys::{home_of, keys_of},
    model::{
        Access, ClientApi, Compliance, Consistency, Consumer, Durability, NamespaceConfig, Needs, Permission,
        Policies, Switch,
    },
    problem::{Problem, did_you_mean},
    values::clip,
    yaml::{self, Entry, Node, Value, join},
};

/// Most owners, and most consumers, of one namespace.
pub const ACCESS_ENTRIES_MAX: usize = 1_000;
/// Longest name of a team or service in bytes.
pub const IDENTITY_BYTES_MAX: usize = 256;

/// Reads and checks a namespace file.
///
/// # Errors
/// All problems, in the order of the file; never an empty list.
pub fn parse(text: &str, limits: &FileLimits) -> Result<NamespaceConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let root = match yaml::parse(text, &mut problems) {
        Ok(root) => root,
        Err(problem) => {
            problems.push(problem);
            return Err(problems);
        }
    };
    let mut reader = FileParser {
        problems,
        lines: HashMap::new(),
        limits,
    };
    let config = reader.root(&root);
    if let Some(config) = &config {
        reader.check_combinations(config);
    }
    let mut problems = reader.problems;
    // What has no line concerns the whole file and comes last.
    problems.sort_by_key(|problem| if problem.line == 0 { u32::MAX } else { problem.line });
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// One pass over the tree. Every method reports to `problems` what it refuses and then answers as
/// if it were absent.
pub(super) struct FileParser<'l> {
    pub(super) problems: Vec<Problem>,
    /// Line of each key that was read, by path, for problems that are found later.
    pub(super) lines: HashMap<String, u32>,
    pub(super) limits: &'l FileLimits,
}

/// The keys of one map that have not been read yet.
struct Keys<'n> {
    path: String,
    line: u32,
    entries: Vec<&'n Entry>,
}

impl FileParser<'_> {
    fn root(&mut self, root: &Node) -> Option<NamespaceConfig> {
        let Value::Map(entries) = &root.value else {
            let what = match root.value {
                Value::Null => "the file is empty; it needs at least namespace and client_api".to_owned(),
                _ => format!(
                    "the file must be a map of keys such as \"namespace: my-namespace\", not {}",
                    root.kind()
                ),
            };
            self.problems.push(Problem::new("", root.line, what));
            return None;
        };
        let mut keys = Keys {
            path: String::new(),
            line: root.line,
            entries: entries.iter().collect(),
        };
        let name = self
            .required(&mut keys, "namespace")
            .and_then(|node| self.name(node));
        let team = keys
            .take(self, "team")
            .and_then(|node| self.identity("team", node));
        let client_api = self.required(&mut keys, "client_api");
        let client_api =
            client_api.and_then(|node| self.choice("client_api", node, ClientApi::ALLOWED, ClientApi::parse));
        let needs = self
            .map(&mut keys, "needs")
            .map(|keys| self.needs(keys))
            .unwrap_or_default();
        let access = self
            .map(&mut keys, "access")
            .map(|keys| self.access(keys))
            .unwrap_or_default();
        let policies = self
            .map(&mut keys, "policies")
            .map(|keys| self.policies(keys))
            .unwrap_or_default();
        self.finish(keys);
        let team = team
            .or_else(|| access.owners.first().cloned())
            .unwrap_or_default();
        Some(NamespaceConfig {
            name: name?,
            team,
            client_api: client_api?,
            needs,
            access,
            policies,
        })
    }

    fn needs(&mut self, mut keys: Keys<'_>) -> Needs {
        let keys = &mut keys;
        let needs = Needs {
            write_rps: self.field(keys, "write_rps", Self::rate),
            read_rps: self.field(keys, "read_rps", Self::rate),
            data_size: self.field(keys, "data_size", Self::size),
            retention: self.field(keys, "retention", Self::duration),
            durability: self.field(keys, "durability", |reader, path, node| {
                reader.choice(path, node, Durability::ALLOWED, Durability::parse)
            }),
            ordered: self.field(keys, "ordered", Self::boolean),
            consistency: self.field(keys, "consistency", |reader, path, node| {
                reader.choice(path, node, Consistency::ALLOWED, Consistency::parse)
            }),
            max_message_size: self.field(keys, "max_message_size", Self::size),
            ttl: self.field(keys, "ttl", Self::duration),
            replay: self.field(keys, "replay", Self::boolean),
        };
        self.finish_ref(keys);
        needs
    }

    fn access(&mut self, mut keys: Keys<'_>) -> Access {
        let mut access = Access::default();
        for (path, item) in self.list(&mut keys, "owners", "team: my-team") {
            if let Some(service) = service_of(item) {
                let advice = format!("write \"consumers: [{{service: {service}, permissions: [admin]}}]\"");
                self.push(
                    &path,
                    item.line,
                    "owners are teams, services are consumers",
                    advice,
                );
                continue;
            }
            let Some(mut inner) = self.map_of(&path, item, "team: my-team") else {
                continue;
            };
            let team = self.required(&mut inner, "team");
            let team = team.and_then(|node| self.identity(&join(&path, "team"), node));
            self.finish(inner);
            if let Some(team) = team {
                if access.owners.contains(&team) {
                    self.push(
                        &path,
                        item.line,
                        format!("team \"{team}\" stands twice"),
                        "leave one of them out",
                    );
                } else {
                    access.owners.push(team);
                }
            }
        }
        for (path, item) in self.list(&mut keys, "consumers", "service: my-service") {
            let Some(inner) = self.map_of(&path, item, "service: my-service") else {
                continue;
            };
            if let Some(consumer) = self.consumer(&path, inner) {
                if access
                    .consumers
                    .iter()
                    .any(|known| known.service == consumer.service)
                {
                    let what = format!("service \"{}\" stands twice", consumer.service);
                    self.push(&path, item.line, what, "put its permissions into one entry");
                } else {
                    access.consumers.push(consumer);
                }
            }
        }
        self.finish(keys);
        access
    }

    fn consumer(&mut self, path: &str, mut keys: Keys<'_>) -> Option<Consumer> {
        let service = self.required(&mut keys, "service");
        let service = service.and_then(|node| self.identity(&join(path, "service"), node));
        let permissions = match keys.take(self, "permissions") {
            // Least privilege: a consumer that was given nothing in particular may look.
            None => Some(vec![Permission::Read]),
            Some(node) => self.choices(
                &join(path, "permissions"),
                node,
                Permission::ALLOWED,
                Permission::parse,
            ),
        };
        self.finish(keys);
        Some(Consumer {
            service: service?,
            permissions: permissions?,
        })
    }

    fn policies(&mut self, mut keys: Keys<'_>) -> Policies {
        let keys = &mut keys;
        let switch = |reader: &mut Self, path: &str, node: &Node| {
            reader.choice(path, node, Switch::ALLOWED, Switch::parse)
        };
        let policies = Policies {
            pii_handling: self.field(keys, "pii_handling", switch),
            audit_logging: self.field(keys, "audit_logging", switch),
            compliance: self
                .field(keys, "compliance", |reader, path, node| match &node.value {
                    Value::List(_) => reader.choices(path, node, Compliance::ALLOWED, Compliance::parse),
                    _ => reader
                        .choice(path, node, Compliance::ALLOWED, Compliance::parse)
                        .map(|one| vec![one]),
                })
                .unwrap_or_default(),
        };
        self.finish_ref(keys);
        policies
    }

    pub(super) fn push(
        &mut self,
        path: &str,
        line: u32,
        what: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(path, line, what).suggest(suggestion));
    }

    // ---- keys of a map

    fn required<'n>(&mut self, keys: &mut Keys<'n>, key: &'static str) -> Option<&'n Node> {
        let present = keys.entries.iter().any(|entry| entry.key == key);
        let node = keys.take(self, key);
        if !present {
            self.push(
                &join(&keys.path, key),
                keys.line,
                format!("{key} is missing; it is required"),
                "",
            );
        }
        node
    }

    fn field<T>(
        &mut self,
        keys: &mut Keys<'_>,
        key: &'static str,
        read: impl Fn(&mut Self, &str, &Node) -> Option<T>,
    ) -> Option<T> {
        let node = keys.take(self, key)?;
        read(self, &join(&keys.path, key), node)
    }

    /// The keys of an optional map such as `needs`.
    fn map<'n>(&mut self, keys: &mut Keys<'n>, key: &'static str) -> Option<Keys<'n>> {
        let entry = keys.entries.iter().find(|entry| entry.key == key).copied();
        let node = match entry {
            // `needs:` with nothing below it is a map that its author has not filled yet.
            Some(entry) if entry.value.value == Value::Null => {
                self.lines.insert(join(&keys.path, key), entry.line);
                keys.entries.retain(|entry| entry.key != key);
                return None;
            }
            _ => keys.take(self, key)?,
        };
        self.map_of(&join(&keys.path, key), node, "")
    }

    fn map_of<'n>(&mut self, path: &str, node: &'n Node, example: &str) -> Option<Keys<'n>> {
        match &node.value {
            Value::Map(entries) => {
                let entries = entries.iter().collect();
                Some(Keys {
                    path: path.to_owned(),
                    line: node.line,
                    entries,
                })
            }
            _ => {
                let suggestion = if example.is_empty() {
                    String::new()
                } else {
                    format!("write \"{example}\"")
                };
                self.push(
                    path,
                    node.line,
                    format!("a map of keys is expected here, not {}", node.kind()),
                    suggestion,
                );
                None
            }
        }
    }

    /// The items of a list with their paths; no items where there is no list.
    fn list<'n>(&mut self, keys: &mut Keys<'n>, key: &'static str, example: &str) -> Vec<(String, &'n Node)> {
        let Some(node) = keys.take(self, key) else {
            return Vec::new();
        };
        let path = join(&keys.path, key);
        match &node.value {
            Value::List(items) if items.len() > ACCESS_ENTRIES_MAX => {
                self.push(
                    &path,
                    node.line,
                    format!(
                        "{} entries; at most {ACCESS_ENTRIES_MAX} are allowed",
                        items.len()
                    ),
                    "",
                );
                Vec::new()
            }
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (format!("{path}[{index}]"), item))
                .collect(),
            _ => {
                let what = format!("a list is expected here, not {}", node.kind());
                self.push(&path, node.line, what, format!("write \"- {example}\" below it"));
                Vec::new()
            }
        }
    }

    fn finish(&mut self, keys: Keys<'_>) {
        self.finish_ref(&keys);
    }

    fn finish_ref(&mut self, keys: &Keys<'_>) {
        // A key that has been given already would be refused as standing twice.
        let known: Vec<_> = keys_of(&keys.path).map(|(name, _)| name).collect();
        let free: Vec<_> = known
            .iter()
            .copied()
            .filter(|key| !self.lines.contains_key(&join(&keys.path, key)))
            .collect();
        for entry in &keys.entries {
            let mut suggestion = did_you_mean(&entry.key, &free);
            if suggestion.is_empty() {
                suggestion = belongs_elsewhere(&keys.path, &entry.key);
            }
            let what = format!("unknown key; allowed here: {}", known.join(", "));
            self.push(&join(&keys.path, &clip(&entry.key)), entry.line, what, suggestion);
        }
    }
}

impl<'n> Keys<'n> {
    /// Takes a key that may be absent. Present without a value is a problem.
    fn take(&mut self, reader: &mut FileParser<'_>, key: &'static str) -> Option<&'n Node> {
        debug_assert!(
            keys_of(&self.path).any(|(name, _)| name == key),
            "{key} has no row in the table"
        );
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(index);
        let path = join(&self.path, key);
        reader.lines.insert(path.clone(), entry.line);
        if entry.value.value == Value::Null {
            reader.push(
                &path,
                entry.line,
                format!("{key} has no value"),
                "give it one, or leave the line out",
            );
            return None;
        }
        Some(&entry.value)
    }
}

/// The service of an entry that names one and no team.
fn service_of(node: &Node) -> Option<String> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let [only] = &entries[..] else { return None };
    match &only.value.value {
        Value::Scalar(text) if only.key == "service" => Some(clip(text)),
        _ => None,
    }
}

/// Where a known key belongs that was written in the wrong place.
fn belongs_elsewhere(path: &str, key: &str) -> String {
    match home_of(key) {
        None => String::new(),
        Some(home) if home == path => String::new(),
        Some("") => "it belongs at the top level; check the indentation".to_owned(),
        Some("access.consumers[]") if key == "permissions" => {
            "it belongs to a consumer; indent it below \"- service:\"".to_owned()
        }
        Some(home) => format!(
            "it belongs below \"{}:\"; check the indentation",
            home.trim_start_matches("access.").trim_end_matches("[]")
        ),
    }
}
