//! Responses to writes, in the two forms that every API of the data plane has: a single write
//! answers with its `WriteResult` in field 1; a batch answers with one result for each of its items
//! in field 1, and each of those has a `google.rpc.Status` in field 1 and a `WriteResult` in field
//! 2.
//!
//! So whoever knows what became of a write can answer it without knowing its API. What an API adds
//! to its responses (an id that it gave, say) stands in later fields: `rest`, encoded by the API.

use super::common::{StatusOut, WriteResultView};
use crate::writer::{len_field_len, put_len_key};

/// Appends the response to a single write. `rest`: what follows its result, encoded.
#[inline]
pub fn encode_write_response(out: &mut Vec<u8>, result: &WriteResultView, rest: &[u8]) {
    result.put(out, 1);
    out.extend_from_slice(rest);
}

/// Writes the response to a batch, item by item.
pub struct ItemResultsWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ItemResultsWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        ItemResultsWriter { out }
    }

    /// Appends what became of the next item. A success has the status `StatusOut::default()` and a
    /// result. `rest`: what follows them, encoded.
    pub fn result(&mut self, status: Option<&StatusOut<'_>>, result: Option<&WriteResultView>, rest: &[u8]) {
        let status_len = status.map_or(0, |status| len_field_len(status.encoded_len()));
        let result_len = result.map_or(0, WriteResultView::field_len);
        put_len_key(self.out, 1, status_len + result_len + rest.len());
        if let Some(status) = status {
            status.put(self.out, 1);
        }
        if let Some(result) = result {
            result.put(self.out, 2);
        }
        self.out.extend_from_slice(rest);
    }
}
