//! Sizes (`10GB`, `1KiB`) and durations (`7days`, `12h`) as people write them, to exact integers
//! and back.
//!
//! A number without a unit is refused: whether 7 is days or seconds is not for us to guess.

use std::time::Duration;

/// Units of size with their bytes. `KB` is 1,000 bytes, `KiB` is 1,024.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// Units of time with their milliseconds; the first spelling of each is the one we print.
const DURATION_UNITS: &[(&[&str], u64)] = &[
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "sec", "secs", "second", "seconds"], 1_000),
    (&["min", "m", "mins", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours", "hr", "hrs"], 3_600_000),
    (&["days", "day", "d"], 86_400_000),
    (&["weeks", "week", "w"], 604_800_000),
];

/// Longest duration: 100 years.
pub const DURATION_MAX: Duration = Duration::from_secs(36_525 * 86_400);

/// Spellings of a size, in words.
pub const SIZE_ALLOWED: &str =
    "a number with a unit: B, KB, MB, GB, TB, PB (thousands) or KiB, MiB, GiB, TiB, PiB (1,024s)";
/// Spellings of a duration, in words.
pub const DURATION_ALLOWED: &str = "a number with a unit: ms, s, min, h, days or weeks";

/// Why a size or duration is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    /// Fault and allowed spellings, after the quoted value: `is not a size; allowed: …`.
    pub description: String,
    /// Words before the guesses: `write` or `did you mean`.
    lead: Lead,
    guesses: Vec<Guess>,
}

/// A value that may have been meant, with the number that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guess {
    text: String,
    /// Bytes or milliseconds.
    value: u64,
    /// Words after the quoted text, such as ` for bytes`.
    meaning: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    Write,
    DidYouMean,
}

impl UnitError {
    fn new(description: String) -> Self {
        Self {
            description,
            lead: Lead::Write,
            guesses: Vec::new(),
        }
    }

    fn guess(mut self, lead: Lead, text: String, meaning: &'static str, value: Option<u64>) -> Self {
        self.lead = lead;
        if let Some(value) = value {
            self.guesses.push(Guess { text, value, meaning });
        }
        self
    }

    /// The sentence that says what may have been meant; empty without a good guess.
    ///
    /// `allowed` gets bytes of a size or milliseconds of a duration. A guess that the caller would
    /// refuse next is left out, so the sentence never sends a user from one refusal to another.
    pub fn suggestion(&self, allowed: impl Fn(u64) -> bool) -> String {
        let mut kept = self.guesses.iter().filter(|guess| allowed(guess.value));
        match self.lead {
            Lead::DidYouMean => kept
                .next()
                .map_or_else(String::new, |guess| format!("did you mean \"{}\"?", guess.text)),
            Lead::Write => {
                let all: Vec<_> = kept
                    .map(|guess| format!("\"{}\"{}", guess.text, guess.meaning))
                    .collect();
                if all.is_empty() {
                    String::new()
                } else {
                    format!("write {}", all.join(" or "))
                }
            }
        }
    }
}

/// Reads a size in bytes, such as `10GB` or `1.5 MiB`. Unit letters may have any case (`kb` is
/// `KB`, `kib` is `KiB`).
///
/// # Errors
/// No unit, an unknown unit, not a number, a fraction of a byte, or more than `u64` holds.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    let error = UnitError::new(format!("\"{text}\" is not a size; allowed: {SIZE_ALLOWED}"));
    if number.is_empty() {
        return Err(error);
    }
    if unit.is_empty() {
        return Err(error.guess(Lead::Write, format!("{number}B"), " for bytes", scaled(number, 1)));
    }
    if let Some((_, factor)) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
    {
        return scaled(number, *factor).ok_or(error);
    }
    // A lone letter says nothing of thousands or 1,024s, so it is only a guess: thousands first.
    let first = unit.chars().next().unwrap_or_default();
    let near = SIZE_UNITS
        .iter()
        .filter(|(name, _)| name.len() > 1 && name.starts_with(first.to_ascii_uppercase()));
    Err(near.fold(error, |error, (name, factor)| {
        error.guess(
            Lead::DidYouMean,
            format!("{number}{name}"),
            "",
            scaled(number, *factor),
        )
    }))
}

/// Reads a duration of at most 100 years, such as `7days`, `30d`, `1.5h` or `90 s`, to the
/// millisecond.
///
/// # Errors
/// No unit, an unknown unit (months and years, too: how long is a month?), a lone `M` (minutes or
/// months?), not a number, or too long.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text);
    let error = UnitError::new(format!(
        "\"{text}\" is not a duration; allowed: {DURATION_ALLOWED}"
    ));
    if number.is_empty() {
        return Err(error);
    }
    let lower = unit.to_lowercase();
    let found = DURATION_UNITS
        .iter()
        .find(|(names, _)| unit != MONTHS_OR_MINUTES && names.contains(&lower.as_str()));
    let Some((_, factor)) = found else {
        return Err(guess_duration(error, number, unit));
    };
    match scaled(number, *factor).map(Duration::from_millis) {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        Some(_) => Err(UnitError::new(format!(
            "\"{text}\" is too long; at most 36525days (100 years)"
        ))),
        None => Err(error),
    }
}

/// Minutes to some, months to others (ISO 8601 has both), so it is neither.
const MONTHS_OR_MINUTES: &str = "M";

/// Adds the durations that a number of an unknown unit may have meant.
fn guess_duration(error: UnitError, number: &str, unit: &str) -> UnitError {
    let millis = |text: &str| {
        let duration = parse_duration(text).ok()?;
        u64::try_from(duration.as_millis()).ok()
    };
    let days = |days: u64| scaled(number, days).map(|total| format!("{total}days"));
    let lower = unit.to_lowercase();
    let guesses = match lower.as_str() {
        "" => vec![
            (Some(format!("{number}days")), ""),
            (Some(format!("{number}s")), ""),
        ],
        "m" => vec![
            (Some(format!("{number}min")), " for minutes"),
            (days(30), " for months"),
        ],
        "y" | "yr" | "yrs" | "year" | "years" => vec![(days(365), "")],
        "mo" | "mon" | "month" | "months" => vec![(days(30), "")],
        _ => {
            let names: Vec<_> = DURATION_UNITS
                .iter()
                .flat_map(|(names, _)| names.iter().copied())
                .collect();
            let Some(name) = super::problem::nearest(&lower, &names) else {
                return error;
            };
            let text = format!("{number}{name}");
            let value = millis(&text);
            return error.guess(Lead::DidYouMean, text, "", value);
        }
    };
    guesses
        .into_iter()
        .filter_map(|(text, meaning)| Some((text?, meaning)))
        .fold(error, |error, (text, meaning)| {
            let value = millis(&text);
            error.guess(Lead::Write, text, meaning, value)
        })
}

/// A regular expression of the sizes that [`parse_size`] reads, for editors.
pub(super) fn size_pattern() -> String {
    pattern(SIZE_UNITS.iter().map(|(name, _)| *name))
}

/// A regular expression of the durations that [`parse_duration`] reads, for editors; a lone `M` is
/// one more that it takes.
pub(super) fn duration_pattern() -> String {
    pattern(DURATION_UNITS.iter().flat_map(|(names, _)| names.iter().copied()))
}

fn pattern<'a>(units: impl Iterator<Item = &'a str>) -> String {
    let any_case = |name: &str| -> String {
        name.chars()
            .map(|letter| format!("[{}{}]", letter.to_ascii_lowercase(), letter.to_ascii_uppercase()))
            .collect()
    };
    let units: Vec<_> = units.map(any_case).collect();
    format!("^\\s*[0-9]+(\\.[0-9]+)?\\s*({})$", units.join("|"))
}

/// The shortest exact spelling of a size: `10GB`, `1KiB`, `1500B`.
pub fn format_size(bytes: u64) -> String {
    let best = SIZE_UNITS
        .iter()
        .filter(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor);
    best.map_or_else(
        || format!("{bytes}B"),
        |(name, factor)| format!("{}{name}", bytes / factor),
    )
}

/// A size in thousands to two or three digits, for people: `2.3GB`, `907TB`, `12B`.
pub fn format_size_rounded(bytes: u64) -> String {
    let thousands = SIZE_UNITS.iter().take(6).rev();
    let (name, factor) = thousands
        .copied()
        .find(|(_, factor)| bytes >= *factor)
        .unwrap_or(("B", 1));
    let tenths = (u128::from(bytes) * 10 + u128::from(factor) / 2) / u128::from(factor);
    match tenths {
        10..100 if tenths % 10 != 0 => format!("{}.{}{name}", tenths / 10, tenths % 10),
        _ => format!("{}{name}", (tenths + 5) / 10),
    }
}

/// The shortest exact spelling of a duration, to the millisecond: `7days`, `90s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    // Weeks are read but not printed: nobody asks for 4weeks and expects it back from 28days.
    let units = &DURATION_UNITS[..DURATION_UNITS.len() - 1];
    let best = units
        .iter()
        .rev()
        .find(|(_, factor)| millis.is_multiple_of(*factor));
    let (name, factor) = best.map_or(("ms", 1), |(names, factor)| (names[0], *factor));
    let count = millis / factor;
    if name == "days" && count == 1 {
        "1day".to_owned()
    } else {
        format!("{count}{name}")
    }
}

/// Splits `12.5 GB` into number and unit. The number is empty if the text does not start with one.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `number * factor` exactly, or nothing: `1.5 * 1000`, but not `0.0001 * 1000`. No floating point,
/// so no surprises.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 15 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits = u128::from(whole.parse::<u64>().ok()?) * scale + u128::from(fraction.parse::<u64>().ok()?);
    let product = digits.checked_mul(u128::from(factor))?;
    if !product.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(product / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion<T: std::fmt::Debug>(refused: Result<T, UnitError>) -> String {
        refused.unwrap_err().suggestion(|_| true)
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("10GB", 10_000_000_000),
            ("100KB", 100_000),
            ("1KiB", 1_024),
            ("1 kib", 1_024),
            ("0B", 0),
            ("1.5MB", 1_500_000),
            ("0.5KiB", 512),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "GB",
            "ten GB",
            "-1GB",
            "1e3B",
            "1..5GB",
            "1.GB",
            ".5GB",
            "0.0001KB",
            "99999999PB",
            "18446744073709551616B",
            "5QB",
            "5é",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(suggestion(parse_size("512")), "write \"512B\" for bytes");
        assert_eq!(suggestion(parse_size("10G")), "did you mean \"10GB\"?");
        assert_eq!(suggestion(parse_size("10gigs")), "did you mean \"10GB\"?");
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("7days", 604_800),
            ("1day", 86_400),
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("1h", 3_600),
            ("1.5h", 5_400),
            ("15m", 900),
            ("15 min", 900),
            ("2w", 1_209_600),
            ("365days", 31_536_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in [
            "",
            "days",
            "7",
            "7 parsecs",
            "-1d",
            "1d12h",
            "0.0001ms",
            "99999999999999999999d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(suggestion(parse_duration("1year")), "write \"365days\"");
        assert_eq!(suggestion(parse_duration("3 months")), "write \"90days\"");
        assert_eq!(suggestion(parse_duration("7dayz")), "did you mean \"7days\"?");
        assert!(parse_duration("5000weeks").is_ok());
        assert!(
            parse_duration("6000weeks")
                .unwrap_err()
                .description
                .contains("too long")
        );
    }

    #[test]
    fn a_capital_m_is_neither_minutes_nor_months() {
        for text in ["6M", "6 M", "1.5M"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            suggestion(parse_duration("6M")),
            "write \"6min\" for minutes or \"180days\" for months"
        );
        for (text, seconds) in [
            ("6m", 360),
            ("6Min", 360),
            ("6H", 21_600),
            ("6D", 518_400),
            ("6S", 6),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn a_guess_that_would_be_refused_is_not_made() {
        let within = |text: &str, max: u64| parse_size(text).unwrap_err().suggestion(|bytes| bytes <= max);
        assert_eq!(within("10G", 16 << 20), "");
        assert_eq!(within("16M", 16 << 20), "did you mean \"16MB\"?");
        assert_eq!(
            parse_size("10M")
                .unwrap_err()
                .suggestion(|bytes| bytes % 4096 == 0),
            "did you mean \"10MiB\"?",
            "the next guess takes the place of one that is refused"
        );
        let whole_seconds = |text: &str| {
            parse_duration(text)
                .unwrap_err()
                .suggestion(|millis| millis >= 1_000)
        };
        assert_eq!(whole_seconds("0"), "");
        assert_eq!(whole_seconds("0.1"), "write \"0.1days\"");
        assert_eq!(
            whole_seconds("3000months"),
            "",
            "longer than the longest duration"
        );
        assert_eq!(whole_seconds("1e3"), "");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for bytes in [
            0,
            1,
            999,
            1_000,
            1_024,
            1_500,
            1_048_576,
            10_000_000_000,
            u64::MAX,
        ] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(10_000_000_000), "10GB");
        assert_eq!(format_size(16 << 20), "16MiB");
        for millis in [0, 1, 1_500, 60_000, 3_600_000, 86_400_000, 604_800_000, 90_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        assert_eq!(format_duration(Duration::from_secs(604_800)), "7days");
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (2_345_678_901, "2.3GB"),
            (10_000_000_000, "10GB"),
            (907_200_000_000_000, "907TB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(format_size_rounded(bytes), text);
        }
        assert_eq!(format_duration(Duration::from_secs(86_400)), "1day");
    }
}
