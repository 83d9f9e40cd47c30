//! What an answer means.
//!
//! In: a status and the headers with it. Out: what becomes of the messages that were sent. A status that only says that
//! the request was wrong costs its messages (`rejected`): sent again they would be wrong again.

use std::time::{Duration, SystemTime};

/// The longest a receiver's word is taken for: one that says "in a year" has a fault, and will be mended before that.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What becomes of a request's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They have arrived.
    Taken,
    /// They are to be sent again.
    Later,
    /// They are too many at once, or the only one is too long.
    TooLarge,
    /// They will never be taken.
    Refused,
}

/// What `status` says.
pub(super) fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        413 => Verdict::TooLarge,
        408 | 429 | 500..=599 => Verdict::Later,
        _ => Verdict::Refused,
    }
}

/// How long `Retry-After` asks to wait: a number of seconds, or a date. What is neither is not there.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = match value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        true => value.parse().map_or(LONGEST_PAUSE, Duration::from_secs),
        // A date that is over asks for no pause.
        false => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_decides_what_becomes_of_the_messages() {
        let expected = [
            (Verdict::Taken, &[200, 201, 202, 204, 299][..]),
            (Verdict::Later, &[408, 429, 500, 502, 503, 504, 599]),
            (Verdict::TooLarge, &[413]),
            (Verdict::Refused, &[301, 302, 307, 308, 400, 401, 403, 404, 415, 422, 499, 600, 999]),
        ];
        for (meaning, statuses) in expected {
            for &status in statuses {
                assert_eq!(verdict(status), meaning, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_longer_than_five_minutes() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, pause) in [
            ("0", seconds(0)),
            (" 120 ", seconds(120)),
            ("99999", seconds(300)),
            ("99999999999999999999999", seconds(300)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", seconds(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), pause, "{value:?}");
        }
    }
}
