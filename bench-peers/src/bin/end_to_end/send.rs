//! The sending end of one run: each peer with the same million events, over the same buffered writer, and its queue set
//! so that a full one makes the caller wait.
//!
//! Left out: `emit_file` writes to files of its own only, OpenTelemetry exports in batches of its own protocol, `fastrace`
//! knows spans only. `ftlog` has neither fields nor JSON: they are part of its text.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bench_peers::workload::{ratio, user, MESSAGE};
use logforth::append::asynchronous::AsyncBuilder;
use logforth::append::Append;
use logforth::bridge::log::LogBridge;
use logforth::layout::JsonLayout;
use logforth::record::Record;
use logforth::{Diagnostic, Layout};
use slog::{o, Drain};
use slog_async::OverflowStrategy;
use spdlog::formatter::JsonFormatter;
use spdlog::sink::{AsyncPoolSink, OverflowPolicy, WriteSink};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_metlog::WhenFull;
use tracing_subscriber::layer::SubscriberExt;

use super::{now, Failure, Way, BUFFER, MESSAGES};

/// Messages in the queue of a peer that counts them: what `tracing_appender` has by default.
const QUEUE: usize = 128_000;

/// One that is compared.
pub struct Peer {
    /// Its name on the command line.
    pub key: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    start: fn(Way, &str) -> Result<Sender, Failure>,
}

/// Ours, then the one it is measured by, then the others.
pub const PEERS: [Peer; 6] = [
    Peer { key: "ours", name: "tracing-metlog", start: ours },
    Peer { key: "json", name: "tracing-subscriber JSON + tracing-appender", start: json },
    Peer { key: "slog", name: "slog-async + slog-json", start: slog },
    Peer { key: "logforth", name: "logforth, JSON", start: logforth },
    Peer { key: "spdlog", name: "spdlog-rs, JSON", start: spdlog },
    Peer { key: "ftlog", name: "ftlog, text", start: ftlog },
];

/// What sends a number of events, and what waits until all of them are handed to the kernel.
struct Sender {
    send: Box<dyn FnOnce(u64)>,
    finish: Box<dyn FnOnce()>,
}

impl Sender {
    fn new(send: impl FnOnce(u64) + 'static, finish: impl FnOnce() + 'static) -> Result<Sender, Failure> {
        Ok(Sender { send: Box::new(send), finish: Box::new(finish) })
    }
}

/// Prints when it began, when all was handed to the kernel, and the CPU time of all its threads in between.
pub fn send(key: &str, way: Way, address: &str) -> Result<(), Failure> {
    let peer =
        PEERS.iter().find(|peer| peer.key == key).ok_or_else(|| format!("no peer is called `{key}`"))?;
    let sender = (peer.start)(way, address)?;
    let (began, cpu) = (now(), cpu_seconds());
    (sender.send)(MESSAGES);
    (sender.finish)();
    println!("{began} {} {}", now(), cpu_seconds() - cpu);
    Ok(())
}

fn writer(way: Way, address: &str) -> Result<Box<dyn Write + Send + Sync>, Failure> {
    Ok(match way {
        Way::Tcp => Box::new(BufWriter::with_capacity(BUFFER, TcpStream::connect(address)?)),
        Way::Unix => Box::new(BufWriter::with_capacity(BUFFER, UnixStream::connect(address)?)),
        Way::File => Box::new(BufWriter::with_capacity(BUFFER, File::create(address)?)),
        Way::Udp => return Err("lines do not go over UDP".into()),
    })
}

fn tracing_events(count: u64) {
    for id in 0..count {
        tracing::info!(id, user = user(), ratio = ratio(), "request served");
    }
}

fn ours(way: Way, address: &str) -> Result<Sender, Failure> {
    let scheme = way.name();
    let (layer, guard) = tracing_metlog::builder()
        .logger("bench")
        .router(format!("{scheme}://{address}"))
        .when_full(WhenFull::Block)
        .flush_timeout(Duration::from_secs(60))
        .build()?;
    install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer))?;
    Sender::new(tracing_events, move || {
        let stats = guard.finish();
        assert_eq!(stats.delivered, MESSAGES, "{stats}");
    })
}

fn json(way: Way, address: &str) -> Result<Sender, Failure> {
    let (out, guard) = NonBlockingBuilder::default().lossy(false).finish(writer(way, address)?);
    install(tracing_subscriber::fmt().json().with_max_level(LevelFilter::INFO).with_writer(out).finish())?;
    Sender::new(tracing_events, move || drop(guard))
}

fn install(subscriber: impl tracing::Subscriber + Send + Sync) -> Result<(), Failure> {
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

fn slog(way: Way, address: &str) -> Result<Sender, Failure> {
    let module = slog::FnValue(|record: &slog::Record<'_>| record.module());
    let lines = slog_json::Json::new(writer(way, address)?).add_default_keys();
    let lines = lines.add_key_value(o!("module" => module)).build().fuse();
    let queue = slog_async::Async::new(lines).chan_size(QUEUE).overflow_strategy(OverflowStrategy::Block);
    let (drain, guard) = queue.build_with_guard();
    let logger = slog::Logger::root(slog::LevelFilter::new(drain.fuse(), slog::Level::Info).fuse(), o!());
    let calls = move |count| {
        for id in 0..count {
            slog::info!(logger, "request served"; "id" => id, "user" => user(), "ratio" => ratio());
        }
    };
    Sender::new(calls, move || drop(guard))
}

fn logforth(way: Way, address: &str) -> Result<Sender, Failure> {
    let lines = Lines { layout: JsonLayout::default(), out: Mutex::new(writer(way, address)?) };
    let append =
        AsyncBuilder::new("logforth").buffered_lines_limit(Some(QUEUE)).overflow_block().append(lines);
    let append = append.build();
    let logger = logforth::core::builder().dispatch(|dispatch| dispatch.append(append)).build();
    log::set_boxed_logger(Box::new(LogBridge::new(logger)))?;
    log::set_max_level(log::LevelFilter::Info);
    Sender::new(log_events, || log::logger().flush())
}

fn log_events(count: u64) {
    for id in 0..count {
        log::info!(id, user = user(), ratio = ratio(); "{MESSAGE}");
    }
}

/// What `logforth` lacks: JSON lines to any writer.
struct Lines {
    layout: JsonLayout,
    out: Mutex<Box<dyn Write + Send + Sync>>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lines")
    }
}

impl Append for Lines {
    fn append(&self, record: &Record, diagnostics: &[Box<dyn Diagnostic>]) -> Result<(), logforth::Error> {
        let mut line = self.layout.format(record, diagnostics)?;
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&line).map_err(|error| logforth::Error::new(error.to_string()))
    }

    fn flush(&self) -> Result<(), logforth::Error> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.flush().map_err(|error| logforth::Error::new(error.to_string()))
    }
}

fn spdlog(way: Way, address: &str) -> Result<Sender, Failure> {
    let capacity = NonZeroUsize::new(QUEUE).ok_or("no queue")?;
    let pool = spdlog::ThreadPool::builder().capacity(capacity).build_arc()?;
    let lines =
        WriteSink::builder().target(writer(way, address)?).formatter(JsonFormatter::new()).build_arc()?;
    let sink = AsyncPoolSink::builder().overflow_policy(OverflowPolicy::Block);
    let sink = sink.thread_pool(Arc::clone(&pool)).sink(lines).build_arc()?;
    let level = spdlog::LevelFilter::MoreSevereEqual(spdlog::Level::Info);
    let logger = spdlog::Logger::builder().sink(sink).level_filter(level).build_arc()?;
    let calls = move |count| {
        for id in 0..count {
            spdlog::info!(logger: logger, "request served", kv: { id, user = user(), ratio = ratio() });
        }
    };
    // The pool waits for what it has been given, and the sink goes with it.
    Sender::new(calls, move || drop(pool))
}

fn ftlog(way: Way, address: &str) -> Result<Sender, Failure> {
    let guard = ftlog::builder()
        .max_log_level(log::LevelFilter::Info)
        .bounded(QUEUE, true)
        .root(writer(way, address)?)
        .try_init()?;
    let calls = |count| {
        for id in 0..count {
            log::info!("request served id={id} user={} ratio={}", user(), ratio());
        }
    };
    Sender::new(calls, move || drop(guard))
}

/// User and system time of all threads of this process so far.
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what is written, and all zeroes is a valid `rusage` if nothing is.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
