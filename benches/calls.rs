//! scratch
#![allow(missing_docs)]
use std::hint::black_box;
use std::time::Instant;
use tracing_metlog::{Batch, Transport};
use tracing_subscriber::layer::SubscriberExt;

struct Discard;
impl Transport for Discard {
    fn send(&mut self, batch: &mut Batch, _: Instant) -> std::io::Result<()> {
        let n = batch.len();
        batch.delivered(n);
        Ok(())
    }
}

#[inline(never)]
fn measured(workload: &str, n: u64) {
    match workload {
        "event" => {
            for i in 0..n {
                tracing::info!(
                    id = i,
                    name = black_box("abcdefghijklmnopqrst"),
                    ratio = 0.25,
                    "literal message"
                );
            }
        }
        "spans" => {
            let _a = tracing::info_span!("outer", request = 7u64, user = "amy").entered();
            let _b = tracing::info_span!("inner", table = "orders", shard = 3u64).entered();
            for i in 0..n {
                tracing::info!(
                    id = i,
                    name = black_box("abcdefghijklmnopqrst"),
                    ratio = 0.25,
                    "literal message"
                );
            }
        }
        "span" => {
            for i in 0..n {
                let _s = tracing::info_span!("inner", table = black_box("orders"), shard = i).entered();
            }
        }
        "log" => {
            for i in 0..n {
                log::info!("formatted {} and {}", i, black_box("text"));
            }
        }
        "disabled" => {
            for i in 0..n {
                tracing::trace!(
                    id = i,
                    name = black_box("abcdefghijklmnopqrst"),
                    ratio = 0.25,
                    "literal message"
                );
            }
        }
        _ => {}
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (workload, n): (&str, u64) = (&args[1], args[2].parse().unwrap());
    let guard;
    if args.get(3).map(String::as_str) == Some("floor") {
        struct V;
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for V {
            fn on_event(&self, e: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                struct Vis(u64);
                impl tracing::field::Visit for Vis {
                    fn record_debug(&mut self, _: &tracing::field::Field, v: &dyn std::fmt::Debug) {
                        black_box(v);
                        self.0 += 1;
                    }
                    fn record_u64(&mut self, _: &tracing::field::Field, v: u64) {
                        self.0 += v;
                    }
                    fn record_f64(&mut self, _: &tracing::field::Field, v: f64) {
                        black_box(v);
                    }
                    fn record_str(&mut self, _: &tracing::field::Field, v: &str) {
                        black_box(v);
                    }
                }
                let mut v = Vis(0);
                e.record(&mut v);
                black_box(v.0);
            }
        }
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(V)).unwrap();
        guard = None;
    } else {
        guard =
            Some(tracing_metlog::builder().transport(Discard).queue_bytes(64 << 20).filter("info").init());
    }
    let t = Instant::now();
    measured(workload, n);
    let e = t.elapsed();
    eprintln!("{} ns/call", e.as_nanos() as f64 / n as f64);
    if let Some(g) = guard {
        eprintln!("{}", g.finish());
    }
}
