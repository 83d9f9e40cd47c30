//! A web service nobody wrote Metlog code for: axum, tower-http's `TraceLayer` and `ureq`, a client library that
//! knows only `log`. One line in `main` makes all of them speak Metlog: a timer for each request, its log lines
//! inside the request's span, and what the client library says.
//!
//! The service makes real requests to itself over loopback; an embedded router receives what it says about them.
//!
//! `cargo run --example web_service --features router`

use std::error::Error;
use std::thread;
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use tower_http::trace::TraceLayer;
use tracing_metlog::router::{Color, Config, Input, Matcher, Output, Route, Router};

fn main() -> Result<(), Box<dyn Error>> {
    let (received, capture) = Output::capture();
    let config = Config::new()
        .input(Input::tcp("127.0.0.1:0"))
        .route(Route::new(Matcher::any(), Output::console(Color::Auto)))
        .route(Route::new(Matcher::any(), received));
    let router = Router::start(config)?;

    // The one line. A real service leaves the address to `METLOG_ROUTER` and the filter to `RUST_LOG`.
    let metlog = tracing_metlog::builder()
        .logger("shop")
        .router(&router.addresses()[0])
        .filter("info,tower_http=debug,ureq::run=debug")
        // Where a line stands in the source is left out, so that the console has room for the rest.
        .module(false)
        .file(false)
        .line(false)
        .init();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    runtime.spawn(async move { axum::serve(listener, service()).await });
    make_requests(&format!("http://{address}"))?;
    runtime.shutdown_timeout(Duration::from_secs(1));

    let stats = metlog.finish();
    router.shutdown(Duration::from_secs(5));
    println!("\nRequests, as the router saw them:");
    let messages = capture.messages();
    for timer in messages.iter().filter(|message| message.r#type == "timer") {
        let (method, uri) = (&timer.fields["method"], &timer.fields["uri"]);
        println!("{:>9} ms  {method} {uri}  (busy {} ms)", timer.payload, timer.fields["busy_ms"]);
    }
    let from_ureq = |target: &str| target.split("::").next().is_some_and(|name| name.starts_with("ureq"));
    let targets = messages.iter().filter_map(|message| message.fields["target"].as_str());
    println!("and {} log lines of the client library.", targets.filter(|target| from_ureq(target)).count());
    println!("{stats}");
    Ok(())
}

fn service() -> axum::Router {
    axum::Router::new()
        .route("/orders/{id}", get(order))
        .route("/slow", get(slow))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .layer(TraceLayer::new_for_http())
}

/// An application's own line; it arrives with the request's method and address.
async fn order(Path(id): Path<u32>) -> String {
    log::info!(order = id; "looked up");
    format!("order {id}\n")
}

async fn slow() -> &'static str {
    let slept = tokio::task::spawn_blocking(|| thread::sleep(Duration::from_millis(20))).await;
    slept.map_or("interrupted\n", |()| "done\n")
}

fn make_requests(service: &str) -> Result<(), ureq::Error> {
    let client: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for path in ["/orders/7", "/orders/8", "/slow", "/broken", "/nowhere"] {
        let mut answer = client.get(format!("{service}{path}")).call()?;
        answer.body_mut().read_to_string()?;
    }
    Ok(())
}
