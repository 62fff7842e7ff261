//! Access to a store that all shards share.

use std::sync::Arc;

use super::job::{Job, WriterMessage};
use crate::runtime::mailbox::Mailbox;

/// Mailboxes through which a shard, or its log, reaches one store. The store decides which threads
/// empty them.
#[derive(Debug, Clone)]
pub(crate) struct StoreLink {
    pub(crate) writes: Arc<Mailbox<WriterMessage>>,
    pub(crate) reads: Arc<Mailbox<Job>>,
}
