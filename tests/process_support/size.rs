//! How much the tests of faults do: little in every run, and what the promises speak of when they are asked to.

use std::time::Duration;

/// With the value `full`, tests take the sizes and times that the promises name; `.ci/reliability` sets it.
pub const SIZE: &str = "METLOG_TEST_SIZE";
/// With any value, tests that need root, or a program that is not there, say so and pass.
const MAY_SKIP: &str = "METLOG_TEST_MAY_SKIP";

fn is_full() -> bool {
    match std::env::var(SIZE) {
        Err(_) => false,
        Ok(size) if size == "full" => true,
        Ok(other) => panic!("{SIZE} is {other:?}; only \"full\" is known"),
    }
}

/// The size for every run, or the full one.
pub fn sized<T>(every_run: T, full: T) -> T {
    if is_full() {
        full
    } else {
        every_run
    }
}

/// A limit for a test that may be asked to be long.
pub fn patience() -> Duration {
    sized(super::LONG, super::LONG * 20)
}

/// Fails because a test cannot do here what it is for, unless that was allowed.
#[track_caller]
pub fn left_out(what_is_missing: &str) {
    let is_allowed = std::env::var_os(MAY_SKIP).is_some();
    assert!(is_allowed, "{what_is_missing}: not tested; {MAY_SKIP}=1 allows that");
    println!("{what_is_missing}: not tested");
}

/// A number as a reader likes it: 1,000,000.
pub fn thousands(number: u64) -> String {
    let (above, below) = (number / 1_000, number % 1_000);
    if above == 0 {
        below.to_string()
    } else {
        format!("{},{below:03}", thousands(above))
    }
}

/// What this process holds: descriptors, threads, and resident memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdings {
    pub descriptors: usize,
    pub threads: usize,
    pub kib: usize,
}

impl Holdings {
    pub fn now() -> Holdings {
        let entries = |path: &str| std::fs::read_dir(path).expect("proc").count();
        let status = std::fs::read_to_string("/proc/self/status").expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kib = line.trim().trim_end_matches(" kB").parse().expect("a number");
        Holdings { descriptors: entries("/proc/self/fd"), threads: entries("/proc/self/task"), kib }
    }
}
