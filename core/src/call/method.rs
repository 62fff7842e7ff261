//! Methods that the control thread serves. All methods stand in the table of
//! [`prism_codec::method`].

use prism_codec::method::{DeadLettersMethod, Method, NamespacesMethod};

/// A method of `prism.admin.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminMethod {
    Namespaces(NamespacesMethod),
    DeadLetters(DeadLettersMethod),
}

impl From<AdminMethod> for Method {
    fn from(method: AdminMethod) -> Self {
        match method {
            AdminMethod::Namespaces(method) => method.into(),
            AdminMethod::DeadLetters(method) => method.into(),
        }
    }
}
