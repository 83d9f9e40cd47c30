//! The time of a message, as receivers want it. In: RFC 3339, as any Metlog client has written it. Out: nanoseconds since
//! 1970. Nothing can be lost here: what is no time is `None`.

/// RFC 3339 with or without fraction and zone; without a zone it is UTC.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let is_punctuated =
        [date[4], date[7], time[3], time[6]] == *b"--::" && matches!(time[0], b'T' | b't' | b' ');
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let (hour, minute, second) = (number(&time[1..3])?, number(&time[4..6])?, number(&time[7..])?);
    let is_date = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !is_punctuated || !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(rest)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(fraction)).ok()
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms": the year begins in March).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The nanoseconds of a fraction, if there is one, and what is behind it. What is finer is cut.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.' | b',', rest)) = rest.split_first() else { return Some((0, rest)) };
    let (digits, zone) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let kept = &digits[..digits.len().min(9)];
    (!digits.is_empty()).then_some((number(kept)? * 10_i64.pow(9 - kept.len() as u32), zone))
}

/// The seconds that a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => (sign, [*h1, *h2], [*m1, *m2]),
        [sign @ (b'+' | b'-'), h1, h2, m1, m2] => (sign, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let seconds = number(&hours)? * 3_600 + number(&minutes)? * 60;
    Some(if *sign == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_a_client_writes_a_time_is_read_and_nothing_else() {
        // The seconds are those of GNU date.
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000Z", Some(0)),
            ("2012-10-24T22:20:43.123456Z", Some(1_351_117_243_123_456_000)),
            ("2012-10-24T22:20:43", Some(1_351_117_243_000_000_000)),
            ("2012-10-25T00:20:43.5+02:00", Some(1_351_117_243_500_000_000)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000_000_000)),
            ("2023-02-29T12:00:00Z", None),
            ("2012-10-24T22:20:43.Z", None),
            ("2012-10-24T24:00:00Z", None),
            ("2012-10-24", None),
            ("0", None),
            ("9999-01-01T00:00:00Z", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
