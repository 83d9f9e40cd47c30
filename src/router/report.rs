//! The router's own counters as messages to itself. In: counters, every so often. Out: messages of type `counter` (what was
//! added since the last report) and `gauge` (what is now), through the same routes as any other.
//!
//! A report does not feed on itself: these messages come from no input, so that `received` knows nothing of them, and a report
//! has one message at most for each counter there is. What outputs make of them is counted there as anything else. Lost
//! here: nothing; the last report goes out when clients have ended and outputs still write.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{bounded, RecvTimeoutError, Sender};
use serde_json::Value;

use super::counters::Counters;
use super::{lock, spawn};
use crate::delivery::encode::text::Timestamps;
use crate::Message;

/// `logger` of these messages.
const LOGGER: &str = "metlog-router";

/// Whom it asks, and whom it tells.
pub(super) trait Station: Send + Sync {
    /// What has been counted so far.
    fn counters(&self) -> Counters;

    /// Takes messages as if a client had sent them, but counts them at no input.
    fn take(&self, messages: &[Message]);

    /// What the reports so far have told: nothing at first, so that what came before the reporter started is told too.
    fn told(&self) -> &Mutex<Counters>;
}

/// The running reporter. Dropping it sends the last report.
pub(super) struct Reporter {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Reports from now on.
    pub(super) fn start(every: Duration, station: Arc<dyn Station>) -> io::Result<Self> {
        let (end, ended) = bounded::<()>(0);
        let thread = spawn("metlog-report", move || loop {
            let goes_on = ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout);
            report(&*station);
            if !goes_on {
                return;
            }
        })?;
        Ok(Reporter { end: Some(end), thread: Some(thread) })
    }
}

fn report(station: &dyn Station) {
    // Counted under the lock: another reporter, of before a reload, must not have told more than this one knows.
    let (before, now) = {
        let mut told = lock(station.told());
        let now = station.counters();
        (std::mem::replace(&mut *told, now.clone()), now)
    };
    station.take(&messages(&before, &now, &timestamp()));
}

impl Drop for Reporter {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn timestamp() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = Vec::new();
    Timestamps::new().write(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What there is to say: counters that have moved, and all gauges.
fn messages(before: &Counters, now: &Counters, timestamp: &str) -> Vec<Message> {
    let mut report = Report { timestamp, messages: Vec::new() };
    report.counter("received", before.received, now.received, &[]);
    report.counter("received_bytes", before.bytes, now.bytes, &[]);
    report.counter("malformed", before.malformed_total(), now.malformed_total(), &[]);
    report.counter("unrouted", before.unrouted, now.unrouted, &[]);
    report.counter("duplicates", before.duplicates, now.duplicates, &[]);
    for input in &now.inputs {
        let before = before.inputs.iter().find(|before| before.address == input.address);
        let before = before.cloned().unwrap_or_default();
        let place = Place { kind: "input", name: &input.address };
        let malformed: [u64; 2] = [&before, input].map(|input| input.malformed.values().sum());
        place.counter(&mut report, "received", before.received, input.received);
        place.counter(&mut report, "malformed", malformed[0], malformed[1]);
        place.counter(&mut report, "refused", before.refused, input.refused);
        place.counter(&mut report, "idle", before.idle, input.idle);
        place.counter(&mut report, "kernel_dropped", before.kernel_dropped, input.kernel_dropped);
        place.counter(&mut report, "errors", before.errors, input.errors);
        place.gauge(&mut report, "open", input.open);
    }
    for output in &now.outputs {
        let before = before.outputs.iter().find(|before| before.name == output.name);
        let before = before.cloned().unwrap_or_default();
        let place = Place { kind: "output", name: &output.name };
        place.counter(&mut report, "delivered", before.delivered, output.delivered);
        place.counter(&mut report, "dropped", before.dropped, output.dropped);
        place.counter(&mut report, "failed", before.failed, output.failed);
        place.gauge(&mut report, "queued", output.queued);
    }
    report.messages
}

/// An input or an output.
struct Place<'a> {
    kind: &'static str,
    name: &'a str,
}

impl Place<'_> {
    fn counter(&self, report: &mut Report<'_>, name: &str, before: u64, now: u64) {
        report.counter(&self.path(name), before, now, &[(self.kind, self.name)]);
    }

    fn gauge(&self, report: &mut Report<'_>, name: &str, now: u64) {
        report.push("gauge", &self.path(name), now, &[(self.kind, self.name)]);
    }

    /// A name that any backend of metrics takes as it is: dots only between its parts.
    fn path(&self, name: &str) -> String {
        let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
        let place: String = self.name.chars().map(plain).collect();
        format!("{}.{place}.{name}", self.kind)
    }
}

struct Report<'t> {
    timestamp: &'t str,
    messages: Vec<Message>,
}

impl Report<'_> {
    fn counter(&mut self, name: &str, before: u64, now: u64, fields: &[(&str, &str)]) {
        // A place that was opened anew begins at nothing.
        let added = now.checked_sub(before).unwrap_or(now);
        if added > 0 {
            self.push("counter", name, added, fields);
        }
    }

    fn push(&mut self, kind: &str, name: &str, value: u64, fields: &[(&str, &str)]) {
        let mut message = Message::new(kind, value.to_string());
        message.timestamp = self.timestamp.to_owned();
        message.logger = LOGGER.to_owned();
        message.pid = Some(std::process::id().into());
        message.fields.insert(String::from("name"), Value::from(name));
        // A fraction, as all backends want it.
        message.fields.insert(String::from("rate"), Value::from(1.0));
        for (name, value) in fields {
            message.fields.insert((*name).to_owned(), Value::from(*value));
        }
        self.messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::counters::{InputCounters, OutputCounters};
    use super::super::lock;
    use super::*;

    fn counters(received: u64, delivered: u64) -> Counters {
        let address = String::from("udp://127.0.0.1:1");
        let output = OutputCounters { name: "file:/a b".into(), delivered, queued: 3, ..Default::default() };
        Counters {
            received,
            inputs: vec![InputCounters { address, received, ..InputCounters::default() }],
            outputs: vec![output],
            ..Counters::default()
        }
    }

    #[test]
    fn a_report_has_what_was_added_and_what_is_now() {
        let said = messages(&counters(5, 10), &counters(7, 10), "2013-01-01T00:00:00.000000Z");
        let said: Vec<_> = said
            .iter()
            .map(|message| {
                (
                    message.r#type.as_str(),
                    message.fields["name"].as_str().expect("text"),
                    message.payload.to_string(),
                )
            })
            .collect();
        let expected = [
            ("counter", "received", "2"),
            ("counter", "input.udp___127_0_0_1_1.received", "2"),
            ("gauge", "input.udp___127_0_0_1_1.open", "0"),
            ("gauge", "output.file__a_b.queued", "3"),
        ];
        assert_eq!(said, expected.map(|(kind, name, value)| (kind, name, value.to_owned())));
    }

    /// A router whose only output gets every report, and counts it.
    #[derive(Default)]
    struct Loop(Mutex<(u64, Vec<usize>)>, Mutex<Counters>);

    impl Station for Loop {
        fn counters(&self) -> Counters {
            counters(0, lock(&self.0).0)
        }

        fn take(&self, messages: &[Message]) {
            let mut state = lock(&self.0);
            state.0 += messages.len() as u64;
            state.1.push(messages.len());
        }

        fn told(&self) -> &Mutex<Counters> {
            &self.1
        }
    }

    #[test]
    fn reports_that_count_reports_do_not_grow_and_the_end_sends_the_last() {
        let station = Arc::new(Loop::default());
        let reporter = Reporter::start(Duration::from_millis(1), Arc::clone(&station) as _).expect("starts");
        let begun = std::time::Instant::now();
        while lock(&station.0).1.len() < 10 {
            assert!(begun.elapsed() < Duration::from_secs(30), "reports come");
            std::thread::yield_now();
        }
        let reports = lock(&station.0).1.len();
        drop(reporter);
        let state = lock(&station.0);
        assert!(state.1.len() > reports, "the last one too");
        assert!(state.1.iter().all(|count| *count <= 3), "{:?}", state.1);
    }
}
