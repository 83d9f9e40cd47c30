//! The router's counters in the text format of Prometheus, version 0.0.4. In: counters. Out: text.
//!
//! Types come from clients: whatever they are called, they stay within their label.

use std::collections::HashSet;
use std::fmt::{self, Write};

use super::super::counters::{Counters, InputCounters, OutputCounters};
use super::super::output::console::Escaped;

/// What the text is, for the header of an answer.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of it.
pub(super) fn text(counters: &Counters, uptime_seconds: u64) -> String {
    let mut text = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("build_info", "gauge", "The version of the router.", [(vec![("version", version)], 1)]);
    text.family("uptime_seconds", "gauge", "Seconds since the start.", [(vec![], uptime_seconds)]);
    totals(&mut text, counters);
    inputs(&mut text, counters);
    outputs(&mut text, counters);
    text.0
}

fn totals(text: &mut Text, counters: &Counters) {
    let mut single = |name, help, value| text.family(name, "counter", help, [(vec![], value)]);
    single("received_messages_total", "Messages that clients have sent.", counters.received);
    single("received_bytes_total", "Bytes read from all inputs.", counters.bytes);
    single("unrouted_messages_total", "Messages that no route matched.", counters.unrouted);
    single(
        "duplicate_messages_total",
        "Messages that came before; they went no further.",
        counters.duplicates,
    );
    let types = counters.types.iter().map(|(name, count)| (vec![("type", name.as_str())], *count));
    text.family("messages_total", "counter", "Messages by type.", types);
}

fn inputs(text: &mut Text, counters: &Counters) {
    let names = unique(counters.inputs.iter().map(|input| &input.address));
    let inputs = || names.iter().zip(&counters.inputs);
    for (name, help, value) in [
        ("messages_total", "Messages of an input.", (|input| input.received) as fn(&InputCounters) -> u64),
        ("bytes_total", "Bytes read from an input.", |input| input.bytes),
        ("connections_total", "Connections there have been.", |input| input.connections),
        ("idle_connections_total", "Connections closed because nothing came.", |input| input.idle),
        ("kernel_dropped_datagrams_total", "Datagrams that the kernel had no room for.", |input| {
            input.kernel_dropped
        }),
        ("busy_requests_total", "HTTP requests answered 503.", |input| input.busy),
        ("bad_requests_total", "HTTP requests answered with another refusal.", |input| input.bad_requests),
        ("errors_total", "Failures of the socket itself.", |input| input.errors),
    ] {
        let samples = inputs().map(|(name, input)| (vec![("input", name.as_str())], value(input)));
        text.family(&format!("input_{name}"), "counter", help, samples);
    }
    let open = inputs().map(|(name, input)| (vec![("input", name.as_str())], input.open));
    text.family("input_open_connections", "gauge", "Connections open now.", open);
    let buffers = inputs().map(|(name, input)| (vec![("input", name.as_str())], input.receive_buffer_bytes));
    text.family("input_receive_buffer_bytes", "gauge", "What the kernel holds of datagrams.", buffers);
    let refused = inputs().flat_map(|(name, input)| {
        let labels = move |reason: &'static str| vec![("input", name.as_str()), ("reason", reason)];
        input.refused_for.iter().map(move |(reason, count)| (labels(reason.name()), *count))
    });
    let help = "Connections turned away or closed, and datagrams not read, by reason.";
    text.family("input_refused_total", "counter", help, refused);
    let malformed = inputs().flat_map(|(name, input)| {
        let labels = move |reason: &'static str| vec![("input", name.as_str()), ("reason", reason)];
        input.malformed.iter().map(move |(reason, count)| (labels(reason.name()), *count))
    });
    text.family("input_malformed_total", "counter", "Frames that were no message, by reason.", malformed);
}

fn outputs(text: &mut Text, counters: &Counters) {
    let names = unique(counters.outputs.iter().map(|output| &output.name));
    for (name, kind, help, value) in [
        (
            "delivered_messages_total",
            "counter",
            "Messages written.",
            (|output| output.delivered) as fn(&OutputCounters) -> u64,
        ),
        ("dropped_messages_total", "counter", "Messages not taken: the queue was full.", |output| {
            output.dropped
        }),
        ("failed_messages_total", "counter", "Messages that could not be written.", |output| output.failed),
        ("queued_messages", "gauge", "Messages in the queue now.", |output| output.queued),
    ] {
        let outputs = names.iter().zip(&counters.outputs);
        let samples = outputs.map(|(name, output)| (vec![("output", name.as_str())], value(output)));
        text.family(&format!("output_{name}"), kind, help, samples);
    }
}

/// The names, of which no two may be the same: one time series has one value.
fn unique<'n>(names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let numbered = names.enumerate().map(|(number, name)| match seen.insert(name) {
        true => name.clone(),
        false => format!("{name} #{}", number + 1),
    });
    numbered.collect()
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// One metric with all its labels; without any samples nothing.
    fn family<'l>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP metlog_router_{name} {help}\n# TYPE metlog_router_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "metlog_router_{name}{} {value}", Labels(&labels));
        }
    }
}

struct Labels<'a>(&'a [(&'static str, &'a str)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            // First what a terminal must not see, then what the format must not.
            let value = Escaped(value).to_string().replace('\\', "\\\\").replace('"', "\\\"");
            write!(formatter, "{before}{name}=\"{value}\"")?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            formatter.write_char('}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::MalformedReason;
    use super::*;

    #[test]
    fn every_counter_is_there_once_and_no_name_leaves_its_label() {
        let output = OutputCounters { name: "null".into(), delivered: 3, queued: 1, ..Default::default() };
        let input = InputCounters {
            address: "udp://127.0.0.1:1".into(),
            received: 4,
            malformed: [(MalformedReason::Empty, 2)].into(),
            open: 5,
            ..Default::default()
        };
        let counters = Counters {
            received: 4,
            types: [("a\"} 1\n\\".to_owned(), 4)].into(),
            inputs: vec![input],
            outputs: vec![output.clone(), output],
            ..Counters::default()
        };
        let text = text(&counters, 7);
        for line in [
            "metlog_router_uptime_seconds 7",
            "metlog_router_received_messages_total 4",
            r#"metlog_router_messages_total{type="a\"} 1\\n\\"} 4"#,
            r#"metlog_router_input_malformed_total{input="udp://127.0.0.1:1",reason="empty"} 2"#,
            r#"metlog_router_input_open_connections{input="udp://127.0.0.1:1"} 5"#,
            r#"metlog_router_output_delivered_messages_total{output="null"} 3"#,
            r#"metlog_router_output_queued_messages{output="null #2"} 1"#,
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in\n{text}");
        }
        let mut series = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(series.insert(line.rsplit_once(' ').expect("a value").0), "{line} twice");
        }
    }
}
