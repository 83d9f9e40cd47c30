//! A Sentry project: where its events go, with which key, and when it wants none. In: a DSN. Out: requests to its
//! `envelope` endpoint, each with one event.
//!
//! Source of the formats: "Envelopes", "Authentication" and "Rate Limiting", develop.sentry.dev. The key is shown
//! nowhere: not in errors, not by `Debug`, not when an answer repeats it.
//!
//! Nothing is lost here: what Sentry does not want now waits, and is sent when it does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sentry_types::Dsn;
use serde_json::{json, Value};
use ureq::http::{HeaderMap, StatusCode};

use crate::delivery::transport::http::{retry_after, Form};

/// The longest that Sentry is left alone for its word.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it is left alone when it only says "too many".
const PAUSE: Duration = Duration::from_secs(60);
const CLIENT: &str = concat!("tracing-metlog/", env!("CARGO_PKG_VERSION"));
const ACCEPTED: &str = "https://KEY@HOST/PROJECT is accepted";

/// Where events go.
#[derive(Clone)]
pub(super) struct Project {
    dsn: Dsn,
}

impl Project {
    /// What a DSN says.
    ///
    /// # Errors
    /// What is wrong with it, without a word of what is in it.
    pub(super) fn read(dsn: &str) -> Result<Self, String> {
        let dsn: Dsn = dsn.trim().parse().map_err(|error| format!("the DSN: {error}; {ACCEPTED}"))?;
        let project = dsn.project_id().to_string();
        let is_word =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_word(&project) || !is_word(dsn.public_key()) || !is_word(dsn.secret_key().unwrap_or_default())
        {
            return Err(format!(
                "the DSN: the key and the project are letters, digits and -_. only; {ACCEPTED}"
            ));
        }
        Ok(Project { dsn })
    }

    /// Its place, as counters and errors show it.
    pub(super) fn name(&self) -> String {
        format!("sentry:{}:{}{}{}", self.dsn.host(), self.dsn.port(), self.dsn.path(), self.dsn.project_id())
    }

    /// Where envelopes are posted.
    pub(super) fn url(&self) -> String {
        let dsn = &self.dsn;
        let (scheme, host, port) = (dsn.scheme(), dsn.host(), dsn.port());
        format!("{scheme}://{host}:{port}{}api/{}/envelope/", dsn.path(), dsn.project_id())
    }
}

impl fmt::Debug for Project {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

impl Form for Project {
    fn content_type(&self) -> &'static str {
        "application/x-sentry-envelope"
    }

    fn headers(&self) -> String {
        format!("X-Sentry-Auth: {}", self.dsn.to_auth(Some(CLIENT)))
    }

    fn hides(&self, text: &str) -> bool {
        let secret = self.dsn.secret_key().filter(|secret| !secret.is_empty());
        text.contains(self.dsn.public_key()) || secret.is_some_and(|secret| text.contains(secret))
    }

    /// One event in an envelope: a header, a header of the only item, the item.
    fn body(&self, frames: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        let event = frames.strip_suffix(b"\n").unwrap_or(frames);
        let parsed: Value = serde_json::from_slice(event).unwrap_or_default();
        let head = json!({ "event_id": parsed["event_id"] });
        let item = json!({ "type": "event", "length": event.len(), "content_type": "application/json" });
        let mut envelope = format!("{head}\n{item}\n").into_bytes();
        envelope.extend_from_slice(event);
        envelope.push(b'\n');
        Arc::new(envelope)
    }

    fn pause(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let limits = value("x-sentry-rate-limits");
        let asked = match limits {
            Some(limits) => limits.split(',').filter_map(limit_of_errors).max(),
            None => value("retry-after")
                .filter(|_| !status.is_success())
                .and_then(|value| retry_after(value, SystemTime::now())),
        };
        asked.or((status == StatusCode::TOO_MANY_REQUESTS).then_some(PAUSE))
    }
}

/// `60:error;default:organization`: for how long errors are not wanted, if that is what it says. No categories are all.
fn limit_of_errors(limit: &str) -> Option<Duration> {
    let mut parts = limit.trim().split(':');
    let seconds: f64 = parts.next()?.trim().parse().ok()?;
    let categories = parts.next().unwrap_or_default().trim();
    let is_meant = categories.is_empty() || categories.split(';').any(|category| category.trim() == "error");
    let seconds = Duration::try_from_secs_f64(seconds).ok().filter(|_| is_meant)?;
    Some(seconds.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Project {
        Project::read("https://s3cr3tkey:s3cr3tword@o1.ingest.sentry.example:8443/prefix/42").unwrap()
    }

    #[test]
    fn a_dsn_says_where_events_go_and_its_keys_are_never_shown() {
        let project = project();
        assert_eq!(project.url(), "https://o1.ingest.sentry.example:8443/prefix/api/42/envelope/");
        assert_eq!(project.name(), "sentry:o1.ingest.sentry.example:8443/prefix/42");
        let auth = project.headers();
        assert!(auth.starts_with("X-Sentry-Auth: Sentry sentry_key=s3cr3tkey, sentry_version=7"), "{auth}");
        assert!(!format!("{project:?}").contains("s3cr3t"));
        assert!(
            project.hides("unknown key s3cr3tkey") && project.hides("s3cr3tword!") && !project.hides("key")
        );
        for bad in [
            "",
            "s3cr3t",
            "udp://s3cr3t@host/1",
            "https://host/1",
            "https://s3cr3t@host/",
            "https://s3cr3t@host/a%0ab",
            "https://s3cr3t%0ax@host/1",
        ] {
            let error = Project::read(bad).unwrap_err();
            assert!(!error.contains("s3cr3t") && error.contains("https://KEY@HOST/PROJECT"), "{error}");
        }
    }

    #[test]
    fn a_pause_is_taken_for_errors_and_for_everything_and_not_for_what_is_not_sent() {
        let pause = |status: u16, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (name.parse::<ureq::http::HeaderName>().unwrap(), ureq::http::HeaderValue::from_static(value))
            });
            project()
                .pause(StatusCode::from_u16(status).unwrap(), &headers.collect())
                .map(|pause| pause.as_secs())
        };
        let limits = |value| [("x-sentry-rate-limits", value)];
        assert_eq!(pause(200, &[]), None);
        assert_eq!(pause(200, &[("retry-after", "7")]), None);
        assert_eq!(pause(429, &[("retry-after", "7")]), Some(7));
        assert_eq!(pause(429, &[]), Some(60));
        assert_eq!(pause(503, &[]), None);
        assert_eq!(pause(200, &limits("60:error:key, 2700:default;error;security:organization")), Some(2700));
        assert_eq!(pause(200, &limits("60::organization:usage_exceeded")), Some(60));
        assert_eq!(pause(200, &limits("60:transaction;session:key")), None);
        assert_eq!(pause(200, &limits("1e300:error:key")), None);
        assert_eq!(pause(200, &limits("99999999:error:key")), Some(86_400));
        assert_eq!(pause(200, &limits("-1:error, x, :")), None);
        assert_eq!(pause(429, &[("retry-after", "7"), ("x-sentry-rate-limits", "9:error")]), Some(9));
    }
}
