//! `emit` with `emit_file`, its fastest way out: JSON lines in batches to a file.
//!
//! The file is in the temporary directory, and its lines are counted there. The caller makes the JSON; its 10,000
//! lines of queue are emit_file's own and cannot be changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Running;
use crate::workload::{ratio, user, Workload, MESSAGE};

pub fn start(workload: Workload) -> Option<Running> {
    // The spans around events send a line themselves when their block is over; it is not counted.
    let (calls, counted): (fn(u64), _) = match workload {
        Workload::Disabled => (disabled, ""),
        Workload::Event => (event, MESSAGE),
        Workload::EventInSpans => (in_request, MESSAGE),
        Workload::Span => (spans, ""),
        Workload::Log => (formatted, ""),
        Workload::Timer => return None,
    };
    let directory = std::env::temp_dir().join(format!("bench-peers-emit-{}", std::process::id()));
    let file = emit_file::set(directory.join("log.txt")).spawn();
    let running =
        ::emit::setup().emit_when(::emit::level::min_filter(::emit::Level::Info)).emit_to(file).init();
    Some(Running {
        calls: Box::new(calls),
        flush: Box::new(move || {
            running.blocking_flush(Duration::from_secs(30));
        }),
        arrived: Box::new(move || lines_with(counted, &directory)),
    })
}

fn disabled(calls: u64) {
    for id in 0..calls {
        ::emit::debug!("request served", id, user: user(), ratio: ratio());
    }
}

fn event(calls: u64) {
    for id in 0..calls {
        ::emit::info!("request served", id, user: user(), ratio: ratio());
    }
}

#[::emit::info_span("request", method: "GET", request_id: 7)]
fn in_request(calls: u64) {
    in_query(calls);
}

#[::emit::info_span("query", table: "orders", rows: 3)]
fn in_query(calls: u64) {
    event(calls);
}

fn spans(calls: u64) {
    for id in 0..calls {
        span(id);
    }
}

#[::emit::info_span("query", table: user(), id)]
fn span(id: u64) {}

fn formatted(calls: u64) {
    for id in 0..calls {
        let user = user();
        ::emit::info!("request {id} of {user} served");
    }
}

fn lines_with(text: &str, directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    files.map(|file: PathBuf| count(text, &fs::read_to_string(file).unwrap_or_default())).sum()
}

fn count(text: &str, lines: &str) -> u64 {
    lines.lines().filter(|line| line.contains(text)).count() as u64
}
