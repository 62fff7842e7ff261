//! Reading and writing of times, sizes and shares as people write them: `1.5ms`, `4KiB`, `0.01%`.

/// Reads a time such as `250us`, `1.5ms`, `2s`, `1m` or `40ns` as nanoseconds; at most one day.
pub fn nanoseconds(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "" => {
            return Err(format!(
                "`{text}` has no unit: write for example {text}ms or {text}s"
            ));
        }
        other => return Err(format!("`{other}` is no unit of time: use ns, us, ms, s or m")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a time, for example 1.5ms"))?;
    let ns = number * scale;
    if !(0.0..=86_400e9).contains(&ns) {
        return Err(format!("`{text}` is longer than a day"));
    }
    Ok(ns.round() as u64)
}

/// Reads a size such as `256`, `4KiB` or `1MiB` as bytes; at most 1 GiB.
pub fn bytes(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "M" => 1 << 20,
        other => return Err(format!("`{other}` is no unit of size: use B, KB, KiB, MB or MiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size, for example 256 or 4KiB"))?;
    match number.checked_mul(scale) {
        Some(bytes) if bytes <= 1 << 30 => Ok(bytes as u32),
        _ => Err(format!("`{text}` is above 1 GiB")),
    }
}

/// Reads a share such as `10%`, `0.01%` or `0.1` as a number in `0..=1`.
pub fn share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim(), 0.01),
        None => (text, 1.0),
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a share, for example 0.01% or 0.0001"))?;
    let value = value * scale;
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(format!("`{text}` is not between 0 and 100%"))
    }
}

/// Writes a time with three significant digits: `1.23 ms`.
pub fn show_time(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// Writes a count with thousands separated: `1,234,567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Writes a share as a percentage that stays legible when it is small: `0.0012 %`.
pub fn show_share(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 1.0 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.4} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(nanoseconds("1ms"), Ok(1_000_000));
        assert_eq!(nanoseconds("1.5us"), Ok(1_500));
        assert_eq!(nanoseconds("2 s"), Ok(2_000_000_000));
        assert_eq!(nanoseconds("1m"), Ok(60_000_000_000));
        assert_eq!(nanoseconds("7ns"), Ok(7));
        for bad in ["", "5", "ms", "1.2.3ms", "5h", "-1s", "90000s", "infs", "nans"] {
            assert!(nanoseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_percentages_or_fractions() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("100%"), Ok(1.0));
        for bad in ["", "%", "101%", "-1%", "1.5", "nan", "x"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_legible() {
        assert_eq!(show_time(999), "999 ns");
        assert_eq!(show_time(1_234), "1.23 µs");
        assert_eq!(show_time(12_345_678), "12.3 ms");
        assert_eq!(show_time(60_000_000_000), "60.0 s");
        assert_eq!(show_count(0), "0");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_share(0.0), "0.00 %");
        assert_eq!(show_share(0.00012), "0.0120 %");
    }
}
