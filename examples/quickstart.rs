//! The whole way in one process: a small service logs through `tracing` and `log`, an embedded router receives
//! what it says, and at the end both accounts are compared.
//!
//! `cargo run --example quickstart --features router`

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use tracing::{debug, error, info, info_span, instrument, warn};
use tracing_metlog::router::{Color, Config, Input, Matcher, Output, Route, Router};
use tracing_metlog::Message;

fn main() -> Result<(), Box<dyn Error>> {
    // In real life the router is a process of its own: `metlog-router`, rsyslog, Vector, ...
    let (received, capture) = Output::capture();
    let config = Config::new()
        .input(Input::tcp("127.0.0.1:0"))
        .route(Route::new(Matcher::any(), Output::console(Color::Auto)))
        .route(Route::new(Matcher::any(), received));
    let router = Router::start(config)?;

    // In real life this is the one line, `let _metlog = tracing_metlog::init();`. Here it says where the router
    // is, and leaves out where each line stands in the source, so that lines stay short.
    let metlog = tracing_metlog::builder()
        .logger("quickstart")
        .router(&router.addresses()[0])
        .filter("debug")
        .module(false)
        .file(false)
        .line(false)
        .init();

    serve();
    metlog.client().gauge("workers.idle", 3);

    // A real program only drops the guard. `finish` does the same and gives the account.
    let stats = metlog.finish();
    let counters = router.shutdown(Duration::from_secs(5));
    println!("\nOf each type that arrived, the last one:");
    show_types(&capture.messages());
    println!("\nThe router's account:\n{counters}");
    println!("\nThe program's account:");
    assert_eq!(capture.messages().len() as u64, stats.delivered, "every message delivered was received");
    println!("{stats}");
    Ok(())
}

fn show_types(messages: &[Message]) {
    let mut types: BTreeMap<&str, (usize, &Message)> = BTreeMap::new();
    for message in messages {
        let entry = types.entry(&message.r#type).or_insert((0, message));
        *entry = (entry.0 + 1, message);
    }
    for (name, (count, last)) in types {
        println!("{count:>4} {name:<10} {}", last.to_json());
    }
}

fn serve() {
    info!(port = 8080, "listening");
    let workers: Vec<_> = (1..=3u32)
        .map(|id| {
            let work = move || (0..2u32).for_each(|n| handle(id * 10 + n));
            thread::Builder::new().name(format!("worker-{id}")).spawn(work)
        })
        .collect();
    for worker in workers.into_iter().flatten() {
        let _ = worker.join();
    }
}

#[instrument(fields(user = "amy"))]
fn handle(request: u32) {
    let rows = query(request);
    info!(monotonic_counter.requests = 1u64, histogram.rows = rows);
    log::info!(rows = rows; "a library that uses `log` says hello");
    match charge(request) {
        Ok(()) => info!(rows, "done"),
        Err(error) => error!(error = &error as &dyn Error, "payment failed"),
    }
}

fn query(request: u32) -> u32 {
    let _span = info_span!("query", table = "orders").entered();
    thread::sleep(Duration::from_millis(u64::from(request % 7)));
    debug!("cache miss");
    request % 5
}

fn charge(request: u32) -> Result<(), PaymentError> {
    if request == 21 {
        warn!(attempt = 2, "slow bank");
        return Err(PaymentError(io::Error::new(io::ErrorKind::TimedOut, "the bank did not answer")));
    }
    Ok(())
}

#[derive(Debug)]
struct PaymentError(io::Error);

impl fmt::Display for PaymentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("could not charge the card")
    }
}

impl Error for PaymentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
