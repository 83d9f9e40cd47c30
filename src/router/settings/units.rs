//! Durations and sizes, as people write them. In: text. Out: a duration or a number of bytes, or nothing.

use std::time::Duration;

/// What is accepted for a duration.
pub(super) const DURATION: &str = "a duration such as \"250ms\", \"5s\", \"10m\", \"1h\" or \"7d\"";

/// What is accepted for a number of bytes.
pub(super) const SIZE: &str = "a number of bytes, or a text such as \"64KiB\", \"100MiB\" or \"2GiB\"";

/// Nobody means to wait longer, and clocks can count so far: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A whole number and a unit of time.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (duration <= LONGEST).then_some(duration)
}

/// A whole number of bytes, with or without a unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_sizes_may_have_one() {
        for (text, milliseconds) in [
            ("250ms", Some(250)),
            ("5s", Some(5_000)),
            ("10 m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("40000d", None),
        ] {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
        for (text, bytes) in [
            ("65535", Some(65_535)),
            ("64KiB", Some(65_536)),
            ("100 MiB", Some(104_857_600)),
            ("1GiB", Some(1 << 30)),
            ("64KB", None),
            ("64k", None),
            ("-1", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
