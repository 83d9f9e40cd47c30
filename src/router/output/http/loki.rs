//! Grafana Loki's push interface: streams, each of labels and lines with the nanosecond of each.
//!
//! Source of the format: "Ingest logs" (`POST /loki/api/v1/push`, JSON) in Loki's HTTP API, version 3. A line is the whole
//! message as JSON, which `| json` reads. A message whose timestamp is no time gets the router's.
//!
//! Nothing is lost here but what the receiver refuses (`rejected`): Loki answers 400 for the whole request when one line
//! of it is too old or too long, and has taken the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::delivery::transport::http::Form;
use crate::router::matcher::nanoseconds;
use crate::Message;

/// The labels of a message's stream, and its value there.
pub(super) const LINES: usize = 2;
/// What the first label says when a message has none at all: Loki refuses a stream without.
const UNKNOWN: &str = "unknown";

/// Which labels messages get, in the order of their names.
pub(super) struct Labels(Vec<(String, Label)>);

/// Where a label's value comes from.
enum Label {
    Type,
    Logger,
    Severity,
    Hostname,
    Always(String),
}

impl Labels {
    /// # Errors
    /// Which one is none.
    pub(super) fn read(labels: &[String]) -> Result<Self, String> {
        const ACCEPTED: &str = "type, logger, severity, hostname and name=value are accepted";
        let mut read: Vec<(String, Label)> = Vec::new();
        for label in labels {
            let (name, from) = match label.split_once('=') {
                Some((name, value)) if is_name(name) && !value.is_empty() => {
                    (name, Label::Always(value.to_owned()))
                }
                Some(_) => {
                    return Err(format!("label {label:?}: {ACCEPTED}, with a name of letters, digits and _"))
                }
                None => match label.as_str() {
                    "type" => ("type", Label::Type),
                    "logger" => ("logger", Label::Logger),
                    "severity" => ("severity", Label::Severity),
                    "hostname" => ("hostname", Label::Hostname),
                    _ => return Err(format!("label {label:?}: {ACCEPTED}")),
                },
            };
            if read.iter().any(|(known, _)| known == name) {
                return Err(format!("label {name:?} stands there twice"));
            }
            read.push((name.to_owned(), from));
        }
        match read.is_empty() {
            true => Err(format!("labels are empty: at least one of {ACCEPTED}")),
            false => Ok(Labels(read)),
        }
    }

    /// A line with the labels, and a line with the value.
    pub(super) fn draw(&self, message: &Message, lines: &mut Vec<u8>) -> Result<(), String> {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, from) in &self.0 {
            let value = match from {
                Label::Type => &message.r#type,
                Label::Logger => &message.logger,
                Label::Severity => message.severity.name(),
                Label::Hostname => message.hostname.as_deref().unwrap_or_default(),
                Label::Always(value) => value,
            };
            if !value.is_empty() {
                labels.insert(name, value);
            }
        }
        if let (true, Some((name, _))) = (labels.is_empty(), self.0.first()) {
            labels.insert(name, UNKNOWN);
        }
        let nanoseconds = nanoseconds(&message.timestamp).unwrap_or_else(now).to_string();
        // Strings and maps into memory: nothing in here can fail.
        let _ = serde_json::to_writer(&mut *lines, &labels);
        lines.push(b'\n');
        let _ = serde_json::to_writer(&mut *lines, &[nanoseconds, message.to_json()]);
        lines.push(b'\n');
        Ok(())
    }
}

/// A name that Prometheus and Loki know.
fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Requests to `/loki/api/v1/push`.
#[derive(Debug)]
pub(super) struct Push;

impl Form for Push {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// Each stream once, with its values in the order of the messages.
    fn body(&self, frames: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        let mut streams: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
        let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
        let mut lines = frames.split(|byte| *byte == b'\n');
        while let (Some(labels), Some(value)) = (lines.next(), lines.next()) {
            let place = *places.entry(labels).or_insert_with(|| {
                streams.push((labels, Vec::new()));
                streams.len() - 1
            });
            streams[place].1.push(value);
        }
        let mut body = Vec::with_capacity(frames.len());
        body.extend_from_slice(b"{\"streams\":[");
        for (index, (labels, values)) in streams.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"{\"stream\":" } else { b",{\"stream\":" });
            body.extend_from_slice(labels);
            body.extend_from_slice(b",\"values\":[");
            body.extend_from_slice(&values.join(&b','));
            body.extend_from_slice(b"]}");
        }
        body.extend_from_slice(b"]}");
        debug_assert!(serde_json::from_slice::<Value>(&body).is_ok());
        Arc::new(body)
    }
}
