//! What an attack did to the router and to a client beside it, for the table in docs/router-security.md.
//!
//! In: one row for each attack, recorded after its assertions. Out: a line of JSON in the file named by
//! `METLOG_SECURITY_REPORT`, which `.ci/security` collects; without the variable, the test's output only.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

/// The file that lines are added to.
const FILE: &str = "METLOG_SECURITY_REPORT";

/// One attack.
#[derive(Debug)]
pub struct Row<'a> {
    pub attack: &'a str,
    pub clients: usize,
    /// Messages of the client beside it, and how many of them came.
    pub sent: u64,
    pub arrived: u64,
    /// The longest that 50 messages of it took to be confirmed.
    pub slowest: Duration,
    /// The most memory that the router had at any time.
    pub peak_kib: u64,
    /// What the router's own report says of the input.
    pub counters: &'a str,
}

/// Records it.
pub fn record(row: &Row<'_>) {
    println!("{row:?}");
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = serde_json::json!({
        "attack": row.attack,
        "clients": row.clients,
        "sent": row.sent,
        "arrived": row.arrived,
        "slowest_ms": row.slowest.as_millis() as u64,
        "peak_kib": row.peak_kib,
        "counters": row.counters,
    });
    // One write, at the end of the file: several test programs may add to it at a time.
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).expect("the report can be written");
    file.write_all(format!("{line}\n").as_bytes()).expect("the report is written");
}
