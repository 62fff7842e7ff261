//! The table of all methods, made from `proto/` when this crate is built: service, name, path, the
//! permissions that a call needs, and its effect on the data.
//!
//! A method is an enum of two bytes, so code that must treat each of them gets the compiler's
//! check; other code reads the method's row. A row comes from the proto, next to the rpc
//! (`option (prism.call)`), and a method of ours without it does not build. An index is the
//! method's place in its service and may change when one is added: nothing on disk or on the wire
//! holds it.

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodSpec {
    /// The name in the service definition, for example `Put`.
    pub name: &'static str,
    /// The path of a request, for example `/prism.keyvalue.v1.KeyValue/Put`.
    pub path: &'static str,
    /// Permissions that the caller needs in the namespace.
    pub permissions: Permissions,
    /// Direction of the messages.
    pub shape: Shape,
    /// Effect of the call on the data.
    pub effect: Effect,
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions(u8);

impl Permissions {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Permission to read data.
    pub const READ: Self = Self(1);
    /// Permission to write data.
    pub const WRITE: Self = Self(2);
    /// Permission to change the namespace itself, which includes the other two.
    pub const ADMIN: Self = Self(4);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a caller with these permissions may do a call that demands `needed`.
    pub const fn allow(self, needed: Self) -> bool {
        let held = if self.0 & Self::ADMIN.0 != 0 {
            u8::MAX
        } else {
            self.0
        };
        needed.0 & !held == 0
    }
}

/// Direction of a call's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One message each way.
    Unary,
    /// One message in, a stream out.
    Stream,
    /// Streams both ways.
    Dialogue,
}

/// Effect of a call on the data, which decides when it may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No change.
    None,
    /// A change whose outcome is known before the store has it: acknowledged once it is durable in
    /// the log.
    Certain,
    /// A change that only the store can accept or refuse: logged, and acknowledged once it is
    /// applied.
    Judged,
    /// A change to the gateway's or the store's own records: never logged.
    Direct,
}

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

impl Api {
    /// Whether calls of the service are about the data of a namespace, and served by the shards.
    pub const fn is_data(self) -> bool {
        match self {
            Self::KeyValue | Self::PubSub | Self::Queue => true,
            Self::DeadLetters | Self::Namespaces | Self::Health | Self::ServerReflection => false,
        }
    }
}

impl Method {
    /// The method at a request's path: first its service, then one of its methods.
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let path = path.strip_prefix(b"/")?;
        let slash = path.iter().position(|byte| *byte == b'/')?;
        let (service, name) = (&path[..slash], &path[slash + 1..]);
        let api = Api::ALL.iter().find(|api| api.service().as_bytes() == service)?;
        let index = api
            .methods()
            .iter()
            .position(|method| method.name.as_bytes() == name)?;
        api.method(index)
    }

    /// All methods of all services.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_api = |api: &Api| {
            let api = *api;
            (0..api.methods().len()).filter_map(move |index| api.method(index))
        };
        Api::ALL.iter().flat_map(of_api)
    }
}
