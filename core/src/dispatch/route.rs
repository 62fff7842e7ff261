//! Routes of requests: the paths, and the shape of each exchange.

use prism_codec::method::{HealthMethod, Method, ServerReflectionMethod, Shape};

use crate::call::method::AdminMethod;

/// The route of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// A call about the data of a namespace.
    Call(Method),
    /// A call that the control thread serves.
    Admin(AdminMethod),
    HealthCheck,
    HealthList,
    HealthWatch,
    /// Server reflection; the flag distinguishes v1alpha from v1.
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
    /// An OPTIONS request: the methods and fields that a page of another origin may use.
    Preflight,
    /// A request refused for its head.
    Refused,
}

impl Route {
    /// Whether the head alone shows that the request is refused.
    pub(crate) fn is_error(self) -> bool {
        matches!(self, Self::Unknown | Self::Refused)
    }

    /// Whether the answer is known from the head alone.
    pub(crate) fn needs_no_body(self) -> bool {
        self.method().is_none()
    }

    /// Whether the path is one of plain HTTP, not a call.
    pub(crate) fn is_page(self) -> bool {
        matches!(self, Self::Metrics | Self::Healthz | Self::Readyz | Self::Welcome)
    }

    /// Shape of the call's exchange.
    pub(crate) fn shape(self) -> Shape {
        self.method().map_or(Shape::Unary, |method| method.spec().shape)
    }

    /// The method of a call; v1alpha of reflection is that of v1.
    pub(crate) fn method(self) -> Option<Method> {
        Some(match self {
            Self::Call(method) => method,
            Self::Admin(method) => method.into(),
            Self::HealthCheck => HealthMethod::Check.into(),
            Self::HealthList => HealthMethod::List.into(),
            Self::HealthWatch => HealthMethod::Watch.into(),
            Self::Reflection { .. } => ServerReflectionMethod::ServerReflectionInfo.into(),
            Self::Metrics
            | Self::Healthz
            | Self::Readyz
            | Self::Welcome
            | Self::Unknown
            | Self::Preflight
            | Self::Refused => return None,
        })
    }
}

impl From<Method> for Route {
    fn from(method: Method) -> Self {
        match method {
            Method::Namespaces(method) => Self::Admin(AdminMethod::Namespaces(method)),
            Method::DeadLetters(method) => Self::Admin(AdminMethod::DeadLetters(method)),
            Method::Health(HealthMethod::Check) => Self::HealthCheck,
            Method::Health(HealthMethod::List) => Self::HealthList,
            Method::Health(HealthMethod::Watch) => Self::HealthWatch,
            Method::ServerReflection(ServerReflectionMethod::ServerReflectionInfo) => {
                Self::Reflection { alpha: false }
            }
            // All others are about the data of a namespace.
            method => Self::Call(method),
        }
    }
}

/// The route of a path. Heads are remembered per connection, so this runs rarely.
pub(crate) fn route_of(path: &[u8]) -> Route {
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
