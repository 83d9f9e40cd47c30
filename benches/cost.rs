//! What a call costs the calling thread, in instructions and heap allocations: figures that do not depend on how busy
//! the machine is, so they have limits, and `cargo bench --bench cost` fails when one is passed.
//!
//! Instructions are counted by valgrind's callgrind, inside the measured calls only and on the calling thread only,
//! as the difference between two runs of different length. Allocations are counted by the global allocator, per
//! thread, after a first thousand calls. A limit leaves the compiler a few per cent of room; lower it when a change
//! pays off.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::env;
use std::process::{Command, ExitCode};

/// Most instructions and most allocations a call may cost.
const LIMITS: [(&str, u64, u64); 5] = [
    ("disabled", 10, 0),
    ("event", 710, 0),
    ("event in 2 spans", 730, 0),
    ("span", 1790, 0),
    ("log", 1040, 0),
];

/// Behind the name of a workload: with the queue in a crash ring. The limit is the same: it must cost nothing.
const IN_RING: &str = ", ring";

/// Calls of the shorter run; the longer one has twice as many.
const CALLS: u64 = 2000;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [mode, workload, calls] if mode == "run" => run(workload, calls.parse().expect("a number")),
        _ => compare(),
    }
}

/// In a process of its own: the calls, and how many allocations they made.
fn run(workload: &str, calls: u64) -> ExitCode {
    let (workload, guard) = install(workload);
    // The first calls grow buffers and enter callsites into tables.
    warm_up(workload);
    let before = ALLOCATIONS.get();
    support::measured(workload, calls);
    println!("{}", ALLOCATIONS.get() - before);
    let stats = guard.finish();
    assert_eq!(stats.emitted, stats.delivered, "a message that is lost is cheaper: {stats}");
    ExitCode::SUCCESS
}

#[cfg(feature = "ring")]
fn install(workload: &str) -> (&str, tracing_metlog::Guard) {
    match workload.strip_suffix(IN_RING) {
        Some(workload) => (workload, support::install_in_ring()),
        None => (workload, support::install()),
    }
}

#[cfg(not(feature = "ring"))]
fn install(workload: &str) -> (&str, tracing_metlog::Guard) {
    (workload, support::install())
}

/// Every row of the table; with the feature `ring` each of them twice.
fn rows() -> impl Iterator<Item = (String, u64, u64)> {
    let ways: &[&str] = if cfg!(feature = "ring") { &["", IN_RING] } else { &[""] };
    ways.iter().flat_map(|way| {
        LIMITS
            .iter()
            .map(move |(workload, most, allocations)| (format!("{workload}{way}"), *most, *allocations))
    })
}

#[inline(never)]
fn warm_up(workload: &str) {
    support::measured(workload, 1000);
}

fn compare() -> ExitCode {
    let mut is_within = true;
    println!("{:<24}{:>14}{:>8}{:>14}{:>8}", "per call", "instructions", "limit", "allocations", "limit");
    for (workload, most_instructions, most_allocations) in rows() {
        let instructions = (instructions(&workload, 2 * CALLS) - instructions(&workload, CALLS)) / CALLS;
        let allocations = allocations(&workload) as f64 / (10 * CALLS) as f64;
        println!(
            "{workload:<24}{instructions:>14}{most_instructions:>8}{allocations:>14}{most_allocations:>8}"
        );
        is_within &= instructions <= most_instructions && allocations <= most_allocations as f64 + 0.01;
    }
    if is_within {
        return ExitCode::SUCCESS;
    }
    eprintln!("a limit is passed: find what costs more now, or raise it here and say why");
    ExitCode::FAILURE
}

fn this_program() -> std::path::PathBuf {
    env::current_exe().expect("this program has a path")
}

fn allocations(workload: &str) -> u64 {
    let output = Command::new(this_program()).args(["run", workload, &(10 * CALLS).to_string()]).output();
    let output = output.expect("this program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Instructions of the calling thread inside `measured`, of the warm-up and of `calls` calls.
fn instructions(workload: &str, calls: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*support::measured*"])
        .arg(this_program())
        .args(["run", workload, &calls.to_string()])
        .output()
        .expect("valgrind counts the instructions: install it (Debian's package is `valgrind`)");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let collected = report.lines().find_map(|line| line.split_once("Collected : ")).expect("a count").1;
    collected.trim().parse().expect("a number")
}
