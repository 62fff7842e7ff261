//! The static table (RFC 7541 Appendix A): by index for the decoder, by name for the encoder.
//!
//! Name and value of an entry are adjacent, so that the decoder copies both with one move. The
//! index by name is a small hash table that the compiler fills.

/// An entry of the static table.
#[derive(Debug)]
pub(super) struct StaticField {
    /// Name and value, without a gap.
    bytes: &'static [u8],
    name_len: usize,
}

impl StaticField {
    /// Name and value without a gap, and the end of the name.
    pub(super) fn joined(&self) -> (&'static [u8], usize) {
        (self.bytes, self.name_len)
    }

    pub(super) fn name(&self) -> &'static [u8] {
        &self.bytes[..self.name_len]
    }

    pub(super) fn value(&self) -> &'static [u8] {
        &self.bytes[self.name_len..]
    }
}

/// Result of a search in the static table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Name and value, at this index on the wire.
    Field(u32),
    /// The name only, at this index on the wire (the lowest).
    Name(u32),
}

/// Searches the static table.
pub(super) fn find(name: &[u8], value: &[u8]) -> Option<Found> {
    let mut slot = name_slot(name);
    loop {
        let first = usize::from(SLOTS[slot]);
        if first == 0 {
            return None;
        }
        if FIELDS[first - 1].name() == name {
            // Entries of one name are adjacent: RFC 7541 sorts them so.
            let same_name = FIELDS[first - 1..]
                .iter()
                .take_while(|field| field.name() == name);
            let offset = same_name
                .map(StaticField::value)
                .position(|candidate| candidate == value);
            return Some(match offset {
                Some(offset) => Found::Field((first + offset) as u32),
                None => Found::Name(first as u32),
            });
        }
        slot = (slot + 1) % SLOTS.len();
    }
}

/// Number of entries; the dynamic table's indices begin above.
pub(super) const LEN: usize = FIELDS.len();

const _: () = assert!(LEN == 61);

/// Lowest index (from 1) of the entries of a name, by the name's hash; 0 is free.
static SLOTS: [u8; 256] = fill_slots();

const fn fill_slots() -> [u8; 256] {
    let mut slots = [0; 256];
    let mut at = 0;
    while at < LEN {
        let (name, previous) = (&FIELDS[at], if at == 0 { None } else { Some(&FIELDS[at - 1]) });
        let repeated = match previous {
            Some(previous) => same_name(name, previous),
            None => false,
        };
        if !repeated {
            let mut slot = hash(name.bytes, name.name_len);
            while slots[slot] != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = at as u8 + 1;
        }
        at += 1;
    }
    slots
}

const fn same_name(a: &StaticField, b: &StaticField) -> bool {
    if a.name_len != b.name_len {
        return false;
    }
    let mut at = 0;
    while at < a.name_len {
        if a.bytes[at] != b.bytes[at] {
            return false;
        }
        at += 1;
    }
    true
}

fn name_slot(name: &[u8]) -> usize {
    hash(name, name.len())
}

/// Hash of a name. Length, first, middle and last byte separate the static names well enough: the
/// longest run of probes is short.
const fn hash(bytes: &[u8], len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let (first, middle, last) = (
        bytes[0] as usize,
        bytes[len / 2] as usize,
        bytes[len - 1] as usize,
    );
    (len * 37 + first * 5 + middle * 17 + last * 71) % 256
}

macro_rules! field {
    ($name:literal, $value:literal) => {
        StaticField {
            bytes: concat!($name, $value).as_bytes(),
            name_len: $name.len(),
        }
    };
}

/// RFC 7541 Appendix A, index 1 first.
pub(super) static FIELDS: [StaticField; 61] = [
    field!(":authority", ""),
    field!(":method", "GET"),
    field!(":method", "POST"),
    field!(":path", "/"),
    field!(":path", "/index.html"),
    field!(":scheme", "http"),
    field!(":scheme", "https"),
    field!(":status", "200"),
    field!(":status", "204"),
    field!(":status", "206"),
    field!(":status", "304"),
    field!(":status", "400"),
    field!(":status", "404"),
    field!(":status", "500"),
    field!("accept-charset", ""),
    field!("accept-encoding", "gzip, deflate"),
    field!("accept-language", ""),
    field!("accept-ranges", ""),
    field!("accept", ""),
    field!("access-control-allow-origin", ""),
    field!("age", ""),
    field!("allow", ""),
    field!("authorization", ""),
    field!("cache-control", ""),
    field!("content-disposition", ""),
    field!("content-encoding", ""),
    field!("content-language", ""),
    field!("content-length", ""),
    field!("content-location", ""),
    field!("content-range", ""),
    field!("content-type", ""),
    field!("cookie", ""),
    field!("date", ""),
    field!("etag", ""),
    field!("expect", ""),
    field!("expires", ""),
    field!("from", ""),
    field!("host", ""),
    field!("if-match", ""),
    field!("if-modified-since", ""),
    field!("if-none-match", ""),
    field!("if-range", ""),
    field!("if-unmodified-since", ""),
    field!("last-modified", ""),
    field!("link", ""),
    field!("location", ""),
    field!("max-forwards", ""),
    field!("proxy-authenticate", ""),
    field!("proxy-authorization", ""),
    field!("range", ""),
    field!("referer", ""),
    field!("refresh", ""),
    field!("retry-after", ""),
    field!("server", ""),
    field!("set-cookie", ""),
    field!("strict-transport-security", ""),
    field!("transfer-encoding", ""),
    field!("user-agent", ""),
    field!("vary", ""),
    field!("via", ""),
    field!("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_name_and_value() {
        for (at, field) in FIELDS.iter().enumerate() {
            assert_eq!(
                find(field.name(), field.value()),
                Some(Found::Field(at as u32 + 1))
            );
        }
    }

    #[test]
    fn a_name_alone_gives_its_lowest_index() {
        assert_eq!(find(b":status", b"418"), Some(Found::Name(8)));
        assert_eq!(find(b":path", b"/prism"), Some(Found::Name(4)));
        assert_eq!(find(b"www-authenticate", b"x"), Some(Found::Name(61)));
        for unknown in [b"".as_slice(), b"grpc-status", b"te", b":statu", b"\xff"] {
            assert_eq!(find(unknown, b""), None);
        }
    }
}
