//! A repeated field that stays on the wire: where it lies, how many elements it has, and an
//! iterator that re-reads it.
//!
//! Promises that iterating neither fails nor allocates, because the view that made the [`Repeated`]
//! has validated every byte. The elements of one field may lie in several pieces: protobuf lets a
//! sub-message be split, and then its repeated fields are concatenated. So a `Repeated` is a path
//! of keys from some enclosing message down to the element, plus the number of elements to pass
//! over (those that a later member of a oneof has replaced). In the usual case, one piece, the path
//! has a single key.

use std::{fmt, marker::PhantomData};

use crate::reader::{LEN, WireReader};

/// Element of a repeated field, made from bytes that have been validated before.
pub trait Element<'a>: Sized {
    /// Reads one element. Called only with bytes that the enclosing view's `decode` accepted;
    /// anything else gives an unspecified value, but no panic.
    fn from_validated(bytes: &'a [u8]) -> Self;
}

impl<'a> Element<'a> for &'a [u8] {
    #[inline(always)]
    fn from_validated(bytes: &'a [u8]) -> Self {
        bytes
    }
}

/// A validated repeated field. `Copy`; iterate it as often as needed.
pub struct Repeated<'a, T> {
    /// The message in which the path begins.
    source: &'a [u8],
    /// Keys from the outermost message to the element; 1 to [`PATH_KEYS_MAX`] of them.
    path: &'static [u32],
    /// Elements along the path that no longer count.
    skip: u32,
    count: u32,
    element: PhantomData<fn() -> T>,
}

impl<'a, T: Element<'a>> Repeated<'a, T> {
    pub(crate) fn new(source: &'a [u8], path: &'static [u32], skip: u32, count: u32) -> Self {
        debug_assert!(!path.is_empty() && path.len() <= PATH_KEYS_MAX);
        Repeated {
            source,
            path,
            skip,
            count,
            element: PhantomData,
        }
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Reads the elements in the order of the wire.
    #[inline(always)]
    pub fn iter(&self) -> Iter<'a, T> {
        let mut iter = Iter {
            innermost: WireReader::new(self.source),
            key: self.path.last().copied().unwrap_or_default(),
            left: self.count,
            outer: Outer {
                levels: [WireReader::new(&[]); PATH_KEYS_MAX - 1],
                path: self.path,
            },
            element: PhantomData,
        };
        if self.path.len() > 1 {
            iter.begin_outer(self.source, self.skip);
        } else {
            debug_assert_eq!(self.skip, 0, "a single piece begins behind whatever was replaced");
        }
        iter
    }
}

impl<T> Clone for Repeated<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Repeated<'_, T> {}

impl<T> Default for Repeated<'_, T> {
    fn default() -> Self {
        Repeated {
            source: &[],
            path: &[0],
            skip: 0,
            count: 0,
            element: PhantomData,
        }
    }
}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for Repeated<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Two are equal when their elements are, wherever they lie.
impl<'a, T: Element<'a> + PartialEq> PartialEq for Repeated<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a>> IntoIterator for Repeated<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    #[inline]
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &Repeated<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    #[inline]
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The elements of a [`Repeated`], in order. Exact in its length.
#[derive(Clone)]
pub struct Iter<'a, T> {
    innermost: WireReader<'a>,
    key: u32,
    left: u32,
    outer: Outer<'a>,
    element: PhantomData<fn() -> T>,
}

/// The messages around the innermost one, for a field in several pieces.
#[derive(Clone)]
struct Outer<'a> {
    levels: [WireReader<'a>; PATH_KEYS_MAX - 1],
    path: &'static [u32],
}

impl<'a, T: Element<'a>> Iter<'a, T> {
    #[cold]
    fn begin_outer(&mut self, source: &'a [u8], skip: u32) {
        self.innermost = WireReader::new(&[]);
        self.outer.levels[0] = WireReader::new(source);
        for _ in 0..skip {
            self.next_bytes();
        }
    }

    #[inline(always)]
    fn next_bytes(&mut self) -> Option<&'a [u8]> {
        loop {
            while let Some((key, value)) = self.innermost.validated_field() {
                if key == self.key {
                    return Some(value);
                }
            }
            if !self.next_piece() {
                return None;
            }
        }
    }

    /// Enters the next message that may hold elements. False when there is none.
    #[cold]
    #[inline(never)]
    fn next_piece(&mut self) -> bool {
        let containers = self.outer.path.len() - 1;
        let Some(mut level) = containers.checked_sub(1) else {
            return false;
        };
        loop {
            match self.outer.levels[level].validated_field() {
                Some((key, value)) if key == self.outer.path[level] => {
                    if level + 1 == containers {
                        self.innermost = WireReader::new(value);
                        return true;
                    }
                    level += 1;
                    self.outer.levels[level] = WireReader::new(value);
                }
                Some(_) => {}
                None if level == 0 => return false,
                None => level -= 1,
            }
        }
    }
}

impl<'a, T: Element<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        self.next_bytes().map(T::from_validated)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for Iter<'a, T> {}

/// Longest path: `delete` → `predicate` → `keys` → `keys` within a Mutation.
pub(crate) const PATH_KEYS_MAX: usize = 4;

/// Counts the pieces of a repeated field while its message is decoded, and makes the [`Repeated`]
/// in the end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pieces<'a> {
    /// Elements seen in all pieces, replaced ones included.
    seen: u32,
    /// Elements that count.
    count: u32,
    /// Pieces that count.
    pieces: u32,
    last: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// Another piece with this many elements.
    #[inline]
    pub(crate) fn add(&mut self, piece: &'a [u8], elements: u32) {
        self.seen += elements;
        self.count += elements;
        self.pieces += 1;
        self.last = piece;
    }

    /// Another member of the oneof came: what was seen so far no longer counts.
    pub(crate) fn replace(&mut self) {
        self.count = 0;
        self.pieces = 0;
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// `root` and `path`: from the outermost message in which all pieces lie.
    pub(crate) fn finish<T: Element<'a>>(&self, root: &'a [u8], path: &'static [u32]) -> Repeated<'a, T> {
        if self.pieces <= 1 {
            return Repeated::new(self.last, &path[path.len() - 1..], 0, self.count);
        }
        Repeated::new(root, path, self.seen - self.count, self.count)
    }
}

impl<'a> WireReader<'a> {
    /// The next field of a message that has been validated: its key, and its content if
    /// length-delimited (else empty). `None` at the end.
    #[inline(always)]
    fn validated_field(&mut self) -> Option<(u32, &'a [u8])> {
        if self.is_empty() {
            return None;
        }
        let key = self.key().ok()?;
        if key & 7 == LEN {
            return Some((key, self.bytes().ok()?));
        }
        self.skip_validated(key).ok()?;
        Some((key, &[]))
    }
}
