//! Heka's times, nanoseconds since the epoch, and those of the envelope, texts of RFC 3339.
//!
//! In: either. Out: the other, to the nanosecond. Lost: a zone other than UTC, which no client of Metlog writes.

use crate::delivery::encode::text;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// The nanosecond that `2012-10-24T22:20:43.123456Z` names, with or without a fraction and `Z`.
pub(crate) fn nanoseconds(timestamp: &str) -> Option<i64> {
    let bytes = timestamp.as_bytes();
    let is_shaped = bytes.len() >= 19
        && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|&(at, sign)| bytes[at] == sign)
        && matches!(bytes[10], b'T' | b't' | b' ');
    if !is_shaped {
        return None;
    }
    let number = |from: usize, to: usize| digits(&bytes[from..to]);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_possible =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let seconds = day_number(year, month, day) * DAY + hour * 3_600 + minute * 60 + second;
    let fraction = fraction(&bytes[19..])?;
    seconds.checked_mul(SECOND)?.checked_add(fraction).filter(|_| is_possible)
}

/// Nanoseconds of `.123456Z`, each part of which may be missing.
fn fraction(rest: &[u8]) -> Option<i64> {
    let rest = rest.strip_suffix(b"Z").or_else(|| rest.strip_suffix(b"z")).unwrap_or(rest);
    match rest.strip_prefix(b".") {
        None => rest.is_empty().then_some(0),
        Some(fraction) if (1..=9).contains(&fraction.len()) => {
            digits(fraction).map(|value| value * 10_i64.pow(9 - fraction.len() as u32))
        }
        Some(_) => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// Days since the epoch. Years begin in March, so that a leap day ends one.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The time as the envelope has it: six digits after the point, or nine if it needs them.
pub(crate) fn timestamp(nanoseconds: i64) -> String {
    /// Years repeat after so many of them; what lies before the epoch is moved behind it.
    const CYCLE_YEARS: u32 = 400;
    const CYCLE: i64 = 146_097 * DAY;
    let (second, rest) = (nanoseconds.div_euclid(SECOND), nanoseconds.rem_euclid(SECOND));
    let is_before = second < 0;
    let moved = if is_before { second + CYCLE } else { second };
    let written = text::date_and_time(moved.unsigned_abs());
    let mut timestamp = String::from_utf8_lossy(&written).into_owned();
    if is_before {
        let year = timestamp.get(..4).and_then(|year| year.parse::<u32>().ok()).unwrap_or_default();
        timestamp.replace_range(..4, &format!("{:04}", year.saturating_sub(CYCLE_YEARS)));
    }
    match rest % 1_000 {
        0 => timestamp.push_str(&format!("{:06}Z", rest / 1_000)),
        _ => timestamp.push_str(&format!("{rest:09}Z")),
    }
    timestamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_every_client_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2013-01-01T00:00:00.123456789Z", 1_356_998_400_123_456_789),
            ("2012-10-24T22:20:43", 1_351_117_243_000_000_000),
            ("2012-10-24T22:20:43Z", 1_351_117_243_000_000_000),
            ("2020-02-29T00:00:00.5Z", 1_582_934_400_500_000_000),
            ("1969-12-31T23:59:59.999999Z", -1_000),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "2012-10-24",
            "2012-13-24T22:20:43Z",
            "2012-10-24T22:20:43+01:00",
            "9999-01-01T00:00:00Z",
            "2012-10-24T22:20:43.Z",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_time_is_read_as_it_was_written(time in proptest::prelude::any::<i64>()) {
            proptest::prop_assert_eq!(nanoseconds(&timestamp(time)), Some(time), "{}", timestamp(time));
        }
    }
}
