//! Messages of a PubSub or Queue load: what stands in their payloads, and sets of their numbers and
//! ids.
//!
//! A payload begins with a stamp that names the message; every byte after it follows from the
//! stamp. So whoever gets it sees which message it is, and that it is whole.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::{Mutex, PoisonError},
};

use crate::random::mix64;

/// Bytes at the front of each payload: the run, the sender, the number and the time.
pub const HEADER_BYTES: usize = 28;

/// Messages of one sender that are kept apart.
const NUMBERS_MAX: u64 = 1 << 32;

/// Identity of a message, at the front of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the run, so that messages of another one in the same namespace are left out.
    pub run: u64,
    /// Publisher or sender, from 0.
    pub sender: u32,
    /// Number of the message among those of its sender.
    pub number: u64,
    /// When it was due, in nanoseconds since the start of the run.
    pub due_ns: u64,
}

impl Stamp {
    /// Writes the payload, at least [`HEADER_BYTES`] long: the stamp and what follows from it.
    pub fn fill(&self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.run.to_be_bytes());
        payload[8..12].copy_from_slice(&self.sender.to_be_bytes());
        payload[12..20].copy_from_slice(&self.number.to_be_bytes());
        payload[20..28].copy_from_slice(&self.due_ns.to_be_bytes());
        for (piece, bytes) in payload[HEADER_BYTES..].chunks_mut(8).zip(self.rest()) {
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
    }

    /// Whether this is the whole payload of the stamp that it begins with.
    pub fn is_whole(&self, payload: &[u8]) -> bool {
        let mut pieces = payload[HEADER_BYTES..].chunks(8).zip(self.rest());
        pieces.all(|(piece, bytes)| *piece == bytes[..piece.len()])
    }

    /// Bytes after the stamp, eight at a time.
    fn rest(&self) -> impl Iterator<Item = [u8; 8]> {
        let seed = mix64(self.run ^ u64::from(self.sender) << 48 ^ self.number);
        (0..).map(move |place: u64| mix64(seed.wrapping_add(place)).to_be_bytes())
    }

    /// Reads the stamp of a payload; `None` if it is too short for one.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk::<8>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (due, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            run: u64::from_be_bytes(*run),
            sender: u32::from_be_bytes(*sender),
            number: u64::from_be_bytes(*number),
            due_ns: u64::from_be_bytes(*due),
        })
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// Adds a number. Returns whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// Whether the number is in it.
    pub fn has(&self, number: u64) -> bool {
        let word = self.words.get((number / 64) as usize);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of these are not in `other`.
    pub fn missing_in(&self, other: &Self) -> u64 {
        let of = |at| other.words.get(at).copied().unwrap_or(0);
        let missing = self.words.iter().enumerate();
        missing
            .map(|(at, word)| u64::from((word & !of(at)).count_ones()))
            .sum()
    }
}

/// Ids of messages, by sender and number, as answers and deliveries name them: whoever hears of one
/// first says what it is.
#[derive(Debug, Default)]
pub struct Ids {
    by_sender: Vec<Mutex<Vec<u64>>>,
}

impl Ids {
    /// No ids yet, of so many senders.
    pub fn new(senders: u32) -> Self {
        Self {
            by_sender: (0..senders).map(|_| Mutex::default()).collect(),
        }
    }

    /// Notes the id of a message. Returns whether it is the one that is known, or the first.
    pub fn note(&self, sender: u32, number: u64, id: &[u8]) -> bool {
        let Some(ids) = self
            .by_sender
            .get(sender as usize)
            .filter(|_| number < NUMBERS_MAX)
        else {
            return false;
        };
        let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, hash) = (number as usize, hash_of(id));
        if at >= ids.len() {
            ids.resize(at + 1, 0);
        }
        if ids[at] == 0 {
            ids[at] = hash;
        }
        ids[at] == hash
    }
}

/// A number for an id or a receipt, never 0.
pub fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_names_its_message_and_shows_damage() {
        let stamp = Stamp {
            run: 7,
            sender: 3,
            number: u64::MAX,
            due_ns: 99,
        };
        for length in HEADER_BYTES..HEADER_BYTES + 20 {
            let mut payload = vec![0; length];
            stamp.fill(&mut payload);
            assert_eq!(Stamp::of(&payload), Some(stamp));
            assert!(stamp.is_whole(&payload));
            if let Some(last) = payload[HEADER_BYTES..].last_mut() {
                *last ^= 1;
                assert!(!stamp.is_whole(&payload), "{length}");
            }
        }
        assert_eq!(Stamp::of(&[0; HEADER_BYTES - 1]), None);
    }

    #[test]
    fn numbers_are_a_set() {
        let numbers = |of: &[u64]| {
            let mut numbers = Numbers::default();
            of.iter().for_each(|number| assert!(numbers.insert(*number)));
            numbers
        };
        let mut some = numbers(&[0, 63, 64, 1_000]);
        assert!(some.has(63) && !some.has(65) && !some.has(100_000));
        assert!(!some.insert(64), "it is there");
        assert_eq!(some.count(), 4);
        assert_eq!(some.missing_in(&numbers(&[0, 64, 5])), 2);
        assert_eq!(Numbers::default().missing_in(&some), 0);
    }

    #[test]
    fn a_message_has_one_id() {
        let ids = Ids::new(2);
        assert!(ids.note(1, 5, b"a") && ids.note(1, 5, b"a") && ids.note(0, 5, b"b"));
        assert!(!ids.note(1, 5, b"b"), "another id");
        assert!(!ids.note(2, 0, b"a"), "no such sender");
    }
}
