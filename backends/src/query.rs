//! Reads that a store is asked for, and the receiver of the answer. Results are passed to an
//! [`ItemSink`] one by one, borrowed, so that the gateway can write them straight into a
//! connection's output.

use smallvec::SmallVec;

use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::limits::{ITEM_OVERHEAD_BYTES, PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX};
use crate::mutation::{ItemRef, OwnedItem, PredicateRef, check_id};
use crate::version::Version;

/// Amount to return at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection<'a> {
    /// The page ends before its items would exceed this many bytes, counted as key + value +
    /// [`ITEM_OVERHEAD_BYTES`] each (a scan counts every id once in a page in the same way), but it
    /// always holds at least one item if there is one. 0 is 1 MiB; more than 4 MiB counts as 4 MiB.
    pub page_bytes: u32,
    /// The page ends after this many items; 0 is no such limit.
    pub item_limit: u32,
    /// Token from the previous page; empty for the first page.
    pub page_token: &'a [u8],
}

/// A query for items of one id, in key order.
#[derive(Clone, Copy, Debug)]
pub struct GetQuery<'a> {
    /// Namespace of the id.
    pub namespace: NamespaceId,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// Items to return.
    pub predicate: PredicateRef<'a>,
    /// Amount to return at a time.
    pub selection: Selection<'a>,
}

impl GetQuery<'_> {
    /// Checks the limits; errors name the field.
    pub fn check(&self) -> Result<(), StoreError> {
        check_id(self.id)?;
        self.predicate.check("predicate")
    }
}

/// A query for all items of a namespace (in this store: of this shard). All items of an id come
/// together, in key order; ids come in an order of the store's own.
#[derive(Clone, Copy, Debug)]
pub struct ScanQuery<'a> {
    /// Namespace to scan.
    pub namespace: NamespaceId,
    /// Amount to return at a time.
    pub selection: Selection<'a>,
}

/// Receiver of a query's results.
pub trait ItemSink {
    /// Starts the items of this id, found by a scan. Not called by `get`.
    fn id(&mut self, id: &str) {
        let _ = id;
    }

    /// Takes one item, whose parts are only lent, with its version.
    fn item(&mut self, item: &ItemRef<'_>, version: Version);
}

/// A copy of each item, without ids.
impl ItemSink for Vec<OwnedItem> {
    fn item(&mut self, item: &ItemRef<'_>, _: Version) {
        self.push((*item).into());
    }
}

/// Start of the next page. Opaque: it holds a format version, a check over itself and a fingerprint
/// of the query, so another query's token, an altered one or garbage is refused with
/// [`StoreError::InvalidPageToken`]. At most 2,100 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(pub(crate) SmallVec<[u8; 64]>);

impl PageToken {
    /// Bytes that the client gets and sends back as [`Selection::page_token`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Count of a page's bytes and items, which shows when it is full.
#[derive(Debug)]
pub(crate) struct PageBudget {
    bytes_left: usize,
    items_left: u32,
    is_empty: bool,
}

impl PageBudget {
    pub(crate) fn new(selection: &Selection<'_>) -> PageBudget {
        let bytes = match selection.page_bytes {
            0 => PAGE_BYTES_DEFAULT,
            bytes => bytes.min(PAGE_BYTES_MAX),
        };
        let items_left = if selection.item_limit == 0 {
            u32::MAX
        } else {
            selection.item_limit
        };
        PageBudget {
            bytes_left: bytes as usize,
            items_left,
            is_empty: true,
        }
    }

    /// Bytes left in the page.
    pub(crate) fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Takes room for an item with this much key and value, and for its id where that is new in the
    /// page. False means the item belongs to the next page.
    pub(crate) fn take(&mut self, key_bytes: usize, value_bytes: usize, new_id_bytes: Option<usize>) -> bool {
        let id_cost = new_id_bytes.map_or(0, |bytes| bytes + ITEM_OVERHEAD_BYTES);
        let cost = key_bytes + value_bytes + ITEM_OVERHEAD_BYTES + id_cost;
        if self.items_left == 0 || (cost > self.bytes_left && !self.is_empty) {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        self.items_left -= 1;
        self.is_empty = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_always_holds_one_item() {
        let mut budget = PageBudget::new(&Selection {
            page_bytes: 1,
            ..Selection::default()
        });
        assert!(budget.take(10, 1000, None));
        assert!(!budget.take(0, 0, None));
    }

    #[test]
    fn bytes_and_items_are_counted() {
        let selection = Selection {
            page_bytes: 100,
            item_limit: 3,
            page_token: b"",
        };
        let mut budget = PageBudget::new(&selection);
        assert!(budget.take(2, 16, None), "50 of 100");
        assert!(budget.take(2, 16, None), "100 of 100");
        assert!(!budget.take(0, 0, None), "32 more are too many");
        let mut budget = PageBudget::new(&Selection {
            item_limit: 1,
            ..Selection::default()
        });
        assert!(budget.take(0, 0, Some(5)));
        assert!(!budget.take(0, 0, None));
    }
}
