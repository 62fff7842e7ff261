//! A Scan as the source of a stream: one page at a time, shard after shard.
//!
//! Where each shard holds its own keys (the memory store) the shards are read one after the other,
//! and the page token that a client sees is the shard's number followed by the store's own token.
//! Where one store holds all keys there is one "shard" only, number 0. In a namespace whose writes
//! pass through the log, the stream first waits until the store has what was acknowledged before
//! it.

use prism_backends::{NamespaceId, Selection};
use prism_codec::grpc::{Code, Status};

use crate::{
    api::stream::{Asked, Source, Taken},
    call::{
        error,
        job::{Answer, Work},
    },
    namespace::spec::{Home, NamespaceSpec},
};

/// A Scan between its first and its last page.
pub(super) struct Scan {
    namespace: NamespaceId,
    /// Where the namespace's data lies.
    home: Home,
    /// Shards to be read, one after the other.
    shards: u16,
    /// The shard being read.
    shard: u16,
    page_bytes: u32,
    item_limit: u32,
    /// Start of that shard's next page; empty at the shard's beginning.
    token: Vec<u8>,
    is_asked: bool,
}

impl Scan {
    /// Makes a Scan that begins at the selection's token.
    ///
    /// # Errors
    /// The page token is not one of a Scan of these shards.
    pub(super) fn new(
        spec: &NamespaceSpec,
        shards: u16,
        selection: Selection<'_>,
    ) -> Result<Self, Box<Status>> {
        let shards = match spec.home {
            Home::Shards => shards,
            Home::Store(_) => 1,
        };
        let (shard, token) = split_token(selection.page_token, shards)
            .ok_or_else(|| error::from_store(&prism_backends::StoreError::InvalidPageToken))?;
        Ok(Self {
            namespace: spec.id,
            home: spec.home,
            shards,
            shard,
            page_bytes: selection.page_bytes,
            item_limit: selection.item_limit,
            token: token.to_vec(),
            is_asked: false,
        })
    }
}

impl Source for Scan {
    fn wants_chunk(&self) -> bool {
        !self.is_asked
    }

    fn awaits_chunk(&self) -> bool {
        self.is_asked
    }

    fn next_ask(&mut self) -> Option<(Asked, Work)> {
        if std::mem::replace(&mut self.is_asked, true) {
            return None;
        }
        let work = Work::ScanPage {
            namespace: self.namespace,
            page_bytes: self.page_bytes,
            item_limit: self.item_limit,
            page_token: std::mem::take(&mut self.token),
        };
        let to = match self.home {
            Home::Shards => Asked::Shard(self.shard),
            Home::Store(store) => Asked::Reader(store),
        };
        Some((to, work))
    }

    fn take(&mut self, answer: Answer) -> Result<Taken, Box<Status>> {
        let Answer::Page { mut message, next } = answer else {
            return Err(error::status(
                Code::Internal,
                "a scan was answered with something else",
            ));
        };
        self.is_asked = false;
        let shard_done = next.is_empty();
        if shard_done {
            self.shard += 1;
        }
        self.token = next;
        let last = self.shard == self.shards;
        if last {
            return Ok(Taken::Last(message));
        }
        if message.is_empty() {
            // A shard without (further) items has nothing to show.
            return Ok(Taken::Nothing);
        }
        append_next_page_token(&mut message, &join_token(self.shard, &self.token));
        Ok(Taken::Message(message))
    }
}

fn split_token(token: &[u8], shards: u16) -> Option<(u16, &[u8])> {
    if token.is_empty() {
        return Some((0, &[]));
    }
    let (shard, rest) = token.split_first_chunk::<2>()?;
    let shard = u16::from_be_bytes(*shard);
    (shard < shards).then_some((shard, rest))
}

fn join_token(shard: u16, token: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(2 + token.len());
    joined.extend_from_slice(&shard.to_be_bytes());
    joined.extend_from_slice(token);
    joined
}

/// Adds the field `next_page_token` (2, length-delimited) to a serialized `ScanResponse`: fields
/// may come in any order, so it can be last.
fn append_next_page_token(message: &mut Vec<u8>, token: &[u8]) {
    message.push(2 << 3 | 2);
    let mut length = token.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(token);
}

#[cfg(test)]
mod tests {
    use prism_codec::message::keyvalue::ScanResponseView;

    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        for length in [0, 1, 125, 126, 127, 128, 2_000] {
            let token = join_token(3, &vec![7; length]);
            let mut message = Vec::new();
            append_next_page_token(&mut message, &token);
            let view = ScanResponseView::decode(&message).expect("a field that was just written");
            assert_eq!(view.next_page_token, token);
            assert_eq!(split_token(&token, 4), Some((3, &vec![7; length][..])));
        }
    }

    #[test]
    fn tokens_of_more_shards_are_refused() {
        assert_eq!(split_token(&join_token(3, b"x"), 3), None);
        assert_eq!(split_token(b"x", 3), None);
        assert_eq!(split_token(b"", 3), Some((0, &b""[..])));
    }
}
