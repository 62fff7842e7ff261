//! Which key a request touches, and how large a value is: uniform, zipfian and latest
//! distributions.
//!
//! The zipfian generator is rejection-inversion (Hörmann and Derflinger, "Rejection-Inversion to
//! Generate Variates from Monotone Discrete Distributions", 1996): exact, without tables, for any
//! number of keys. The skew is YCSB's 0.99; ranks are scrambled over the key space by a hash, so
//! that hot keys do not lie side by side. Pure: randomness is an argument.

use crate::random::{Random, mix64};

/// YCSB's skew.
pub const ZIPF_THETA: f64 = 0.99;

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDistribution {
    /// Every key is as likely as any other.
    Uniform,
    /// A few keys are hot; which ones is scrambled over the key space.
    Zipfian,
    /// The newest keys are the hottest (YCSB D).
    Latest,
}

/// Draws key numbers.
#[derive(Clone, Debug)]
pub struct KeyChooser {
    distribution: KeyDistribution,
    keys: u64,
    zipf: Option<Zipf>,
}

impl KeyChooser {
    /// A chooser over `0..keys`; `keys` is at least 1.
    pub fn new(distribution: KeyDistribution, keys: u64) -> Self {
        let keys = keys.max(1);
        let zipf = (distribution != KeyDistribution::Uniform).then(|| Zipf::new(keys, ZIPF_THETA));
        Self {
            distribution,
            keys,
            zipf,
        }
    }

    /// How many keys there are now.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// One more key exists from now on. Only `Latest` makes it more likely than others; `Zipfian`
    /// keeps its hot keys.
    pub fn grow(&mut self) {
        self.keys += 1;
        if self.distribution == KeyDistribution::Latest
            && let Some(zipf) = &mut self.zipf
        {
            zipf.grow();
        }
    }

    /// Draws a key number in `0..keys()`.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u64 {
        match (&self.zipf, self.distribution) {
            (None, _) | (_, KeyDistribution::Uniform) => random.below(self.keys),
            (Some(zipf), KeyDistribution::Zipfian) => mix64(zipf.rank(random) ^ 0x5C4A_3B1E) % self.keys,
            (Some(zipf), KeyDistribution::Latest) => self.keys - 1 - zipf.rank(random).min(self.keys - 1),
        }
    }
}

/// Draws ranks from `0..n`, rank r with a probability proportional to `1 / (r + 1)^theta`, exactly.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: u64,
    theta: f64,
    /// `hat(3/2) - 1` and `hat(n + 1/2)`: the ends of the area under the hat curve.
    area_start: f64,
    area_end: f64,
    /// Within this distance of a whole number a point is accepted without evaluating the hat.
    accept_within: f64,
}

impl Zipf {
    /// A distribution over `n` ranks (at least 1) with a skew `0 < theta < 1`.
    pub fn new(n: u64, theta: f64) -> Self {
        let mut zipf = Self {
            n: n.max(1),
            theta,
            area_start: 0.0,
            area_end: 0.0,
            accept_within: 0.0,
        };
        zipf.area_start = zipf.hat(1.5) - 1.0;
        zipf.area_end = zipf.hat(zipf.n as f64 + 0.5);
        zipf.accept_within = 2.0 - zipf.hat_inverse(zipf.hat(2.5) - 2f64.powf(-theta));
        zipf
    }

    /// Adds one rank.
    pub fn grow(&mut self) {
        self.n += 1;
        self.area_end = self.hat(self.n as f64 + 0.5);
    }

    /// Draws a rank in `0..n`. Takes less than 1.1 rounds on average.
    #[inline]
    pub fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_end + random.unit() * (self.area_start - self.area_end);
            let x = self.hat_inverse(area);
            let number = (x + 0.5).floor().clamp(1.0, self.n as f64);
            if number - x <= self.accept_within || area >= self.hat(number + 0.5) - number.powf(-self.theta) {
                return number as u64 - 1;
            }
        }
    }

    /// The integral of `x^-theta` from 1.
    fn hat(&self, x: f64) -> f64 {
        let beta = 1.0 - self.theta;
        (beta * x.ln()).exp_m1() / beta
    }

    fn hat_inverse(&self, area: f64) -> f64 {
        let beta = 1.0 - self.theta;
        ((beta * area).max(-1.0).ln_1p() / beta).exp()
    }
}

/// How large values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSize {
    /// All alike.
    Fixed {
        /// Bytes of every value.
        bytes: u32,
    },
    /// Every size in the range is as likely as any other.
    Uniform {
        /// Least bytes.
        min_bytes: u32,
        /// Most bytes.
        max_bytes: u32,
    },
    /// Small sizes are likely, large ones rare.
    Zipfian {
        /// Least bytes.
        min_bytes: u32,
        /// Most bytes.
        max_bytes: u32,
    },
}

impl ValueSize {
    /// The smallest value that can be drawn, in bytes.
    pub fn min_bytes(self) -> u32 {
        match self {
            Self::Fixed { bytes } => bytes,
            Self::Uniform { min_bytes, .. } | Self::Zipfian { min_bytes, .. } => min_bytes,
        }
    }

    /// The largest value that can be drawn, in bytes.
    pub fn max_bytes(self) -> u32 {
        match self {
            Self::Fixed { bytes } => bytes,
            Self::Uniform { max_bytes, .. } | Self::Zipfian { max_bytes, .. } => max_bytes,
        }
    }
}

impl std::fmt::Display for ValueSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed { bytes } => write!(f, "{bytes} bytes"),
            Self::Uniform { min_bytes, max_bytes } => write!(f, "uniform {min_bytes} to {max_bytes} bytes"),
            Self::Zipfian { min_bytes, max_bytes } => write!(f, "zipf {min_bytes} to {max_bytes} bytes"),
        }
    }
}

impl std::str::FromStr for ValueSize {
    type Err = String;

    /// `256`, `uniform:64-1024` or `zipf:64-65536`; sizes in bytes or with the suffixes B, KiB and
    /// MiB.
    fn from_str(text: &str) -> Result<Self, String> {
        let range = |text: &str| {
            let (min, max) = text
                .split_once('-')
                .ok_or("write the range as MIN-MAX, for example 64-1024")?;
            let (min_bytes, max_bytes) = (crate::units::bytes(min)?, crate::units::bytes(max)?);
            if min_bytes > max_bytes {
                return Err(format!("the least size ({min}) is above the greatest ({max})"));
            }
            Ok((min_bytes, max_bytes))
        };
        if let Some(rest) = text.strip_prefix("uniform:") {
            let (min_bytes, max_bytes) = range(rest)?;
            Ok(Self::Uniform { min_bytes, max_bytes })
        } else if let Some(rest) = text.strip_prefix("zipf:") {
            let (min_bytes, max_bytes) = range(rest)?;
            Ok(Self::Zipfian { min_bytes, max_bytes })
        } else {
            Ok(Self::Fixed {
                bytes: crate::units::bytes(text)?,
            })
        }
    }
}

/// Draws value sizes.
#[derive(Clone, Debug)]
pub struct SizeChooser {
    size: ValueSize,
    zipf: Option<Zipf>,
}

impl SizeChooser {
    /// A chooser of the given sizes.
    pub fn new(size: ValueSize) -> Self {
        let zipf = match size {
            ValueSize::Zipfian { min_bytes, max_bytes } => Some(Zipf::new(
                u64::from(max_bytes.saturating_sub(min_bytes)) + 1,
                ZIPF_THETA,
            )),
            _ => None,
        };
        Self { size, zipf }
    }

    /// Draws a size in bytes.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u32 {
        match (self.size, &self.zipf) {
            (ValueSize::Fixed { bytes }, _) => bytes,
            (ValueSize::Zipfian { min_bytes, .. }, Some(zipf)) => min_bytes + zipf.rank(random) as u32,
            (ValueSize::Uniform { min_bytes, max_bytes }, _)
            | (ValueSize::Zipfian { min_bytes, max_bytes }, None) => {
                min_bytes + random.below(u64::from(max_bytes - min_bytes) + 1) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 42;

    #[test]
    fn uniform_keys_pass_a_chi_square_bound() {
        let (keys, draws) = (100u64, 200_000u32);
        let chooser = KeyChooser::new(KeyDistribution::Uniform, keys);
        let counts = draw(&chooser, keys, draws);
        let expected = f64::from(draws) / keys as f64;
        let chi: f64 = counts
            .iter()
            .map(|&c| (f64::from(c) - expected).powi(2) / expected)
            .sum();
        // 99 degrees of freedom: 149 is exceeded once in a thousand seeds.
        assert!(chi < 149.0, "seed {SEED}: chi-square {chi}");
    }

    #[test]
    fn zipf_ranks_follow_the_law() {
        let (n, draws) = (1_000u64, 500_000u32);
        let zipf = Zipf::new(n, ZIPF_THETA);
        let mut random = Random::new(SEED, 0);
        let mut counts = vec![0u32; n as usize];
        for _ in 0..draws {
            counts[zipf.rank(&mut random) as usize] += 1;
        }
        let zeta: f64 = (1..=n).map(|number| (number as f64).powf(-ZIPF_THETA)).sum();
        let chi: f64 = counts
            .iter()
            .enumerate()
            .map(|(rank, &count)| {
                let expected = ((rank + 1) as f64).powf(-ZIPF_THETA) / zeta * f64::from(draws);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        // 999 degrees of freedom: 1,143 is exceeded once in a thousand seeds.
        assert!(chi < 1_143.0, "seed {SEED}: chi-square {chi}");
    }

    #[test]
    fn growing_is_the_same_as_starting_large() {
        let mut grown = Zipf::new(2, ZIPF_THETA);
        (0..998).for_each(|_| grown.grow());
        let fresh = Zipf::new(1_000, ZIPF_THETA);
        let (mut a, mut b) = (Random::new(SEED, 3), Random::new(SEED, 3));
        assert!((0..10_000).all(|_| grown.rank(&mut a) == fresh.rank(&mut b)));
    }

    #[test]
    fn zipfian_keys_are_skewed_scattered_and_in_range() {
        let keys = 1_000u64;
        let counts = draw(&KeyChooser::new(KeyDistribution::Zipfian, keys), keys, 200_000);
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&k| std::cmp::Reverse(counts[k]));
        let hot: u32 = order[..10].iter().map(|&k| counts[k]).sum();
        assert!(
            (70_000..110_000).contains(&hot),
            "seed {SEED}: the ten hottest of 1,000 keys got {hot} of 200,000"
        );
        assert!(
            order[0].abs_diff(order[1]) > 1,
            "hot keys lie side by side: {} {}",
            order[0],
            order[1]
        );
    }

    #[test]
    fn latest_prefers_new_keys_and_follows_growth() {
        let mut chooser = KeyChooser::new(KeyDistribution::Latest, 100);
        (0..900).for_each(|_| chooser.grow());
        assert_eq!(chooser.keys(), 1_000);
        let counts = draw(&chooser, 1_000, 100_000);
        let newest: u32 = counts[990..].iter().sum();
        let oldest: u32 = counts[..10].iter().sum();
        assert!(
            newest > 30_000 && oldest < 1_000,
            "seed {SEED}: newest {newest}, oldest {oldest}"
        );
    }

    #[test]
    fn tiny_key_spaces_work() {
        for distribution in [
            KeyDistribution::Uniform,
            KeyDistribution::Zipfian,
            KeyDistribution::Latest,
        ] {
            for keys in 1..4 {
                let counts = draw(&KeyChooser::new(distribution, keys), keys, 1_000);
                assert_eq!(counts.iter().sum::<u32>(), 1_000);
            }
        }
    }

    #[test]
    fn sizes_parse_and_stay_in_range() {
        assert_eq!("256".parse(), Ok(ValueSize::Fixed { bytes: 256 }));
        assert_eq!("4KiB".parse(), Ok(ValueSize::Fixed { bytes: 4_096 }));
        assert_eq!(
            "uniform:64-1KiB".parse(),
            Ok(ValueSize::Uniform {
                min_bytes: 64,
                max_bytes: 1_024
            })
        );
        assert_eq!(
            "zipf:1-9".parse(),
            Ok(ValueSize::Zipfian {
                min_bytes: 1,
                max_bytes: 9
            })
        );
        for bad in ["", "x", "uniform:5", "uniform:9-1", "zipf:", "-1", "99999999999"] {
            assert!(bad.parse::<ValueSize>().is_err(), "{bad}");
        }
        let mut random = Random::new(SEED, 1);
        for size in ["100", "uniform:100-200", "zipf:100-200"] {
            let size: ValueSize = size.parse().expect("valid");
            let chooser = SizeChooser::new(size);
            let drawn: Vec<u32> = (0..5_000).map(|_| chooser.draw(&mut random)).collect();
            assert!(
                drawn
                    .iter()
                    .all(|&d| (size.min_bytes()..=size.max_bytes()).contains(&d))
            );
        }
        let zipf = SizeChooser::new(ValueSize::Zipfian {
            min_bytes: 0,
            max_bytes: 1_000,
        });
        let small = (0..10_000).filter(|_| zipf.draw(&mut random) < 10).count();
        assert!(small > 3_000, "{small}");
    }

    fn draw(chooser: &KeyChooser, keys: u64, draws: u32) -> Vec<u32> {
        let mut random = Random::new(SEED, 9);
        let mut counts = vec![0u32; keys as usize];
        for _ in 0..draws {
            counts[chooser.draw(&mut random) as usize] += 1;
        }
        counts
    }
}
