//! Which operations a load is made of: weights by operation, and the six core workloads of YCSB.

use std::fmt;

use crate::{keys::KeyDistribution, random::Random};

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// Put of all items of one existing id.
    Put,
    /// Get of all items of one id.
    Get,
    /// Put under an id that does not exist yet.
    Insert,
    /// Get of a key range of one id, 1 to 100 items.
    Range,
    /// Scan of the namespace; the stream is cancelled after the first page.
    Scan,
    /// Delete of all items of one id.
    Delete,
    /// Read-modify-write: Get of one item, then CompareAndSwap against what was read. Its latency
    /// spans both calls.
    Cas,
    /// Mutate of several ids.
    Mutate,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Put,
        Self::Get,
        Self::Insert,
        Self::Range,
        Self::Scan,
        Self::Delete,
        Self::Cas,
        Self::Mutate,
    ];

    /// The name used in mixes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Insert => "insert",
            Self::Range => "range",
            Self::Scan => "scan",
            Self::Delete => "delete",
            Self::Cas => "cas",
            Self::Mutate => "mutate",
        }
    }
}

/// Weights of the operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; Operation::ALL.len()],
    total: u32,
}

impl Mix {
    /// A mix of the given weights; refused when all are zero or their sum is above a million.
    pub fn new(weights: &[(Operation, u32)]) -> Result<Self, String> {
        let mut table = [0u32; Operation::ALL.len()];
        for &(operation, weight) in weights {
            table[operation as usize] = table[operation as usize].saturating_add(weight);
        }
        let total = table.iter().map(|&w| u64::from(w)).sum::<u64>();
        match total {
            0 => Err("a mix needs at least one operation with a weight above zero".into()),
            1..=1_000_000 => Ok(Self {
                weights: table,
                total: total as u32,
            }),
            _ => Err("the weights of a mix add up to more than a million".into()),
        }
    }

    /// YCSB's core workload `a` to `f` and the key distribution that belongs to it. E reads key
    /// ranges within one id (give `--items`); F's read-modify-write is Get and CompareAndSwap.
    pub fn ycsb(letter: char) -> Option<(Self, KeyDistribution)> {
        use Operation::{Cas, Get, Insert, Put, Range};
        let (weights, distribution): (&[_], _) = match letter.to_ascii_lowercase() {
            'a' => (&[(Get, 50), (Put, 50)], KeyDistribution::Zipfian),
            'b' => (&[(Get, 95), (Put, 5)], KeyDistribution::Zipfian),
            'c' => (&[(Get, 100)], KeyDistribution::Zipfian),
            'd' => (&[(Get, 95), (Insert, 5)], KeyDistribution::Latest),
            'e' => (&[(Range, 95), (Insert, 5)], KeyDistribution::Zipfian),
            'f' => (&[(Get, 50), (Cas, 50)], KeyDistribution::Zipfian),
            _ => return None,
        };
        Self::new(weights).ok().map(|mix| (mix, distribution))
    }

    /// Whether the operation occurs.
    pub fn has(&self, operation: Operation) -> bool {
        self.weights[operation as usize] > 0
    }

    /// The share of an operation, from 0 to 1.
    pub fn share(&self, operation: Operation) -> f64 {
        f64::from(self.weights[operation as usize]) / f64::from(self.total)
    }

    /// Draws an operation.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> Operation {
        let mut point = random.below(u64::from(self.total)) as u32;
        for (index, &weight) in self.weights.iter().enumerate() {
            if point < weight {
                return Operation::ALL[index];
            }
            point -= weight;
        }
        unreachable!("the point lies below the sum of the weights")
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// `put=50,get=50`; names as in `Operation::name`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}`: write NAME=WEIGHT, for example get=50"))?;
            let operation = Operation::ALL
                .into_iter()
                .find(|operation| operation.name() == name.trim())
                .ok_or_else(|| format!("`{name}` is no operation: use {}", names()))?;
            let weight = weight
                .trim()
                .parse()
                .map_err(|_| format!("`{weight}` is not a weight, a whole number from 0"))?;
            weights.push((operation, weight));
        }
        Self::new(&weights)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for operation in Operation::ALL
            .into_iter()
            .filter(|&operation| self.has(operation))
        {
            write!(
                f,
                "{separator}{}={}",
                operation.name(),
                self.weights[operation as usize]
            )?;
            separator = ",";
        }
        Ok(())
    }
}

fn names() -> String {
    Operation::ALL.map(Operation::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_numbered_in_order() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }

    #[test]
    fn mixes_parse_and_print() {
        let mix: Mix = "put=50,get=50,scan=0,delete=0,cas=0".parse().expect("valid");
        assert_eq!(mix.to_string(), "put=50,get=50");
        assert!(mix.has(Operation::Put) && !mix.has(Operation::Scan));
        assert_eq!(mix.share(Operation::Get), 0.5);
        for bad in [
            "",
            "put",
            "put=x",
            "fly=1",
            "put=0",
            "put=-1",
            "put=4000000000,get=4000000000",
            "put=2000000",
        ] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let mix: Mix = "put=1,get=3,cas=6".parse().expect("valid");
        let mut random = Random::new(5, 0);
        let mut counts = [0u32; Operation::ALL.len()];
        for _ in 0..100_000 {
            counts[mix.draw(&mut random) as usize] += 1;
        }
        for operation in Operation::ALL {
            let got = f64::from(counts[operation as usize]) / 100_000.0;
            assert!(
                (got - mix.share(operation)).abs() < 0.006,
                "{}: {got}",
                operation.name()
            );
        }
    }

    #[test]
    fn the_six_workloads_of_ycsb_exist() {
        for letter in "abcdefABCDEF".chars() {
            assert!(Mix::ycsb(letter).is_some(), "{letter}");
        }
        assert!(Mix::ycsb('g').is_none());
        let (d, distribution) = Mix::ycsb('d').expect("d");
        assert_eq!(
            (d.to_string().as_str(), distribution),
            ("get=95,insert=5", KeyDistribution::Latest)
        );
    }
}
