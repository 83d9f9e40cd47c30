//! Elasticsearch's and OpenSearch's `_bulk` interface: for each message a line that says what to do with it, and a line
//! that is the document. The answer says of each what became of it.
//!
//! Source of the format: "Bulk API" in the Elasticsearch reference, version 8. A message is put with `create`, which data
//! streams demand; one that has an id (`metlog_id`) gets it as `_id`, so that a message that is sent twice is there
//! once: the second time the answer is 409, which is counted as delivered.
//!
//! Lost here: documents that are refused with another status than 429 and 5xx (`rejected`).

use serde::ser::{SerializeMap, Serializer};
use serde_core as serde;
use serde_json::{json, Value};

use crate::delivery::encode::ids;
use crate::delivery::transport::http::{Fate, Fates, Form};
use crate::stats::LossReason;
use crate::Message;

/// An action and a document.
pub(super) const LINES: usize = 2;
/// Longer ones are refused.
const LONGEST_INDEX: usize = 255;
/// What is told of a refusal.
const TOLD_CHARACTERS: usize = 200;

/// What to do with messages.
pub(super) struct Actions {
    index: String,
}

impl Actions {
    /// Puts them into `index`.
    ///
    /// # Errors
    /// No index can have this name.
    pub(super) fn into(index: &str) -> Result<Self, String> {
        let is_allowed = |c: char| !c.is_uppercase() && !c.is_control() && !"\\/*?\"<>| ,#:".contains(c);
        let is_name = !index.is_empty()
            && index.len() <= LONGEST_INDEX
            && !index.starts_with(['-', '_', '+'])
            && ![".", ".."].contains(&index)
            && index.chars().all(is_allowed);
        match is_name {
            true => Ok(Actions { index: index.to_owned() }),
            false => Err(format!(
                "index {index:?}: a name in small letters is accepted, without \\ / * ? \" < > | , # : and blanks, \
                 that does not begin with - _ or +"
            )),
        }
    }

    pub(super) fn draw(&self, message: &Message, lines: &mut Vec<u8>) -> Result<(), String> {
        let id = message.fields.get(ids::FIELD).and_then(Value::as_str).filter(|id| ids::parse(id).is_some());
        let mut action = json!({ "_index": self.index });
        if let Some(id) = id {
            action["_id"] = id.into();
        }
        // Strings and maps into memory: nothing in here can fail.
        let _ = serde_json::to_writer(&mut *lines, &json!({ "create": action }));
        lines.push(b'\n');
        let _ = serde_json::to_writer(&mut *lines, &Document(message));
        lines.push(b'\n');
        Ok(())
    }
}

/// A message as a document: `@timestamp` is what data streams and dashboards go by, and the payload is text always,
/// because a field of an index has one type.
struct Document<'m>(&'m Message);

impl serde::Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("@timestamp", &message.timestamp)?;
        map.serialize_entry("type", &message.r#type)?;
        map.serialize_entry("logger", &message.logger)?;
        map.serialize_entry("severity", &message.severity)?;
        map.serialize_entry("payload", &message.payload.to_string())?;
        map.serialize_entry("fields", &message.fields)?;
        map.serialize_entry("env_version", &message.env_version)?;
        message.pid.iter().try_for_each(|pid| map.serialize_entry("metlog_pid", pid))?;
        message.hostname.iter().try_for_each(|name| map.serialize_entry("metlog_hostname", name))?;
        map.end()
    }
}

/// Requests to `_bulk`.
#[derive(Debug)]
pub(super) struct Bulk;

impl Form for Bulk {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    /// Of each item no more than is read: an answer is as long as its request otherwise.
    fn query(&self) -> &'static str {
        "?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
    }

    fn reads_answer(&self) -> bool {
        true
    }

    fn fates(&self, answer: &[u8], count: usize) -> Result<Fates, String> {
        let answer: Value =
            serde_json::from_slice(answer).map_err(|_| String::from("the answer is not _bulk's: no JSON"))?;
        let items = answer["items"].as_array();
        match (answer["errors"].as_bool(), items) {
            (Some(_), Some(items)) if items.len() == count => Ok(judge(items)),
            _ => Err(format!("the answer is not _bulk's: `errors` and {count} `items` were expected")),
        }
    }
}

fn judge(items: &[Value]) -> Fates {
    let mut problem = None;
    let mut refused = 0;
    let mut each = Vec::with_capacity(items.len());
    for item in items {
        let item = item.as_object().and_then(|item| item.values().next()).unwrap_or(&Value::Null);
        let fate = match item["status"].as_u64() {
            // 409: it is there already.
            Some(200..=299 | 409) => Fate::Delivered,
            Some(429 | 500..=599) | None => Fate::Again,
            Some(_) => Fate::Lost(LossReason::Rejected),
        };
        refused += usize::from(matches!(fate, Fate::Lost(_)));
        if fate != Fate::Delivered {
            problem.get_or_insert_with(|| told(item));
        }
        each.push(fate);
    }
    let problem = problem.map(|first| match refused {
        0 => first,
        _ => format!("{first}: {refused} messages are refused and lost ({})", LossReason::Rejected),
    });
    Fates { each, problem }
}

fn told(item: &Value) -> String {
    let error = &item["error"];
    let text = |key: &str| error[key].as_str().unwrap_or("no reason given").to_owned();
    let (status, kind, reason) = (&item["status"], text("type"), text("reason"));
    let told = format!("an item has status {status}, {kind}: {reason}");
    told.chars().take(TOLD_CHARACTERS).flat_map(char::escape_default).collect()
}
