//! Views of the requests of `prism.keyvalue.v1.KeyValue`, checked against the limits.
//!
//! Promises that an accepted request is well-formed and within every limit of [`crate::limits`],
//! and that a refused one names the field. Only the mutations of a Mutate keep their limits for
//! later: each succeeds or fails by itself.

use super::{ItemView, KEYS_KEY, PREDICATE_KEYS, PredicateMerge, PredicateView, SelectionView};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{Mismatch, Missing, TooLong, TooMany},
        Field,
    },
    limits::{ID_BYTES_MAX, ITEMS_MAX, KEY_BYTES_MAX, MESSAGE_DEPTH_MAX, MUTATIONS_MAX},
    message::{
        common::{TokenView, at, check_namespace, check_token, merge_token, validate_empty},
        repeated::{Element, Pieces, Repeated},
    },
    reader::{LEN, WireReader, key},
};

/// A `PutRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PutView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000 items; of two with one key the later counts.
    pub items: Repeated<'a, ItemView<'a>>,
}

impl<'a> PutView<'a> {
    /// Validates a serialized `PutRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut id, mut token) = ("", "", None);
        let mut items = ItemsCheck::default();
        let mut items_begin = bytes;
        while !reader.is_empty() {
            // The items' iterator need not pass over what stands before the first one.
            if items.count == 0 {
                items_begin = reader.rest();
            }
            match reader.key().map_err(DecodeError::new)? {
                PUT_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                PUT_ID => id = reader.string().map_err(at(Field::Id))?,
                PUT_TOKEN => merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?,
                PUT_ITEMS => items.item(reader.bytes().map_err(at(Field::Items))?, MESSAGE_DEPTH_MAX - 1)?,
                key => reader
                    .unknown(key, 4, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_target(namespace, id)?;
        check_token(&token)?;
        items.check()?;
        Ok(PutView {
            namespace,
            id,
            token,
            items: Repeated::new(items_begin, &[PUT_ITEMS], 0, items.count),
        })
    }
}

const PUT_NAMESPACE: u32 = key(1, LEN);
const PUT_ID: u32 = key(2, LEN);
const PUT_TOKEN: u32 = key(3, LEN);
const PUT_ITEMS: u32 = key(4, LEN);

/// A `GetRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GetView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// All when absent.
    pub predicate: PredicateView<'a>,
    /// The defaults when absent.
    pub selection: SelectionView<'a>,
}

impl<'a> GetView<'a> {
    /// Validates a serialized `GetRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut id) = ("", "");
        let mut predicate: Option<PredicateMerge<'a>> = None;
        let mut selection = SelectionView::default();
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                GET_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                GET_ID => id = reader.string().map_err(at(Field::Id))?,
                GET_PREDICATE => {
                    merge_predicate(&mut predicate, reader.bytes().map_err(at(Field::Predicate))?)?
                }
                GET_SELECTION => {
                    merge_selection(&mut selection, reader.bytes().map_err(at(Field::Selection))?)?
                }
                key => reader
                    .unknown(key, 4, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_target(namespace, id)?;
        let predicate = finish_predicate(&predicate, bytes, &[GET_PREDICATE, PREDICATE_KEYS, KEYS_KEY])?;
        selection
            .check()
            .map_err(|error| error.within(Field::Selection))?;
        Ok(GetView {
            namespace,
            id,
            predicate,
            selection,
        })
    }
}

const GET_NAMESPACE: u32 = key(1, LEN);
const GET_ID: u32 = key(2, LEN);
const GET_PREDICATE: u32 = key(3, LEN);
const GET_SELECTION: u32 = key(4, LEN);

/// A `DeleteRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeleteView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// All when absent.
    pub predicate: PredicateView<'a>,
}

impl<'a> DeleteView<'a> {
    /// Validates a serialized `DeleteRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut id, mut token) = ("", "", None);
        let mut predicate: Option<PredicateMerge<'a>> = None;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                DELETE_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                DELETE_ID => id = reader.string().map_err(at(Field::Id))?,
                DELETE_TOKEN => {
                    merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?
                }
                DELETE_PREDICATE => {
                    merge_predicate(&mut predicate, reader.bytes().map_err(at(Field::Predicate))?)?
                }
                key => reader
                    .unknown(key, 4, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_target(namespace, id)?;
        check_token(&token)?;
        let predicate = finish_predicate(&predicate, bytes, &[DELETE_PREDICATE, PREDICATE_KEYS, KEYS_KEY])?;
        Ok(DeleteView {
            namespace,
            id,
            token,
            predicate,
        })
    }
}

const DELETE_NAMESPACE: u32 = key(1, LEN);
const DELETE_ID: u32 = key(2, LEN);
const DELETE_TOKEN: u32 = key(3, LEN);
const DELETE_PREDICATE: u32 = key(4, LEN);

/// A `ScanRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScanView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// The defaults when absent.
    pub selection: SelectionView<'a>,
}

impl<'a> ScanView<'a> {
    /// Validates a serialized `ScanRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let mut namespace = "";
        let mut selection = SelectionView::default();
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                SCAN_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                SCAN_SELECTION => {
                    merge_selection(&mut selection, reader.bytes().map_err(at(Field::Selection))?)?
                }
                key => reader
                    .unknown(key, 2, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_namespace(namespace)?;
        selection
            .check()
            .map_err(|error| error.within(Field::Selection))?;
        Ok(ScanView { namespace, selection })
    }
}

const SCAN_NAMESPACE: u32 = key(1, LEN);
const SCAN_SELECTION: u32 = key(2, LEN);

/// A `MutateRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MutateView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000.
    pub mutations: Repeated<'a, MutationView<'a>>,
}

impl<'a> MutateView<'a> {
    /// Validates a serialized `MutateRequest`. Allocates nothing. The limits of each mutation are
    /// checked when it is read, so that one bad mutation leaves the others alone.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut token, mut count) = ("", None, 0);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MUTATE_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                MUTATE_TOKEN => {
                    merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?
                }
                MUTATE_MUTATIONS => {
                    let nested = reader.bytes().map_err(at(Field::Mutations))?;
                    MutationMerge::decode(nested, MESSAGE_DEPTH_MAX - 1)
                        .map_err(|error| error.within_element(Field::Mutations, count))?;
                    count += 1;
                }
                key => reader
                    .unknown(key, 3, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_namespace(namespace)?;
        check_token(&token)?;
        match count {
            0 => return Err(DecodeError::at(Missing, Field::Mutations)),
            1..=MUTATIONS_MAX => {}
            _ => return Err(DecodeError::at(TooMany { max: MUTATIONS_MAX }, Field::Mutations)),
        }
        Ok(MutateView {
            namespace,
            token,
            mutations: Repeated::new(bytes, &[MUTATE_MUTATIONS], 0, count),
        })
    }
}

const MUTATE_NAMESPACE: u32 = key(1, LEN);
const MUTATE_TOKEN: u32 = key(2, LEN);
const MUTATE_MUTATIONS: u32 = key(3, LEN);

/// One mutation of a Mutate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MutationView<'a> {
    /// The id; 1 to 1,024 bytes if the operation is `Ok`.
    pub id: &'a str,
    /// The change, or the limit that the mutation breaks (its path begins within the mutation, for
    /// example `put.items`).
    pub operation: Result<MutationOperation<'a>, DecodeError>,
}

/// Change that a mutation makes to its id.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MutationOperation<'a> {
    /// Writes these items, 1 to 1,000.
    Put(Repeated<'a, ItemView<'a>>),
    /// Deletes the items that match.
    Delete(PredicateView<'a>),
}

impl<'a> Element<'a> for MutationView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        match MutationMerge::decode(bytes, MESSAGE_DEPTH_MAX) {
            Ok(merge) => MutationView {
                id: merge.id,
                operation: merge.finish(bytes),
            },
            Err(error) => MutationView {
                id: "",
                operation: Err(error),
            },
        }
    }
}

/// A [`MutationView`] while its pieces come in.
#[derive(Default)]
struct MutationMerge<'a> {
    id: &'a str,
    kind: MutationKind,
    put: ItemsCheck,
    items: Pieces<'a>,
    has_predicate: bool,
    predicate: PredicateMerge<'a>,
}

#[derive(Clone, Copy, PartialEq, Default)]
enum MutationKind {
    #[default]
    Unset,
    Put,
    Delete,
}

impl<'a> MutationMerge<'a> {
    fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        let mut merge = MutationMerge::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MUTATION_ID => merge.id = reader.string().map_err(at(Field::Id))?,
                MUTATION_PUT => {
                    let nested = reader.bytes().map_err(at(Field::Put))?;
                    merge.begin(MutationKind::Put);
                    merge
                        .put(nested, depth - 1)
                        .map_err(|error| error.within(Field::Put))?;
                }
                MUTATION_DELETE => {
                    let nested = reader.bytes().map_err(at(Field::Delete))?;
                    merge.begin(MutationKind::Delete);
                    merge
                        .delete(nested, depth - 1)
                        .map_err(|error| error.within(Field::Delete))?;
                }
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(merge)
    }

    /// Another member of the oneof replaces what the one before had gathered; the same member is
    /// merged into.
    fn begin(&mut self, kind: MutationKind) {
        if self.kind != kind {
            self.kind = kind;
            self.put = ItemsCheck::default();
            self.items.replace();
            self.has_predicate = false;
            self.predicate.replace();
        }
    }

    fn put(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        let before = self.put.count;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                PUT_ITEMS_ITEMS => self
                    .put
                    .item(reader.bytes().map_err(at(Field::Items))?, depth - 1)?,
                key => reader.unknown(key, 1, depth).map_err(DecodeError::new)?,
            }
        }
        self.items.add(bytes, self.put.count - before);
        Ok(())
    }

    fn delete(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                DELETE_ITEMS_PREDICATE => {
                    let nested = reader.bytes().map_err(at(Field::Predicate))?;
                    self.has_predicate = true;
                    self.predicate
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Predicate))?;
                }
                key => reader.unknown(key, 1, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    fn finish(&self, bytes: &'a [u8]) -> Result<MutationOperation<'a>, DecodeError> {
        check_id(self.id)?;
        match self.kind {
            MutationKind::Unset => Err(DecodeError::at(Missing, Field::Operation)),
            MutationKind::Put => {
                self.put.check().map_err(|error| error.within(Field::Put))?;
                Ok(MutationOperation::Put(
                    self.items.finish(bytes, &[MUTATION_PUT, PUT_ITEMS_ITEMS]),
                ))
            }
            MutationKind::Delete if !self.has_predicate => Ok(MutationOperation::Delete(PredicateView::All)),
            MutationKind::Delete => {
                const PATH: &[u32] = &[MUTATION_DELETE, DELETE_ITEMS_PREDICATE, PREDICATE_KEYS, KEYS_KEY];
                let predicate = self.predicate.finish(bytes, PATH);
                predicate
                    .map(MutationOperation::Delete)
                    .map_err(|error| error.within(Field::Predicate).within(Field::Delete))
            }
        }
    }
}

const MUTATION_ID: u32 = key(1, LEN);
const MUTATION_PUT: u32 = key(2, LEN);
const MUTATION_DELETE: u32 = key(3, LEN);
const PUT_ITEMS_ITEMS: u32 = key(1, LEN);
const DELETE_ITEMS_PREDICATE: u32 = key(1, LEN);

/// A `CompareAndSwapRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CompareAndSwapView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// 1 to 1,024 bytes.
    pub id: &'a str,
    /// 0 to 1,024 bytes.
    pub key: &'a [u8],
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// Expectation of the caller.
    pub expected: ExpectedView<'a>,
    /// Item to put in the old one's place, its key filled in; absent: the item is deleted.
    pub item: Option<ItemView<'a>>,
}

/// Expectation of the caller of CompareAndSwap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedView<'a> {
    /// No such item.
    Absent,
    /// An item with exactly this value.
    Value(&'a [u8]),
    /// An item that is as it was when it was read with this version; any bytes.
    Version(&'a [u8]),
}

impl<'a> CompareAndSwapView<'a> {
    /// Validates a serialized `CompareAndSwapRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const DEPTH: u32 = MESSAGE_DEPTH_MAX;
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut id, mut swap_key, mut token) = ("", "", &[][..], None);
        let mut expected = None;
        let mut item: Option<ItemView<'a>> = None;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                CAS_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                CAS_ID => id = reader.string().map_err(at(Field::Id))?,
                CAS_KEY => swap_key = reader.bytes().map_err(at(Field::Key))?,
                CAS_TOKEN => merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?,
                CAS_ABSENT => {
                    let nested = reader.bytes().map_err(at(Field::Absent))?;
                    validate_empty(nested, DEPTH - 1).map_err(|error| error.within(Field::Absent))?;
                    expected = Some(ExpectedView::Absent);
                }
                CAS_VALUE => expected = Some(ExpectedView::Value(reader.bytes().map_err(at(Field::Value))?)),
                CAS_VERSION => {
                    expected = Some(ExpectedView::Version(reader.bytes().map_err(at(Field::Version))?));
                }
                CAS_ITEM => {
                    let nested = reader.bytes().map_err(at(Field::Item))?;
                    let item = item.get_or_insert_default();
                    item.merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Item))?;
                }
                key => reader.unknown(key, 8, DEPTH).map_err(DecodeError::new)?,
            }
        }
        check_target(namespace, id)?;
        if swap_key.len() > KEY_BYTES_MAX as usize {
            return Err(DecodeError::at(TooLong { max: KEY_BYTES_MAX }, Field::Key));
        }
        check_token(&token)?;
        let expected = expected.ok_or_else(|| DecodeError::at(Missing, Field::Expected))?;
        if let Some(item) = &mut item {
            item.check().map_err(|error| error.within(Field::Item))?;
            if !item.key.is_empty() && item.key != swap_key {
                return Err(DecodeError::at(Mismatch, Field::Key).within(Field::Item));
            }
            item.key = swap_key;
        }
        Ok(CompareAndSwapView {
            namespace,
            id,
            key: swap_key,
            token,
            expected,
            item,
        })
    }
}

const CAS_NAMESPACE: u32 = key(1, LEN);
const CAS_ID: u32 = key(2, LEN);
const CAS_KEY: u32 = key(3, LEN);
const CAS_TOKEN: u32 = key(4, LEN);
const CAS_ABSENT: u32 = key(5, LEN);
const CAS_VALUE: u32 = key(6, LEN);
const CAS_ITEM: u32 = key(7, LEN);
const CAS_VERSION: u32 = key(8, LEN);

/// Validates and counts items; remembers the first that breaks a limit, because a malformed byte
/// later on matters more.
#[derive(Clone, Copy, Default)]
struct ItemsCheck {
    count: u32,
    broken: Option<DecodeError>,
}

impl ItemsCheck {
    #[inline(always)]
    fn item(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        let mut item = ItemView::default();
        if let Err(error) = item.merge(bytes, depth) {
            return Err(error.within_element(Field::Items, self.count));
        }
        if let Err(error) = item.check()
            && self.broken.is_none()
        {
            self.broken = Some(error.within_element(Field::Items, self.count));
        }
        self.count += 1;
        Ok(())
    }

    #[inline(always)]
    fn check(&self) -> Result<(), DecodeError> {
        match self.count {
            0 => return Err(DecodeError::at(Missing, Field::Items)),
            1..=ITEMS_MAX => {}
            _ => return Err(DecodeError::at(TooMany { max: ITEMS_MAX }, Field::Items)),
        }
        self.broken.map_or(Ok(()), Err)
    }
}

fn merge_predicate<'a>(
    predicate: &mut Option<PredicateMerge<'a>>,
    bytes: &'a [u8],
) -> Result<(), DecodeError> {
    let merged = predicate
        .get_or_insert_default()
        .merge(bytes, MESSAGE_DEPTH_MAX - 1);
    merged.map_err(|error| error.within(Field::Predicate))
}

fn finish_predicate<'a>(
    predicate: &Option<PredicateMerge<'a>>,
    root: &'a [u8],
    path: &'static [u32],
) -> Result<PredicateView<'a>, DecodeError> {
    match predicate {
        Some(predicate) => predicate
            .finish(root, path)
            .map_err(|error| error.within(Field::Predicate)),
        None => Ok(PredicateView::All),
    }
}

fn merge_selection<'a>(selection: &mut SelectionView<'a>, bytes: &'a [u8]) -> Result<(), DecodeError> {
    selection
        .merge(bytes, MESSAGE_DEPTH_MAX - 1)
        .map_err(|error| error.within(Field::Selection))
}

#[inline]
fn check_target(namespace: &str, id: &str) -> Result<(), DecodeError> {
    check_namespace(namespace)?;
    check_id(id)
}

#[inline]
fn check_id(id: &str) -> Result<(), DecodeError> {
    match id.len() {
        0 => Err(DecodeError::at(Missing, Field::Id)),
        length if length > ID_BYTES_MAX as usize => {
            Err(DecodeError::at(TooLong { max: ID_BYTES_MAX }, Field::Id))
        }
        _ => Ok(()),
    }
}
