//! The states of a namespace: what is recorded about it, and what its callers may expect.

use std::fmt;

/// State of a namespace, as the catalog records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NamespaceState {
    /// The store does not have its objects yet; no call is served.
    Provisioning,
    /// The store has it as its file says.
    Active,
    /// A new file is being carried out; calls are served as the one before it says.
    Updating,
    /// The data is being removed; no call is served, and its name is not free yet.
    Deleting,
}

/// Each state with its spelling in the catalog and in answers.
const NAMES: [(NamespaceState, &str); 4] = [
    (NamespaceState::Provisioning, "provisioning"),
    (NamespaceState::Active, "active"),
    (NamespaceState::Updating, "updating"),
    (NamespaceState::Deleting, "deleting"),
];

impl NamespaceState {
    /// Whether calls are served.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Updating)
    }

    /// The state spelled exactly so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(state, _)| *state)
    }

    /// The spelling in the catalog and in answers.
    pub(crate) fn as_str(self) -> &'static str {
        let found = NAMES.iter().find(|(state, _)| *state == self);
        found.map_or("", |(_, name)| name)
    }
}

impl fmt::Display for NamespaceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
