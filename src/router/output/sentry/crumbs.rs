//! Breadcrumbs: what a process said before its error. In: messages. Out: the last ones of each process.
//!
//! Memory is bounded: so many processes, so many messages of each, so many bytes of each. What is beyond that is
//! forgotten, and nothing is lost by it: a breadcrumb is a copy.

use std::collections::{HashMap, VecDeque};

use sentry_types::protocol::v7::Breadcrumb;
use serde_json::Value;

use super::event;
use crate::Message;

/// Processes whose messages are remembered; then the one that was silent for longest is forgotten.
const MOST_PROCESSES: usize = 128;
/// What is kept of a message's text.
const MOST_CHARACTERS: usize = 512;
/// A host's name is no longer.
const LONGEST_HOSTNAME: usize = 255;

/// The last messages of processes.
pub(super) struct Crumbs {
    most: usize,
    processes: HashMap<(String, i64), Process>,
    /// Messages noted, ever.
    noted: u64,
}

struct Process {
    crumbs: VecDeque<Breadcrumb>,
    noted: u64,
}

impl Crumbs {
    /// Of each process `most` messages; none with 0.
    pub(super) fn keeping(most: usize) -> Self {
        Crumbs { most, processes: HashMap::new(), noted: 0 }
    }

    /// Remembers a message for the events that come after it.
    pub(super) fn note(&mut self, message: &Message) {
        let Some(process) = process(message).filter(|_| self.most > 0) else { return };
        if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&process) {
            self.forget_one();
        }
        self.noted += 1;
        let noted = self.noted;
        let process =
            self.processes.entry(process).or_insert_with(|| Process { crumbs: VecDeque::new(), noted });
        process.noted = noted;
        if process.crumbs.len() >= self.most {
            process.crumbs.pop_front();
        }
        process.crumbs.push_back(crumb(message));
    }

    /// What the message's process said before, the oldest first.
    pub(super) fn before(&self, message: &Message) -> Vec<Breadcrumb> {
        let process = process(message).and_then(|process| self.processes.get(&process));
        process.map_or_else(Vec::new, |process| process.crumbs.iter().cloned().collect())
    }

    fn forget_one(&mut self) {
        let oldest = self.processes.iter().min_by_key(|(_, process)| process.noted);
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            self.processes.remove(&oldest);
        }
    }
}

/// Who made the message; nobody knows of an early client's.
fn process(message: &Message) -> Option<(String, i64)> {
    let hostname = message.hostname.clone().filter(|name| name.len() <= LONGEST_HOSTNAME)?;
    Some((hostname, message.pid?))
}

fn crumb(message: &Message) -> Breadcrumb {
    let name = message.fields.get("name").and_then(Value::as_str);
    let payload = message.payload.to_string();
    // A timer or a counter says nothing without its name.
    let text = name.map_or_else(|| payload.clone(), |name| format!("{name}: {payload}"));
    let category = if message.logger.is_empty() { &message.r#type } else { &message.logger };
    Breadcrumb {
        timestamp: event::time(message),
        category: Some(cut(category)),
        level: event::level(message.severity),
        message: Some(cut(&text)),
        data: [(String::from("type"), Value::from(cut(&message.r#type)))].into_iter().collect(),
        ..Breadcrumb::default()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pid: usize, payload: &str) -> Message {
        let mut message = Message::new("oldstyle", payload);
        message.hostname = Some(String::from("web"));
        message.pid = Some(pid as i64);
        message
    }

    fn texts(crumbs: Vec<Breadcrumb>) -> Vec<String> {
        crumbs.into_iter().filter_map(|crumb| crumb.message).collect()
    }

    #[test]
    fn a_process_has_its_own_last_messages_in_order_and_no_more_of_them_than_wanted() {
        let mut crumbs = Crumbs::keeping(3);
        for number in 0..10 {
            crumbs.note(&said(1, &format!("one {number}")));
            crumbs.note(&said(2, &format!("two {number}")));
        }
        assert_eq!(texts(crumbs.before(&said(1, ""))), ["one 7", "one 8", "one 9"]);
        assert_eq!(texts(crumbs.before(&said(2, ""))), ["two 7", "two 8", "two 9"]);
        let mut elsewhere = said(1, "");
        elsewhere.hostname = Some(String::from("other"));
        assert!(crumbs.before(&elsewhere).is_empty());
        assert!(crumbs.before(&Message::new("oldstyle", "nobody's")).is_empty());
    }

    #[test]
    fn memory_is_bounded_whoever_says_whatever() {
        let mut crumbs = Crumbs::keeping(2);
        let long = "\u{1f600}".repeat(100_000);
        for pid in 0..MOST_PROCESSES * 10 {
            crumbs.note(&said(0, "always there"));
            crumbs.note(&said(pid + 1, &long));
        }
        assert_eq!(crumbs.processes.len(), MOST_PROCESSES);
        assert_eq!(
            texts(crumbs.before(&said(0, ""))).len(),
            2,
            "the one that is not silent is not forgotten"
        );
        let last = crumbs.before(&said(MOST_PROCESSES * 10, ""));
        assert_eq!(last[0].message.as_ref().map(|text| text.chars().count()), Some(MOST_CHARACTERS));
        let mut endless = said(1, "");
        endless.hostname = Some(long);
        crumbs.note(&endless);
        assert!(crumbs.before(&endless).is_empty());
        let mut none = Crumbs::keeping(0);
        none.note(&said(1, "x"));
        assert!(none.before(&said(1, "")).is_empty());
    }
}
