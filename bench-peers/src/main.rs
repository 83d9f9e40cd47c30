//! What a message costs the thread that makes it: tracing-metlog beside other ways out of a Rust program.
//!
//! `cargo run --release` measures every peer with every workload and prints one table; `--write` puts that table
//! into `docs/performance.md`, and a short one into `README.md`, too. `run PEER WORKLOAD` and `run-for-callgrind PEER WORKLOAD` are one measurement:
//! what the first form starts in processes of their own.

mod suite;
mod table;

use std::process::ExitCode;

use bench_peers::peers::Peer;
use bench_peers::workload::Workload;
use bench_peers::{alloc, document, measure, peers};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => compare(false),
        ["--write"] => compare(true),
        ["run", peer, workload] => named(peer, workload).and_then(|(peer, workload)| run(peer, workload)),
        ["run-for-callgrind", peer, workload] => named(peer, workload)
            .and_then(|(peer, workload)| measure::run_for_callgrind(peer, workload).map(drop)),
        _ => {
            Err(String::from("usage: peers [--write | run PEER WORKLOAD | run-for-callgrind PEER WORKLOAD]"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn compare(write: bool) -> Result<(), String> {
    let figures = suite::measure_all()?;
    let (table, short) = (table::render(&figures), table::render_short(&figures));
    print!("{table}\n{short}");
    if write {
        document::write(document::PERFORMANCE, "peers", &table)?;
        document::write(document::README, "cost", &short)?;
    }
    Ok(())
}

/// Prints nanoseconds and allocations a call, or `-`.
fn run(peer: &Peer, workload: Workload) -> Result<(), String> {
    match measure::run(peer, workload)? {
        Some(cost) => println!("{:.2} {:.4}", cost.nanoseconds, cost.allocations),
        None => println!("-"),
    }
    Ok(())
}

fn named(peer: &str, workload: &str) -> Result<(&'static Peer, Workload), String> {
    let peer = peers::named(peer).ok_or_else(|| format!("no peer is called `{peer}`"))?;
    let workload = Workload::named(workload).ok_or_else(|| format!("no workload is called `{workload}`"))?;
    Ok((peer, workload))
}
