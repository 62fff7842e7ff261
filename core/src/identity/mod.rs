//! Callers: who they are, and by what that is known.
//!
//! ```text
//!   certificate ──> SPIFFE id ──> Caller {service, team} ──┐
//!                                                          ├─> Permissions
//!   namespace file: access ──> namespace::access ──────────┘
//! ```
//!
//! Without identity, on loopback, there is nobody to prove anything: all callers are one, which may
//! do everything.

mod certificate;
mod spiffe;
pub(crate) mod verifier;

use std::{sync::Arc, time::SystemTime};

pub(crate) use self::{certificate::read, spiffe::is_trust_domain};

/// A caller that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) service: Box<str>,
    /// The team that its identity names.
    pub(crate) team: Option<Box<str>>,
    /// Whether it may change the configuration of every namespace. That is no permission for data.
    pub(crate) is_admin: bool,
    /// Whether it may see every namespace and the metrics.
    pub(crate) is_viewer: bool,
    /// When its proof ends.
    pub(crate) until: SystemTime,
}

/// The rules of identity of one gateway; `None` in their place: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The only domain whose ids count.
    pub(crate) trust_domain: Box<str>,
    admins: Vec<String>,
    viewers: Vec<String>,
}

impl Rules {
    /// Makes rules with these services as administrators and viewers.
    pub(crate) fn new(trust_domain: &str, admins: &[String], viewers: &[String]) -> Arc<Self> {
        Arc::new(Self {
            trust_domain: trust_domain.into(),
            admins: admins.to_owned(),
            viewers: viewers.to_owned(),
        })
    }

    /// The caller with this identity.
    fn caller(&self, identity: Identity, until: SystemTime) -> Caller {
        let is_in = |names: &[String]| names.iter().any(|name| **name == *identity.service);
        let is_admin = is_in(&self.admins);
        Caller {
            is_admin,
            is_viewer: is_admin || is_in(&self.viewers),
            service: identity.service,
            team: identity.team,
            until,
        }
    }
}

/// The name of a caller, as its proof has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) service: Box<str>,
    pub(crate) team: Option<Box<str>>,
}

/// Number of a caller in the table of its shard. None is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallerId(pub(crate) u32);

impl CallerId {
    /// The number of those who have proved nothing.
    pub(crate) const NOBODY: Self = Self(0);
}
