//! gRPC status codes with their names and mappings, and a status with typed details.
//!
//! Promises the mappings of the gRPC and Connect specifications, and details that every client
//! aware of `google.rpc` reads. [`Status`] owns its text: it is for errors, which are off the hot
//! path.

use std::{borrow::Cow, fmt, time::Duration};

use prost::Message as _;

use super::encode_binary;
use crate::{error::DecodeError, proto::google::rpc};

/// A gRPC status code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// No better code is known.
    Unknown = 2,
    /// The request is wrong, whatever the state of the system.
    InvalidArgument = 3,
    /// The deadline passed; for a write the outcome is unknown.
    DeadlineExceeded = 4,
    /// The requested thing does not exist.
    NotFound = 5,
    /// The thing to be created exists.
    AlreadyExists = 6,
    /// The caller is known and lacks the permission.
    PermissionDenied = 7,
    /// A limit or quota is reached.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// A conflict with another call; try again from the start.
    Aborted = 10,
    /// Beyond the valid range.
    OutOfRange = 11,
    /// The method is not there.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// Not available now; try again.
    Unavailable = 14,
    /// Data is lost or corrupt.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

/// Text that is no status code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadCode;

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code of a number; numbers without a meaning are `Unknown`, as the specification demands.
    pub fn from_i32(number: i32) -> Code {
        usize::try_from(number)
            .ok()
            .and_then(|index| Code::ALL.get(index))
            .copied()
            .unwrap_or(Code::Unknown)
    }

    /// Parses a `grpc-status` header: decimal digits.
    pub fn parse(text: &[u8]) -> Result<Code, BadCode> {
        let text = std::str::from_utf8(text).map_err(|_| BadCode)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadCode);
        }
        Ok(Code::from_i32(text.parse().unwrap_or(i32::MAX)))
    }

    /// The number for `grpc-status`.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// The name in capitals, for example `NOT_FOUND`.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// The name in the Connect protocol, for example `not_found`; also fit for metric labels.
    pub fn connect_name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// The code of a Connect error's `code`.
    pub fn from_connect_name(name: &str) -> Option<Code> {
        Code::ALL
            .into_iter()
            .find(|code| *code != Code::Ok && code.connect_name() == name)
    }

    /// The HTTP status that the Connect protocol gives to this code; 200 for `Ok`.
    pub fn http_status(self) -> u16 {
        NAMES[self as usize].2
    }

    /// The code for an HTTP status without `grpc-status` (gRPC, "HTTP to gRPC Status Code
    /// Mapping").
    pub fn from_http_status(status: u16) -> Code {
        match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// gRPC name, Connect name, HTTP status by the Connect protocol.
const NAMES: [(&str, &str, u16); 17] = [
    ("OK", "ok", 200),
    ("CANCELLED", "canceled", 499),
    ("UNKNOWN", "unknown", 500),
    ("INVALID_ARGUMENT", "invalid_argument", 400),
    ("DEADLINE_EXCEEDED", "deadline_exceeded", 504),
    ("NOT_FOUND", "not_found", 404),
    ("ALREADY_EXISTS", "already_exists", 409),
    ("PERMISSION_DENIED", "permission_denied", 403),
    ("RESOURCE_EXHAUSTED", "resource_exhausted", 429),
    ("FAILED_PRECONDITION", "failed_precondition", 400),
    ("ABORTED", "aborted", 409),
    ("OUT_OF_RANGE", "out_of_range", 400),
    ("UNIMPLEMENTED", "unimplemented", 501),
    ("INTERNAL", "internal", 500),
    ("UNAVAILABLE", "unavailable", 503),
    ("DATA_LOSS", "data_loss", 500),
    ("UNAUTHENTICATED", "unauthenticated", 401),
];

/// The `domain` of every `ErrorInfo` that we send.
pub const ERROR_DOMAIN: &str = "prism";

/// An error as the client sees it: code, sentence, typed details.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The code; `Ok` makes no sense here.
    pub code: Code,
    /// A sentence for people: what happened and what to do.
    pub message: Cow<'static, str>,
    /// `google.rpc` messages, packed.
    pub details: Vec<prost_types::Any>,
}

impl Status {
    /// Makes a status without details.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Status {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// Adds an `ErrorInfo`: `reason` in capitals (`NAMESPACE_UNKNOWN`), domain `prism`, and facts
    /// for programs.
    #[must_use]
    pub fn with_reason(mut self, reason: &str, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let info = rpc::ErrorInfo {
            reason: reason.to_owned(),
            domain: ERROR_DOMAIN.to_owned(),
            metadata,
        };
        self.details.push(pack("google.rpc.ErrorInfo", &info));
        self
    }

    /// Adds a `RetryInfo`: the delay after which to try again.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        let seconds = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
        let delay = prost_types::Duration {
            seconds,
            nanos: delay.subsec_nanos() as i32,
        };
        self.details.push(pack(
            "google.rpc.RetryInfo",
            &rpc::RetryInfo {
                retry_delay: Some(delay),
            },
        ));
        self
    }

    /// Adds a `BadRequest` with these (field path, description) pairs.
    #[must_use]
    pub fn with_violations(mut self, violations: &[(&str, &str)]) -> Self {
        let violation = |(field, description): &(&str, &str)| rpc::bad_request::FieldViolation {
            field: (*field).to_owned(),
            description: (*description).to_owned(),
        };
        let field_violations = violations.iter().map(violation).collect();
        self.details.push(pack(
            "google.rpc.BadRequest",
            &rpc::BadRequest { field_violations },
        ));
        self
    }

    /// Adds a `RequestInfo`: the id under which the request stands in the server's diagnostics.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        let info = rpc::RequestInfo {
            request_id: id.to_owned(),
            serving_data: String::new(),
        };
        self.details.push(pack("google.rpc.RequestInfo", &info));
        self
    }

    /// The status for a request that a view refused: `InvalidArgument`, the sentence, and the field
    /// as a violation.
    pub fn from_decode_error(error: &DecodeError) -> Self {
        let status = Status::new(Code::InvalidArgument, error.to_string());
        if error.field().is_empty() {
            return status.with_reason("MESSAGE_UNREADABLE", &[]);
        }
        let field = error.field().to_string();
        status
            .with_reason("INVALID_FIELD", &[("field", &field)])
            .with_violations(&[(&field, &error.kind().to_string())])
    }

    /// The status as a `google.rpc.Status` message.
    pub fn to_proto(&self) -> rpc::Status {
        let details = self.details.clone();
        rpc::Status {
            code: i32::from(self.code.as_u8()),
            message: self.message.clone().into_owned(),
            details,
        }
    }

    /// Converts a `google.rpc.Status` message.
    pub fn from_proto(status: rpc::Status) -> Self {
        let code = Code::from_i32(status.code);
        Status {
            code,
            message: Cow::Owned(status.message),
            details: status.details,
        }
    }

    /// The value of `grpc-status-details-bin` (base64 without padding); `None` without details.
    pub fn details_header(&self) -> Option<String> {
        if self.details.is_empty() {
            return None;
        }
        Some(encode_binary(&self.to_proto().encode_to_vec()))
    }

    /// Reads the status from the trailers `grpc-status`, `grpc-message` and
    /// `grpc-status-details-bin`. Unreadable details are dropped: the code and the sentence matter
    /// more.
    pub fn from_trailers(code: Option<&[u8]>, message: Option<&[u8]>, details: Option<&[u8]>) -> Self {
        let parsed = code.map_or(Code::Unknown, |code| Code::parse(code).unwrap_or(Code::Unknown));
        let details = details
            .and_then(|details| super::decode_binary(details).ok())
            .and_then(|bytes| rpc::Status::decode(bytes.as_slice()).ok())
            .map(|status| status.details)
            .unwrap_or_default();
        let message = match (code, message) {
            (None, _) => Cow::Borrowed("the response ended without a grpc-status"),
            (_, message) => Cow::Owned(super::decode_message(message.unwrap_or_default())),
        };
        Status {
            code: parsed,
            message,
            details,
        }
    }

    /// The `reason` of the first `ErrorInfo` in the details.
    pub fn reason(&self) -> Option<String> {
        let info = self
            .details
            .iter()
            .find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"))?;
        rpc::ErrorInfo::decode(info.value.as_slice())
            .ok()
            .map(|info| info.reason)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

fn pack(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::decode_binary;

    #[test]
    fn codes_have_their_numbers_and_names() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.as_u8()), number);
            assert_eq!(Code::from_i32(number as i32), code);
            assert_eq!(Code::parse(number.to_string().as_bytes()), Ok(code));
            if code != Code::Ok {
                assert_eq!(Code::from_connect_name(code.connect_name()), Some(code));
            }
        }
        assert_eq!(Code::from_i32(17), Code::Unknown);
        assert_eq!(Code::from_i32(-1), Code::Unknown);
        assert_eq!(Code::parse(b"99999999999"), Ok(Code::Unknown));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"0x", b"\xff"] {
            assert_eq!(Code::parse(bad), Err(BadCode));
        }
        assert_eq!(Code::from_connect_name("ok"), None);
    }

    #[test]
    fn details_travel_through_the_header() {
        let status = Status::new(Code::ResourceExhausted, "too many")
            .with_reason("QUOTA", &[("limit", "5")])
            .with_retry_after(Duration::from_millis(1_500))
            .with_violations(&[("items[0].key", "is too long")]);
        let header = status.details_header().expect("has details");
        assert!(!header.contains('='));
        let proto =
            rpc::Status::decode(decode_binary(header.as_bytes()).expect("base64").as_slice()).expect("proto");
        assert_eq!(Status::from_proto(proto), status);
        let seen = Status::from_trailers(Some(b"8"), Some(b"too many"), Some(header.as_bytes()));
        assert_eq!(seen, status);
        assert_eq!(seen.reason().as_deref(), Some("QUOTA"));
        assert_eq!(Status::new(Code::Internal, "x").details_header(), None);
    }

    #[test]
    fn trailers_without_sense_still_give_a_status() {
        assert_eq!(Status::from_trailers(None, None, None).code, Code::Unknown);
        let status = Status::from_trailers(Some(b"zz"), Some(b"%zz"), Some(b"!!"));
        assert_eq!(
            (status.code, &*status.message, status.details.len()),
            (Code::Unknown, "%zz", 0)
        );
    }
}
