//! Encoders of the requests and responses of `prism.keyvalue.v1.KeyValue`: they append to the
//! caller's buffer.
//!
//! Promises the bytes that `prost` would write for the same values, without intermediate copies.
//! Writers ([`GetResponseWriter`] and its like) take items one by one while a store hands them out;
//! what they have written is already in the buffer, so a writer that is dropped before `finish`
//! leaves a valid message without its page token.

use super::{ExpectedView, ItemView, SelectionView};
use crate::{
    message::common::{TokenView, WriteResultView},
    writer::{
        Open, bytes_len, close, len_field_len, open, put_bytes, put_bytes_always, put_len_key,
        put_varint_field, varint_field_len,
    },
};

/// Bytes of an item's content, without the key and length around it.
#[inline(always)]
fn item_len(item: &ItemView<'_>) -> usize {
    bytes_len(item.key)
        + bytes_len(item.value)
        + item.ttl.map_or(0, |ttl| ttl.field_len())
        + varint_field_len(item.compression as i64 as u64)
        + bytes_len(item.version)
}

/// Bytes that this item takes within a `GetResponse` or `ScanEntry`, with its key and length: what
/// counts for a page.
pub fn item_encoded_len(item: &ItemView<'_>) -> usize {
    len_field_len(item_len(item))
}

#[inline(always)]
fn put_item(out: &mut Vec<u8>, field: u32, item: &ItemView<'_>) {
    let length = item_len(item);
    out.reserve(length + 11);
    put_len_key(out, field, length);
    put_bytes(out, 1, item.key);
    put_bytes(out, 2, item.value);
    if let Some(ttl) = item.ttl {
        ttl.put(out, 3);
    }
    put_varint_field(out, 4, item.compression as i64 as u64);
    put_bytes(out, 5, item.version);
}

// ---- requests ----

/// Appends a `PutRequest`.
pub fn encode_put_request<'i>(
    out: &mut Vec<u8>,
    namespace: &str,
    id: &str,
    token: Option<&TokenView<'_>>,
    items: impl IntoIterator<Item = ItemView<'i>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    put_bytes(out, 2, id.as_bytes());
    if let Some(token) = token {
        token.put(out, 3);
    }
    for item in items {
        put_item(out, 4, &item);
    }
}

/// A predicate to be sent. The counterpart of [`super::PredicateView`], whose keys still lie on the
/// wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PredicateOut<'a> {
    /// Every item.
    All,
    /// The items with these keys.
    Keys(&'a [&'a [u8]]),
    /// From `start` up to, and not including, `end`; an empty `end` means no upper bound.
    Range {
        /// The first key that is meant.
        start: &'a [u8],
        /// The first key after the range; empty: none.
        end: &'a [u8],
    },
}

impl PredicateOut<'_> {
    fn kind_len(&self) -> usize {
        match self {
            PredicateOut::All => 0,
            PredicateOut::Keys(keys) => keys.iter().map(|key| len_field_len(key.len())).sum(),
            PredicateOut::Range { start, end } => bytes_len(start) + bytes_len(end),
        }
    }

    fn encoded_len(&self) -> usize {
        len_field_len(self.kind_len())
    }

    fn put(&self, out: &mut Vec<u8>, field: u32) {
        let kind_len = self.kind_len();
        put_len_key(out, field, len_field_len(kind_len));
        match self {
            PredicateOut::All => put_len_key(out, 1, kind_len),
            PredicateOut::Keys(keys) => {
                put_len_key(out, 2, kind_len);
                for key in *keys {
                    put_bytes_always(out, 1, key);
                }
            }
            PredicateOut::Range { start, end } => {
                put_len_key(out, 3, kind_len);
                put_bytes(out, 1, start);
                put_bytes(out, 2, end);
            }
        }
    }
}

fn put_selection(out: &mut Vec<u8>, field: u32, selection: &SelectionView<'_>) {
    let length = varint_field_len(u64::from(selection.page_bytes))
        + varint_field_len(u64::from(selection.item_limit))
        + bytes_len(selection.page_token);
    put_len_key(out, field, length);
    put_varint_field(out, 1, u64::from(selection.page_bytes));
    put_varint_field(out, 2, u64::from(selection.item_limit));
    put_bytes(out, 3, selection.page_token);
}

/// Appends a `GetRequest`.
pub fn encode_get_request(
    out: &mut Vec<u8>,
    namespace: &str,
    id: &str,
    predicate: Option<&PredicateOut<'_>>,
    selection: Option<&SelectionView<'_>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    put_bytes(out, 2, id.as_bytes());
    if let Some(predicate) = predicate {
        predicate.put(out, 3);
    }
    if let Some(selection) = selection {
        put_selection(out, 4, selection);
    }
}

/// Appends a `DeleteRequest`.
pub fn encode_delete_request(
    out: &mut Vec<u8>,
    namespace: &str,
    id: &str,
    token: Option<&TokenView<'_>>,
    predicate: Option<&PredicateOut<'_>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    put_bytes(out, 2, id.as_bytes());
    if let Some(token) = token {
        token.put(out, 3);
    }
    if let Some(predicate) = predicate {
        predicate.put(out, 4);
    }
}

/// Appends a `ScanRequest`.
pub fn encode_scan_request(out: &mut Vec<u8>, namespace: &str, selection: Option<&SelectionView<'_>>) {
    put_bytes(out, 1, namespace.as_bytes());
    if let Some(selection) = selection {
        put_selection(out, 2, selection);
    }
}

/// One mutation to be sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MutationOut<'a> {
    /// The id.
    pub id: &'a str,
    /// The change to the id.
    pub operation: MutationOperationOut<'a>,
}

/// Change that a mutation to be sent makes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MutationOperationOut<'a> {
    /// Writes these items.
    Put(&'a [ItemView<'a>]),
    /// Deletes the items that match; all when absent.
    Delete(Option<PredicateOut<'a>>),
}

/// Appends a `MutateRequest`.
pub fn encode_mutate_request<'m>(
    out: &mut Vec<u8>,
    namespace: &str,
    token: Option<&TokenView<'_>>,
    mutations: impl IntoIterator<Item = MutationOut<'m>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    if let Some(token) = token {
        token.put(out, 2);
    }
    for mutation in mutations {
        let operation_len = match &mutation.operation {
            MutationOperationOut::Put(items) => items.iter().map(item_encoded_len).sum(),
            MutationOperationOut::Delete(predicate) => predicate
                .as_ref()
                .map_or(0, |predicate| len_field_len(predicate.encoded_len())),
        };
        put_len_key(
            out,
            3,
            bytes_len(mutation.id.as_bytes()) + len_field_len(operation_len),
        );
        put_bytes(out, 1, mutation.id.as_bytes());
        match &mutation.operation {
            MutationOperationOut::Put(items) => {
                put_len_key(out, 2, operation_len);
                for item in *items {
                    put_item(out, 1, item);
                }
            }
            MutationOperationOut::Delete(predicate) => {
                put_len_key(out, 3, operation_len);
                if let Some(predicate) = predicate {
                    predicate.put(out, 1);
                }
            }
        }
    }
}

/// Appends a `CompareAndSwapRequest`. `item`: what to put in place, absent: delete.
pub fn encode_compare_and_swap_request(
    out: &mut Vec<u8>,
    namespace: &str,
    id: &str,
    key: &[u8],
    token: Option<&TokenView<'_>>,
    expected: ExpectedView<'_>,
    item: Option<&ItemView<'_>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    put_bytes(out, 2, id.as_bytes());
    put_bytes(out, 3, key);
    if let Some(token) = token {
        token.put(out, 4);
    }
    match expected {
        ExpectedView::Absent => put_len_key(out, 5, 0),
        ExpectedView::Value(value) => put_bytes_always(out, 6, value),
        ExpectedView::Version(version) => put_bytes_always(out, 8, version),
    }
    if let Some(item) = item {
        put_item(out, 7, item);
    }
}

// ---- responses ----

/// Appends a `CompareAndSwapResponse`. `current`: when not swapped, the item as it is.
pub fn encode_compare_and_swap_response(
    out: &mut Vec<u8>,
    swapped: bool,
    current: Option<&ItemView<'_>>,
    result: Option<&WriteResultView>,
) {
    put_varint_field(out, 1, u64::from(swapped));
    if let Some(current) = current {
        put_item(out, 2, current);
    }
    if let Some(result) = result {
        result.put(out, 3);
    }
}

/// Writes a `GetResponse`, item by item.
pub struct GetResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> GetResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    #[inline]
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        GetResponseWriter { out }
    }

    /// Appends an item.
    #[inline]
    pub fn item(&mut self, item: &ItemView<'_>) {
        put_item(self.out, 1, item);
    }

    /// Ends the response; an empty token says that this is the last page.
    #[inline]
    pub fn finish(self, next_page_token: &[u8]) {
        put_bytes(self.out, 2, next_page_token);
    }
}

/// Writes a `ScanResponse`: entries, and in each the items of one id.
pub struct ScanResponseWriter<'o> {
    out: &'o mut Vec<u8>,
    entry: Option<Open>,
}

impl<'o> ScanResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        ScanResponseWriter { out, entry: None }
    }

    /// Begins the entry of this id, and ends the one before.
    pub fn entry(&mut self, id: &str) {
        self.end_entry();
        self.entry = Some(open(self.out, 1));
        put_bytes(self.out, 1, id.as_bytes());
    }

    /// Appends an item to the entry that was begun last.
    ///
    /// # Panics
    /// In debug builds, when no entry was begun; release builds begin one without an id.
    #[inline]
    pub fn item(&mut self, item: &ItemView<'_>) {
        debug_assert!(self.entry.is_some(), "items belong to an entry");
        if self.entry.is_none() {
            self.entry("");
        }
        put_item(self.out, 2, item);
    }

    /// Ends the response; an empty token says that this is the last page.
    pub fn finish(mut self, next_page_token: &[u8]) {
        self.end_entry();
        put_bytes(self.out, 2, next_page_token);
    }

    fn end_entry(&mut self) {
        if let Some(entry) = self.entry.take() {
            close(self.out, entry);
        }
    }
}

/// A writer dropped half-way still leaves a message that parses.
impl Drop for ScanResponseWriter<'_> {
    fn drop(&mut self) {
        self.end_entry();
    }
}
