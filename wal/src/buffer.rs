//! A byte buffer whose first byte lies on a block boundary in memory, as direct I/O wants it.
//!
//! Made without `unsafe`: the vector is longer than asked by one alignment, and the slice handed
//! out starts at the first aligned byte. The vector never grows, so the boundary stays where it is.

use core::fmt;
use core::ops::Range;

/// Alignment of the first byte and unit of length of everything written to a segment: one physical
/// block.
pub const BLOCK_BYTES: usize = 4096;

/// The unit in which a disk writes atomically, and therefore the unit of the recovery proof.
pub const SECTOR_BYTES: usize = 512;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));

/// A fixed number of bytes, aligned to [`BLOCK_BYTES`], zero at first.
pub struct AlignedBuffer {
    storage: Vec<u8>,
    offset: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// A buffer of at least `bytes` zero bytes, rounded up to whole blocks.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let bytes = bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let storage = vec![0; bytes + BLOCK_BYTES];
        // `align_offset` may decline in theory (const evaluation); an unaligned buffer then only
        // costs speed, because the drivers check the alignment and copy.
        let offset = storage.as_ptr().align_offset(BLOCK_BYTES);
        let offset = if offset < BLOCK_BYTES { offset } else { 0 };
        Self {
            storage,
            offset,
            bytes,
        }
    }

    /// Bytes in the buffer, a multiple of [`BLOCK_BYTES`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the buffer has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.offset..self.offset + self.bytes]
    }

    /// All bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.offset..self.offset + self.bytes]
    }

    /// Takes the buffer apart, for a driver that must own what it writes as a plain vector: the
    /// vector, and where in it the bytes lie. The vector must not grow or shrink, or the alignment
    /// is lost.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Range<usize>) {
        (self.storage, self.offset..self.offset + self.bytes)
    }

    /// Puts together what [`AlignedBuffer::into_parts`] took apart.
    ///
    /// # Panics
    /// When the range is not whole blocks within the vector.
    #[must_use]
    pub fn from_parts(storage: Vec<u8>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= storage.len());
        assert!(range.len().is_multiple_of(BLOCK_BYTES));
        Self {
            storage,
            offset: range.start,
            bytes: range.len(),
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AlignedBuffer")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Whether `bytes` holds a whole sector of nothing but zeros. `bytes` must start on a sector
/// boundary.
#[must_use]
pub fn has_zero_sector(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES).any(is_zero)
}

/// Whether all bytes are zero. Reads sixteen at a time: recovery asks this of every block beyond
/// the log's end.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(16);
    chunks.by_ref().all(|chunk| chunk == [0; 16]) && chunks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_aligned_and_the_length_is_whole_blocks() {
        for bytes in [1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::zeroed(bytes);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!(buffer.len(), bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES);
            assert!(is_zero(buffer.as_slice()));
            let last = buffer.len() - 1;
            buffer.as_mut_slice()[last] = 1;
            assert!(!is_zero(buffer.as_slice()));
        }
    }

    #[test]
    fn a_buffer_taken_apart_and_put_together_is_the_same() {
        let mut buffer = AlignedBuffer::zeroed(2 * BLOCK_BYTES);
        buffer.as_mut_slice()[BLOCK_BYTES] = 7;
        let (storage, range) = buffer.into_parts();
        assert_eq!(storage[range.start + BLOCK_BYTES], 7);
        let buffer = AlignedBuffer::from_parts(storage, range);
        assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(
            (buffer.len(), buffer.as_slice()[BLOCK_BYTES]),
            (2 * BLOCK_BYTES, 7)
        );
    }

    #[test]
    fn one_zero_sector_among_others_is_found() {
        let mut bytes = vec![1; 4 * SECTOR_BYTES];
        assert!(!has_zero_sector(&bytes));
        bytes[SECTOR_BYTES..2 * SECTOR_BYTES].fill(0);
        assert!(has_zero_sector(&bytes));
        bytes[2 * SECTOR_BYTES - 1] = 1;
        assert!(!has_zero_sector(&bytes));
    }
}
