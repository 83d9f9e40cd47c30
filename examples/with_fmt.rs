//! Beside what a program has already: an `EnvFilter` and `tracing_subscriber::fmt` on the console, and the same
//! events and spans as Metlog messages. `builder().build()` gives a layer, and the stack stays the program's own.
//!
//! `cargo run --example with_fmt`, or with another filter: `RUST_LOG=trace cargo run --example with_fmt`

use std::error::Error;
use std::time::Duration;

use tracing::{debug, info, info_span, trace, warn};
use tracing_metlog::Capture;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

fn main() -> Result<(), Box<dyn Error>> {
    // Keeps what would be sent, so that there is something to show at the end. A program of your own leaves it
    // out, and `METLOG_ROUTER` says where messages go.
    let capture = Capture::new();
    let (metlog, guard) = tracing_metlog::builder().logger("with_fmt").transport(capture.clone()).build()?;

    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("debug"));
    let console = tracing_subscriber::fmt::layer().with_writer(std::io::stdout);
    tracing_subscriber::registry()
        .with(filter) // for both
        .with(console.with_filter(LevelFilter::INFO)) // for the console only
        .with(metlog) // the one line that is new
        .init();

    println!("On the console, from INFO up:");
    work();

    let stats = guard.finish();
    println!("\nIn the messages, from DEBUG up, and the span as a timer:");
    for message in capture.messages() {
        let fields = serde_json::Value::from(message.fields);
        println!("{:8} {:13} {:?} {fields}", message.r#type, message.severity, message.payload.to_string());
    }
    println!("{stats}");
    Ok(())
}

fn work() {
    let _job = info_span!("job", id = 7).entered();
    info!(items = 3, "begin");
    debug!("only in the messages");
    trace!("in neither, unless RUST_LOG says so");
    std::thread::sleep(Duration::from_millis(2));
    // `init` of tracing-subscriber has made `log` records events of the stack. Their target, module, file and line
    // are the true ones; key-values they would lose on that way (see `Builder::build_logger`).
    log::warn!("an old module that uses `log`");
    warn!(left = 0.1, "slow");
}
