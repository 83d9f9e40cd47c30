//! Texts of numbers, times and strings, appended to a buffer.
//!
//! In: values. Out: JSON, or the plain text of a payload. Nothing is lost but what a policy says: a duration is
//! rounded to microseconds, a number no 64-bit reader holds becomes a string.

use std::time::Duration;

use super::NonFinite;

/// What must be escaped, by byte: 0 for what need not, `u` for `\u00XX`, else the letter behind the backslash.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    // DEL and the C1 controls are legal in JSON; U+2028 and U+2029 too.
    table
};

/// Appends UTF-8 text as the inside of a JSON string.
#[inline]
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(position) = first_escape(rest) {
        let (plain, special) = rest.split_at(position);
        out.extend_from_slice(plain);
        escape_byte(special[0], out);
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
}

/// Where the first byte is that must be escaped; eight bytes at a time.
#[inline]
fn first_escape(text: &[u8]) -> Option<usize> {
    let mut chunks = text.chunks_exact(8);
    let mut position = 0;
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        if may_hold_escape(u64::from_le_bytes(word)) {
            if let Some(found) = chunk.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0) {
                return Some(position + found);
            }
        }
        position += 8;
    }
    chunks.remainder().iter().position(|&byte| ESCAPES[usize::from(byte)] != 0).map(|found| position + found)
}

/// Whether any of eight bytes is a control character, a quote or a backslash. May say yes when none is.
#[inline]
fn may_hold_escape(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    let quote = has_zero(word ^ (ONES * b'"' as u64));
    let backslash = has_zero(word ^ (ONES * b'\\' as u64));
    control | quote | backslash != 0
}

#[cold]
fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    match ESCAPES[usize::from(byte)] {
        b'u' => {
            let [high, low] = hexadecimal(byte);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        letter => out.extend_from_slice(&[b'\\', letter]),
    }
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Appends UTF-8 text as a JSON string.
#[inline]
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// Appends an integer in decimal.
#[inline]
pub(crate) fn integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a finite float in the shortest form that reads back as the same value.
#[inline]
pub(crate) fn finite(value: f64, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(out, &value);
}

/// What a float that is not finite is called.
pub(crate) fn non_finite_name(value: f64) -> &'static str {
    match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// Appends a float as JSON.
#[inline]
pub(crate) fn float(value: f64, policy: NonFinite, out: &mut Vec<u8>) {
    if value.is_finite() {
        return finite(value, out);
    }
    match policy {
        NonFinite::Text => string(non_finite_name(value).as_bytes(), out),
        NonFinite::Null => out.extend_from_slice(b"null"),
    }
}

/// Appends bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    bytes.iter().for_each(|&byte| out.extend_from_slice(&hexadecimal(byte)));
}

/// Appends a duration in milliseconds: whole when whole, else with as many of three decimals as it needs.
pub(crate) fn milliseconds(value: Duration, whole: bool, out: &mut Vec<u8>) {
    let nanoseconds = value.as_nanos();
    if whole {
        return integer((nanoseconds + 500_000) / 1_000_000, out);
    }
    let microseconds = (nanoseconds + 500) / 1_000;
    integer(microseconds / 1_000, out);
    let rest = (microseconds % 1_000) as u32;
    if rest > 0 {
        let digits = [b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
        let needed = 3 - digits.iter().rev().take_while(|&&digit| digit == b'0').count();
        out.push(b'.');
        out.extend_from_slice(&digits[..needed]);
    }
}

/// Writes timestamps; remembers the text of the second it wrote last.
#[derive(Debug)]
pub(crate) struct Timestamps {
    second: u64,
    text: [u8; 20],
}

impl Timestamps {
    pub(crate) fn new() -> Self {
        Timestamps { second: 0, text: *b"1970-01-01T00:00:00." }
    }

    /// Appends a time in nanoseconds since the epoch: `2012-10-24T22:20:43.000000Z`, always six digits.
    #[inline]
    pub(crate) fn write(&mut self, nanoseconds: u64, out: &mut Vec<u8>) {
        let second = nanoseconds / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.text = date_and_time(second);
        }
        let mut tail = *b"000000Z";
        let mut rest = (nanoseconds % 1_000_000_000 / 1_000) as u32;
        for digit in tail[..6].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&tail);
    }
}

/// `YYYY-MM-DDTHH:MM:SS.` of a second since the epoch, in UTC.
#[cold]
pub(crate) fn date_and_time(second: u64) -> [u8; 20] {
    let (year, month, day) = civil_date(second / 86_400);
    let time = (second % 86_400) as u32;
    let mut text = *b"0000-00-00T00:00:00.";
    let mut put = |position: usize, digits: usize, mut value: u32| {
        for place in (position..position + digits).rev() {
            text[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, time / 3_600);
    put(14, 2, time / 60 % 60);
    put(17, 2, time % 60);
    text
}

/// Year, month and day of a day since the epoch. Counts from 1 March 0000, so that a leap day ends a year; the
/// method is that of "Euclidean affine functions and their application to calendar algorithms" (Neri, Schneider).
fn civil_date(day: u64) -> (u32, u32, u32) {
    const DAYS_TO_EPOCH: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let day = day + DAYS_TO_EPOCH;
    let era = day / DAYS_IN_400_YEARS;
    let day_of_era = day % DAYS_IN_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year as u32, month as u32, day_of_month as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    proptest! {
        #[test]
        fn any_text_reads_back_from_json(text in any::<String>()) {
            let json = written(|out| string(text.as_bytes(), out));
            prop_assert!(!json.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }

        #[test]
        fn any_text_of_control_characters_and_quotes_reads_back(text in "[\\x00-\\x25\\x5a-\\x5e\\x7f-\\u{a0}é]*") {
            let json = written(|out| string(text.as_bytes(), out));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }

        #[test]
        fn any_finite_float_reads_back_as_itself(value in any::<f64>()) {
            prop_assume!(value.is_finite());
            let json = written(|out| float(value, NonFinite::Text, out));
            prop_assert_eq!(json.parse::<f64>().expect("a number").to_bits(), value.to_bits());
        }

        #[test]
        fn a_duration_is_its_milliseconds_to_the_microsecond(nanoseconds in 0u64..10_000_000_000_000) {
            let text = written(|out| milliseconds(Duration::from_nanos(nanoseconds), false, out));
            prop_assert!(!text.contains('.') || !text.ends_with('0'), "{}", text);
            let value: f64 = text.parse().expect("a number");
            prop_assert!((value - nanoseconds as f64 / 1e6).abs() <= 0.000_51, "{}", text);
        }

        #[test]
        fn a_day_is_the_one_the_days_before_it_add_up_to(day in 0u64..3_000_000) {
            // The oracle counts years and months one by one.
            let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let (mut year, mut rest) = (1970, day);
            while rest >= 365 + u64::from(leap(year)) {
                rest -= 365 + u64::from(leap(year));
                year += 1;
            }
            let february = 28 + u64::from(leap(year));
            let mut month = 1;
            for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                if rest < days { break }
                rest -= days;
                month += 1;
            }
            prop_assert_eq!(civil_date(day), (year as u32, month, rest as u32 + 1));
        }
    }

    #[test]
    fn timestamps_have_six_digits_and_a_zone() {
        let mut timestamps = Timestamps::new();
        let mut text = |nanoseconds| written(|out| timestamps.write(nanoseconds, out));
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(1_356_998_400_123_456_789), "2013-01-01T00:00:00.123456Z");
        assert_eq!(text(1_582_934_399_999_999_999), "2020-02-28T23:59:59.999999Z");
        assert_eq!(text(1_582_934_400_000_000_000), "2020-02-29T00:00:00.000000Z");
    }

    #[test]
    fn durations_are_whole_when_whole() {
        let text = |microseconds, whole| {
            written(|out| milliseconds(Duration::from_micros(microseconds), whole, out))
        };
        assert_eq!(text(12_000, false), "12");
        assert_eq!(text(12_750, false), "12.75");
        assert_eq!(text(12_001, false), "12.001");
        assert_eq!(text(12_750, true), "13");
        assert_eq!(text(0, false), "0");
    }
}
