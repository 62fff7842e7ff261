//! A JSON Schema of namespace files, for editors: made from the table of keys ([`super::keys`]).
//!
//! It is as strict as the reader about keys, words and units, and stricter about spelling: a rate
//! is a number there, and `true` has no quotes. Rules over several keys are the reader's alone.

use serde_json::{Map, Value, json};

use super::{
    file::{ACCESS_ENTRIES_MAX, IDENTITY_BYTES_MAX},
    keys::{Form, Key, keys_of},
    units::{duration_pattern, size_pattern},
    values::RATE_MAX,
};

/// The schema, in draft 2020-12.
pub fn schema() -> Value {
    let mut schema = map_of("");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Prism namespace");
    schema["description"] = json!("What a service needs of its data: prism namespace create FILE");
    schema
}

/// The schema as text, with a line feed at its end.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

fn map_of(path: &str) -> Value {
    let properties: Map<_, _> = keys_of(path)
        .map(|(name, key)| (name.to_owned(), value_of(key)))
        .collect();
    let required: Vec<_> = keys_of(path)
        .filter(|(_, key)| key.is_required)
        .map(|(name, _)| name)
        .collect();
    let mut map = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        map["required"] = json!(required);
    }
    map
}

fn value_of(key: &Key) -> Value {
    let choices = |allowed: &[&str]| json!({ "type": "array", "items": { "enum": allowed }, "minItems": 1, "uniqueItems": true });
    let mut value = match key.form {
        Form::Name => json!({ "type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" }),
        Form::Identity => {
            json!({ "type": "string", "minLength": 1, "maxLength": IDENTITY_BYTES_MAX, "pattern": "^\\S+$" })
        }
        Form::Choice(allowed) => json!({ "enum": allowed }),
        Form::OneOrMany(allowed) => json!({ "anyOf": [{ "enum": allowed }, choices(allowed)] }),
        Form::Choices(allowed) => choices(allowed),
        Form::Rate => json!({ "type": "integer", "minimum": 1, "maximum": RATE_MAX }),
        Form::Size => json!({ "type": "string", "pattern": size_pattern() }),
        Form::Duration => json!({ "type": "string", "pattern": duration_pattern() }),
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Map => {
            let mut map = map_of(key.path);
            // `needs:` with nothing below it is a map without keys.
            map["type"] = json!(["object", "null"]);
            map
        }
        Form::List => {
            json!({ "type": "array", "items": map_of(&format!("{}[]", key.path)), "maxItems": ACCESS_ENTRIES_MAX })
        }
    };
    value["description"] = json!(key.doc);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_the_keys_at_their_places() {
        let schema = schema();
        let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(at("/required"), &json!(["namespace", "client_api"]));
        assert_eq!(
            at("/properties/needs/properties/durability/enum"),
            &json!(["strong", "eventual", "best-effort"])
        );
        let consumer = "/properties/access/properties/consumers/items";
        assert_eq!(at(&format!("{consumer}/required")), &json!(["service"]));
        assert_eq!(at(&format!("{consumer}/additionalProperties")), &json!(false));
        assert_eq!(
            at(&format!("{consumer}/properties/permissions/items/enum")),
            &json!(["read", "write", "admin"])
        );
    }
}
