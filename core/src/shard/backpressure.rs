//! Backpressure of one connection: the choice of calls that may start, given the bytes that wait to
//! be sent to its client.
//!
//! A pure machine. It promises that an answer, once made, is never thrown away, so a call may only
//! start while there is room for its answer. Otherwise it is *held*, before it has had any effect,
//! and starts in its turn when the client has read enough; its session refuses it when that takes
//! too long.
//!
//! ```text
//!   waiting: output + being sent + held back by flow control       max: limits.output_bytes_max
//!   writes start while waiting < max             (their answers are small)
//!   reads start while waiting + (reads under way + 1) × the size of recent reads <= max
//! ```

use std::collections::VecDeque;

use prism_codec::limits;

/// Expected size of a call's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// An acknowledgement.
    Light,
    /// A page of data.
    Heavy,
}

/// The state of one connection, with its calls identified by `Id`.
#[derive(Debug)]
pub(crate) struct Backpressure<Id> {
    max: usize,
    /// Heavy calls in flight, with answers still to come.
    reads: usize,
    /// Largest expected answer of one of them, in bytes: a recent maximum, which decays with each
    /// smaller answer.
    read_bytes: usize,
    light: VecDeque<Id>,
    heavy: VecDeque<Id>,
}

/// Least part of the limit to which the estimate falls, so that no history of small answers admits
/// so many large ones that they pass the limit by more than their number times their size.
const READS_MAX: usize = 256;

impl<Id: Copy + PartialEq> Backpressure<Id> {
    /// Makes the state of a connection whose client may leave `max` bytes unread.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            reads: 0,
            // Until the first answers, each may be a page of the default size.
            read_bytes: limits::PAGE_BYTES_DEFAULT as usize,
            light: VecDeque::new(),
            heavy: VecDeque::new(),
        }
    }

    /// Whether a call may start while `waiting` bytes wait for the client. Held calls go first.
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

    /// Notes that a heavy call was started, with an answer to come.
    pub(crate) fn read_began(&mut self) {
        self.reads += 1;
    }

    /// Notes that the answer of a heavy call has come, or will not.
    pub(crate) fn read_ended(&mut self) {
        debug_assert!(self.reads > 0, "every end has its beginning");
        self.reads = self.reads.saturating_sub(1);
    }

    /// Notes the size in bytes of a heavy call's answer.
    #[inline]
    pub(crate) fn note_read(&mut self, bytes: usize) {
        let faded = self.read_bytes - self.read_bytes / 8;
        self.read_bytes = bytes.max(faded).max(self.max / READS_MAX);
    }

    /// Puts a call last in its line. A call already in the line keeps its place.
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

    /// Takes the next held call that may start. It may be gone by now.
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

    /// All held calls, in their order.
    pub(crate) fn held(&self) -> impl Iterator<Item = Id> {
        self.light.iter().chain(&self.heavy).copied()
    }

    /// Most bytes that may wait.
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
