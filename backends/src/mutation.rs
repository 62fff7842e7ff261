//! Changes that a store is asked to make, borrowed from the caller's buffers, and its answers.
//! Includes the checks of all limits, so that every store refuses the same things with the same
//! words.

use std::cmp::Ordering;

use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::{ID_BYTES_MAX, ITEMS_PER_PUT_MAX, KEY_BYTES_MAX, PREDICATE_KEYS_MAX, VALUE_BYTES_MAX};
use crate::version::{VERSION_BYTES, Version};

/// One item, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// 0 to 1,024 bytes.
    pub key: &'a [u8],
    /// 0 bytes to 16 MiB.
    pub value: &'a [u8],
    /// Moment at which the item disappears; `None` is never. An item is gone as soon as `now`
    /// reaches it.
    pub expires_at: Option<UnixMillis>,
    /// Compression by the client; kept and returned unchanged.
    pub compression: u8,
}

/// One item, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedItem {
    /// The key, as in [`ItemRef::key`].
    pub key: Vec<u8>,
    /// The value, as in [`ItemRef::value`].
    pub value: Vec<u8>,
    /// The expiry, as in [`ItemRef::expires_at`].
    pub expires_at: Option<UnixMillis>,
    /// The compression, as in [`ItemRef::compression`].
    pub compression: u8,
}

impl OwnedItem {
    /// The same item, borrowed.
    pub fn as_ref(&self) -> ItemRef<'_> {
        ItemRef {
            key: &self.key,
            value: &self.value,
            expires_at: self.expires_at,
            compression: self.compression,
        }
    }
}

impl From<ItemRef<'_>> for OwnedItem {
    fn from(item: ItemRef<'_>) -> OwnedItem {
        OwnedItem {
            key: item.key.to_vec(),
            value: item.value.to_vec(),
            expires_at: item.expires_at,
            compression: item.compression,
        }
    }
}

/// Items of an id that a call applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateRef<'a> {
    /// All of them.
    All,
    /// Those with one of these keys (1 to 1,000; in any order, repeats are ignored).
    Keys(&'a [&'a [u8]]),
    /// All keys from `start` up to, and not including, `end`. An empty `end` is no upper bound.
    Range {
        /// First key of the range.
        start: &'a [u8],
        /// First key after the range; empty is none.
        end: &'a [u8],
    },
}

impl PredicateRef<'_> {
    /// Checks the limits; `field` is the path of the predicate for the error.
    pub fn check(&self, field: &str) -> Result<(), StoreError> {
        match self {
            PredicateRef::All => Ok(()),
            PredicateRef::Keys(keys) => {
                check_count(&format!("{field}.keys.keys"), keys.len(), PREDICATE_KEYS_MAX)?;
                for (position, key) in keys.iter().enumerate() {
                    if key.len() > KEY_BYTES_MAX {
                        return Err(too_long(
                            format!("{field}.keys.keys[{position}]"),
                            key.len(),
                            KEY_BYTES_MAX,
                        ));
                    }
                }
                Ok(())
            }
            PredicateRef::Range { start, end } => {
                if start.len() > KEY_BYTES_MAX {
                    return Err(too_long(
                        format!("{field}.range.start"),
                        start.len(),
                        KEY_BYTES_MAX,
                    ));
                }
                if end.len() > KEY_BYTES_MAX {
                    return Err(too_long(format!("{field}.range.end"), end.len(), KEY_BYTES_MAX));
                }
                Ok(())
            }
        }
    }
}

/// One change to one id.
#[derive(Clone, Copy, Debug)]
pub struct Mutation<'a> {
    /// Namespace of the id. Must have been created.
    pub namespace: NamespaceId,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// Version that decides which write wins, and which is a repeat. Mutations of one request that
    /// share a token must differ by [`Version::at_position`], or a later one has no effect where an
    /// earlier one had.
    pub version: Version,
    /// Moment at which the call was taken and by which it is judged: an item that has expired by
    /// then is absent to a compare-and-swap, and a delete is remembered from then on. A mutation
    /// that is kept, and applied later or once more, keeps its moment, or its outcome might differ
    /// from the answer given.
    pub at: UnixMillis,
    /// Digest of the whole call, if its client gave it a token: a repeat has the same one. A store
    /// that remembers calls by their versions refuses another call under one of them with
    /// [`StoreError::TokenReused`]. `None`: calls cannot be distinguished.
    pub digest: Option<u64>,
    /// The operation.
    pub operation: Operation<'a>,
}

/// Operation of a mutation.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// Writes 1 to 1,000 items, replacing existing ones; of two with one key the later counts.
    Put(&'a [ItemRef<'a>]),
    /// Deletes the items that match.
    Delete(PredicateRef<'a>),
    /// Replaces one item if it is as expected.
    CompareAndSwap {
        /// Key of the item.
        key: &'a [u8],
        /// Expectation of the caller.
        expected: Expected<'a>,
        /// The new item (its own `key` is ignored); `None` deletes.
        replacement: Option<ItemRef<'a>>,
    },
}

/// Expectation of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// No such item, or an expired one.
    Absent,
    /// An item with exactly this value.
    Value(&'a [u8]),
    /// An item that is as it was when a read showed it with this version: see
    /// [`Version::to_bytes`].
    Version(&'a [u8]),
}

impl Expected<'_> {
    /// Whether the item that is there, with its version, is as expected.
    pub(crate) fn holds(&self, current: Option<(&ItemRef<'_>, Version)>) -> bool {
        match (self, current) {
            (Expected::Absent, None) => true,
            (Expected::Value(value), Some((item, _))) => *value == item.value,
            (Expected::Version(bytes), Some((_, version))) => **bytes == version.to_bytes(),
            _ => false,
        }
    }
}

/// An item as it was found, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The item.
    pub item: OwnedItem,
    /// Version that it had; `None` where a repeat is shown an item that is not there any more.
    pub version: Option<Version>,
}

impl Found {
    pub(crate) fn new(item: impl Into<OwnedItem>, version: Version) -> Found {
        Found {
            item: item.into(),
            version: Some(version),
        }
    }
}

/// Result of one mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The put or delete was applied, or had been before, or newer writes had already replaced its
    /// whole effect.
    Applied,
    /// The expectation held; the swap took place, and the item (or its absence) has this version
    /// from it. `None`: it took place when the mutation's version was first applied, and nothing
    /// has changed now.
    Swapped(Option<Version>),
    /// The expectation did not hold; the item at that time, if there was one.
    NotSwapped(Option<Found>),
    /// The mutation had no effect at all.
    Refused(StoreError),
}

impl Mutation<'_> {
    /// Checks every limit and rule that does not depend on stored data. Errors name the field as in
    /// the messages of `prism.keyvalue.v1`.
    pub fn check(&self) -> Result<(), StoreError> {
        check_id(self.id)?;
        match &self.operation {
            Operation::Put(items) => {
                check_count("items", items.len(), ITEMS_PER_PUT_MAX)?;
                for (position, item) in items.iter().enumerate() {
                    // The path is made only for the error: this runs for every item of every put.
                    if item.key.len() > KEY_BYTES_MAX {
                        return Err(too_long(
                            format!("items[{position}].key"),
                            item.key.len(),
                            KEY_BYTES_MAX,
                        ));
                    }
                    if item.value.len() > VALUE_BYTES_MAX {
                        return Err(too_long(
                            format!("items[{position}].value"),
                            item.value.len(),
                            VALUE_BYTES_MAX,
                        ));
                    }
                }
                Ok(())
            }
            Operation::Delete(predicate) => predicate.check("predicate"),
            Operation::CompareAndSwap {
                key,
                expected,
                replacement,
            } => {
                if key.len() > KEY_BYTES_MAX {
                    return Err(too_long("key".to_owned(), key.len(), KEY_BYTES_MAX));
                }
                if let Expected::Version(bytes) = expected
                    && bytes.len() != VERSION_BYTES
                {
                    let reason = format!(
                        "must be the version of an item as it was read, which has {VERSION_BYTES} bytes, has {}",
                        bytes.len()
                    );
                    return Err(StoreError::invalid("version", reason));
                }
                match replacement {
                    Some(item) if item.value.len() > VALUE_BYTES_MAX => Err(too_long(
                        "item.value".to_owned(),
                        item.value.len(),
                        VALUE_BYTES_MAX,
                    )),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Checks the length of an id: 1 to 1,024 bytes.
pub fn check_id(id: &str) -> Result<(), StoreError> {
    match id.len() {
        0 => Err(StoreError::invalid(
            "id",
            format!("must have 1 to {ID_BYTES_MAX} bytes, has none"),
        )),
        length if length > ID_BYTES_MAX => Err(too_long("id".to_owned(), length, ID_BYTES_MAX)),
        _ => Ok(()),
    }
}

#[cold]
fn too_long(field: String, length: usize, max: usize) -> StoreError {
    StoreError::invalid(field, format!("must have at most {max} bytes, has {length}"))
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), StoreError> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(StoreError::invalid(
        field,
        format!("must have 1 to {max} elements, has {count}"),
    ))
}

/// Whether `key` lies in the range; an empty `end` is no upper bound.
pub(crate) fn range_contains(start: &[u8], end: &[u8], key: &[u8]) -> bool {
    key >= start && (end.is_empty() || key < end)
}

/// Whether something with this expiry is gone at `now`.
pub(crate) fn is_expired(expires_at: Option<UnixMillis>, now: UnixMillis) -> bool {
    expires_at.is_some_and(|moment| moment.cmp(&now) != Ordering::Greater)
}
