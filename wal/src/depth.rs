//! How many groups to keep in flight: the smallest depth that is about as fast as the best.
//!
//! On a disk that serialises flushes, depth 1 or 2 wins: more only makes groups smaller. On one
//! that does not, more depth is more throughput. Which it is shows only under load, so the
//! controller measures windows of *busy* time (something in flight and something waiting) and every
//! so often tries a neighbouring depth for one window.
//!
//! Pure: time comes in as nanoseconds of any monotonic clock. An idle log never changes its depth.

/// The depths tried, in order.
pub const DEPTHS: [usize; 4] = [1, 2, 4, 8];

/// A window long enough to see a rate: as many groups, and as much time.
const WINDOW_GROUPS: u32 = 64;
const WINDOW_NANOS: u64 = 50_000_000;
/// Windows at the chosen depth between two trials.
const WINDOWS_BETWEEN_TRIALS: u32 = 20;

/// Chooses the depth. See the module.
#[derive(Clone, Debug)]
pub struct DepthController {
    /// Index into [`DEPTHS`] of the depth in use right now.
    current: usize,
    /// Index of the depth believed best.
    chosen: usize,
    highest: usize,
    /// Records per second last measured at each depth.
    rates: [f64; DEPTHS.len()],
    windows_since_trial: u32,
    try_deeper_next: bool,
    window: Window,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    groups: u32,
    records: u64,
    busy_nanos: u64,
    busy_since: Option<u64>,
}

impl DepthController {
    /// Starts at depth 2 (or `depth_max`, if that is less) and never exceeds `depth_max`, which is
    /// at least 1.
    #[must_use]
    pub fn new(depth_max: usize) -> Self {
        let highest = DEPTHS.iter().rposition(|depth| *depth <= depth_max).unwrap_or(0);
        let chosen = highest.min(1);
        Self {
            current: chosen,
            chosen,
            highest,
            rates: [0.0; DEPTHS.len()],
            windows_since_trial: 0,
            try_deeper_next: true,
            window: Window::default(),
        }
    }

    /// Groups that may be in flight now.
    #[must_use]
    pub fn depth(&self) -> usize {
        DEPTHS[self.current]
    }

    /// Tells whether the log is busy: groups in flight and records waiting for a place. Call when
    /// either may have changed.
    pub fn handle_busy(&mut self, now: u64, busy: bool) {
        match (self.window.busy_since, busy) {
            (None, true) => self.window.busy_since = Some(now),
            (Some(since), false) => {
                self.window.busy_nanos += now.saturating_sub(since);
                self.window.busy_since = None;
            }
            _ => {}
        }
    }

    /// Tells that a group became durable.
    pub fn handle_durable(&mut self, now: u64, records: u32) {
        let Some(since) = self.window.busy_since else {
            return;
        };
        self.window.groups += 1;
        self.window.records += u64::from(records);
        let busy_nanos = self.window.busy_nanos + now.saturating_sub(since);
        if self.window.groups < WINDOW_GROUPS || busy_nanos < WINDOW_NANOS {
            return;
        }
        self.rates[self.current] = self.window.records as f64 * 1e9 / busy_nanos as f64;
        self.window = Window {
            busy_since: Some(now),
            ..Window::default()
        };
        self.choose();
    }

    fn choose(&mut self) {
        let best = self.rates.iter().copied().fold(0.0, f64::max);
        // The smallest within 5 % of the best: less in flight is less to lose and a shorter tail.
        self.chosen = self
            .rates
            .iter()
            .position(|rate| *rate >= 0.95 * best)
            .unwrap_or(self.chosen);
        if self.current != self.chosen {
            self.current = self.chosen;
            self.windows_since_trial = 0;
            return;
        }
        self.windows_since_trial += 1;
        let neighbour = self.neighbour();
        let unknown = self.rates[neighbour] == 0.0;
        if neighbour != self.chosen && (unknown || self.windows_since_trial >= WINDOWS_BETWEEN_TRIALS) {
            self.windows_since_trial = 0;
            self.current = neighbour;
        }
    }

    /// The depth to try next: alternately one more and one less, where there is one.
    fn neighbour(&mut self) -> usize {
        let deeper = (self.chosen + 1).min(self.highest);
        let shallower = self.chosen.saturating_sub(1);
        self.try_deeper_next = !self.try_deeper_next;
        let (one, other) = if self.try_deeper_next {
            (shallower, deeper)
        } else {
            (deeper, shallower)
        };
        if one == self.chosen { other } else { one }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a saturated log on a disk whose throughput at each depth is given, and returns how
    /// often each was used.
    fn run(rates: [f64; 4], windows: u64) -> ([u64; 4], DepthController) {
        let mut controller = DepthController::new(8);
        let mut used = [0; 4];
        let mut now = 0;
        controller.handle_busy(now, true);
        for _ in 0..windows * 100 {
            let index = DEPTHS
                .iter()
                .position(|depth| *depth == controller.depth())
                .unwrap();
            used[index] += 1;
            now += (1e9 * 10.0 / rates[index]) as u64;
            controller.handle_durable(now, 10);
        }
        (used, controller)
    }

    #[test]
    fn a_disk_that_serialises_flushes_gets_depth_one() {
        let (_, controller) = run([10_000.0, 10_100.0, 9_000.0, 8_000.0], 400);
        assert_eq!(DEPTHS[controller.chosen], 1);
    }

    #[test]
    fn a_disk_with_parallelism_gets_the_depth_it_can_use() {
        let (_, controller) = run([10_000.0, 18_000.0, 30_000.0, 30_500.0], 400);
        assert_eq!(DEPTHS[controller.chosen], 4);
        let (_, controller) = run([10_000.0, 18_000.0, 30_000.0, 50_000.0], 400);
        assert_eq!(DEPTHS[controller.chosen], 8);
    }

    #[test]
    fn trials_are_rare() {
        let (used, _) = run([10_000.0, 20_000.0, 15_000.0, 12_000.0], 2000);
        let total: u64 = used.iter().sum();
        assert!(used[1] * 10 >= total * 9, "{used:?}");
    }

    #[test]
    fn an_idle_log_keeps_its_depth_and_the_maximum_holds() {
        let mut controller = DepthController::new(8);
        for now in 0..100_000 {
            controller.handle_durable(now * 1_000_000, 1);
        }
        assert_eq!(controller.depth(), 2);
        for depth_max in 1..=8 {
            let mut controller = DepthController::new(depth_max);
            controller.handle_busy(0, true);
            for now in 0..100_000 {
                assert!(controller.depth() <= depth_max);
                controller.handle_durable(now * 1_000_000, 1);
            }
        }
    }
}
