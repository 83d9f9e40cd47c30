//! Explicit messages: any type, counters, gauges, timers. What metlog-py's client does, in Rust.
//!
//! In: calls of the program. Out: a record each. A message carries what it was given and nothing else: no span
//! context, no source location. Lost here: metric values that are none (counted).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_core::ser::Serialize;

use super::bytes::Bytes;
use super::record::{Entries, Kind, Name, Part};
use super::{clock, random, thread, Draft, Outline};
use crate::message::Severity;
use crate::pipeline::Pipeline;
use crate::stats::LossReason;

/// Makes messages of any type; a cheap clone, from [`Guard::client`](crate::Guard::client).
///
/// ```
/// use std::time::Duration;
/// use tracing_metlog::{Capture, Severity};
///
/// let capture = Capture::new();
/// let (_layer, guard) = tracing_metlog::builder().logger("app").transport(capture.clone()).build()?;
/// let client = guard.client();
///
/// client.incr("logins");
/// client.gauge("queue.depth", 12);
/// client.timer_send("db.query", Duration::from_micros(12_750));
/// client.message("audit").severity(Severity::Notice).payload("key rotated").field("key", 7).send();
///
/// drop(guard);
/// let messages = capture.messages();
/// assert_eq!((messages[0].r#type.as_str(), &messages[0].fields["name"]), ("counter", &"logins".into()));
/// assert_eq!(messages[1].payload, "12");
/// assert_eq!(messages[2].payload, "12.75");
/// assert_eq!(messages[3].fields["key"], 7);
/// # Ok::<(), tracing_metlog::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Client {
    pipeline: Arc<Pipeline>,
}

impl Client {
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Self {
        Client { pipeline }
    }

    /// Begins a message of any type; [`Outgoing::send`] sends it. An empty type counts as `oldstyle`.
    pub fn message(&self, message_type: &str) -> Outgoing<'_> {
        Outgoing::new(self, message_type)
    }

    /// Counts one: a `counter` message with payload `1`.
    pub fn incr(&self, name: &str) {
        self.counter(name, 1);
    }

    /// Counts `count`, which may be negative: a `counter` message. A fraction cannot be counted; it is refused and
    /// counted as lost (`invalid_metric`).
    pub fn counter(&self, name: &str, count: impl MetricValue) {
        match count.number() {
            Number::Float(value) if value.fract() == 0.0 && value.abs() < i128::MAX as f64 => {
                self.metric("counter", name, Number::Signed(value as i128));
            }
            Number::Float(_) => self.refuse(),
            number => self.metric("counter", name, number),
        }
    }

    /// Says how much there is of something now: a `gauge` message. NaN and infinities are refused and counted as
    /// lost (`invalid_metric`).
    pub fn gauge(&self, name: &str, value: impl MetricValue) {
        match value.number() {
            Number::Float(value) if !value.is_finite() => self.refuse(),
            number => self.metric("gauge", name, number),
        }
    }

    /// Times until the guard is dropped: a `timer` message.
    ///
    /// ```
    /// # let (_layer, guard) = tracing_metlog::builder().router("off").build()?;
    /// # let client = guard.client();
    /// {
    ///     let _timer = client.timer("db.query");
    ///     // the query
    /// } // sent here
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    pub fn timer(&self, name: impl Into<Cow<'static, str>>) -> TimerGuard {
        let name = name.into();
        let start = (!self.pipeline.is_timer_disabled(&name)).then(Instant::now);
        TimerGuard { client: self.clone(), name, start }
    }

    /// Sends a duration measured elsewhere: a `timer` message.
    pub fn timer_send(&self, name: &str, elapsed: Duration) {
        if !self.pipeline.is_timer_disabled(name) {
            self.metric("timer", name, Number::Duration(elapsed));
        }
    }

    /// Runs `work` and sends how long it took, also when it panics: a `timer` message.
    pub fn time<R>(&self, name: &str, work: impl FnOnce() -> R) -> R {
        struct Send<'c>(&'c Client, &'c str, Instant);
        impl Drop for Send<'_> {
            fn drop(&mut self) {
                self.0.timer_send(self.1, self.2.elapsed());
            }
        }
        let _send = Send(self, name, Instant::now());
        work()
    }

    fn refuse(&self) {
        if self.pipeline.enabled {
            self.pipeline.queue.counters.turned_away(LossReason::InvalidMetric, 1);
        }
    }

    fn metric(&self, message_type: &str, name: &str, value: Number) {
        self.send(message_type, Severity::Informational, None, |entries| {
            entries.text(Name::Part(Part::Type), message_type);
            value.write(entries, Name::Part(Part::Payload));
            entries.text(Name::Inline(b"name"), name);
            entries.f64(Name::Inline(b"rate"), 1.0);
        });
    }

    fn send(
        &self,
        message_type: &str,
        severity: Severity,
        logger: Option<&str>,
        write: impl FnOnce(&mut Entries<'_>),
    ) {
        let severity = severity.number();
        if !self.pipeline.passes(message_type, severity, logger) {
            return;
        }
        Draft::capture(&self.pipeline, |mut draft| {
            #[cfg(feature = "tracing")]
            draft.buffer().clear_context();
            let mut entries = draft.entries();
            write(&mut entries);
            let truncated = entries.truncated();
            let kind = Kind::Message;
            draft.finish(Outline { kind, severity, messages: 1, line: true, truncated, callsite: 0 });
            draft.send(severity, 1);
        });
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("logger", &self.pipeline.logger).finish_non_exhaustive()
    }
}

/// A message being put together; from [`Client::message`].
#[must_use = "a message is sent by `.send()`"]
#[derive(Debug)]
pub struct Outgoing<'c> {
    client: &'c Client,
    message_type: String,
    severity: Severity,
    logger: Option<String>,
    rate: f64,
    values: Bytes,
    truncated: bool,
}

impl<'c> Outgoing<'c> {
    fn new(client: &'c Client, message_type: &str) -> Self {
        let message_type = if message_type.is_empty() { "oldstyle" } else { message_type }.to_owned();
        Outgoing {
            client,
            message_type,
            severity: Severity::Informational,
            logger: None,
            rate: 1.0,
            values: thread::take_buffer(),
            truncated: false,
        }
    }

    fn write(mut self, write: impl FnOnce(&mut Entries<'_>)) -> Self {
        let mut entries = Entries::new(&mut self.values);
        write(&mut entries);
        self.truncated |= entries.truncated();
        self
    }

    /// The severity; informational if not set.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The logger; the program's own if not set.
    pub fn logger(mut self, logger: &str) -> Self {
        self.logger = Some(logger.to_owned());
        self
    }

    /// The payload, as text: a string, a number, a [`Duration`] (milliseconds). Empty if not set; the first one
    /// counts.
    pub fn payload(self, payload: impl FieldValue) -> Self {
        self.write(|entries| payload.write(Name::Part(Part::Payload), entries))
    }

    /// One entry of `fields`. Of two with the same name the first counts.
    pub fn field(self, name: &str, value: impl FieldValue) -> Self {
        self.write(|entries| value.write(Name::Inline(name.as_bytes()), entries))
    }

    /// When it happened, up to the year 2554; now if not set.
    pub fn timestamp(self, timestamp: SystemTime) -> Self {
        self.write(|entries| entries.u64(Name::Part(Part::Timestamp), clock::since_epoch(timestamp)))
    }

    /// Makes it a metric: `fields.name`, and `fields.rate`. At a rate below 1 only that share of the messages is
    /// sent, chosen at random, and the rate tells the receiver what to multiply by.
    pub fn metric(mut self, name: &str, rate: f64) -> Self {
        self.rate = if rate.is_nan() { 1.0 } else { rate.clamp(0.0, 1.0) };
        let rate = self.rate;
        self.write(|entries| {
            entries.text(Name::Inline(b"name"), name);
            entries.f64(Name::Inline(b"rate"), rate);
        })
    }

    /// Sends it.
    pub fn send(self) {
        if self.rate < 1.0 && random() >= self.rate {
            return;
        }
        let Outgoing { client, message_type, severity, logger, values, .. } = &self;
        client.send(message_type, *severity, logger.as_deref(), |entries| {
            entries.text(Name::Part(Part::Type), message_type);
            if let Some(logger) = logger {
                entries.text(Name::Part(Part::Logger), logger);
            }
            entries.append(values, self.truncated);
        });
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        thread::put_buffer(std::mem::take(&mut self.values));
    }
}

/// Times from [`Client::timer`] until it is dropped, and then sends a `timer` message.
#[must_use = "it times until it is dropped"]
#[derive(Debug)]
pub struct TimerGuard {
    client: Client,
    name: Cow<'static, str>,
    /// `None` when nothing is to be sent.
    start: Option<Instant>,
}

impl TimerGuard {
    /// Ends without sending anything.
    pub fn discard(mut self) {
        self.start = None;
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            self.client.metric("timer", &self.name, Number::Duration(start.elapsed()));
        }
    }
}

/// What a payload or a field can hold: booleans, numbers, text, [`Duration`] (milliseconds), options, any
/// [`serde_json::Value`], and whatever serializes in a [`Json`].
pub trait FieldValue: sealed::FieldValue {}

/// What can be counted or measured: every integer and float type.
pub trait MetricValue: sealed::MetricValue {}

/// Any serializable value as a field: `message.field("request", Json(&request))`. It stands in the message as `serde_json`
/// writes it: a value that writes a key twice, or an integer of more than 64 bits, is sent like that.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// A number, as it was given.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    #[doc(hidden)]
    Unsigned(u128),
    #[doc(hidden)]
    Signed(i128),
    #[doc(hidden)]
    Float(f64),
    #[doc(hidden)]
    Duration(Duration),
}

impl Number {
    fn write(self, entries: &mut Entries<'_>, name: Name<'_>) {
        match self {
            Number::Unsigned(value) => match u64::try_from(value) {
                Ok(value) => entries.u64(name, value),
                Err(_) => entries.u128(name, value),
            },
            Number::Signed(value) => match i64::try_from(value) {
                Ok(value) => entries.i64(name, value),
                Err(_) => entries.i128(name, value),
            },
            Number::Float(value) => entries.f64(name, value),
            Number::Duration(value) => entries.duration(name, value),
        }
    }
}

mod sealed {
    use super::{Entries, Name, Number};

    pub trait FieldValue {
        #[allow(private_interfaces)]
        fn write(&self, name: Name<'_>, entries: &mut Entries<'_>);
    }

    pub trait MetricValue {
        fn number(&self) -> Number;
    }
}

macro_rules! numbers {
    ($variant:ident as $wide:ty: $($number:ty),*) => { $(
        impl sealed::MetricValue for $number {
            fn number(&self) -> Number {
                Number::$variant(*self as $wide)
            }
        }
        impl MetricValue for $number {}
        #[allow(private_interfaces)]
        impl sealed::FieldValue for $number {
            fn write(&self, name: Name<'_>, entries: &mut Entries<'_>) {
                sealed::MetricValue::number(self).write(entries, name);
            }
        }
        impl FieldValue for $number {}
    )* };
}

numbers!(Unsigned as u128: u8, u16, u32, u64, u128, usize);
numbers!(Signed as i128: i8, i16, i32, i64, i128, isize);
numbers!(Float as f64: f32, f64);

macro_rules! values {
    ($([$($generics:tt)*] $value:ty: |$this:ident, $name:ident, $entries:ident| $write:expr;)*) => { $(
        #[allow(private_interfaces)]
        impl<$($generics)*> sealed::FieldValue for $value {
            fn write(&self, $name: Name<'_>, $entries: &mut Entries<'_>) {
                let $this = self;
                $write
            }
        }
        impl<$($generics)*> FieldValue for $value {}
    )* };
}

values! {
    [] bool: |this, name, entries| entries.bool(name, *this);
    [] str: |this, name, entries| entries.text(name, this);
    [] String: |this, name, entries| entries.text(name, this);
    [] Cow<'_, str>: |this, name, entries| entries.text(name, this);
    [] fmt::Arguments<'_>: |this, name, entries| entries.format(name, *this);
    [] Duration: |this, name, entries| entries.duration(name, *this);
    [] serde_json::Value: |this, name, entries| match this {
        // Text is text, also where there are no quotes around it: in a payload.
        serde_json::Value::String(text) => entries.text(name, text),
        other => Json(other).write(name, entries),
    };
    [T: FieldValue] Option<T>: |this, name, entries| match this {
        Some(value) => value.write(name, entries),
        None => entries.null(name),
    };
    [T: FieldValue + ?Sized] &T: |this, name, entries| (**this).write(name, entries);
    [T: Serialize] Json<T>: |this, name, entries| entries.json(name, |out| serde_json::to_writer(out, &this.0));
}
