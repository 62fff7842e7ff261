//! Single values of a namespace file: names, choices, rates, sizes and durations.
//!
//! Each reader checks one node. It reports what it refuses, with a suggestion only if that would be
//! accepted, and then answers as if the value were absent.

use std::time::Duration;

use super::file::{FileParser, IDENTITY_BYTES_MAX};
use super::model::{Switch, check_name};
use super::problem::{Problem, did_you_mean};
use super::units::{DURATION_MAX, format_duration, format_size, parse_duration, parse_size};
use super::yaml::{Node, Value};

/// Rates beyond this are typing errors.
pub(super) const RATE_MAX: u64 = 1_000_000_000;
/// Advice to a user whose rate is too high; the words are those of the user's guide.
pub(super) const CAPACITY_SUGGESTION: &str = "Contact platform team for capacity increase";
/// Advice to a user whose values are too large.
pub(super) const VALUE_SUGGESTION: &str = "split larger values, or store them elsewhere and keep a reference";
/// Shorter lives and retentions would be gone before they are read.
const DURATION_MIN: Duration = Duration::from_secs(1);

impl FileParser<'_> {
    pub(super) fn text<'n>(&mut self, path: &str, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(text) => Some(text),
            _ => {
                self.push(
                    path,
                    node.line,
                    format!("{expected} is expected here, not {}", node.kind()),
                    "",
                );
                None
            }
        }
    }

    pub(super) fn name(&mut self, node: &Node) -> Option<String> {
        let text = self.text("namespace", node, "a name")?;
        match check_name(text) {
            Ok(()) if self.limits.is_strict && is_reserved(text) => {
                let what =
                    format!("\"{text}\" is reserved: names that start with \"prism\" belong to the gateway");
                self.push("namespace", node.line, what, "");
                None
            }
            Ok(()) => Some(text.to_owned()),
            Err(problem) => {
                self.problems.push(Problem {
                    line: node.line,
                    ..problem
                });
                None
            }
        }
    }

    pub(super) fn identity(&mut self, path: &str, node: &Node) -> Option<String> {
        let text = self.text(path, node, "a name")?;
        if text.is_empty()
            || text.len() > IDENTITY_BYTES_MAX
            || text
                .chars()
                .any(|letter| letter.is_control() || letter.is_whitespace())
        {
            let what = format!(
                "{:?} is not a name; allowed: 1 to {IDENTITY_BYTES_MAX} bytes without spaces",
                clip(text)
            );
            self.push(path, node.line, what, "");
            return None;
        }
        if self.limits.is_strict
            && let Some(what) = misleading(path, text)
        {
            self.push(path, node.line, what, "");
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn choice<T>(
        &mut self,
        path: &str,
        node: &Node,
        allowed: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.choice_of(path, node, allowed, allowed, parse)
    }

    /// A choice; only those of `open` are suggested.
    fn choice_of<T>(
        &mut self,
        path: &str,
        node: &Node,
        allowed: &[&str],
        open: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(path, node, &format!("one of {}", allowed.join(", ")))?;
        let found = parse(text);
        if found.is_none() {
            let what = format!("{:?} is not known; allowed: {}", clip(text), allowed.join(", "));
            let mut suggestion = did_you_mean(text, open);
            if allowed == Switch::ALLOWED {
                suggestion = match text.to_lowercase().as_str() {
                    "true" | "yes" | "on" | "enable" => "did you mean \"enabled\"?".to_owned(),
                    "false" | "no" | "off" | "disable" => "did you mean \"disabled\"?".to_owned(),
                    _ => suggestion,
                };
            }
            if path == "client_api" {
                suggestion = store_word(text).unwrap_or(suggestion);
            }
            self.push(path, node.line, what, suggestion);
        }
        found
    }

    /// A list of choices, not empty, each once.
    pub(super) fn choices<T: PartialEq>(
        &mut self,
        path: &str,
        node: &Node,
        allowed: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = match &node.value {
            Value::List(items) => items,
            Value::Scalar(text) if parse(text).is_some() => {
                self.push(
                    path,
                    node.line,
                    "a list is expected here, not a single value",
                    format!("write \"[{text}]\""),
                );
                return None;
            }
            _ => {
                self.push(
                    path,
                    node.line,
                    format!(
                        "a list of {} is expected here, not {}",
                        allowed.join(", "),
                        node.kind()
                    ),
                    "",
                );
                return None;
            }
        };
        if items.is_empty() {
            self.push(
                path,
                node.line,
                format!("the list is empty; allowed: {}", allowed.join(", ")),
                "",
            );
            return None;
        }
        let before = self.problems.len();
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            // One that stands in the list already would be refused there.
            let open: Vec<_> = allowed
                .iter()
                .copied()
                .filter(|text| parse(text).is_some_and(|choice| !found.contains(&choice)))
                .collect();
            match self.choice_of(&path, item, allowed, &open, &parse) {
                Some(choice) if found.contains(&choice) => {
                    self.push(
                        &path,
                        item.line,
                        "this stands twice in the list",
                        "leave one of them out",
                    );
                }
                Some(choice) => found.push(choice),
                None => {}
            }
        }
        (self.problems.len() == before).then_some(found)
    }

    pub(super) fn boolean(&mut self, path: &str, node: &Node) -> Option<bool> {
        let text = self.text(path, node, "true or false")?;
        match text {
            "true" => return Some(true),
            "false" => return Some(false),
            _ => {}
        }
        let suggestion = match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "enabled" => "did you mean \"true\"?",
            "false" | "no" | "off" | "disabled" => "did you mean \"false\"?",
            _ => "",
        };
        self.push(
            path,
            node.line,
            format!("{:?} is not known; allowed: true, false", clip(text)),
            suggestion,
        );
        None
    }

    pub(super) fn rate(&mut self, path: &str, node: &Node) -> Option<u64> {
        let text = self.text(path, node, "a whole number")?;
        match text.parse::<u64>() {
            Ok(rate @ 1..=RATE_MAX) if !text.starts_with('+') => {
                let (key, max) = self.rate_max(path);
                if rate > max {
                    let what = format!("Requested {key} ({rate}) exceeds limit ({max})");
                    self.push(path, node.line, what, CAPACITY_SUGGESTION);
                    return None;
                }
                Some(rate)
            }
            _ => {
                let what = format!(
                    "{:?} is not a rate; allowed: a whole number from 1 to {RATE_MAX}, operations a second",
                    clip(text)
                );
                let max = self.rate_max(path).1.min(RATE_MAX);
                self.push(path, node.line, what, rate_suggestion(text, max));
                None
            }
        }
    }

    /// The key of a rate, and the highest one that a file may ask for.
    fn rate_max(&self, path: &str) -> (&'static str, u64) {
        match path {
            "needs.write_rps" => ("write_rps", self.limits.write_rps_max),
            _ => ("read_rps", self.limits.read_rps_max),
        }
    }

    pub(super) fn size(&mut self, path: &str, node: &Node) -> Option<u64> {
        let text = self.text(path, node, "a size such as 10GB")?;
        let (key, max, advice) = match path {
            "needs.max_message_size" => {
                let max = self.limits.value_bytes_max;
                ("max_message_size", max, VALUE_SUGGESTION)
            }
            _ => ("data_size", self.limits.data_size_max, CAPACITY_SUGGESTION),
        };
        match parse_size(&clip(text)) {
            Ok(0) => {
                self.push(
                    path,
                    node.line,
                    format!("\"{text}\" is too small; at least 1B"),
                    "",
                );
                None
            }
            Ok(bytes) if bytes > max => {
                let what = format!("Requested {key} ({text}) exceeds limit ({})", format_size(max));
                self.push(path, node.line, what, advice);
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let suggestion = error.suggestion(|bytes| (1..=max).contains(&bytes));
                self.push(path, node.line, error.description, suggestion);
                None
            }
        }
    }

    pub(super) fn duration(&mut self, path: &str, node: &Node) -> Option<Duration> {
        let text = self.text(path, node, "a duration such as 7days")?;
        let max = match path {
            "needs.retention" => self.limits.retention_max,
            _ => DURATION_MAX,
        };
        match parse_duration(&clip(text)) {
            Ok(duration) if duration < DURATION_MIN => {
                self.push(
                    path,
                    node.line,
                    format!("\"{text}\" is too short; at least 1s"),
                    "",
                );
                None
            }
            Ok(duration) if duration > max => {
                let what = format!(
                    "Requested retention ({text}) exceeds limit ({})",
                    format_duration(max)
                );
                self.push(path, node.line, what, CAPACITY_SUGGESTION);
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                let allowed = DURATION_MIN..=max;
                let suggestion = match text.to_lowercase().as_str() {
                    "forever" | "never" | "infinite" | "unlimited" => {
                        "leave the line out to keep data until it is deleted".to_owned()
                    }
                    _ => error.suggestion(|millis| allowed.contains(&Duration::from_millis(millis))),
                };
                self.push(path, node.line, error.description, suggestion);
                None
            }
        }
    }
}

/// Whether a name is kept for the gateway's own namespaces.
fn is_reserved(name: &str) -> bool {
    name == "prism" || name.starts_with("prism-")
}

/// Fault of the name of a team or service that would be taken for another one.
fn misleading(path: &str, text: &str) -> Option<String> {
    let shown = clip(text);
    let what = if path.ends_with("service") {
        "service"
    } else {
        "team"
    };
    if text.chars().any(is_invisible) {
        return Some(format!(
            "{shown:?} is not a name; it holds an invisible character"
        ));
    }
    if text.contains(['*', '?']) {
        return Some(format!("{shown:?} holds a wildcard; name each {what}"));
    }
    text.contains("://")
        .then(|| format!("{shown:?} is an identity; write the {what}'s name"))
}

/// Characters that show nothing, or change the order in which others are shown (Unicode's `Cf`, and
/// the fillers of Hangul).
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// Advice to a user who names a store where an API is expected.
fn store_word(text: &str) -> Option<String> {
    const STORES: [(&str, &str, &str); 11] = [
        ("kafka", "Kafka", "pubsub"),
        ("nats", "NATS", "pubsub"),
        ("redis", "Redis", "keyvalue"),
        ("postgres", "PostgreSQL", "keyvalue"),
        ("postgresql", "PostgreSQL", "keyvalue"),
        ("sqlite", "SQLite", "keyvalue"),
        ("memory", "memory", "keyvalue"),
        ("clickhouse", "ClickHouse", "reader"),
        ("neo4j", "Neo4j", "graph"),
        ("neptune", "Neptune", "graph"),
        ("gremlin", "Gremlin", "graph"),
    ];
    let lower = text.to_lowercase();
    let (_, title, api) = STORES.iter().find(|(word, ..)| *word == lower)?;
    Some(format!(
        "{title} is a store, which the planner chooses; did you mean \"{api}\"?"
    ))
}

/// `5k` and `5,000` as the number that was meant, if it is at most `max`.
fn rate_suggestion(text: &str, max: u64) -> String {
    let lower = text.trim().to_lowercase();
    let (digits, factor) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => (
            lower.strip_suffix('m').unwrap_or(&lower),
            if lower.ends_with('m') { 1_000_000 } else { 1 },
        ),
    };
    let digits: String = digits
        .chars()
        .filter(|letter| !matches!(letter, ',' | '_' | '\'' | ' '))
        .collect();
    match digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
    {
        Some(rate) if (1..=max).contains(&rate) && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("write \"{rate}\"")
        }
        _ => String::new(),
    }
}

/// A value as far as it fits into a message.
pub(super) fn clip(text: &str) -> String {
    const LETTERS: usize = 60;
    let mut clipped: String = text.chars().take(LETTERS).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}
