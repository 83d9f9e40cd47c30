//! One line makes a program that uses `tracing` or `log` speak Metlog.
//!
//! ```no_run
//! let _metlog = tracing_metlog::init(); // keep it until the end of `main`
//! tracing::info!(user = 7, "logged in");
//! ```
//!
//! Metlog separates making a message from delivering it. The program labels a message with a type; a *router* looks
//! at type, severity, logger and fields, and delivers it: text to a file, timers and counters to statsd, errors to
//! Sentry. This crate makes the messages out of what a program says already, and ships a router for one machine.
//!
//! | what the program has | what leaves it |
//! |---|---|
//! | `tracing` event | `oldstyle`: payload = message, fields = its fields and those of its spans |
//! | `log` record, with key-values | the same, inside the current `tracing` span |
//! | `tracing` span, when it closes | `timer`: payload = elapsed milliseconds, `fields.name`, `rate`, `busy_ms`, `idle_ms` |
//! | `monotonic_counter.x`, `counter.x`, `gauge.x`, `histogram.x` in an event | `counter`, `counter`, `gauge`, `histogram` |
//! | `error = &err as &dyn Error` | the error's text, and its sources in `error.chain` |
//! | a panic | `panic`, severity 1, with location and backtrace, flushed |
//! | a call of [`Client`] | any type |
//!
//! # The way of a message
//!
//! ```text
//!  tracing event, span ── capture/layer ──┐
//!  log record ─────────── capture/logger ─┼─ record ── queue ── delivery/worker ── encode ── transport ── router
//!  Client call ────────── capture/client ─┘  copied,   lanes of   batches,         JSON      udp, tcp, unix,
//!                                            not yet   64 KiB     retries                    http, file
//!                                            formatted chunks
//! ```
//!
//! One direction, one hand-over. The calling thread copies values into a record and goes on; numbers, timestamps,
//! escaping and names are left to one background thread. DESIGN.md says why it is built like that.
//!
//! # Guarantees
//!
//! `emitted = delivered + Σ lost[reason] + pending`, at any time: [`Guard::stats`]. What "delivered" means is the
//! transport's to say:
//!
//! | router | delivered means | lost without notice when |
//! |---|---|---|
//! | `udp://` | the kernel took the datagram, and nobody refused it | the receiver's buffer is full, or the network drops it |
//! | `tcp://` | the peer's kernel has acknowledged it | the peer dies before it has read it |
//! | `unix://` | the peer has read it | the peer dies with it in hand |
//! | `tls://` | as `tcp://`, of the encrypted bytes | the same |
//! | `zmq+tcp://` | as `tcp://`, and somebody has subscribed before | the same |
//! | `http://`, `https://` | the receiver answered 200 to 299 | the receiver was wrong to say so |
//! | `unixgram://` | it is in the receiver's buffer | the receiver dies with it unread |
//! | `file://`, `stdout:` | the kernel has the bytes | the machine stops before they are on disk |
//!
//! What a connection has not confirmed when it breaks is sent again on the next one: the receiver may see some messages
//! twice, and knows them if they have [ids](Builder::message_ids). (Only Linux can say what is confirmed. Elsewhere what
//! the kernel took counts as delivered.) While a router is down, messages wait in the queue; when that is full,
//! [`WhenFull`] decides. Nothing survives `kill -9` but what is in a spool (feature `spool`, `Builder::spool`) or, to the
//! last call that returned, in a crash ring (feature `ring`, `Builder::ring`).
//!
//! Returning from `main`, [`std::process::exit`], a panic, and dropping the [`Guard`] all deliver what is queued,
//! up to the [flush timeout](Builder::flush_timeout).
//!
//! # Features
//!
//! | feature | | what it is |
//! |---|---|---|
//! | `tracing` | default | [`MetlogLayer`] |
//! | `log` | default | [`MetlogLogger`] |
//! | `env-filter` | default | directives for spans and fields in `RUST_LOG` |
//! | `console` | | [`Builder::console`]: a readable copy on stderr |
//! | `log-serde` | | nested `log` key-values as JSON, error sources of `log` key-values |
//! | `valuable` | | `valuable` fields as JSON, with `--cfg tracing_unstable` |
//! | `spool` | | `Builder::spool`: what no router takes waits on disk |
//! | `http` | | `http://` addresses, and the router's HTTP input |
//! | `tls` | | `tls://` addresses and the router's encrypted inputs; with `http` also `https://` |
//! | `zmq` | | `zmq+tcp://` addresses, and the router's ZeroMQ input |
//! | `heka` | | `Encoding::Heka`, `?framing=heka`, and Heka's frames at the router's inputs |
//! | `router` | | `tracing_metlog::router` and the program `metlog-router` |
//! | `ring` | | `Builder::ring`: what was logged survives a crash of the program; Linux |
#![cfg_attr(docsrs, feature(doc_cfg))]
// What only one of the front ends uses is unused without it. A build with both has no such excuse.
#![cfg_attr(not(all(feature = "tracing", feature = "log")), allow(dead_code))]

#[cfg(all(feature = "ring", not(target_os = "linux")))]
compile_error!("the feature `ring` needs Linux: its memory is a file whose blocks must be promised");

// What tests of this crate's inside say of faults goes into the same report as that of others.
#[cfg(test)]
extern crate self as tracing_metlog;
#[cfg(test)]
#[allow(dead_code)]
#[path = "../tests/process_support/fault_report.rs"]
mod fault_report;

mod builder;
mod capture;
mod delivery;
#[cfg(all(fuzzing, feature = "router"))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod message;
mod pipeline;
mod queue;
#[cfg(feature = "router")]
pub mod router;
#[cfg(all(feature = "router", feature = "spool"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "router", feature = "spool"))))]
pub mod spool;
mod stats;

pub use builder::{variables, BuildError, Builder, InitError};
pub use capture::client::{Client, FieldValue, Json, MetricValue, Outgoing, TimerGuard};
#[cfg(feature = "tracing")]
pub use capture::layer::MetlogLayer;
#[cfg(feature = "log")]
pub use capture::logger::MetlogLogger;
pub use delivery::address::{
    Address, AddressError, HekaKey, HekaOptions, HmacHash, HttpOptions, KeyPlace, TlsFiles, ZmqOptions,
};
pub use delivery::batch::Batch;
pub use delivery::encode::{Encoding, NonFinite, SpanContext};
pub use delivery::framing::Framing;
#[cfg(feature = "heka")]
#[cfg_attr(docsrs, doc(cfg(feature = "heka")))]
pub use delivery::heka::{Heka, HekaSigner};
pub use delivery::transport::capture::Capture;
pub use delivery::transport::Transport;
pub use guard::Guard;
pub use message::{Message, Payload, Severity, ENVELOPE_VERSION};
pub use pipeline::{flush, Envelope, Flushed};
#[cfg(feature = "ring")]
pub use queue::ring::Ring;
pub use queue::WhenFull;
pub use stats::{DestinationStats, LossReason, Losses, Stats};

/// The one line: makes this the program's `tracing` subscriber and `log` logger, with `RUST_LOG`, `METLOG_ROUTER`,
/// `METLOG_LOGGER` and the other [`variables`] honoured, and panics sent.
///
/// ```no_run
/// let _metlog = tracing_metlog::init();
/// ```
///
/// # Panics
/// When a variable holds what it must not, or another subscriber or logger is installed: see [`try_init`].
#[cfg(any(feature = "tracing", feature = "log"))]
#[track_caller]
pub fn init() -> Guard {
    builder().init()
}

/// Like [`init`], with an error instead of a panic.
///
/// # Errors
/// [`InitError`] names the variable and what it accepts, or which of the two global slots is taken.
#[cfg(any(feature = "tracing", feature = "log"))]
pub fn try_init() -> Result<Guard, InitError> {
    builder().try_init()
}

/// Begins a configuration.
pub fn builder() -> Builder {
    Builder::new()
}
