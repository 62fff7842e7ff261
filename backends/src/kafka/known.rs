//! Ids of the messages that a namespace has taken lately.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::wire::Taken;
use crate::api::pubsub::{ID_WINDOW_MS, Message};
use crate::ids::UnixMillis;

/// Most ids that are remembered; the oldest go.
pub(super) const IDS_MAX: usize = 200_000;

/// The ids. Clients choose them, so the map's hash is one that they cannot aim at.
#[derive(Debug, Default)]
pub(super) struct Ids {
    known: HashMap<Rc<[u8]>, Known>,
    oldest: VecDeque<Rc<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// `None` while it is under way.
    offset: Option<u64>,
    time: UnixMillis,
    digest: Option<u64>,
}

/// Judgement of a message that is to be published, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new.
    New,
    /// Another one with this id is under way.
    UnderWay,
    /// It is there already.
    Repeat,
    /// The id belongs to another call.
    Reused,
}

impl Ids {
    /// Judges a message.
    pub(super) fn judge(&self, message: &Message<'_>) -> Verdict {
        let Some(known) = self.known.get(message.id) else {
            return Verdict::New;
        };
        let is_another = !message.promised
            && known
                .digest
                .zip(message.digest)
                .is_some_and(|(first, this)| first != this);
        match known.offset {
            None => Verdict::UnderWay,
            // One that is applied late, or once more, was taken before it was stored.
            Some(_) if message.at.0 >= known.time.0.saturating_add(ID_WINDOW_MS) => Verdict::New,
            Some(_) if is_another => Verdict::Reused,
            Some(_) => Verdict::Repeat,
        }
    }

    /// Notes that a message is under way.
    pub(super) fn begin(&mut self, message: &Message<'_>) {
        self.insert(
            message.id,
            Known {
                offset: None,
                time: message.at,
                digest: message.digest,
            },
        );
    }

    /// Notes what became of it.
    pub(super) fn end(&mut self, id: &[u8], stored: Option<(u64, UnixMillis)>) {
        match (self.known.get_mut(id), stored) {
            (Some(known), Some((offset, time))) => {
                known.offset = Some(offset);
                known.time = time;
            }
            (Some(_), None) => {
                self.known.remove(id);
            }
            (None, _) => {}
        }
    }

    /// Notes a message that was read. `true`: one with its id lies before it.
    pub(super) fn sees(&mut self, taken: &Taken) -> bool {
        if taken.id.is_empty() {
            return false;
        }
        match self.known.get_mut(&taken.id[..]) {
            Some(known) => match known.offset {
                Some(first) if first < taken.offset => {
                    taken.time.0 < known.time.0.saturating_add(ID_WINDOW_MS)
                }
                Some(first) if first == taken.offset => false,
                _ => {
                    known.offset = Some(taken.offset);
                    known.time = taken.time;
                    false
                }
            },
            None => {
                let known = Known {
                    offset: Some(taken.offset),
                    time: taken.time,
                    digest: taken.digest,
                };
                self.insert(&taken.id, known);
                false
            }
        }
    }

    fn insert(&mut self, id: &[u8], known: Known) {
        let id: Rc<[u8]> = id.into();
        if self.known.insert(id.clone(), known).is_none() {
            self.oldest.push_back(id);
        }
        while self.oldest.len() > IDS_MAX {
            if let Some(id) = self.oldest.pop_front() {
                self.known.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NamespaceId;

    fn message(id: &[u8], at: u64, digest: Option<u64>) -> Message<'_> {
        Message {
            namespace: NamespaceId(1),
            partition: 0,
            id,
            digest,
            promised: false,
            at: UnixMillis(at),
            expires_at: None,
            topic: "",
            key: "",
            attributes: b"",
            payload: b"",
        }
    }

    fn taken(id: &[u8], offset: u64, time: u64) -> Taken {
        Taken {
            offset,
            time: UnixMillis(time),
            id: id.to_vec(),
            ..Taken::default()
        }
    }

    #[test]
    fn a_repeat_is_known_within_the_window_and_a_failure_is_forgotten() {
        let mut ids = Ids::default();
        let first = message(b"a", 1_000, Some(1));
        assert_eq!(ids.judge(&first), Verdict::New);
        ids.begin(&first);
        assert_eq!(ids.judge(&first), Verdict::UnderWay);
        ids.end(b"a", None);
        assert_eq!(ids.judge(&first), Verdict::New);
        ids.begin(&first);
        ids.end(b"a", Some((7, UnixMillis(1_000))));
        assert_eq!(ids.judge(&first), Verdict::Repeat);
        assert_eq!(ids.judge(&message(b"a", 1_000, Some(2))), Verdict::Reused);
        let promised = Message {
            promised: true,
            ..message(b"a", 0, Some(2))
        };
        assert_eq!(
            ids.judge(&promised),
            Verdict::Repeat,
            "also what was taken before"
        );
        assert_eq!(
            ids.judge(&message(b"a", 1_000 + ID_WINDOW_MS, None)),
            Verdict::New
        );
    }

    #[test]
    fn a_reader_drops_what_comes_again_and_nothing_that_it_reads_again() {
        let mut ids = Ids::default();
        assert!(!ids.sees(&taken(b"a", 5, 1_000)));
        assert!(ids.sees(&taken(b"a", 9, 2_000)), "a repeat");
        assert!(!ids.sees(&taken(b"a", 5, 1_000)), "the first is read again");
        assert!(!ids.sees(&taken(b"a", 3, 900)), "one before it");
        assert!(ids.sees(&taken(b"a", 5, 1_000)), "then the second is the repeat");
        assert!(
            !ids.sees(&taken(b"a", 20, 900 + ID_WINDOW_MS)),
            "beyond the window"
        );
        assert!(
            !ids.sees(&taken(b"", 1, 0)) && !ids.sees(&taken(b"", 2, 0)),
            "without an id"
        );
    }
}
