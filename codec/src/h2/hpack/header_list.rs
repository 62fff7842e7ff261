//! A list of header fields in two reusable buffers: one of all names and values, one of their ends.
//!
//! Promises: order is kept and clearing keeps the memory, so a reused list allocates nothing. Names
//! and values are the bytes received; the caller decides whether they are legal.

use super::ENTRY_OVERHEAD;

/// Header fields in the order received. Reusable: [`HeaderList::clear`] keeps the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList {
    /// Name, value, name, value, … without gaps.
    bytes: Vec<u8>,
    fields: Vec<Ends>,
}

/// Ends of a field's name and value in the bytes. The name starts at the end of the field before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    name: u32,
    value: u32,
}

impl HeaderList {
    /// Makes an empty list; allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Size of the list as counted by RFC 9113 section 6.5.2: bytes of names and values, and 32 for
    /// each field.
    pub fn byte_len(&self) -> usize {
        self.bytes.len() + self.fields.len() * ENTRY_OVERHEAD
    }

    /// Appends a field.
    ///
    /// # Panics
    /// If the list would hold more than 4 GiB.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.close(name_end);
    }

    /// The fields, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            bytes: &self.bytes,
            start: 0,
            ends: self.fields.iter(),
        }
    }

    /// Value of the first field with this name, compared byte for byte (HTTP/2 names are
    /// lower-case).
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(candidate, _)| *candidate == name)
            .map(|(_, value)| value)
    }

    /// Appends a field whose name and value are joined without a gap.
    #[inline]
    pub(super) fn push_joined(&mut self, joined: &[u8], name_len: usize) {
        let name_end = self.bytes.len() + name_len;
        self.bytes.extend_from_slice(joined);
        self.close(name_end);
    }

    /// The buffer, for a decoder that writes a field's name and value to its end and then calls
    /// [`HeaderList::close`], or removes them again.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a field of the bytes after the last field. Its name ends at `name_end`.
    #[inline]
    pub(super) fn close(&mut self, name_end: usize) {
        let value_end = u32::try_from(self.bytes.len()).expect("a header list is far below 4 GiB");
        self.fields.push(Ends {
            name: name_end as u32,
            value: value_end,
        });
    }
}

impl<'a> IntoIterator for &'a HeaderList {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The fields of a [`HeaderList`] as (name, value), in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    start: usize,
    ends: std::slice::Iter<'a, Ends>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ends = self.ends.next()?;
        let (name_end, value_end) = (ends.name as usize, ends.value as usize);
        let field = (
            &self.bytes[self.start..name_end],
            &self.bytes[name_end..value_end],
        );
        self.start = value_end;
        Some(field)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_sizes_are_counted() {
        let mut list = HeaderList::new();
        assert!(list.is_empty());
        list.push(b"a", b"1");
        list.push(b"", b"");
        list.push(b"a", b"2");
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"", b""), (b"a", b"2")];
        assert_eq!(list.iter().collect::<Vec<_>>(), expected);
        assert_eq!(
            (list.len(), list.byte_len(), list.iter().len()),
            (3, 4 + 3 * 32, 3)
        );
        assert_eq!(list.get(b"a"), Some(b"1".as_slice()), "the first of that name");
        assert_eq!((list.get(b"b"), list.get(b"")), (None, Some(b"".as_slice())));
        list.clear();
        assert_eq!((list.len(), list.byte_len(), list.get(b"a")), (0, 0, None));
    }
}
