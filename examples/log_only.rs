//! A program that uses only `log`. Its records arrive with their key-values typed, and it pulls in no `tracing`:
//!
//! `cargo run --example log_only --no-default-features --features log`
//!
//! The router is a file here; `METLOG_ROUTER` would name a real one.

use std::error::Error;
use std::time::Duration;
use std::{env, fs, process};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::temp_dir().join(format!("log_only-{}.jsonl", process::id()));
    // In a program of your own this is `let _metlog = tracing_metlog::init();`.
    let metlog = tracing_metlog::builder()
        .logger("backup")
        .router(format!("file://{}", path.display()))
        .filter("info,log_only::disk=debug")
        .init();

    log::info!("started");
    log::debug!("not sent: the filter says info here");
    disk::check();
    log::error!(archive = "photos.tar", attempts = 3, fraction = 0.25, finished = false; "gave up");

    // `log`'s own flush waits until what was logged is delivered.
    log::logger().flush();
    let client = metlog.client();
    client.incr("backups.failed");
    client.timer_send("backup", Duration::from_micros(1_250_500));

    let stats = metlog.finish();
    for line in fs::read_to_string(&path)?.lines() {
        println!("{line}");
    }
    fs::remove_file(&path)?;
    println!("{stats}");
    Ok(())
}

mod disk {
    pub(crate) fn check() {
        log::debug!(free_bytes = 1u64 << 40; "disk looked at");
        log::warn!(disk = "sda", free = 0.07; "nearly full");
    }
}
