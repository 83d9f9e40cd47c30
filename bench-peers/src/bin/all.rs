//! Every measurement, one after the other, each writing its figures into the documents:
//! `cargo run --release --bin all`. It wants a quiet machine, valgrind, and about half an hour.

use std::process::{Command, ExitCode};

/// In the order of `docs/performance.md`.
const MEASUREMENTS: [&str; 6] = ["peers", "end_to_end", "latency", "threads", "memory", "axes"];

fn main() -> ExitCode {
    // Cargo says where it is to what it runs.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for measurement in MEASUREMENTS {
        eprintln!("== {measurement}");
        let done = Command::new(&cargo)
            .args(["run", "--release", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
            .args(["--bin", measurement, "--", "--write"])
            // Built incrementally, a program is cut into more pieces, and a call costs up to a tenth more.
            .env("CARGO_INCREMENTAL", "0")
            .status();
        match done {
            Ok(status) if status.success() => {}
            Ok(status) => return failed(measurement, &status),
            Err(error) => return failed(measurement, &error),
        }
    }
    ExitCode::SUCCESS
}

fn failed(measurement: &str, problem: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{measurement}: {problem}");
    ExitCode::FAILURE
}
