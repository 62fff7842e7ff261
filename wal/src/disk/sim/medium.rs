//! Contents of a file on the simulated medium: durable, written, and at stake.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use crate::buffer::{BLOCK_BYTES, SECTOR_BYTES};

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) bytes: u64,
    pub(super) durable: Image,
    pub(super) written: Image,
    pub(super) volatile: Vec<Piece>,
    pub(super) unreadable: BTreeSet<u64>,
}

/// Bytes in flight to the medium, in whole sectors.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Rc<[u8]>,
}

type Page = [u8; BLOCK_BYTES];

/// Contents of a file; pages never written are zero. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Image(BTreeMap<u64, Rc<Page>>);

impl Image {
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        self.each_page(offset, out.len(), |page, within, range| match self.0.get(&page) {
            Some(bytes) => out[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => out[range].fill(0),
        });
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let pages = core::mem::take(&mut self.0);
        let mut changed = Self(pages);
        Self::default().each_page(offset, bytes.len(), |page, within, range| {
            let target = Rc::make_mut(changed.0.entry(page).or_insert_with(|| Rc::new([0; BLOCK_BYTES])));
            target[within..within + range.len()].copy_from_slice(&bytes[range]);
        });
        *self = changed;
    }

    /// The pages of a range that were written.
    pub(super) fn used(&self, pages: Range<u64>) -> impl Iterator<Item = u64> {
        self.0.range(pages).map(|(page, _)| *page)
    }

    fn each_page(&self, offset: u64, length: usize, mut visit: impl FnMut(u64, usize, Range<usize>)) {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = (at % BLOCK_BYTES as u64) as usize;
            let step = (BLOCK_BYTES - within).min(length - done);
            visit(at / BLOCK_BYTES as u64, within, done..done + step);
            done += step;
        }
    }
}

impl Inode {
    /// Lets written sectors be read again, as on a disk that replaces bad sectors.
    pub(super) fn replace_sectors(&mut self, offset: u64, bytes: u64) {
        if !self.unreadable.is_empty() {
            let sectors = offset / SECTOR_BYTES as u64..(offset + bytes) / SECTOR_BYTES as u64;
            self.unreadable.retain(|sector| !sectors.contains(sector));
        }
    }

    pub(super) fn write_volatile(&mut self, piece: Piece) {
        self.replace_sectors(piece.offset, piece.bytes.len() as u64);
        self.written.write(piece.offset, &piece.bytes);
        self.volatile.push(piece);
    }

    pub(super) fn write_durable(&mut self, piece: &Piece) {
        self.replace_sectors(piece.offset, piece.bytes.len() as u64);
        self.written.write(piece.offset, &piece.bytes);
        self.durable.write(piece.offset, &piece.bytes);
    }

    pub(super) fn sync(&mut self) {
        for piece in core::mem::take(&mut self.volatile) {
            self.durable.write(piece.offset, &piece.bytes);
        }
    }

    /// State after a failed sync: everything not durable either never reached the device, or did
    /// and stays at stake.
    pub(super) fn fail_sync(&mut self, reached: bool) {
        if !reached {
            self.volatile.clear();
            self.written = self.durable.clone();
        }
    }
}
