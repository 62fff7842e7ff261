//! The way to a store that all shards share.

use std::sync::Arc;

use super::job::{Job, WriterMessage};
use crate::runtime::mailbox::Mailbox;

/// How a shard, or its log, reaches one store. Which threads empty the mailboxes is the store's business.
#[derive(Debug, Clone)]
pub(crate) struct StoreLink {
    pub(crate) writes: Arc<Mailbox<WriterMessage>>,
    pub(crate) reads: Arc<Mailbox<Job>>,
}
