//! Flow-control windows (RFC 9113 section 5.2, 6.9), in bytes.
//!
//! Pure arithmetic with its overflow rules. The connection decides which frame or error follows.

/// The window with which both ends start.
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;

/// The largest window.
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The window for sending. Negative after the peer has lowered its initial window below the bytes
/// in flight (section 6.9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendWindow(i32);

/// An overflow: a window would pass 2^31-1 (section 6.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowOverflow;

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self(size.min(WINDOW_MAX) as i32)
    }

    /// Bytes that may be sent now.
    #[inline]
    pub(crate) fn available(self) -> usize {
        self.0.max(0) as usize
    }

    /// Takes `count` bytes, which must be available.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.available());
        self.0 -= count as i32;
    }

    /// Adds the increment of a WINDOW_UPDATE, or the difference of two initial windows (which may
    /// be negative).
    pub(crate) fn adjust(&mut self, delta: i64) -> Result<(), WindowOverflow> {
        let size = i64::from(self.0) + delta;
        if size > i64::from(WINDOW_MAX) {
            return Err(WindowOverflow);
        }
        // No underflow: a window falls at most from 0 by an initial window of 2^31-1, which an i32
        // holds.
        self.0 = i32::try_from(size).unwrap_or(i32::MIN);
        Ok(())
    }
}

/// The window for receiving, and the bytes received that we have not given back yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveWindow {
    /// Bytes that the peer may still send. Negative after we have lowered the initial window.
    available: i32,
    /// Bytes delivered, to be given back by the next WINDOW_UPDATE.
    freed: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            available: size.min(WINDOW_MAX) as i32,
            freed: 0,
        }
    }

    /// Takes a frame of `count` bytes off the window; false if the peer was not allowed to send it.
    #[inline]
    #[must_use]
    pub(crate) fn consume(&mut self, count: u32) -> bool {
        if i64::from(self.available) < i64::from(count) {
            return false;
        }
        self.available -= count as i32;
        true
    }

    /// Frees `count` bytes; returns the increment to announce once at least `batch` have gathered.
    #[inline]
    pub(crate) fn free(&mut self, count: u32, batch: u32) -> Option<u32> {
        self.freed = self.freed.saturating_add(count);
        if self.freed < batch.max(1) {
            return None;
        }
        let room = (i64::from(WINDOW_MAX) - i64::from(self.available)).max(0) as u32;
        let increment = self.freed.min(room);
        self.freed = 0;
        self.available = self.available.saturating_add(increment as i32);
        (increment > 0).then_some(increment)
    }

    /// Applies a change of our own initial window, once the peer has acknowledged it.
    pub(crate) fn adjust(&mut self, delta: i64) {
        let size = (i64::from(self.available) + delta).min(i64::from(WINDOW_MAX));
        self.available = i32::try_from(size).unwrap_or(i32::MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_not_pass_the_maximum() {
        let mut window = SendWindow::new(WINDOW_MAX - 1);
        assert_eq!(window.adjust(1), Ok(()));
        assert_eq!(window.adjust(1), Err(WindowOverflow));
        assert_eq!(window.available(), WINDOW_MAX as usize);
    }

    #[test]
    fn a_lowered_initial_window_makes_a_send_window_negative() {
        let mut window = SendWindow::new(100);
        window.consume(80);
        assert_eq!(window.adjust(-100), Ok(()));
        assert_eq!(window.available(), 0);
        assert_eq!(window.adjust(90), Ok(()));
        assert_eq!(window.available(), 10, "the 80 bytes in flight still count");
    }

    #[test]
    fn freed_bytes_are_given_back_in_batches() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.consume(60));
        assert!(!window.consume(41), "more than is left");
        assert_eq!(window.free(40, 50), None);
        assert_eq!(window.free(20, 50), Some(60));
        assert!(window.consume(100));
    }
}
