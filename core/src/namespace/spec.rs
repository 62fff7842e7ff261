//! A namespace as the control thread describes it to the shards.

use prism_backends::NamespaceId;
use prism_codec::method::Api;

use super::model::Durability;

/// Specification of a namespace, as the control thread sends it to all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceSpec {
    pub(crate) id: NamespaceId,
    pub(crate) name: String,
    /// API whose calls it takes.
    pub(crate) api: Api,
    /// Time to live of items for which the writer gives none.
    pub(crate) ttl_ms: Option<u64>,
    /// Largest value.
    pub(crate) value_bytes_max: usize,
    /// When its writes are acknowledged.
    pub(crate) durability: Durability,
}
