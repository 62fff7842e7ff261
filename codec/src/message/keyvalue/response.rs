//! Views of the responses of `prism.keyvalue.v1.KeyValue`, for our own clients: the load generator
//! and the command line.
//!
//! Promises well-formed messages, nothing about sizes: what the gateway answers is bounded by the
//! gateway.

use super::ItemView;
use crate::{
    error::{DecodeError, Field},
    limits::MESSAGE_DEPTH_MAX,
    message::{
        common::{
            STATUS_DETAILS, StatusMerge, StatusView, WriteResultView, at, decode_results, merge_result,
        },
        repeated::{Element, Repeated},
    },
    reader::{LEN, VARINT, WireReader, key},
};

/// A `PutResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct PutResponseView {
    /// Result of the write.
    pub result: Option<WriteResultView>,
}

impl PutResponseView {
    /// Validates a serialized `PutResponse`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_result_only(bytes).map(|result| PutResponseView { result })
    }
}

/// A `DeleteResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct DeleteResponseView {
    /// Result of the write.
    pub result: Option<WriteResultView>,
}

impl DeleteResponseView {
    /// Validates a serialized `DeleteResponse`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_result_only(bytes).map(|result| DeleteResponseView { result })
    }
}

/// PutResponse and DeleteResponse have the same single field.
fn decode_result_only(bytes: &[u8]) -> Result<Option<WriteResultView>, DecodeError> {
    const RESULT: u32 = key(1, LEN);
    let mut result = None;
    let mut reader = WireReader::new(bytes);
    while !reader.is_empty() {
        match reader.key().map_err(DecodeError::new)? {
            RESULT => merge_result(
                &mut result,
                reader.bytes().map_err(at(Field::Result))?,
                MESSAGE_DEPTH_MAX,
            )?,
            key => reader
                .unknown(key, 1, MESSAGE_DEPTH_MAX)
                .map_err(DecodeError::new)?,
        }
    }
    Ok(result)
}

/// A `GetResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct GetResponseView<'a> {
    /// In key order.
    pub items: Repeated<'a, ItemView<'a>>,
    /// Empty on the last page.
    pub next_page_token: &'a [u8],
}

impl<'a> GetResponseView<'a> {
    /// Validates a serialized `GetResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const ITEMS: u32 = key(1, LEN);
        const NEXT_PAGE_TOKEN: u32 = key(2, LEN);
        let (mut count, mut next_page_token) = (0, &[][..]);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                ITEMS => validate_item(
                    reader.bytes().map_err(at(Field::Items))?,
                    &mut count,
                    MESSAGE_DEPTH_MAX - 1,
                )?,
                NEXT_PAGE_TOKEN => next_page_token = reader.bytes().map_err(at(Field::NextPageToken))?,
                key => reader
                    .unknown(key, 2, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        Ok(GetResponseView {
            items: Repeated::new(bytes, &[ITEMS], 0, count),
            next_page_token,
        })
    }
}

fn validate_item(bytes: &[u8], count: &mut u32, depth: u32) -> Result<(), DecodeError> {
    let merged = ItemView::default().merge(bytes, depth);
    merged.map_err(|error| error.within_element(Field::Items, *count))?;
    *count += 1;
    Ok(())
}

/// A `ScanResponse`: one streamed page.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ScanResponseView<'a> {
    /// An id whose items span pages appears in each of them.
    pub entries: Repeated<'a, ScanEntryView<'a>>,
    /// Resumes the scan after this page; empty on the last one.
    pub next_page_token: &'a [u8],
}

impl<'a> ScanResponseView<'a> {
    /// Validates a serialized `ScanResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const ENTRIES: u32 = key(1, LEN);
        const NEXT_PAGE_TOKEN: u32 = key(2, LEN);
        let (mut count, mut next_page_token) = (0, &[][..]);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                ENTRIES => {
                    let nested = reader.bytes().map_err(at(Field::Entries))?;
                    ScanEntryView::decode(nested, MESSAGE_DEPTH_MAX - 1)
                        .map_err(|error| error.within_element(Field::Entries, count))?;
                    count += 1;
                }
                NEXT_PAGE_TOKEN => next_page_token = reader.bytes().map_err(at(Field::NextPageToken))?,
                key => reader
                    .unknown(key, 2, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        Ok(ScanResponseView {
            entries: Repeated::new(bytes, &[ENTRIES], 0, count),
            next_page_token,
        })
    }
}

/// One id of a scan's page with its items.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ScanEntryView<'a> {
    /// The id.
    pub id: &'a str,
    /// The id's items on this page, in key order.
    pub items: Repeated<'a, ItemView<'a>>,
}

impl<'a> ScanEntryView<'a> {
    fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        const ID: u32 = key(1, LEN);
        const ITEMS: u32 = key(2, LEN);
        let (mut id, mut count) = ("", 0);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                ID => id = reader.string().map_err(at(Field::Id))?,
                ITEMS => validate_item(reader.bytes().map_err(at(Field::Items))?, &mut count, depth - 1)?,
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(ScanEntryView {
            id,
            items: Repeated::new(bytes, &[ITEMS], 0, count),
        })
    }
}

impl<'a> Element<'a> for ScanEntryView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        let entry = ScanEntryView::decode(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(entry.is_ok());
        entry.unwrap_or_default()
    }
}

/// A `MutateResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct MutateResponseView<'a> {
    /// One for each mutation, in the request's order.
    pub results: Repeated<'a, MutationResultView<'a>>,
}

impl<'a> MutateResponseView<'a> {
    /// Validates a serialized `MutateResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let results = decode_results(bytes, MutationResultView::decode)?;
        Ok(MutateResponseView { results })
    }
}

/// Result of one mutation.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct MutationResultView<'a> {
    /// OK, or why this mutation had no effect.
    pub status: Option<StatusView<'a>>,
    /// Result of the write.
    pub result: Option<WriteResultView>,
}

impl<'a> MutationResultView<'a> {
    fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        const STATUS: u32 = key(1, LEN);
        const RESULT: u32 = key(2, LEN);
        let mut status: Option<StatusMerge<'a>> = None;
        let mut result = None;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                STATUS => {
                    let nested = reader.bytes().map_err(at(Field::Status))?;
                    let status = status.get_or_insert_default();
                    status
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Status))?;
                }
                RESULT => merge_result(&mut result, reader.bytes().map_err(at(Field::Result))?, depth)?,
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        let status = status.map(|status| status.finish(bytes, &[STATUS, STATUS_DETAILS]));
        Ok(MutationResultView { status, result })
    }
}

impl<'a> Element<'a> for MutationResultView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        let result = MutationResultView::decode(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(result.is_ok());
        result.unwrap_or_default()
    }
}

/// A `CompareAndSwapResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct CompareAndSwapResponseView<'a> {
    /// Whether the expectation held and the swap took place.
    pub swapped: bool,
    /// When not swapped: the item as it is; absent if there is none.
    pub current: Option<ItemView<'a>>,
    /// Result of the write.
    pub result: Option<WriteResultView>,
}

impl<'a> CompareAndSwapResponseView<'a> {
    /// Validates a serialized `CompareAndSwapResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const SWAPPED: u32 = key(1, VARINT);
        const CURRENT: u32 = key(2, LEN);
        const RESULT: u32 = key(3, LEN);
        const DEPTH: u32 = MESSAGE_DEPTH_MAX;
        let mut view = CompareAndSwapResponseView::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                SWAPPED => view.swapped = reader.boolean().map_err(at(Field::Swapped))?,
                CURRENT => {
                    let nested = reader.bytes().map_err(at(Field::Current))?;
                    let current = view.current.get_or_insert_default();
                    current
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Current))?;
                }
                RESULT => merge_result(
                    &mut view.result,
                    reader.bytes().map_err(at(Field::Result))?,
                    DEPTH,
                )?,
                key => reader.unknown(key, 3, DEPTH).map_err(DecodeError::new)?,
            }
        }
        Ok(view)
    }
}
