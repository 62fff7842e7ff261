//! Views and encoders of `prism.keyvalue.v1`: requests for the gateway, responses for our clients,
//! and both ways back.
//!
//! `request` and `response` hold the views, `encode` the encoders. What they share (item,
//! predicate, selection) is here.

mod encode;
mod request;
mod response;

pub use encode::{
    GetResponseWriter, MutationOperationOut, MutationOut, PredicateOut, ScanResponseWriter,
    encode_compare_and_swap_request, encode_compare_and_swap_response, encode_delete_request,
    encode_get_request, encode_mutate_request, encode_put_request, encode_scan_request, item_encoded_len,
};
pub use request::{
    CompareAndSwapView, DeleteView, ExpectedView, GetView, MutateView, MutationOperation, MutationView,
    PutView, ScanView,
};
pub use response::{
    CompareAndSwapResponseView, DeleteResponseView, GetResponseView, MutateResponseView, MutationResultView,
    PutResponseView, ScanEntryView, ScanResponseView,
};

use super::{
    common::{DurationView, at, validate_empty},
    repeated::{Element, Pieces, Repeated},
};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{Missing, OutOfRange, TooLong, TooMany},
        Field,
    },
    limits::{
        ITEMS_MAX, KEY_BYTES_MAX, MESSAGE_DEPTH_MAX, PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX,
        PAGE_TOKEN_BYTES_MAX, RANGE_BOUND_BYTES_MAX,
    },
    reader::{LEN, VARINT, WireReader, key},
};

/// An item: as it came, or as it is to be sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ItemView<'a> {
    /// 0 to 1,024 bytes.
    pub key: &'a [u8],
    /// Up to the namespace's `max_message_size`.
    pub value: &'a [u8],
    /// How long the item lives; on reads, what is left.
    pub ttl: Option<DurationView>,
    /// Number of the `Compression` enum; unknown values are kept. In requests 0 to 255.
    pub compression: i32,
    /// Names this state of the item, on reads; in requests nobody looks at it.
    pub version: &'a [u8],
}

impl<'a> ItemView<'a> {
    #[inline(always)]
    pub(crate) fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                ITEM_KEY => self.key = reader.bytes().map_err(at(Field::Key))?,
                ITEM_VALUE => self.value = reader.bytes().map_err(at(Field::Value))?,
                ITEM_TTL => {
                    let nested = reader.bytes().map_err(at(Field::Ttl))?;
                    let ttl = self.ttl.get_or_insert_default();
                    ttl.merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Ttl))?;
                }
                ITEM_COMPRESSION => self.compression = reader.int32().map_err(at(Field::Compression))?,
                ITEM_VERSION => self.version = reader.bytes().map_err(at(Field::Version))?,
                key => reader.unknown(key, 5, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    /// The limits of an item in a request.
    #[inline(always)]
    fn check(&self) -> Result<(), DecodeError> {
        if self.key.len() > KEY_BYTES_MAX as usize {
            return Err(DecodeError::at(TooLong { max: KEY_BYTES_MAX }, Field::Key));
        }
        if !(0..=255).contains(&self.compression) {
            return Err(DecodeError::at(OutOfRange, Field::Compression));
        }
        match self.ttl {
            Some(ttl) => ttl.check_ttl().map_err(at(Field::Ttl)),
            None => Ok(()),
        }
    }
}

impl<'a> Element<'a> for ItemView<'a> {
    #[inline(always)]
    fn from_validated(bytes: &'a [u8]) -> Self {
        let mut item = ItemView::default();
        let accepted = item.merge(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(accepted.is_ok());
        item
    }
}

const ITEM_KEY: u32 = key(1, LEN);
const ITEM_VALUE: u32 = key(2, LEN);
const ITEM_TTL: u32 = key(3, LEN);
const ITEM_COMPRESSION: u32 = key(4, VARINT);
const ITEM_VERSION: u32 = key(5, LEN);

/// Which items of an id are meant.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum PredicateView<'a> {
    /// Every item; also when the request has no predicate.
    #[default]
    All,
    /// The items with these keys, in no promised order, perhaps with repetitions; at most 1,000.
    Keys(Repeated<'a, &'a [u8]>),
    /// From `start` up to, and not including, `end`; an empty `end` means no upper bound.
    Range {
        /// The first key that is meant.
        start: &'a [u8],
        /// The first key after the range; empty: none.
        end: &'a [u8],
    },
}

/// A [`PredicateView`] while its pieces come in.
#[derive(Clone, Copy, Default)]
struct PredicateMerge<'a> {
    kind: PredicateKind<'a>,
    keys: Pieces<'a>,
    /// The first key beyond its limit.
    key_too_long: Option<DecodeError>,
}

#[derive(Clone, Copy, Default)]
enum PredicateKind<'a> {
    #[default]
    Unset,
    All,
    Keys,
    Range {
        start: &'a [u8],
        end: &'a [u8],
    },
}

impl<'a> PredicateMerge<'a> {
    fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                PREDICATE_ALL => {
                    let nested = reader.bytes().map_err(at(Field::All))?;
                    validate_empty(nested, depth - 1).map_err(|error| error.within(Field::All))?;
                    self.replace();
                    self.kind = PredicateKind::All;
                }
                PREDICATE_KEYS => {
                    let nested = reader.bytes().map_err(at(Field::Keys))?;
                    if !matches!(self.kind, PredicateKind::Keys) {
                        self.replace();
                        self.kind = PredicateKind::Keys;
                    }
                    self.merge_keys(nested, depth - 1)
                        .map_err(|error| error.within(Field::Keys))?;
                }
                PREDICATE_RANGE => {
                    let nested = reader.bytes().map_err(at(Field::Range))?;
                    let (start, end) = match self.kind {
                        PredicateKind::Range { start, end } => (start, end),
                        _ => (&[][..], &[][..]),
                    };
                    self.replace();
                    self.kind = merge_range(nested, start, end, depth - 1)
                        .map_err(|error| error.within(Field::Range))?;
                }
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    fn merge_keys(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        let mut count = 0;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                KEYS_KEY => {
                    let key = reader.bytes().map_err(at(Field::Keys))?;
                    if key.len() > KEY_BYTES_MAX as usize && self.key_too_long.is_none() {
                        let kind = TooLong { max: KEY_BYTES_MAX };
                        let error =
                            DecodeError::new(kind).within_element(Field::Keys, self.keys.count() + count);
                        self.key_too_long = Some(error.within(Field::Keys));
                    }
                    count += 1;
                }
                key => reader.unknown(key, 1, depth).map_err(DecodeError::new)?,
            }
        }
        self.keys.add(bytes, count);
        Ok(())
    }

    /// Another member of a oneof came: this predicate, or what it held so far, does not count any
    /// more.
    fn replace(&mut self) {
        self.kind = PredicateKind::Unset;
        self.keys.replace();
        self.key_too_long = None;
    }

    /// `path` leads from `root` to the keys of a key set. Checks the limits; errors are relative to
    /// the predicate.
    fn finish(&self, root: &'a [u8], path: &'static [u32]) -> Result<PredicateView<'a>, DecodeError> {
        match self.kind {
            // Not "all": a kind that this gateway does not know must not delete everything.
            PredicateKind::Unset => Err(DecodeError::at(Missing, Field::Kind)),
            PredicateKind::All => Ok(PredicateView::All),
            PredicateKind::Keys => {
                if self.keys.count() > ITEMS_MAX {
                    return Err(DecodeError::at(TooMany { max: ITEMS_MAX }, Field::Keys).within(Field::Keys));
                }
                match self.key_too_long {
                    Some(error) => Err(error),
                    None => Ok(PredicateView::Keys(self.keys.finish(root, path))),
                }
            }
            PredicateKind::Range { start, end } => {
                for (bound, field) in [(start, Field::Start), (end, Field::End)] {
                    if bound.len() > RANGE_BOUND_BYTES_MAX as usize {
                        let kind = TooLong {
                            max: RANGE_BOUND_BYTES_MAX,
                        };
                        return Err(DecodeError::at(kind, field).within(Field::Range));
                    }
                }
                Ok(PredicateView::Range { start, end })
            }
        }
    }
}

fn merge_range<'a>(
    bytes: &'a [u8],
    mut start: &'a [u8],
    mut end: &'a [u8],
    depth: u32,
) -> Result<PredicateKind<'a>, DecodeError> {
    let mut reader = WireReader::new(bytes);
    while !reader.is_empty() {
        match reader.key().map_err(DecodeError::new)? {
            RANGE_START => start = reader.bytes().map_err(at(Field::Start))?,
            RANGE_END => end = reader.bytes().map_err(at(Field::End))?,
            key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
        }
    }
    Ok(PredicateKind::Range { start, end })
}

const PREDICATE_ALL: u32 = key(1, LEN);
const PREDICATE_KEYS: u32 = key(2, LEN);
const PREDICATE_RANGE: u32 = key(3, LEN);
const KEYS_KEY: u32 = key(1, LEN);
const RANGE_START: u32 = key(1, LEN);
const RANGE_END: u32 = key(2, LEN);

/// How much to return at a time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SelectionView<'a> {
    /// As asked; 0: the default. See [`SelectionView::page_bytes_effective`].
    pub page_bytes: u32,
    /// The page ends after this many items; 0: no such limit.
    pub item_limit: u32,
    /// `next_page_token` of the page before; empty for the first. At most 4,096 bytes in requests.
    pub page_token: &'a [u8],
}

impl<'a> SelectionView<'a> {
    /// Page size in bytes that applies: the default where none was asked for, never above the
    /// maximum.
    pub fn page_bytes_effective(&self) -> u32 {
        if self.page_bytes == 0 {
            PAGE_BYTES_DEFAULT
        } else {
            self.page_bytes.min(PAGE_BYTES_MAX)
        }
    }

    /// Items that the page may hold.
    pub fn item_limit_effective(&self) -> usize {
        if self.item_limit == 0 {
            usize::MAX
        } else {
            self.item_limit as usize
        }
    }

    fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                SELECTION_PAGE_BYTES => self.page_bytes = reader.uint32().map_err(at(Field::PageBytes))?,
                SELECTION_ITEM_LIMIT => self.item_limit = reader.uint32().map_err(at(Field::ItemLimit))?,
                SELECTION_PAGE_TOKEN => self.page_token = reader.bytes().map_err(at(Field::PageToken))?,
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.page_token.len() > PAGE_TOKEN_BYTES_MAX as usize {
            return Err(DecodeError::at(
                TooLong {
                    max: PAGE_TOKEN_BYTES_MAX,
                },
                Field::PageToken,
            ));
        }
        Ok(())
    }
}

const SELECTION_PAGE_BYTES: u32 = key(1, VARINT);
const SELECTION_ITEM_LIMIT: u32 = key(2, VARINT);
const SELECTION_PAGE_TOKEN: u32 = key(3, LEN);
