//! A service that ends well: on SIGTERM (as systemd, Docker and Kubernetes say it) and on Ctrl-C it returns from `main`,
//! and what it said last is delivered. This crate installs no signal handler; these few lines of `signal-hook` are the
//! program's own, and its to change.
//!
//! `METLOG_ROUTER=stderr: cargo run --example sigterm`, and Ctrl-C

use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What ends a service: nothing but a signal.
pub fn main() -> std::io::Result<()> {
    let _metlog = tracing_metlog::init();
    // From here on these signals do not end the program by themselves.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(serve);
    let signal = signals.forever().next();
    tracing::info!(signal, "ending");
    // Here a server stops accepting and finishes what it has begun. Then `_metlog` is dropped, which waits for delivery
    // as long as METLOG_FLUSH_TIMEOUT_MS says: less than the time until SIGKILL follows, 10 s in Docker, 30 s in
    // Kubernetes, 90 s in systemd.
    Ok(())
}

fn serve() {
    for number in 0.. {
        tracing::info!(number, "request served");
        std::thread::sleep(Duration::from_millis(5));
    }
}
