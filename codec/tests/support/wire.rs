//! Protobuf bytes that follow a schema, more or less: fields in any order, repeated, split,
//! over-long varints, unknown fields and groups, now and then something illegal. Everything comes
//! from one seed.

use Kind::{Bytes, Map, Message, Text, Varint, Word};

/// A small generator of random numbers (xorshift64*), so that a failure is repeated by its seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = self.below(length_max + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn text(&mut self, length_max: usize) -> String {
        let length = self.below(length_max + 1);
        (0..length)
            .map(|_| ['a', 'Z', '0', 'ä', '€', '𝄞', '\0', ' '][self.below(8)])
            .collect()
    }

    /// Numbers of all magnitudes.
    pub(crate) fn number(&mut self) -> u64 {
        self.next() >> self.below(64)
    }
}

pub(crate) enum Kind {
    Text,
    /// A text that is mostly a legal name.
    Word,
    Bytes,
    Varint,
    Message(&'static [(u32, Kind)]),
    /// The entries of a map.
    Map(&'static [(u32, Kind)]),
}

pub(crate) type Schema = &'static [(u32, Kind)];

pub(crate) const SECONDS_NANOS: Schema = &[(1, Varint), (2, Varint)];
pub(crate) const TOKEN: Schema = &[(1, Message(SECONDS_NANOS)), (2, Bytes)];
pub(crate) const RESULT: Schema = &[(1, Varint), (2, Varint), (3, Varint), (4, Varint)];
pub(crate) const ITEM: Schema = &[(1, Bytes), (2, Bytes), (3, Message(SECONDS_NANOS)), (4, Varint)];
pub(crate) const PREDICATE: Schema = &[
    (1, Message(&[])),
    (2, Message(&[(1, Bytes)])),
    (3, Message(&[(1, Bytes), (2, Bytes)])),
];
pub(crate) const SELECTION: Schema = &[(1, Varint), (2, Varint), (3, Bytes)];
pub(crate) const STATUS: Schema = &[(1, Varint), (2, Text), (3, Message(&[(1, Text), (2, Bytes)]))];
pub(crate) const MUTATION: Schema = &[
    (1, Text),
    (2, Message(&[(1, Message(ITEM))])),
    (3, Message(&[(1, Message(PREDICATE))])),
];

pub(crate) const PUT: Schema = &[(1, Text), (2, Text), (3, Message(TOKEN)), (4, Message(ITEM))];
pub(crate) const GET: Schema = &[
    (1, Text),
    (2, Text),
    (3, Message(PREDICATE)),
    (4, Message(SELECTION)),
];
pub(crate) const DELETE: Schema = &[(1, Text), (2, Text), (3, Message(TOKEN)), (4, Message(PREDICATE))];
pub(crate) const SCAN: Schema = &[(1, Text), (2, Message(SELECTION))];
pub(crate) const MUTATE: Schema = &[(1, Text), (2, Message(TOKEN)), (3, Message(MUTATION))];
pub(crate) const CAS: Schema = &[
    (1, Text),
    (2, Text),
    (3, Bytes),
    (4, Message(TOKEN)),
    (5, Message(&[])),
    (6, Bytes),
    (7, Message(ITEM)),
];
pub(crate) const WRITE_RESPONSE: Schema = &[(1, Message(RESULT))];
pub(crate) const GET_RESPONSE: Schema = &[(1, Message(ITEM)), (2, Bytes)];
pub(crate) const SCAN_RESPONSE: Schema = &[(1, Message(&[(1, Text), (2, Message(ITEM))])), (2, Bytes)];
pub(crate) const MUTATE_RESPONSE: Schema = &[(1, Message(&[(1, Message(STATUS)), (2, Message(RESULT))]))];
pub(crate) const CAS_RESPONSE: Schema = &[(1, Varint), (2, Message(ITEM)), (3, Message(RESULT))];

pub(crate) const MESSAGE: Schema = &[
    (1, Word),
    (2, Bytes),
    (3, Text),
    (4, Map(&[(1, Word), (2, Text)])),
];
pub(crate) const PUBLISH: Schema = &[(1, Word), (2, Message(TOKEN)), (3, Message(MESSAGE))];
pub(crate) const SUBSCRIBE: Schema = &[
    (1, Word),
    (2, Word),
    (
        3,
        Message(&[(1, Varint), (2, Message(SECONDS_NANOS)), (3, Bytes)]),
    ),
    (4, Word),
    (5, Varint),
    (6, Varint),
    (7, Varint),
    (8, Message(SECONDS_NANOS)),
];
pub(crate) const COMMIT: Schema = &[(1, Word), (2, Message(TOKEN)), (3, Word), (4, Bytes)];
pub(crate) const LIST_GROUPS: Schema = &[(1, Word), (2, Varint), (3, Bytes)];
pub(crate) const RESET_GROUP: Schema = &[
    (1, Word),
    (2, Message(TOKEN)),
    (3, Word),
    (
        4,
        Message(&[(1, Varint), (2, Message(SECONDS_NANOS)), (3, Bytes)]),
    ),
    (5, Word),
];
pub(crate) const DELETE_GROUP: Schema = &[(1, Word), (2, Message(TOKEN)), (3, Word)];
pub(crate) const PUBLISH_RESPONSE: Schema = &[(1, Message(RESULT)), (2, Bytes)];
pub(crate) const PUBLISH_BATCH_RESPONSE: Schema = &[(
    1,
    Message(&[(1, Message(STATUS)), (2, Message(RESULT)), (3, Bytes)]),
)];
pub(crate) const SUBSCRIBE_RESPONSE: Schema = &[
    (
        1,
        Message(&[(1, Bytes), (2, Message(MESSAGE)), (3, Message(SECONDS_NANOS))]),
    ),
    (2, Bytes),
    (3, Message(&[(1, Varint), (2, Message(SECONDS_NANOS))])),
    (4, Varint),
];

const QUEUE_MESSAGE: Schema = &[
    (1, Bytes),
    (2, Word),
    (3, Map(&[(1, Word), (2, Text)])),
    (4, Message(SECONDS_NANOS)),
    (5, Varint),
];
pub(crate) const SEND: Schema = &[(1, Word), (2, Message(TOKEN)), (3, Message(QUEUE_MESSAGE))];
pub(crate) const RECEIVE: Schema = &[
    (1, Word),
    (2, Message(TOKEN)),
    (3, Varint),
    (4, Message(SECONDS_NANOS)),
    (5, Message(SECONDS_NANOS)),
];
pub(crate) const NACK: Schema = &[
    (1, Word),
    (2, Message(TOKEN)),
    (3, Bytes),
    (4, Message(SECONDS_NANOS)),
    (5, Text),
    (6, Varint),
    (7, Varint),
];
pub(crate) const EXTEND: Schema = &[
    (1, Word),
    (2, Message(TOKEN)),
    (3, Bytes),
    (4, Message(SECONDS_NANOS)),
];
pub(crate) const PEEK: Schema = &[
    (1, Word),
    (2, Varint),
    (3, Word),
    (4, Varint),
    (5, Bytes),
    (6, Varint),
];
pub(crate) const MOVE: Schema = &[
    (1, Word),
    (2, Message(TOKEN)),
    (3, Message(&[(1, Bytes)])),
    (4, Varint),
];

/// Appends a message. `wild`: percentage of illegal things at each field, 0 for messages that
/// parsers accept.
pub(crate) fn message(random: &mut Random, schema: Schema, wild: usize, out: &mut Vec<u8>) {
    // Most fields once, so that requests are mostly complete; then a few more in any order, so that
    // pieces are merged.
    for (number, kind) in schema {
        if random.percent(75) {
            field(random, *number, kind, wild, out);
        }
    }
    let more = if random.percent(40) { random.below(5) } else { 0 };
    for _ in 0..more {
        if schema.is_empty() || random.percent(15) {
            unknown(random, wild, 3, out);
        } else {
            let (number, kind) = &schema[random.below(schema.len())];
            field(random, *number, kind, wild, out);
        }
    }
}

fn field(random: &mut Random, number: u32, kind: &Kind, wild: usize, out: &mut Vec<u8>) {
    let wire_type = match kind {
        Varint => 0,
        _ => 2,
    };
    let written = if random.percent(wild) {
        random.below(8) as u32
    } else {
        wire_type
    };
    key(random, number, written, out);
    let content = match kind {
        Varint => {
            // Mostly small, so that durations and the like are mostly legal.
            let value = if random.percent(75) {
                random.below(20) as u64
            } else {
                random.number()
            };
            return varint(random, value, out);
        }
        Bytes => random.bytes(9),
        Text | Word => {
            let text = match kind {
                Word if random.percent(85) => ["a", "b-1", "orders", "n"][random.below(4)].to_owned(),
                _ => random.text(6),
            };
            let mut text = text.into_bytes();
            if random.percent(wild) {
                text.push(0x80 | random.next() as u8);
            }
            text
        }
        Message(schema) | Map(schema) => {
            let mut content = Vec::new();
            message(random, schema, wild, &mut content);
            content
        }
    };
    let length = if random.percent(wild) {
        random.below(content.len() + 3)
    } else {
        content.len()
    };
    varint(random, length as u64, out);
    out.extend_from_slice(&content);
}

fn unknown(random: &mut Random, wild: usize, depth: usize, out: &mut Vec<u8>) {
    let number = [9, 15, 16, 1_000, (1 << 29) - 1][random.below(5)];
    let wire_type = if random.percent(wild) {
        random.below(8)
    } else {
        [0, 1, 2, 3, 5][random.below(5)]
    } as u32;
    key(random, number, wire_type, out);
    match wire_type {
        0 => {
            let value = random.number();
            varint(random, value, out);
        }
        1 => out.extend_from_slice(&[1; 8]),
        2 => {
            let content = random.bytes(5);
            varint(random, content.len() as u64, out);
            out.extend_from_slice(&content);
        }
        3 => {
            for _ in 0..random.below(3) {
                if depth > 0 {
                    unknown(random, wild, depth - 1, out);
                }
            }
            let number = if random.percent(wild) { number ^ 1 } else { number };
            key(random, number, 4, out);
        }
        _ => out.extend_from_slice(&[5; 4]),
    }
}

fn key(random: &mut Random, number: u32, wire_type: u32, out: &mut Vec<u8>) {
    varint(random, u64::from(number) << 3 | u64::from(wire_type), out);
}

/// Usually minimal, sometimes longer than needed, which every parser accepts.
fn varint(random: &mut Random, mut value: u64, out: &mut Vec<u8>) {
    let before = out.len();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    if random.percent(3) && out.len() - before < 9 {
        if let Some(last) = out.last_mut() {
            *last |= 0x80;
        }
        out.push(0);
    }
}

/// Flips, drops, inserts and cuts.
pub(crate) fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.next() as u8),
            _ => bytes.truncate(at),
        }
    }
}
