//! Defences: budgets for the useless work that a peer may cause, and a memory of recently closed
//! streams.
//!
//! There is no clock inside. Each budget is spent by frames that cost work and move nothing. Useful
//! work (replies completed, data moved) earns it back, and so does time, which the driver reports
//! ([`super::Connection::tick`]). An empty budget ends the connection with ENHANCE_YOUR_CALM (RFC
//! 9113 section 10.5).

use crate::h2::error::ConnectionError;
use crate::limits;

/// Budgets that the peer has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budgets {
    /// Resets by the peer before any reply was sent.
    resets: u32,
    /// Resets by us that the peer has provoked, in tenths: a completed reply earns one tenth back.
    stream_errors: u32,
    /// Frames that move nothing, weighted.
    idle_frames: u32,
}

/// Costs of frames that move nothing. The weights decide how many frames of a kind fill the
/// allowance of [`limits::HTTP2_IDLE_FRAMES_MAX`].
pub(crate) mod cost {
    /// PING, PRIORITY, WINDOW_UPDATE, RST_STREAM of a closed stream, unknown types, a tiny DATA
    /// frame.
    pub(crate) const FRAME: u32 = 1;
    /// A DATA frame without payload and without END_STREAM: no honest peer has a use for it.
    pub(crate) const EMPTY_DATA: u32 = 10;
    /// SETTINGS: walks all streams and is answered.
    pub(crate) const SETTINGS: u32 = 40;
}

/// DATA frames with less payload than this, and without END_STREAM, are tiny.
pub(crate) const TINY_DATA: u32 = 16;

const TENTHS: u32 = 10;

/// Budget that one second gives back.
const RESETS_PER_SECOND: u32 = 30;
const STREAM_ERRORS_PER_SECOND: u32 = 5;
const IDLE_FRAMES_PER_SECOND: u32 = 500;

/// Frames that a completed reply gives back: the WINDOW_UPDATEs, PINGs and tiny frames around a
/// small call.
const IDLE_FRAMES_PER_REPLY: u32 = 8;

impl Budgets {
    pub(crate) const fn new() -> Self {
        Self {
            resets: limits::HTTP2_RESETS_MAX,
            stream_errors: limits::HTTP2_STREAM_ERRORS_MAX * TENTHS,
            idle_frames: limits::HTTP2_IDLE_FRAMES_MAX,
        }
    }

    /// Spends for a stream that the peer reset before any reply (rapid reset, CVE-2023-44487).
    pub(crate) fn spend_reset(&mut self) -> Result<(), ConnectionError> {
        Self::spend(&mut self.resets, 1, "too many streams reset by the peer")
    }

    /// Spends for a stream that we had to reset (MadeYouReset, CVE-2025-8671), or one above the
    /// peer's limit.
    pub(crate) fn spend_stream_error(&mut self) -> Result<(), ConnectionError> {
        Self::spend(&mut self.stream_errors, TENTHS, "too many stream errors")
    }

    /// Spends for a frame that moves nothing.
    #[inline]
    pub(crate) fn spend_frames(&mut self, cost: u32) -> Result<(), ConnectionError> {
        Self::spend(&mut self.idle_frames, cost, "too many frames that move nothing")
    }

    #[inline]
    fn spend(budget: &mut u32, cost: u32, reason: &'static str) -> Result<(), ConnectionError> {
        match budget.checked_sub(cost) {
            Some(left) => {
                *budget = left;
                Ok(())
            }
            None => {
                *budget = 0;
                Err(ConnectionError::calm(reason))
            }
        }
    }

    /// Earns for a reply sent whole.
    #[inline]
    pub(crate) fn earn_reply(&mut self) {
        self.earn(1, 1, IDLE_FRAMES_PER_REPLY);
    }

    /// Earns for a DATA frame received that is not tiny.
    #[inline]
    pub(crate) fn earn_data_received(&mut self) {
        self.idle_frames = (self.idle_frames + 1).min(limits::HTTP2_IDLE_FRAMES_MAX);
    }

    /// Earns for a DATA frame of `count` bytes sent: its receiver may answer with a WINDOW_UPDATE
    /// for the stream and another for the connection. Tiny frames earn nothing, or windows
    /// re-opened byte by byte would pay for themselves.
    #[inline]
    pub(crate) fn earn_data_sent(&mut self, count: usize) {
        let earned = u32::from(count >= 64) + u32::from(count >= 1_024);
        self.idle_frames = (self.idle_frames + earned).min(limits::HTTP2_IDLE_FRAMES_MAX);
    }

    /// Earns for time that has passed.
    pub(crate) fn earn_time(&mut self, seconds: u32) {
        let seconds = seconds.min(3_600);
        self.earn(
            RESETS_PER_SECOND * seconds,
            STREAM_ERRORS_PER_SECOND * TENTHS * seconds,
            IDLE_FRAMES_PER_SECOND * seconds,
        );
    }

    #[inline]
    fn earn(&mut self, resets: u32, stream_error_tenths: u32, idle_frames: u32) {
        self.resets = (self.resets + resets).min(limits::HTTP2_RESETS_MAX);
        self.stream_errors =
            (self.stream_errors + stream_error_tenths).min(limits::HTTP2_STREAM_ERRORS_MAX * TENTHS);
        self.idle_frames = (self.idle_frames + idle_frames).min(limits::HTTP2_IDLE_FRAMES_MAX);
    }
}

/// The way in which a stream was closed, which decides what a late frame on it means (RFC 9113
/// section 5.1, "closed").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// We reset it: frames may still be in flight and are ignored.
    ResetByUs,
    /// The peer reset it: a later frame is a stream error.
    ResetByPeer,
    /// Both sides ended it: a later frame is a connection error.
    Ended,
}

/// Number of remembered streams that we have reset; the next line bounds the others.
const RESET_BY_US_REMEMBERED: usize = 64;
const OTHERS_REMEMBERED: usize = 16;

/// The streams closed last, in two rings, so that a busy connection's ordinary ends do not evict
/// our own resets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedStreams {
    reset_by_us: [u32; RESET_BY_US_REMEMBERED],
    others: [(u32, Closed); OTHERS_REMEMBERED],
    next_reset_by_us: u8,
    next_other: u8,
}

impl ClosedStreams {
    pub(crate) const fn new() -> Self {
        Self {
            reset_by_us: [0; RESET_BY_US_REMEMBERED],
            others: [(0, Closed::Ended); OTHERS_REMEMBERED],
            next_reset_by_us: 0,
            next_other: 0,
        }
    }

    #[inline]
    pub(crate) fn remember(&mut self, id: u32, how: Closed) {
        if how == Closed::ResetByUs {
            self.reset_by_us[self.next_reset_by_us as usize % RESET_BY_US_REMEMBERED] = id;
            self.next_reset_by_us = self.next_reset_by_us.wrapping_add(1);
        } else {
            self.others[self.next_other as usize % OTHERS_REMEMBERED] = (id, how);
            self.next_other = self.next_other.wrapping_add(1);
        }
    }

    /// The way in which the stream was closed, if that is still known.
    pub(crate) fn how(&self, id: u32) -> Option<Closed> {
        if self.reset_by_us.contains(&id) {
            return Some(Closed::ResetByUs);
        }
        self.others
            .iter()
            .find(|(other, _)| *other == id)
            .map(|(_, how)| *how)
    }
}

// The rings wrap with their u8 counters.
const _: () = assert!(256 % RESET_BY_US_REMEMBERED == 0 && 256 % OTHERS_REMEMBERED == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_budget_is_an_error_and_work_refills_it() {
        let mut budgets = Budgets::new();
        for _ in 0..limits::HTTP2_RESETS_MAX {
            budgets.spend_reset().expect("within the budget");
        }
        assert!(budgets.spend_reset().is_err());
        budgets.earn_reply();
        assert!(budgets.spend_reset().is_ok());
        assert!(budgets.spend_reset().is_err());
        budgets.earn_time(1);
        assert!(budgets.spend_reset().is_ok());
    }

    #[test]
    fn ten_replies_pay_for_one_stream_error() {
        let mut budgets = Budgets::new();
        while budgets.spend_stream_error().is_ok() {}
        for _ in 0..9 {
            budgets.earn_reply();
        }
        assert_eq!(budgets.stream_errors, 9);
        assert!(budgets.clone_spend_fails());
        budgets.earn_reply();
        assert!(budgets.spend_stream_error().is_ok());
    }

    impl Budgets {
        fn clone_spend_fails(self) -> bool {
            let mut copy = self;
            copy.spend_stream_error().is_err()
        }
    }

    #[test]
    fn long_idle_time_does_not_overflow() {
        let mut budgets = Budgets::new();
        budgets.earn_time(u32::MAX);
        assert_eq!(budgets.idle_frames, limits::HTTP2_IDLE_FRAMES_MAX);
    }

    #[test]
    fn our_resets_are_remembered_through_many_ordinary_ends() {
        let mut closed = ClosedStreams::new();
        closed.remember(1, Closed::ResetByUs);
        for id in 1..200 {
            closed.remember(id * 2 + 1, Closed::Ended);
        }
        assert_eq!(closed.how(1), Some(Closed::ResetByUs));
        assert_eq!(closed.how(399), Some(Closed::Ended));
        assert_eq!(closed.how(3), None);
    }
}
