//! Explanation of a refused JSON request for the person who wrote it: the field's path, what is
//! allowed, and a suggestion.
//!
//! Promises an answer for any text; runs only after the request has failed, and walks the
//! descriptors next to the JSON to find the first place that does not fit. If it finds none, the
//! parser's own sentence is given.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use super::JsonError;

/// Explains `error`, which came from reading `json` as a message of type `descriptor`.
pub(super) fn explain(descriptor: &MessageDescriptor, json: &[u8], error: &serde_json::Error) -> JsonError {
    let plain = JsonError {
        field: String::new(),
        message: format!("the request is not valid JSON: {error}"),
    };
    // A parsed tree takes many times the text's size, so large requests get the parser's sentence,
    // which has the line.
    if json.len() > EXPLAINED_BYTES_MAX {
        return JsonError {
            message: error.to_string(),
            ..plain
        };
    }
    let Ok(value) = serde_json::from_slice::<Value>(json) else {
        return plain;
    };
    let Some((field, message)) = message_problem(descriptor, &value, "") else {
        return JsonError {
            message: error.to_string(),
            ..plain
        };
    };
    JsonError { field, message }
}

const EXPLAINED_BYTES_MAX: usize = 1 << 20;
/// Longest piece of the request that is quoted back, in characters.
const QUOTED_CHARS_MAX: usize = 64;

type Problem = (String, String);

/// The first problem of a message: field path and sentence.
fn message_problem(descriptor: &MessageDescriptor, value: &Value, path: &str) -> Option<Problem> {
    let own = |message: String| Some((path.to_owned(), message));
    match descriptor.full_name() {
        "google.protobuf.Duration" => {
            let fits = value
                .as_str()
                .is_some_and(|text| text.parse::<prost_types::Duration>().is_ok());
            return if fits {
                None
            } else {
                own(expected(
                    "a duration in seconds with an s, for example \"3600s\"",
                    value,
                ))
            };
        }
        "google.protobuf.Timestamp" => {
            let fits = value
                .as_str()
                .is_some_and(|text| text.parse::<prost_types::Timestamp>().is_ok());
            return if fits {
                None
            } else {
                own(expected("a time, for example \"2026-01-31T12:00:00Z\"", value))
            };
        }
        name if name.starts_with("google.protobuf.") => return None,
        _ => {}
    }
    let Some(object) = value.as_object() else {
        return own(expected("an object", value));
    };
    let mut seen: Vec<FieldDescriptor> = Vec::new();
    for (name, value) in object {
        let Some(field) = field_by_json_name(descriptor, name) else {
            return Some((join(path, name), unknown_field(descriptor, name)));
        };
        let inner = join(path, field.json_name());
        if let Some(before) = seen
            .iter()
            .find(|before| **before == field || same_oneof(before, &field))
        {
            let message = if *before == field {
                "stands twice, under both of its names".to_owned()
            } else {
                format!(
                    "contradicts \"{}\": only one of the two may be given",
                    before.json_name()
                )
            };
            if !value.is_null() {
                return Some((inner, message));
            }
        }
        if !value.is_null() {
            if let Some(problem) = field_problem(&field, value, &inner) {
                return Some(problem);
            }
            seen.push(field);
        }
    }
    None
}

fn field_by_json_name(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor
        .get_field_by_json_name(name)
        .or_else(|| descriptor.get_field_by_name(name))
}

fn same_oneof(one: &FieldDescriptor, other: &FieldDescriptor) -> bool {
    one.containing_oneof()
        .is_some_and(|oneof| other.containing_oneof() == Some(oneof))
}

fn field_problem(field: &FieldDescriptor, value: &Value, path: &str) -> Option<Problem> {
    if field.is_map() {
        return if value.is_object() {
            None
        } else {
            Some((path.to_owned(), expected("an object", value)))
        };
    }
    if !field.is_list() {
        return value_problem(&field.kind(), value, path);
    }
    let Some(list) = value.as_array() else {
        return Some((path.to_owned(), expected("a list", value)));
    };
    list.iter()
        .enumerate()
        .find_map(|(index, element)| value_problem(&field.kind(), element, &format!("{path}[{index}]")))
}

fn value_problem(kind: &Kind, value: &Value, path: &str) -> Option<Problem> {
    let problem = match kind {
        Kind::Message(descriptor) => return message_problem(descriptor, value, path),
        Kind::String => (!value.is_string()).then(|| expected("a string", value)),
        Kind::Bytes => (!value.as_str().is_some_and(is_base64)).then(|| {
            expected(
                "bytes in base64 (standard or URL-safe, with or without padding)",
                value,
            )
        }),
        Kind::Bool => (!value.is_boolean()).then(|| expected("true or false", value)),
        Kind::Enum(descriptor) => {
            let known = match value {
                Value::String(name) => descriptor.get_value_by_name(name).is_some(),
                number => number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok()),
            };
            let names = || {
                descriptor
                    .values()
                    .map(|value| value.name().to_owned())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            (!known).then(|| expected(&format!("one of {}", names()), value))
        }
        Kind::Double | Kind::Float => None,
        Kind::Uint32 | Kind::Fixed32 => integer_problem(value, 0, i128::from(u32::MAX)),
        Kind::Uint64 | Kind::Fixed64 => integer_problem(value, 0, i128::from(u64::MAX)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer_problem(value, i128::from(i32::MIN), i128::from(i32::MAX))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer_problem(value, i128::from(i64::MIN), i128::from(i64::MAX))
        }
    };
    problem.map(|message| (path.to_owned(), message))
}

fn integer_problem(value: &Value, least: i128, most: i128) -> Option<String> {
    let number = match value {
        Value::String(text) => text.parse::<i128>().ok(),
        Value::Number(number) => number.as_i128().or_else(|| {
            number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 1e30)
                .map(|float| float as i128)
        }),
        _ => None,
    };
    let fits = number.is_some_and(|number| (least..=most).contains(&number));
    (!fits).then(|| expected(&format!("a whole number from {least} to {most}"), value))
}

fn is_base64(text: &str) -> bool {
    let trimmed = text.trim_end_matches('=');
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    trimmed.len() % 4 != 1 && trimmed.bytes().all(in_alphabet)
}

fn expected(what: &str, value: &Value) -> String {
    format!("must be {what}; it is {}", describe(value))
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => clip(&value.to_string()),
        Value::String(text) => format!("the string \"{}\"", clip(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

fn join(path: &str, name: &str) -> String {
    let name = clip(name);
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

/// The sentence for a field that does not exist: the nearest name, else all of them.
fn unknown_field(descriptor: &MessageDescriptor, name: &str) -> String {
    let known: Vec<String> = descriptor
        .fields()
        .map(|field| field.json_name().to_owned())
        .collect();
    let name: String = name.chars().take(QUOTED_CHARS_MAX).collect();
    let nearest = known
        .iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .min();
    match nearest {
        None => "is unknown; this message has no fields".to_owned(),
        Some((distance, candidate)) if distance <= 1 + candidate.len() / 4 => {
            format!("is unknown; did you mean \"{candidate}\"?")
        }
        _ => format!("is unknown; allowed: {}", known.join(", ")),
    }
}

/// Edits between two names, whatever their case (Levenshtein); both are short.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().collect();
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (position, from) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = position + 1;
        for (column, to) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
