//! Looking at a queue without taking part in it.

use rusqlite::params;

use super::rows::{Entry, columns};
use crate::api::queue::{Counts, Peek, Sink};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::sqlite::Reader;
use crate::sqlite::pubsub::place_range;

impl Reader {
    /// Shows messages; see [`crate::api::queue::Reads::peek`].
    pub fn peek_queue(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        self.check_namespace(peek.namespace)?;
        let connection = &self.connection;
        self.in_one_snapshot(|| {
            let Some((begin, end)) = place_range(connection, peek.namespace)? else {
                return Ok(None);
            };
            let mut statement = connection.prepare_cached(OF_QUEUE)?;
            let mut rows = statement.query(params![begin + peek.after.cast_signed(), end])?;
            let mut shown = 0;
            while let Some(row) = rows.next()? {
                let entry = Entry::read(row)?;
                let is_of_key = peek.key.is_none_or(|key| entry.key.as_deref() == Some(key));
                if !is_of_key || !peek.states.contains(&entry.item.state(now)) {
                    continue;
                }
                let failure = entry.item.death(now).unwrap_or(&entry.failure);
                let is_taken = shown < peek.messages_max
                    && entry.show(connection, entry.item, failure, peek.with_payload, |one| {
                        sink.message(one)
                    })?;
                if !is_taken {
                    return Ok(Some((entry.place - begin - 1).max(0).cast_unsigned()));
                }
                shown += 1;
            }
            Ok(None)
        })
    }

    /// Counts messages; see [`crate::api::queue::Reads::stats`].
    pub fn count_queue(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        self.check_namespace(namespace)?;
        let connection = &self.connection;
        self.in_one_snapshot(|| {
            let mut counts = Counts::default();
            let Some((begin, end)) = place_range(connection, namespace)? else {
                return Ok(counts);
            };
            let mut statement = connection.prepare_cached(OF_QUEUE)?;
            let mut rows = statement.query(params![begin, end])?;
            while let Some(row) = rows.next()? {
                let entry = Entry::read(row)?;
                counts[entry.item.state(now) as usize].add(entry.item.sent_at);
            }
            Ok(counts)
        })
    }
}

const OF_QUEUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE place > ?1 AND place < ?2 ORDER BY place"
);
