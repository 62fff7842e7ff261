//! What a request head means: which method, in which format, by when.
//!
//! A [`Head`] is small and `Copy`, so that a connection can remember the heads it has seen and skip the decoding of
//! header blocks that repeat.

use std::time::Duration;

use prism_codec::{
    connect::ContentType,
    grpc,
    h2::HeaderList,
    method::{HealthMethod, Method, ServerReflectionMethod},
};

use crate::call::method::AdminMethod;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// A call about the data of a namespace.
    Call(Method),
    /// A call that the control thread serves.
    Admin(AdminMethod),
    HealthCheck,
    HealthWatch,
    /// Server reflection; the flag tells v1alpha from v1.
    Reflection {
        alpha: bool,
    },
    /// `GET /metrics`.
    Metrics,
    /// `GET /healthz`: the process lives.
    Healthz,
    /// `GET /readyz`: the gateway takes requests.
    Readyz,
    /// `GET /`: a hint for people who point a browser here.
    Welcome,
    /// No such path.
    Unknown,
    /// A known path with a method that it does not take.
    WrongMethod,
    /// A call whose content type is none of the accepted ones.
    WrongContentType,
    /// A call whose `grpc-timeout` or `connect-timeout-ms` cannot be read.
    WrongTimeout,
}

impl Route {
    /// Whether the answer is known from the head alone.
    pub(crate) fn needs_no_body(self) -> bool {
        match self {
            Self::Metrics
            | Self::Healthz
            | Self::Readyz
            | Self::Welcome
            | Self::Unknown
            | Self::WrongMethod
            | Self::WrongContentType
            | Self::WrongTimeout => true,
            Self::Call(_)
            | Self::Admin(_)
            | Self::HealthCheck
            | Self::HealthWatch
            | Self::Reflection { .. } => false,
        }
    }
}

/// How the request's message is wrapped, and so how its reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// gRPC over HTTP/2.
    Grpc,
    /// Connect unary with a protobuf body.
    ConnectProto,
    /// Connect unary with a JSON body.
    ConnectJson,
    /// Plain HTTP, not a call.
    Plain,
}

/// The request head, interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) route: Route,
    pub(crate) format: Format,
    pub(crate) timeout: Option<Duration>,
    pub(crate) encoding: Encoding,
}

/// How messages or bodies of the request may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Known(grpc::Encoding),
    /// One that this gateway does not decode; an error only if a message really is compressed.
    Unsupported,
}

impl Head {
    /// Interprets a request head that the protocol layer has already checked.
    pub(crate) fn parse(headers: &HeaderList) -> Self {
        Self::from_fields(headers.iter())
    }

    /// Interprets the fields of a request head; HTTP/1.1 brings them in the names of HTTP/2 (`:method`, `:path`).
    pub(crate) fn from_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut raw = RawHead::default();
        for (name, value) in fields {
            match name {
                b":method" => raw.method = value,
                b":path" => raw.path = value,
                b"content-type" => raw.content_type = value,
                b"grpc-timeout" => raw.grpc_timeout = Some(value),
                b"connect-timeout-ms" => raw.connect_timeout = Some(value),
                b"grpc-encoding" => raw.grpc_encoding = Some(value),
                b"content-encoding" => raw.content_encoding = Some(value),
                _ => {}
            }
        }
        raw.interpret()
    }
}

#[derive(Default)]
struct RawHead<'a> {
    method: &'a [u8],
    path: &'a [u8],
    content_type: &'a [u8],
    grpc_timeout: Option<&'a [u8]>,
    connect_timeout: Option<&'a [u8]>,
    grpc_encoding: Option<&'a [u8]>,
    content_encoding: Option<&'a [u8]>,
}

impl RawHead<'_> {
    fn interpret(&self) -> Head {
        let path = self.path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let format = self.format();
        let mut route = route_of(path);
        match route {
            Route::Metrics | Route::Healthz | Route::Readyz | Route::Welcome => {
                if self.method != b"GET" && self.method != b"HEAD" {
                    route = Route::WrongMethod;
                }
                return Head {
                    route,
                    format: Format::Plain,
                    timeout: None,
                    encoding: IDENTITY,
                };
            }
            _ if self.method == b"POST" => {
                if format == Format::Plain {
                    route = Route::WrongContentType;
                }
            }
            Route::Unknown => {}
            _ => route = Route::WrongMethod,
        }
        let (timeout, encoding) = match format {
            Format::Grpc => (self.grpc_timeout.map(grpc::parse_timeout), self.grpc_encoding),
            _ => (self.connect_timeout.map(parse_millis), self.content_encoding),
        };
        if timeout == Some(None) && !route.needs_no_body() {
            // Served without a deadline it would keep a caller waiting who said that it will not wait.
            route = Route::WrongTimeout;
        }
        let timeout = timeout.flatten();
        let encoding = encoding.map_or(IDENTITY, |name| {
            grpc::Encoding::parse(name).map_or(Encoding::Unsupported, Encoding::Known)
        });
        Head {
            route,
            format,
            timeout,
            encoding,
        }
    }

    fn format(&self) -> Format {
        if grpc::is_content_type(self.content_type) {
            return Format::Grpc;
        }
        match ContentType::parse(self.content_type) {
            Some(ContentType::Json) => Format::ConnectJson,
            Some(ContentType::Proto) => Format::ConnectProto,
            None => Format::Plain,
        }
    }
}

const IDENTITY: Encoding = Encoding::Known(grpc::Encoding::Identity);

/// The Connect protocol: at most ten digits.
fn parse_millis(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > 10 {
        return None;
    }
    let text = str::from_utf8(value).ok()?;
    text.parse().ok().map(Duration::from_millis)
}

impl Route {
    /// The path of a call, for example `/prism.keyvalue.v1.KeyValue/Put`; of anything else its own.
    pub(crate) fn path(self) -> &'static str {
        let method: Method = match self {
            Self::Call(method) => method,
            Self::Admin(method) => method.into(),
            Self::HealthCheck => HealthMethod::Check.into(),
            Self::HealthWatch => HealthMethod::Watch.into(),
            Self::Reflection { alpha: false } => ServerReflectionMethod::ServerReflectionInfo.into(),
            _ => {
                let path = PATHS.iter().find(|(_, route)| *route == self);
                return path.map_or("", |(path, _)| path);
            }
        };
        method.spec().path
    }
}

impl From<Method> for Route {
    fn from(method: Method) -> Self {
        match method {
            Method::KeyValue(_) => Self::Call(method),
            Method::Namespaces(method) => Self::Admin(AdminMethod::Namespaces(method)),
            Method::DeadLetters(method) => Self::Admin(AdminMethod::DeadLetters(method)),
            Method::Health(HealthMethod::Check) => Self::HealthCheck,
            Method::Health(HealthMethod::Watch) => Self::HealthWatch,
            Method::ServerReflection(ServerReflectionMethod::ServerReflectionInfo) => {
                Self::Reflection { alpha: false }
            }
        }
    }
}

/// Heads are remembered per connection, so this runs rarely.
fn route_of(path: &[u8]) -> Route {
    if let Some(method) = Method::of_path(path) {
        return method.into();
    }
    PATHS
        .iter()
        .find(|(known, _)| known.as_bytes() == path)
        .map_or(Route::Unknown, |(_, route)| *route)
}

/// The paths that are no methods of `proto/`.
const PATHS: [(&str, Route); 5] = [
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Route::Reflection { alpha: true },
    ),
    ("/metrics", Route::Metrics),
    ("/healthz", Route::Healthz),
    ("/readyz", Route::Readyz),
    ("/", Route::Welcome),
];
