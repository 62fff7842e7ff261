//! Books of a PubSub load: which messages were acknowledged, which a subscriber has seen, and what
//! follows from both.
//!
//! A publisher numbers its messages from 0 and goes through its ordering keys in turn, so the key
//! of a message follows from its number.

use crate::messages::Numbers;

/// Overtakings that are kept until it is known which of them count.
const OVERTAKINGS_MAX: usize = 10_000;

/// Messages that one subscriber has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    by_publisher: Vec<OfPublisher>,
    keys: u64,
    doubled: u64,
    /// Publisher, the later number that came first, and the earlier one.
    overtakings: Vec<(u32, u64, u64)>,
    overtakings_dropped: u64,
}

#[derive(Clone, Debug, Default)]
struct OfPublisher {
    numbers: Numbers,
    /// The highest number of each key.
    highest: Vec<Option<u64>>,
}

/// Faults in the messages that a subscriber has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged messages that did not come.
    pub lost: u64,
    /// Messages that came once more.
    pub doubled: u64,
    /// Acknowledged messages that came after a later one of their key.
    pub disordered: u64,
}

impl Faults {
    /// All of them.
    pub fn count(self) -> u64 {
        self.lost + self.doubled + self.disordered
    }

    /// The sum of two subscribers' faults.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            disordered: self.disordered + other.disordered,
        }
    }
}

impl Seen {
    /// Nothing yet, of so many publishers with so many keys each.
    pub fn new(publishers: u32, keys: u32) -> Self {
        let of_one = OfPublisher {
            numbers: Numbers::default(),
            highest: vec![None; keys as usize],
        };
        Self {
            by_publisher: vec![of_one; publishers as usize],
            keys: u64::from(keys),
            doubled: 0,
            overtakings: Vec::new(),
            overtakings_dropped: 0,
        }
    }

    /// Takes in a message. Returns whether it is a new one of a publisher that there is.
    pub fn take(&mut self, publisher: u32, number: u64) -> bool {
        let Some(of) = self.by_publisher.get_mut(publisher as usize) else {
            return false;
        };
        if !of.numbers.insert(number) {
            self.doubled += 1;
            return false;
        }
        let highest = &mut of.highest[(number % self.keys) as usize];
        match *highest {
            Some(later) if later > number && self.overtakings.len() < OVERTAKINGS_MAX => {
                self.overtakings.push((publisher, later, number));
            }
            Some(later) if later > number => self.overtakings_dropped += 1,
            _ => *highest = Some(number),
        }
        true
    }

    /// Whether all of these have come.
    pub fn has_all(&self, acknowledged: &[Numbers]) -> bool {
        self.lost(acknowledged) == 0
    }

    /// Judges what has come, knowing what was acknowledged. A call whose outcome nobody knows
    /// overlaps those after it, so it has no place in the order.
    pub fn faults(&self, acknowledged: &[Numbers]) -> Faults {
        let counts = |(publisher, later, number): &&(u32, u64, u64)| {
            let of = acknowledged.get(*publisher as usize);
            of.is_some_and(|of| of.has(*later) && of.has(*number))
        };
        Faults {
            lost: self.lost(acknowledged),
            doubled: self.doubled,
            disordered: self.overtakings.iter().filter(counts).count() as u64 + self.overtakings_dropped,
        }
    }

    fn lost(&self, acknowledged: &[Numbers]) -> u64 {
        let pairs = acknowledged.iter().zip(&self.by_publisher);
        pairs.map(|(sent, seen)| sent.missing_in(&seen.numbers)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(of: impl IntoIterator<Item = u64>) -> Numbers {
        let mut numbers = Numbers::default();
        for number in of {
            numbers.insert(number);
        }
        numbers
    }

    fn seen(order: &[u64]) -> Seen {
        let mut seen = Seen::new(1, 2);
        for number in order {
            seen.take(0, *number);
        }
        seen
    }

    #[test]
    fn what_is_right_has_no_faults() {
        // Two keys: 0, 2, 4 and 1, 3. Keys may come in any order among themselves.
        let all = seen(&[1, 0, 2, 3, 4]);
        assert_eq!(all.faults(&[numbers(0..5)]), Faults::default());
        assert!(all.has_all(&[numbers(0..5)]));
        // Whatever was not acknowledged may come or not.
        assert_eq!(all.faults(&[numbers([0, 1])]).count(), 0);
    }

    #[test]
    fn lost_doubled_and_disordered_messages_are_faults() {
        let acknowledged = [numbers(0..6)];
        let faults = |order: &[u64]| seen(order).faults(&acknowledged);
        assert_eq!(faults(&[0, 1, 2, 3]).lost, 2);
        assert_eq!(faults(&[0, 1, 2, 3, 4, 5, 3, 3]).doubled, 2);
        assert_eq!(faults(&[0, 1, 4, 2, 3, 5]).disordered, 1, "2 after 4");
        assert_eq!(faults(&[4, 5, 2, 3, 0, 1]).count(), 4);
        assert!(!seen(&[0, 1]).has_all(&acknowledged));
    }

    #[test]
    fn a_call_of_unknown_outcome_has_no_place_in_the_order() {
        let late = seen(&[0, 1, 4, 2, 3, 5]);
        assert_eq!(
            late.faults(&[numbers([0, 1, 3, 4, 5])]).disordered,
            0,
            "2 may come late"
        );
        assert_eq!(
            late.faults(&[numbers([0, 1, 2, 3, 5])]).disordered,
            0,
            "4 may come early"
        );
    }

    #[test]
    fn publishers_that_there_are_not_are_left_out() {
        let mut seen = Seen::new(2, 1);
        assert!(seen.take(1, 0) && !seen.take(2, 0) && !seen.take(1, 0));
        assert_eq!(
            seen.faults(&[Numbers::default(), numbers([0])]).count(),
            1,
            "doubled"
        );
    }
}
