//! How much memory there is beside the queue that was asked for, and whether it grows.
//!
//! `cargo run --release --bin memory` compares the memory in RAM of a program with ours to the same program with a
//! layer that only visits fields, less the queue; then it makes events and spans by the million and looks at the
//! memory after a tenth, a half and all of them. `--write` puts both into `docs/performance.md` too.
//! `over WHAT QUEUE_MIB EVENTS` and `growth events|spans COUNT` are one measurement, in a process of its own.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use bench_peers::clock::resident;
use bench_peers::document;
use bench_peers::number::{medians, whole};
use bench_peers::options::Options;
use bench_peers::peers::{floor, tracing_calls};
use bench_peers::process::{numbers_of, print_numbers, this_program};
use bench_peers::workload::Workload;
use tracing::level_filters::LevelFilter;
use tracing_metlog::{Batch, Guard, Transport, WhenFull};
use tracing_subscriber::layer::SubscriberExt;

const DEFAULTS: &[(&str, u64)] =
    &[("rounds", 3), ("events", 1_000_000), ("growth-events", 100_000_000), ("growth-spans", 1_000_000)];

const MIB: f64 = 1024.0 * 1024.0;
/// Sizes of queues, in MiB.
const QUEUES: [u64; 3] = [1, 8, 64];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    match arguments[..] {
        ["over", what, queue, events] => over(what, number(queue)?, number(events)?),
        ["growth", "events", count] => growth(tracing_calls::event, number(count)?),
        ["growth", "spans", count] => growth(tracing_calls::span, number(count)?),
        _ => compare(&Options::parse(&arguments, DEFAULTS)?),
    }
}

// ---------------------------------------------------------------------------------------------- the comparison

fn compare(options: &Options) -> Result<(), String> {
    let over = over_the_queue(options)?;
    print!("{over}");
    let growth = grown(options)?;
    print!("\n{growth}");
    if options.write {
        document::write(document::PERFORMANCE, "memory", &over)?;
        document::write(document::PERFORMANCE, "growth", &growth)?;
    }
    Ok(())
}

fn over_the_queue(options: &Options) -> Result<String, String> {
    let events = options.count("events");
    let mut table = format!(
        "| queue | MiB over it, after set-up | after {} events |\n|--:|--:|--:|\n",
        whole(events as f64)
    );
    for queue in QUEUES {
        let mut runs = Vec::new();
        for _ in 0..options.count("rounds") {
            eprintln!("memory: a queue of {queue} MiB");
            let run = |what| -> Result<[f64; 2], String> {
                numbers_of(&mut this_program(&["over", what, &queue.to_string(), &events.to_string()])?)
            };
            let (with, without) = (run("ours")?, run("floor")?);
            runs.push([0, 1].map(|moment| (with[moment] - without[moment]) / MIB - queue as f64));
        }
        let [after_set_up, after_events] = medians(&runs);
        let _ = writeln!(table, "| {queue} MiB | {after_set_up:.2} | {after_events:.2} |");
    }
    Ok(table)
}

fn grown(options: &Options) -> Result<String, String> {
    let mut table = String::from(
        "| a thread makes | MiB after 10 % | 50 % | 100 % | growth, KiB | seconds |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for what in ["events", "spans"] {
        let count = options.count(&format!("growth-{what}"));
        eprintln!("memory: {} {what}", whole(count as f64));
        let growth = ["growth", what, &count.to_string()];
        let [tenth, half, all, seconds] = numbers_of(&mut this_program(&growth)?)?;
        let _ = writeln!(
            table,
            "| {} {what} | {:.2} | {:.2} | {:.2} | {} | {seconds:.0} |",
            whole(count as f64),
            tenth / MIB,
            half / MIB,
            all / MIB,
            whole((all - tenth) / 1024.0),
        );
    }
    Ok(table)
}

// --------------------------------------------------------------------------------------------- one measurement

/// Prints the memory after set-up and after the events.
fn over(what: &str, queue_mib: u64, events: u64) -> Result<(), String> {
    let guard = match what {
        "ours" => Some(install((queue_mib as usize) << 20)?),
        "floor" => {
            floor::start(Workload::Event);
            None
        }
        _ => return Err(format!("`{what}` is neither `ours` nor `floor`")),
    };
    let after_set_up = resident()?;
    tracing_calls::event(events);
    settle(guard.as_ref());
    print_numbers(&[after_set_up, resident()?]);
    finish(guard, events)
}

/// Prints the memory after a tenth, a half and all of the calls, and how long they took.
fn growth(calls: fn(u64), count: u64) -> Result<(), String> {
    const DEFAULT_QUEUE: usize = 8 << 20;
    let guard = install(DEFAULT_QUEUE)?;
    let start = Instant::now();
    let mut made = 0;
    let mut after = |part: u64| {
        let until = count / 10 * part;
        calls(until - made);
        made = until;
        settle(Some(&guard));
        resident()
    };
    let [tenth, half, all] = [after(1)?, after(5)?, after(10)?];
    print_numbers(&[tenth, half, all, start.elapsed().as_secs_f64()]);
    finish(Some(guard), made)
}

/// Ours to nowhere. Callers wait for a full queue: what is lost needs no memory.
fn install(queue_bytes: usize) -> Result<Guard, String> {
    let builder = tracing_metlog::builder().logger("bench").transport(Discard).queue_bytes(queue_bytes);
    let (layer, guard) = builder.when_full(WhenFull::Block).build().map_err(|error| error.to_string())?;
    tracing_calls::install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer));
    Ok(guard)
}

/// Waits until everything has gone the whole way.
fn settle(guard: Option<&Guard>) {
    if let Some(guard) = guard {
        guard.flush(Duration::from_secs(60));
    }
}

/// All must have been delivered, or the figures are of something else.
fn finish(guard: Option<Guard>, messages: u64) -> Result<(), String> {
    let Some(stats) = guard.map(Guard::finish) else { return Ok(()) };
    let complete = stats.delivered == messages;
    complete.then_some(()).ok_or_else(|| format!("{messages} messages went in, and of them: {stats}"))
}

struct Discard;

impl Transport for Discard {
    fn send(&mut self, batch: &mut Batch, _deadline: Instant) -> io::Result<()> {
        batch.delivered(batch.len());
        Ok(())
    }
}
