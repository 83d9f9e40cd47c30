//! What a fault did to the messages, for the table in docs/reliability.md.
//!
//! In: one line for each fault that a test has put to the proof, recorded after its assertions. Out: a line of JSON in
//! the file named by `METLOG_FAULT_REPORT`, which `.ci/reliability` collects. Without the variable there is nothing
//! to collect, and the line goes to the test's output only.

use std::fs::OpenOptions;
use std::io::Write;

/// The file that lines are added to.
const FILE: &str = "METLOG_FAULT_REPORT";

/// Records one fault: what was promised, and the account. Each reason of `lost` stands with the messages it cost.
pub fn record(
    fault: &str,
    promise: &str,
    emitted: u64,
    delivered: u64,
    lost: &[(&str, u64)],
    duplicates: u64,
) {
    let reasons: Vec<_> = lost.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let lost_text = if reasons.is_empty() { String::from("0") } else { reasons.join(", ") };
    println!("{fault} | {promise} | {emitted} | {delivered} | {lost_text} | {duplicates}");
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = serde_json::json!({
        "fault": fault,
        "promise": promise,
        "emitted": emitted,
        "delivered": delivered,
        "lost": lost.iter().map(|&(reason, count)| (reason.into(), count.into())).collect::<serde_json::Map<_, _>>(),
        "duplicates": duplicates,
    });
    // One write, at the end of the file: several test programs may add to it at a time.
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).expect("the report can be written");
    file.write_all(format!("{line}\n").as_bytes()).expect("the report is written");
}

/// The same for what [`Stats`](tracing_metlog::Stats) say was lost.
pub fn record_stats(fault: &str, promise: &str, stats: &tracing_metlog::Stats, duplicates: u64) {
    let lost: Vec<_> = stats.lost.iter().map(|(reason, count)| (reason.name(), count)).collect();
    record(fault, promise, stats.emitted, stats.delivered, &lost, duplicates);
}
