//! What matchers ask of a message. In: a message in whatever form. Out: its texts, its numbers, its fields.
//!
//! What a message does not say is `None`; what Heka reads there instead is for the matcher to say.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Message, Payload};

/// A variable that is a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextVariable {
    /// `Uuid`: Heka's id of a message. Metlog messages have none.
    Uuid,
    /// `Type`.
    Type,
    /// `Logger`.
    Logger,
    /// `Payload`; a number as JSON writes it.
    Payload,
    /// `EnvVersion`.
    EnvVersion,
    /// `Hostname`.
    Hostname,
}

/// A variable that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NumberVariable {
    /// `Timestamp`: nanoseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// `Severity`: 0 to 7.
    Severity,
    /// `Pid`.
    Pid,
}

impl TextVariable {
    const ALL: [TextVariable; 6] = [
        TextVariable::Uuid,
        TextVariable::Type,
        TextVariable::Logger,
        TextVariable::Payload,
        TextVariable::EnvVersion,
        TextVariable::Hostname,
    ];

    /// As expressions write it.
    pub const fn name(self) -> &'static str {
        match self {
            TextVariable::Uuid => "Uuid",
            TextVariable::Type => "Type",
            TextVariable::Logger => "Logger",
            TextVariable::Payload => "Payload",
            TextVariable::EnvVersion => "EnvVersion",
            TextVariable::Hostname => "Hostname",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        TextVariable::ALL.into_iter().find(|variable| variable.name() == name)
    }
}

impl NumberVariable {
    const ALL: [NumberVariable; 3] =
        [NumberVariable::Timestamp, NumberVariable::Severity, NumberVariable::Pid];

    /// As expressions write it.
    pub const fn name(self) -> &'static str {
        match self {
            NumberVariable::Timestamp => "Timestamp",
            NumberVariable::Severity => "Severity",
            NumberVariable::Pid => "Pid",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        NumberVariable::ALL.into_iter().find(|variable| variable.name() == name)
    }

    /// What an absent one reads as.
    pub(super) const fn of_absent(self) -> f64 {
        match self {
            NumberVariable::Severity => 7.0,
            NumberVariable::Timestamp | NumberVariable::Pid => 0.0,
        }
    }
}

/// Something that a [`Matcher`](super::Matcher) can judge: a [`Message`], or a message in another form.
///
/// Borrow where that is possible: each call may be made several times for one message.
pub trait Subject {
    /// The text of a variable; `None` if the message has none, which reads as an empty one.
    fn text(&self, variable: TextVariable) -> Option<Cow<'_, str>>;

    /// The number of a variable; `None` if the message has none, which reads as 7 for the severity and as 0 for the
    /// others.
    fn number(&self, variable: NumberVariable) -> Option<f64>;

    /// The field of exactly this name.
    fn field(&self, name: &str) -> Option<Cow<'_, Value>>;
}

impl Subject for Message {
    fn text(&self, variable: TextVariable) -> Option<Cow<'_, str>> {
        let text = match variable {
            TextVariable::Uuid => return None,
            TextVariable::Type => &self.r#type,
            TextVariable::Logger => &self.logger,
            TextVariable::Payload => match &self.payload {
                Payload::Text(text) => text,
                Payload::Number(number) => return Some(Cow::Owned(number.to_string())),
            },
            TextVariable::EnvVersion => &self.env_version,
            TextVariable::Hostname => self.hostname.as_ref()?,
        };
        Some(Cow::Borrowed(text))
    }

    fn number(&self, variable: NumberVariable) -> Option<f64> {
        match variable {
            NumberVariable::Timestamp => nanoseconds(&self.timestamp).map(|time| time as f64),
            NumberVariable::Severity => Some(f64::from(self.severity.number())),
            NumberVariable::Pid => self.pid.map(|pid| pid as f64),
        }
    }

    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.fields.get(name).map(Cow::Borrowed)
    }
}

/// The nanoseconds since 1970 of a time that any Metlog client has written: RFC 3339, with or without fraction and
/// zone; without a zone it is UTC. `None` for anything else, and for times that Heka's 64 bits do not hold (before 1678,
/// after 2262).
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let (separator, rest) = rest.split_first()?;
    let (time, rest) = rest.split_at_checked(8)?;
    let punctuated = date[4] == b'-' && date[7] == b'-' && time[2] == b':' && time[5] == b':';
    if !punctuated || !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let day = days(digits(&date[..4])?, digits(&date[5..7])?, digits(&date[8..])?)?;
    let (hour, minute, second) = (digits(&time[..2])?, digits(&time[3..5])?, digits(&time[6..])?);
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(rest)?;
    let second = day * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    // What comes before 1970 must not run out of bounds on the way.
    let nanoseconds = i128::from(second) * 1_000_000_000 + i128::from(fraction);
    i64::try_from(nanoseconds).ok()
}

fn digits(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// The nanoseconds of a fraction, if there is one, and what is behind it. What is finer is cut.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.' | b',', rest)) = rest.split_first() else {
        return Some((0, rest));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, zone) = rest.split_at(length);
    let kept = &fraction[..length.min(9)];
    let scale = 10_i64.pow(9 - kept.len() as u32);
    (length > 0).then_some((digits(kept)? * scale, zone))
}

/// The seconds that a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, digits_of) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match digits_of {
        [hours @ .., b':', a, b] if hours.len() == 2 => (digits(hours)?, digits(&[*a, *b])?),
        [a, b, c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?),
        [a, b] => (digits(&[*a, *b])?, 0),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = *BEFORE_MONTH.get(usize::try_from(month - 1).ok()?)?;
    let after = BEFORE_MONTH.get(month as usize).copied().unwrap_or(365);
    let length = after - before + i64::from(leap && month == 2);
    if !(1..=length).contains(&day) {
        return None;
    }
    // The leap days of the years that are over.
    let leap_days = |years: i64| years / 4 - years / 100 + years / 400;
    let over = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(over + before + i64::from(leap && month > 2) + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_read_in_every_form_that_clients_have_written() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2012-10-24T22:20:43.000000Z", 1_351_117_243_000_000_000),
            ("2012-10-24T22:20:43", 1_351_117_243_000_000_000),
            ("2012-10-24T22:20:43.25", 1_351_117_243_250_000_000),
            ("2012-10-24 22:20:43Z", 1_351_117_243_000_000_000),
            ("2012-10-25T00:20:43+02:00", 1_351_117_243_000_000_000),
            ("2012-10-24T15:20:43-0700", 1_351_117_243_000_000_000),
            ("2012-10-24T22:20:43.1234567891Z", 1_351_117_243_123_456_789),
            ("1969-12-31T23:59:59.5Z", -500_000_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "0",
            "now",
            "2012-10-24",
            "2012-10-24T22:20",
            "2012-13-01T00:00:00Z",
            "2012-00-01T00:00:00Z",
            "2011-02-29T00:00:00Z",
            "2012-10-24T24:00:00Z",
            "2012-10-24T22:20:43.Z",
            "2012-10-24T22:20:43 UTC",
            "2012-10-24T22:20:43+2",
            "2012-10-24T22:20:43+é0",
            "1500-01-01T00:00:00Z",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_a_time_panic(text in any::<String>(), cut in "[0-9:T.Z+ é-]{0,40}") {
            let _ = (nanoseconds(&text), nanoseconds(&cut));
        }

        #[test]
        fn days_follow_each_other(day in -100_000_i64..100_000) {
            let mut date = (1970, 1, 1);
            for year in (1600..2300).rev() {
                if let Some(first) = days(year, 1, 1).filter(|&first| first <= day) {
                    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= Some(day)).unwrap_or(1);
                    date = (year, month, day - days(year, month, 1).unwrap_or(first) + 1);
                    break;
                }
            }
            prop_assert_eq!(days(date.0, date.1, date.2), Some(day), "{:?}", date);
        }
    }
}
