//! Clocks of the gateway: the wall clock, by which items expire, and the hybrid clock, which stamps
//! writes.
//!
//! ```text
//!   wall clock, which may step back ──┐
//!                                     ├─ the later ─> stamp of a write ─> version ─> which write of an item wins
//!   highest stamp so far, and 1 ns ───┘
//! ```
//!
//! Stamps never go backwards: not when the wall clock does, not from one shard to another, not over
//! a restart. A shard reads the highest stamp at the beginning of a batch of calls, and publishes
//! its own last one at the end, before a reply of the batch can leave. So a call sent after another
//! one was answered gets a later stamp, whichever shards took the two. A batch costs one load and
//! at most one exchange of a shared word; calls cost nothing. A start begins with the highest stamp
//! of the log's records and of SQLite's file, which notes it in the transaction of the write; for
//! the writes of servers it is noted there before they are sent.
//!
//! The time in a client's token does not move the hybrid clock: otherwise one client with a clock
//! an hour ahead would make all other clients' writes lose for that hour.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prism_backends::UnixMillis;

/// Largest lag of the wall clock, relative to the stamps, without a warning, in nanoseconds.
const BEHIND_MAX_NS: i64 = 1_000_000_000;
/// Pause between two warnings about that.
const WARN_PAUSE: Duration = Duration::from_secs(60);
/// Latest time at which the wall clock is trusted, in the year 2225: stamps above it need room to
/// grow.
const WALL_MAX_NS: i64 = i64::MAX - (1 << 60);
/// Highest stamp that a start takes over. A higher one cannot have come from a clock.
const FLOOR_MAX_NS: i64 = WALL_MAX_NS + (1 << 59);

/// The wall clock of the system. Tests shift it.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Option<Arc<AtomicI64>>);

/// Clocks are equal if they always show the same time.
impl PartialEq for WallClock {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for WallClock {}

impl WallClock {
    /// Makes a clock for tests that is ahead of the system's by this many nanoseconds at any time.
    pub fn shifted(by_ns: Arc<AtomicI64>) -> Self {
        Self(Some(by_ns))
    }

    /// Nanoseconds since 1970, UTC; valid until the year 2262.
    pub(crate) fn unix_nanos(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        match &self.0 {
            None => now,
            Some(by_ns) => now.saturating_add(by_ns.load(Ordering::SeqCst)).max(0),
        }
    }

    /// Milliseconds since 1970, by which items expire.
    pub(crate) fn unix_millis(&self) -> UnixMillis {
        millis(self.unix_nanos())
    }
}

/// The system's wall clock, for values that are only shown.
pub(crate) fn unix_millis() -> UnixMillis {
    WallClock::default().unix_millis()
}

fn millis(nanos: i64) -> UnixMillis {
    UnixMillis(nanos.unsigned_abs() / 1_000_000)
}

/// The clock that all shards of a gateway share.
#[derive(Debug)]
pub struct HybridClock {
    highest: Padded,
    /// Number of the gateway in its stamps; 0 for one without a log.
    gateway: AtomicU32,
    wall: WallClock,
    started: Instant,
    /// Milliseconds from the start to the next warning.
    warn_at: AtomicU64,
}

/// Alone on its cache lines: the shards write it, and read the words that would be next to it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicI64);

impl Default for HybridClock {
    fn default() -> Self {
        Self::new(WallClock::default())
    }
}

impl HybridClock {
    /// Makes a clock without a stamp.
    pub(crate) fn new(wall: WallClock) -> Self {
        Self {
            highest: Padded::default(),
            gateway: AtomicU32::new(0),
            wall,
            started: Instant::now(),
            warn_at: AtomicU64::new(0),
        }
    }

    /// The wall clock below it.
    pub(crate) fn wall(&self) -> &WallClock {
        &self.wall
    }

    /// Sets the gateway's number in its stamps, before the first shard starts.
    pub(crate) fn start_as(&self, gateway: u32) {
        self.gateway.store(gateway, Ordering::Relaxed);
    }

    /// Makes all later stamps greater than the highest of an earlier run.
    pub(crate) fn start_above(&self, stamp_ns: i64) {
        self.raise(stamp_ns.min(FLOOR_MAX_NS));
        self.warn_if_ahead(self.ahead_ns());
    }

    /// Nanoseconds by which the stamps are ahead of the wall clock; 0 if they are not.
    pub(crate) fn ahead_ns(&self) -> i64 {
        self.highest().saturating_sub(self.wall.unix_nanos()).max(0)
    }

    fn highest(&self) -> i64 {
        self.highest.0.load(Ordering::Acquire)
    }

    fn raise(&self, stamp_ns: i64) {
        if stamp_ns > self.highest() {
            self.highest.0.fetch_max(stamp_ns, Ordering::AcqRel);
        }
    }

    fn warn_if_ahead(&self, ahead_ns: i64) {
        if ahead_ns > BEHIND_MAX_NS {
            self.warn(ahead_ns);
        }
    }

    #[cold]
    fn warn(&self, ahead_ns: i64) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.warn_at.load(Ordering::Relaxed);
        let next = now.saturating_add(WARN_PAUSE.as_millis() as u64);
        let is_first = |due| {
            let taken = self
                .warn_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        };
        if now >= due && is_first(due) {
            tracing::warn!(
                seconds = ahead_ns / 1_000_000_000,
                "the wall clock is behind the stamps of earlier writes: it has stepped back. Writes go on in their order; \
                 times to live count by the wall clock"
            );
        }
    }
}

/// The hybrid clock of one shard.
#[derive(Debug)]
pub(crate) struct Stamper {
    clock: Arc<HybridClock>,
    gateway: u32,
    /// The wall clock at the beginning of the running batch: one reading serves all its calls.
    wall_ns: i64,
    last_ns: i64,
}

impl Stamper {
    pub(crate) fn new(clock: Arc<HybridClock>) -> Self {
        Self {
            gateway: clock.gateway.load(Ordering::Relaxed),
            clock,
            wall_ns: 0,
            last_ns: 0,
        }
    }

    /// The clock that makes the stamps.
    pub(crate) fn clock(&self) -> &HybridClock {
        &self.clock
    }

    /// Number of the gateway in its stamps.
    pub(crate) fn gateway(&self) -> u32 {
        self.gateway
    }

    /// Begins a batch of received calls.
    pub(crate) fn begin_batch(&mut self) {
        self.wall_ns = self.clock.wall.unix_nanos();
        self.last_ns = self.last_ns.max(self.clock.highest());
        self.clock
            .warn_if_ahead(self.last_ns.saturating_sub(self.wall_ns));
    }

    /// Makes a stamp that no other write of this shard has, later than that of every call answered
    /// before the batch began. Nanoseconds since 1970.
    pub(crate) fn stamp(&mut self) -> i64 {
        let wall_ns = self.wall_ns.min(WALL_MAX_NS);
        self.last_ns = wall_ns.max(self.last_ns.saturating_add(1));
        self.last_ns
    }

    /// Ends a batch. No reply of it may leave before.
    pub(crate) fn end_batch(&self) {
        self.clock.raise(self.last_ns);
    }

    /// The wall clock as of the running batch, in nanoseconds since 1970.
    pub(crate) fn wall_ns(&self) -> i64 {
        self.wall_ns
    }

    /// The wall clock as of the running batch, in milliseconds since 1970.
    pub(crate) fn wall_millis(&self) -> UnixMillis {
        millis(self.wall_ns)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Seek as _};

    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn clock() -> (Arc<AtomicI64>, Arc<HybridClock>) {
        let shift = Arc::new(AtomicI64::new(0));
        let clock = HybridClock::new(WallClock::shifted(shift.clone()));
        (shift, Arc::new(clock))
    }

    /// Makes the stamps of a batch of calls.
    fn batch(stamper: &mut Stamper, calls: usize) -> Vec<i64> {
        stamper.begin_batch();
        let stamps = (0..calls).map(|_| stamper.stamp()).collect();
        stamper.end_batch();
        stamps
    }

    #[test]
    fn stamps_grow_over_batches_shards_and_steps_of_the_wall_clock() {
        let (shift, clock) = clock();
        let mut shards = [0, 1, 2].map(|_| Stamper::new(clock.clone()));
        let mut last = 0;
        let steps = [
            0,
            HOUR_NS,
            0,
            -HOUR_NS,
            HOUR_NS,
            2 * HOUR_NS,
            -2 * HOUR_NS,
            i64::MIN / 2,
        ];
        for (round, step) in steps.into_iter().cycle().take(40).enumerate() {
            shift.store(step, Ordering::SeqCst);
            for stamp in batch(&mut shards[round % 3], 1 + round % 5) {
                assert!(stamp > last, "round {round}: {stamp} after {last}");
                last = stamp;
            }
        }
    }

    #[test]
    fn stamps_follow_the_wall_clock_while_it_goes_forward() {
        let (shift, clock) = clock();
        let mut stamper = Stamper::new(clock.clone());
        batch(&mut stamper, 3);
        assert_eq!(clock.ahead_ns(), 0);
        shift.store(HOUR_NS, Ordering::SeqCst);
        let before = clock.wall.unix_nanos();
        let stamps = batch(&mut stamper, 1);
        assert!(stamps[0] >= before, "{stamps:?} {before}");
        shift.store(0, Ordering::SeqCst);
        let ahead = clock.ahead_ns();
        assert!((HOUR_NS / 2..=HOUR_NS).contains(&ahead), "{ahead}");
    }

    #[test]
    fn a_start_goes_on_above_the_stamps_of_earlier_runs_whatever_they_are() {
        for floor in [i64::MIN, -1, 0, HOUR_NS, WALL_MAX_NS, WALL_MAX_NS + 5] {
            let (_, clock) = clock();
            clock.start_above(floor);
            let stamps = batch(&mut Stamper::new(clock), 2);
            assert!(floor < stamps[0] && stamps[0] < stamps[1], "{floor} {stamps:?}");
        }
        for (floor, wall) in [(i64::MAX, 0), (0, i64::MAX), (i64::MAX, i64::MAX)] {
            let (shift, clock) = clock();
            shift.store(wall, Ordering::SeqCst);
            clock.start_above(floor);
            let stamps = batch(&mut Stamper::new(clock), 2);
            assert!(stamps[0] < stamps[1], "no two are one: {floor} {wall} {stamps:?}");
        }
    }

    #[test]
    fn the_warning_comes_once_a_minute() {
        let (_, clock) = clock();
        let due = || clock.warn_at.load(Ordering::Relaxed);
        let second = lines_of(|| clock.warn_if_ahead(BEHIND_MAX_NS));
        assert_eq!((second.as_str(), due()), ("", 0), "a second is no step");
        let line = lines_of(|| {
            clock.warn_if_ahead(HOUR_NS);
            clock.warn_if_ahead(2 * HOUR_NS);
        });
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(
            line.contains("WARN") && line.contains("the wall clock is behind the stamps of earlier writes"),
            "{line}"
        );
        assert!(line.contains("seconds=3600"), "{line}");
        assert!(due() >= WARN_PAUSE.as_millis() as u64);
    }

    /// The diagnostics that `work` writes.
    fn lines_of(work: impl FnOnce()) -> String {
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(file.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        (&*file).rewind().expect("the first line");
        io::read_to_string(&*file).expect("text")
    }
}
