//! Several threads that make events as fast as they can, beside one: CPU time of the calling threads for each event.
//!
//! `cargo run --release --bin threads` runs each candidate with one thread and with four, in turn, and prints medians;
//! `--write` puts them into `docs/performance.md` too. Queues have room for all events: those that were lost
//! nevertheless are in the table. `run CANDIDATE THREADS CALLS` is one measurement, in a process of its own.

use std::fmt::Write;

use bench_peers::candidates::{self, Candidate};
use bench_peers::document;
use bench_peers::hammer;
use bench_peers::number::{medians, ratio, whole};
use bench_peers::options::Options;
use bench_peers::process::{numbers_of, print_numbers, this_program};

const COMPARED: [Candidate; 5] = [
    candidates::FLOOR,
    candidates::OURS,
    candidates::FMT_JSON,
    candidates::OPENTELEMETRY,
    candidates::LOGFORTH,
];

const DEFAULTS: &[(&str, u64)] = &[("rounds", 7), ("threads", 4), ("events", 250_000)];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["run", candidate, threads, calls] = arguments[..] {
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
        let hammered = hammer::run(&Candidate::named(candidate)?, number(threads)?, number(calls)?)?;
        print_numbers(&[hammered.nanoseconds, hammered.lost]);
        return Ok(());
    }
    let options = Options::parse(&arguments, DEFAULTS)?;
    let table = compare(&options)?;
    print!("{table}");
    if options.write {
        document::write(document::PERFORMANCE, "threads", &table)?;
    }
    Ok(())
}

/// Everyone once, and all of that again and again: a noisy minute meets everyone.
fn compare(options: &Options) -> Result<String, String> {
    let (threads, events) = (options.count("threads"), options.count("events"));
    let mut runs = COMPARED.map(|_| Vec::new());
    for round in 0..options.count("rounds") {
        eprintln!("threads: round {}", round + 1);
        for (candidate, runs) in COMPARED.iter().zip(&mut runs) {
            let [one, lost_by_one] = run(candidate, 1, events)?;
            let [several, lost_by_several] = run(candidate, threads, events)?;
            runs.push([one, several, several / one, lost_by_one + lost_by_several]);
        }
    }
    let mut table = format!(
        "| CPU ns of the callers for an event | 1 thread | {threads} threads | ratio | lost |\n|---|--:|--:|--:|--:|\n"
    );
    for (candidate, runs) in COMPARED.iter().zip(&runs) {
        let [one, several, to_one, _] = medians(runs);
        let lost: f64 = runs.iter().map(|[_, _, _, lost]| lost).sum();
        let events = runs.len() as u64 * events * (1 + threads);
        let lost = format!("{} of {}", whole(lost), whole(events as f64));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {lost} |",
            candidate.name,
            whole(one),
            whole(several),
            ratio(to_one)
        );
    }
    Ok(table)
}

fn run(candidate: &Candidate, threads: u64, events: u64) -> Result<[f64; 2], String> {
    numbers_of(&mut this_program(&["run", candidate.key, &threads.to_string(), &events.to_string()])?)
}
