//! What a request looks like, and what its answer says: lines of messages for most receivers, and whatever a form that
//! somebody else brings makes of them.
//!
//! In: frames. Out: bodies and headers; of answers, what became of each message. Nothing can be lost here.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, StatusCode};

use super::answer;
pub(crate) use crate::delivery::batch::Fate;

/// A form of requests.
pub(crate) trait Form: Send + Sync + fmt::Debug {
    /// The type of its bodies.
    fn content_type(&self) -> &'static str;

    /// What stands behind the address.
    fn query(&self) -> &'static str {
        ""
    }

    /// Headers of every request, `Name: value`, one a line. They are taken for secrets, and never shown.
    fn headers(&self) -> String {
        String::new()
    }

    /// Whether an answer with this text in it must not be repeated.
    fn hides(&self, _text: &str) -> bool {
        false
    }

    /// The body for these frames.
    fn body(&self, frames: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        Arc::clone(frames)
    }

    /// How long the receiver asks to be left alone.
    fn pause(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let value = headers.get("retry-after").filter(|_| !status.is_success())?;
        answer::retry_after(value.to_str().ok()?, SystemTime::now())
    }

    /// Whether an answer that says yes says more in its body; see [`fates`](Form::fates).
    fn reads_answer(&self) -> bool {
        false
    }

    /// What became of each of `count` messages.
    ///
    /// # Errors
    /// It cannot be told: all of them are sent again.
    fn fates(&self, _answer: &[u8], count: usize) -> Result<Fates, String> {
        Ok(Fates { each: vec![Fate::Delivered; count], problem: None })
    }
}

/// What an answer says of each message of its request.
#[derive(Debug)]
pub(crate) struct Fates {
    pub(crate) each: Vec<Fate>,
    /// Of those that were not taken.
    pub(crate) problem: Option<String>,
}

/// One message a line, as they are.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Under the name of JSON: see [`HttpOptions::json`](super::HttpOptions::json).
    pub(crate) json: bool,
}

impl Form for Lines {
    fn content_type(&self) -> &'static str {
        if self.json {
            "application/json"
        } else {
            "application/x-ndjson"
        }
    }
}
