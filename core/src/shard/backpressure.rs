//! Backpressure of one connection: which of its calls may start, given what waits to be sent to its client.
//!
//! A pure machine. Its promise: an answer that was made is never thrown away, so a call may only start while there is room
//! for what it brings. A call that finds none is *held*, before it has had any effect, and starts in its turn when the
//! client has taken enough; its session refuses it when that takes too long.
//!
//! ```text
//!   waiting: output + being sent + held back by flow control       max: limits.output_bytes_max
//!   writes start while waiting < max             (their answers are small)
//!   reads start while waiting + (reads under way + 1) × the size of recent reads <= max
//! ```

use std::collections::VecDeque;

use prism_codec::limits;

/// What a call's answer may weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// An acknowledgement.
    Light,
    /// A page of data.
    Heavy,
}

/// The state of one connection, whose calls are named by `Id`.
#[derive(Debug)]
pub(crate) struct Backpressure<Id> {
    max: usize,
    /// Heavy calls under way whose answers have not come yet.
    reads: usize,
    /// The most that is expected of one of them, in bytes: a recent maximum, which fades with each smaller answer.
    read_bytes: usize,
    light: VecDeque<Id>,
    heavy: VecDeque<Id>,
}

/// The estimate falls to this part of the limit at the least, so that no history of small answers lets in so many large ones
/// that they pass the limit by more than their number times their size.
const READS_MAX: usize = 256;

impl<Id: Copy + PartialEq> Backpressure<Id> {
    /// For a connection whose client may leave `max` bytes unread.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            reads: 0,
            // Until answers have come each may be a page of the default size.
            read_bytes: limits::PAGE_BYTES_DEFAULT as usize,
            light: VecDeque::new(),
            heavy: VecDeque::new(),
        }
    }

    /// Whether a call may start while `waiting` bytes wait for the client. Those that are held go first.
    #[inline]
    pub(crate) fn admits(&self, weight: Weight, waiting: usize) -> bool {
        match weight {
            Weight::Light => self.light.is_empty() && waiting < self.max,
            Weight::Heavy => self.heavy.is_empty() && self.has_room_for_read(waiting),
        }
    }

    fn has_room_for_read(&self, waiting: usize) -> bool {
        waiting < self.max && (self.reads == 0 || waiting + (self.reads + 1) * self.read_bytes <= self.max)
    }

    /// A heavy call was started, and its answer will come.
    pub(crate) fn read_began(&mut self) {
        self.reads += 1;
    }

    /// The answer of a heavy call that was started has come, or will not.
    pub(crate) fn read_ended(&mut self) {
        debug_assert!(self.reads > 0, "every end has its beginning");
        self.reads = self.reads.saturating_sub(1);
    }

    /// A heavy call was answered with so many bytes.
    #[inline]
    pub(crate) fn note_read(&mut self, bytes: usize) {
        let faded = self.read_bytes - self.read_bytes / 8;
        self.read_bytes = bytes.max(faded).max(self.max / READS_MAX);
    }

    /// Puts a call last in its line. One that stands there already keeps its place.
    pub(crate) fn hold(&mut self, weight: Weight, call: Id) {
        let line = self.line(weight);
        if !line.contains(&call) {
            line.push_back(call);
        }
    }

    /// Whether any call is held.
    #[inline]
    pub(crate) fn holds_any(&self) -> bool {
        !self.light.is_empty() || !self.heavy.is_empty()
    }

    /// Takes the next held call that may go on. It may be gone by now.
    pub(crate) fn next(&mut self, waiting: usize) -> Option<Id> {
        if waiting < self.max
            && let Some(call) = self.light.pop_front()
        {
            return Some(call);
        }
        match self.has_room_for_read(waiting) {
            true => self.heavy.pop_front(),
            false => None,
        }
    }

    /// All that are held, in their order, to look at.
    pub(crate) fn held(&self) -> impl Iterator<Item = Id> {
        self.light.iter().chain(&self.heavy).copied()
    }

    /// The most that may wait, in bytes.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    fn line(&mut self, weight: Weight) -> &mut VecDeque<Id> {
        match weight {
            Weight::Light => &mut self.light,
            Weight::Heavy => &mut self.heavy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    #[test]
    fn writes_start_until_the_limit_and_then_in_their_order() {
        let mut machine = Backpressure::new(MAX);
        assert!(machine.admits(Weight::Light, MAX - 1));
        assert!(!machine.admits(Weight::Light, MAX));
        machine.hold(Weight::Light, 1);
        machine.hold(Weight::Light, 2);
        assert_eq!(machine.next(MAX), None);
        assert!(
            !machine.admits(Weight::Light, 0),
            "a new call does not overtake those that are held"
        );
        assert_eq!(machine.next(0), Some(1));
        assert_eq!(machine.next(0), Some(2));
        assert!(machine.admits(Weight::Light, 0) && !machine.holds_any());
    }

    #[test]
    fn reads_under_way_are_expected_to_bring_what_recent_ones_brought() {
        let mut machine: Backpressure<u32> = Backpressure::new(MAX);
        let mut started = 0;
        while machine.admits(Weight::Heavy, 0) {
            machine.read_began();
            started += 1;
        }
        assert_eq!(started, 32, "of a default page each");
        for _ in 0..200 {
            machine.note_read(100);
        }
        while machine.admits(Weight::Heavy, 0) {
            machine.read_began();
            started += 1;
        }
        assert_eq!(started, READS_MAX);
        machine.note_read(4 << 20);
        for _ in 0..READS_MAX - 3 {
            machine.read_ended();
        }
        assert!(machine.admits(Weight::Heavy, 16 << 20));
        assert!(!machine.admits(Weight::Heavy, 17 << 20));
    }

    #[test]
    fn a_read_larger_than_the_limit_goes_alone() {
        let mut machine: Backpressure<u32> = Backpressure::new(64 << 10);
        assert!(machine.admits(Weight::Heavy, 0));
        machine.read_began();
        assert!(!machine.admits(Weight::Heavy, 0));
        machine.read_ended();
        assert!(machine.admits(Weight::Heavy, (64 << 10) - 1));
        assert!(!machine.admits(Weight::Heavy, 64 << 10));
    }

    #[test]
    fn a_call_stands_in_its_line_once() {
        let mut machine = Backpressure::new(MAX);
        machine.hold(Weight::Heavy, 7);
        machine.hold(Weight::Heavy, 7);
        assert_eq!(machine.held().collect::<Vec<_>>(), [7]);
        assert_eq!(machine.next(0), Some(7));
        assert_eq!(machine.next(0), None);
    }
}
