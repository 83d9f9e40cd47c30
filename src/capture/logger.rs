//! The `log` front end.
//!
//! In: records of the `log` crate. Out: a record each, with the context of the `tracing` span the thread is in, and
//! the same log record passed on to the logger this one wraps, if any. Nothing is lost here.

use std::sync::Arc;

use log::kv::{self, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::record::{Entries, Kind, Name, Part};
use super::{Draft, Outline};
use crate::pipeline::Pipeline;

/// Sends `log` records as Metlog messages, with their key-values typed: made by
/// [`Builder::build_logger`](crate::Builder::build_logger), or installed by [`init`](crate::init) beside the layer.
///
/// ```
/// use log::Log;
/// use tracing_metlog::Capture;
///
/// let capture = Capture::new();
/// let (logger, guard) = tracing_metlog::builder().filter("info").transport(capture.clone()).build_logger()?;
/// logger.log(&log::Record::builder().level(log::Level::Warn).args(format_args!("low on {}", "ink")).build());
/// drop(guard);
/// assert_eq!(capture.messages()[0].payload, "low on ink");
/// # Ok::<(), tracing_metlog::BuildError>(())
/// ```
pub struct MetlogLogger {
    pipeline: Arc<Pipeline>,
    filter: env_filter::Filter,
    wrapped: Option<Box<dyn Log>>,
    severities: [u8; 5],
}

impl MetlogLogger {
    pub(crate) fn new(pipeline: Arc<Pipeline>, filter: env_filter::Filter, severities: [u8; 5]) -> Self {
        MetlogLogger { pipeline, filter, wrapped: None, severities }
    }

    /// Passes every record on to `logger` as well, which has a filter of its own: a program keeps what it shows
    /// today. Wrapping `tracing_log::LogTracer` shows records to the other layers of a `tracing` stack; a
    /// `MetlogLayer` in it leaves out what it sees that way, so nothing is sent twice.
    ///
    /// ```
    /// # struct Console;
    /// # impl log::Log for Console {
    /// #     fn enabled(&self, _: &log::Metadata<'_>) -> bool { true }
    /// #     fn log(&self, record: &log::Record<'_>) { eprintln!("{}", record.args()) }
    /// #     fn flush(&self) {}
    /// # }
    /// let (logger, _guard) = tracing_metlog::builder().router("off").build_logger()?;
    /// let logger = logger.wrap(Box::new(Console));
    /// logger.install().expect("no other logger is installed");
    /// log::info!("shown and sent");
    /// # Ok::<(), tracing_metlog::BuildError>(())
    /// ```
    #[must_use]
    pub fn wrap(mut self, logger: Box<dyn Log>) -> Self {
        self.wrapped = Some(logger);
        self
    }

    /// Shows records to the other layers of the stack that `init` makes, if there are any.
    #[cfg(feature = "console")]
    pub(crate) fn bridged(self, wanted: bool) -> Self {
        match wanted {
            true => MetlogLogger { wrapped: Some(Box::new(tracing_log::LogTracer::new())), ..self },
            false => self,
        }
    }

    /// The most verbose level this logger takes; what [`log::set_max_level`] should be given. With a wrapped
    /// logger that is everything, because what the wrapped one takes cannot be known.
    pub fn max_level(&self) -> LevelFilter {
        match self.wrapped {
            Some(_) => LevelFilter::Trace,
            None => self.filter.filter(),
        }
    }

    /// Makes it the program's logger and sets [`log::set_max_level`] to [`max_level`](MetlogLogger::max_level).
    ///
    /// # Errors
    /// Another logger is installed already.
    pub fn install(self) -> Result<(), log::SetLoggerError> {
        let level = self.max_level();
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        Ok(())
    }

    fn capture(&self, record: &Record<'_>) {
        let severity = self.severities[match record.level() {
            Level::Error => 0,
            Level::Warn => 1,
            Level::Info => 2,
            Level::Debug => 3,
            Level::Trace => 4,
        }];
        if !self.pipeline.passes("oldstyle", severity, None) {
            return;
        }
        Draft::capture(&self.pipeline, |mut draft| {
            #[cfg(feature = "tracing")]
            draft.buffer().set_context(super::thread::current_of_any(), super::span::append_context);
            let mut entries = draft.entries();
            write(record, &mut entries);
            let truncated = entries.truncated();
            let kind = Kind::Log;
            draft.finish(Outline { kind, severity, messages: 1, line: true, truncated, callsite: 0 });
            draft.send(severity, 1);
        });
    }

    /// Passes the record on. What is captured already is left out by a `MetlogLayer` that sees it that way.
    fn show(&self, record: &Record<'_>, is_captured: bool) {
        match &self.wrapped {
            Some(wrapped) if is_captured => super::thread::bridging(|| wrapped.log(record)),
            Some(wrapped) => wrapped.log(record),
            None => {}
        }
    }
}

#[inline]
fn write(record: &Record<'_>, entries: &mut Entries<'_>) {
    entries.format(Name::Part(Part::Payload), *record.args());
    entries.text(Name::Part(Part::Target), record.target());
    if let Some(module) = record.module_path() {
        entries.text(Name::Part(Part::Module), module);
    }
    if let Some(file) = record.file() {
        entries.text(Name::Part(Part::File), file);
    }
    if let Some(line) = record.line() {
        entries.u64(Name::Part(Part::Line), u64::from(line));
    }
    // A source that fails has given what it could.
    let _ = record.key_values().visit(&mut Pairs { entries });
}

impl Log for MetlogLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
            || self.wrapped.as_ref().is_some_and(|wrapped| wrapped.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let is_captured = self.filter.matches(record);
        if is_captured {
            self.capture(record);
        }
        self.show(record, is_captured);
    }

    /// Delivers what was made before this call, for as long as the guard's flush timeout allows.
    fn flush(&self) {
        self.pipeline.flush(self.pipeline.flush_timeout);
        if let Some(wrapped) = &self.wrapped {
            wrapped.flush();
        }
    }
}

impl std::fmt::Debug for MetlogLogger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = self.filter.filter();
        formatter.debug_struct("MetlogLogger").field("level", &level).finish_non_exhaustive()
    }
}

struct Pairs<'e, 'b> {
    entries: &'e mut Entries<'b>,
}

impl<'kvs> VisitSource<'kvs> for Pairs<'_, '_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let name = Name::Inline(key.as_str().as_bytes());
        value.visit(Pair { name, entries: self.entries })
    }
}

/// One value, with its type.
struct Pair<'e, 'b, 'k> {
    name: Name<'k>,
    entries: &'e mut Entries<'b>,
}

impl<'v> VisitValue<'v> for Pair<'_, '_, '_> {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        #[cfg(feature = "log-serde")]
        self.entries.json(self.name, |out| serde_json::to_writer(out, &value));
        #[cfg(not(feature = "log-serde"))]
        self.entries.display(self.name, value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.entries.null(self.name);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.entries.u64(self.name, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.entries.i64(self.name, value);
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
        self.entries.u128(self.name, value);
        Ok(())
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
        self.entries.i128(self.name, value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.entries.f64(self.name, value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.entries.bool(self.name, value);
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.entries.text(self.name, value);
        Ok(())
    }

    #[cfg(feature = "log-serde")]
    fn visit_error(&mut self, error: &(dyn std::error::Error + 'static)) -> Result<(), kv::Error> {
        self.entries.error(self.name, error);
        Ok(())
    }
}
