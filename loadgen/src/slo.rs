//! Objectives that the user sets for a run, and whether they were met:
//! `--slo p50=1ms,p99=10ms,errors=0.01%`.

use std::fmt;

use serde::Serialize;

use crate::units;

/// The figures of a run that demands are held against.
pub trait Figures {
    /// Latency in nanoseconds at a quantile from 0 to 1; `None` when nothing was measured.
    fn latency_ns(&self, quantile: f64) -> Option<u64>;
    /// Mean latency in nanoseconds; `None` when nothing was measured.
    fn mean_ns(&self) -> Option<f64>;
    /// Failed requests as a share of all, from 0 to 1.
    fn error_share(&self) -> f64;
    /// Requests answered per second, whatever the answer.
    fn rate(&self) -> f64;
    /// Answered in time and without an error, as a share of what was due; `None` in a closed loop.
    fn served_share(&self) -> Option<f64>;
}

/// One demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// As the user wrote it.
    text: String,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Quantile { quantile: f64, at_most_ns: u64 },
    Mean { at_most_ns: u64 },
    Errors { at_most: f64 },
    Rate { at_least: f64 },
    Served { at_least: f64 },
}

/// All demands of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo {
    objectives: Vec<Objective>,
}

/// How one demand came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The demand as the user wrote it.
    pub objective: String,
    /// The measured value, for people.
    pub measured: String,
    /// Whether the demand was met. A latency of which nothing was measured is not met.
    pub met: bool,
}

impl Slo {
    /// Whether there are no demands.
    pub fn is_empty(&self) -> bool {
        self.objectives.is_empty()
    }

    /// Holds the demands against a run's figures, in the order in which they were written.
    pub fn judge(&self, figures: &impl Figures) -> Vec<Verdict> {
        self.objectives
            .iter()
            .map(|objective| objective.judge(figures))
            .collect()
    }
}

impl Objective {
    fn judge(&self, figures: &impl Figures) -> Verdict {
        let (measured, met) = match self.bound {
            Bound::Quantile { quantile, at_most_ns } => at_most(figures.latency_ns(quantile), at_most_ns),
            Bound::Mean { at_most_ns } => at_most(figures.mean_ns().map(|ns| ns.round() as u64), at_most_ns),
            Bound::Errors { at_most } => {
                let share = figures.error_share();
                (units::show_share(share), share <= at_most)
            }
            Bound::Rate { at_least } => {
                let rate = figures.rate();
                (
                    format!("{}/s", units::show_count(rate.round() as u64)),
                    rate >= at_least,
                )
            }
            Bound::Served { at_least } => match figures.served_share() {
                Some(share) => (units::show_share(share), share >= at_least),
                None => ("a closed loop has no due rate".to_owned(), false),
            },
        };
        Verdict {
            objective: self.text.clone(),
            measured,
            met,
        }
    }
}

fn at_most(measured_ns: Option<u64>, bound_ns: u64) -> (String, bool) {
    match measured_ns {
        Some(ns) => (units::show_time(ns), ns <= bound_ns),
        None => ("nothing".to_owned(), false),
    }
}

impl std::str::FromStr for Slo {
    type Err = String;

    /// Comma-separated `NAME=BOUND`: `p50`, `p99`, `p99.9`, …, `max` and `mean` take a time that
    /// must not be exceeded, `errors` a share that must not be exceeded, `rate` (per second) and
    /// `served` (share) must be reached.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let objectives = parts.map(parse_objective).collect::<Result<Vec<_>, _>>()?;
        if objectives.is_empty() {
            return Err("an SLO needs at least one objective, for example p99=10ms".into());
        }
        Ok(Self { objectives })
    }
}

fn parse_objective(text: &str) -> Result<Objective, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}`: write NAME=BOUND, for example p99=10ms"))?;
    let bound = match name.trim() {
        "max" => Bound::Quantile {
            quantile: 1.0,
            at_most_ns: units::nanoseconds(value)?,
        },
        "mean" => Bound::Mean {
            at_most_ns: units::nanoseconds(value)?,
        },
        "errors" => Bound::Errors {
            at_most: units::share(value)?,
        },
        "served" => Bound::Served {
            at_least: units::share(value)?,
        },
        "rate" => match value.trim().parse::<f64>() {
            Ok(at_least) if at_least >= 0.0 && at_least.is_finite() => Bound::Rate { at_least },
            _ => {
                return Err(format!(
                    "`{value}` is not a rate: a number of requests per second"
                ));
            }
        },
        name => match name.strip_prefix('p').and_then(|p| p.parse::<f64>().ok()) {
            Some(percent) if (0.0..=100.0).contains(&percent) => Bound::Quantile {
                quantile: percent / 100.0,
                at_most_ns: units::nanoseconds(value)?,
            },
            _ => {
                return Err(format!(
                    "`{name}` is no objective: use p50, p99, p99.9, …, max, mean, errors, rate or served"
                ));
            }
        },
    };
    Ok(Objective {
        text: text.to_owned(),
        bound,
    })
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self
            .objectives
            .iter()
            .map(|objective| objective.text.as_str())
            .collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed {
        latency_ns: Option<u64>,
        errors: f64,
        served: Option<f64>,
    }

    impl Figures for Fixed {
        fn latency_ns(&self, quantile: f64) -> Option<u64> {
            self.latency_ns.map(|ns| (ns as f64 * quantile) as u64)
        }
        fn mean_ns(&self) -> Option<f64> {
            self.latency_ns.map(|ns| ns as f64 / 2.0)
        }
        fn error_share(&self) -> f64 {
            self.errors
        }
        fn rate(&self) -> f64 {
            1_000.0
        }
        fn served_share(&self) -> Option<f64> {
            self.served
        }
    }

    const RUN: Fixed = Fixed {
        latency_ns: Some(10_000_000),
        errors: 0.0001,
        served: Some(0.99),
    };

    fn met(slo: &str, run: &Fixed) -> Vec<bool> {
        slo.parse::<Slo>()
            .expect("valid")
            .judge(run)
            .into_iter()
            .map(|verdict| verdict.met)
            .collect()
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(met("p50=5ms,p99=9.9ms,errors=0.01%", &RUN), [true, true, true]);
        assert_eq!(
            met("p50=4.999ms,p99.9=9.98ms,errors=0.009%", &RUN),
            [false, false, false]
        );
        assert_eq!(met("max=10ms, mean=5ms", &RUN), [true, true]);
        assert_eq!(met("rate=1000,served=99%", &RUN), [true, true]);
        assert_eq!(met("rate=1001,served=99.1%", &RUN), [false, false]);
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let nothing = Fixed {
            latency_ns: None,
            errors: 1.0,
            served: None,
        };
        assert_eq!(met("p50=1s,mean=1s,served=0%", &nothing), [false, false, false]);
    }

    #[test]
    fn verdicts_carry_the_users_words_and_the_figure() {
        let verdicts = "p99=1ms".parse::<Slo>().expect("valid").judge(&RUN);
        assert_eq!(verdicts[0].objective, "p99=1ms");
        assert_eq!(verdicts[0].measured, "9.90 ms");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in [
            "",
            ",",
            "p99",
            "p99=10",
            "p101=1ms",
            "pp=1ms",
            "errors=200%",
            "rate=-1",
            "rate=inf",
            "q=1ms",
        ] {
            let error = bad.parse::<Slo>().expect_err(bad);
            assert!(!error.is_empty());
        }
        assert_eq!(
            "p50=1ms, errors=1%".parse::<Slo>().expect("valid").to_string(),
            "p50=1ms,errors=1%"
        );
    }
}
