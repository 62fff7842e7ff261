//! The JSON body of a Connect error.

use crate::grpc::{Status, encode_binary};

/// `debug` makes the JSON form of a detail, if it can.
pub(super) fn put_error_json(
    status: &Status,
    out: &mut Vec<u8>,
    debug: impl Fn(&prost_types::Any) -> Option<serde_json::Value>,
) {
    let mut body = serde_json::Map::new();
    body.insert("code".to_owned(), status.code.connect_name().into());
    if !status.message.is_empty() {
        body.insert("message".to_owned(), status.message.as_ref().into());
    }
    if !status.details.is_empty() {
        let detail = |any: &prost_types::Any| {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let mut detail = serde_json::Map::new();
            detail.insert("type".to_owned(), name.into());
            detail.insert("value".to_owned(), encode_binary(&any.value).into());
            if let Some(debug) = debug(any) {
                detail.insert("debug".to_owned(), debug);
            }
            serde_json::Value::Object(detail)
        };
        body.insert("details".to_owned(), status.details.iter().map(detail).collect());
    }
    let written = serde_json::to_writer(&mut *out, &body);
    debug_assert!(
        written.is_ok(),
        "a Vec takes everything and a map of strings serializes"
    );
}
