//! The `tracing` front end: events, and spans as timers.
//!
//! In: what a `tracing` subscriber tells its layers. Out: a record for every event and for every timed span that
//! closes. Lost here: metric values that are none (counted), and nothing else.

use std::sync::Arc;

use tracing::span::{Attributes, Id as SpanId, Record as SpanRecord};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::callsite::{self, Callsite};
use super::envelope::Overrides;
use super::record::{self, Entries, Kind, Name, Part};
use super::span::{Closed, SpanTable};
use super::thread::{self, Buffer};
use super::timers::Timers;
use super::visit::{PlainVisitor, SpecialVisitor};
use super::{clock, Draft, Outline};
use crate::pipeline::Pipeline;
use crate::stats::LossReason;

/// Sends `tracing` events and span durations as Metlog messages: made by [`Builder::build`](crate::Builder::build),
/// added to any `registry()` stack, with any filter, more than once if need be.
///
/// ```
/// use tracing_metlog::Capture;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let capture = Capture::new();
/// let (layer, guard) = tracing_metlog::builder().transport(capture.clone()).build()?;
/// let subscriber = tracing_subscriber::registry().with(layer);
/// tracing::subscriber::with_default(subscriber, || {
///     let _span = tracing::info_span!("request", id = 7).entered();
///     tracing::warn!(disk = "sda", "nearly full");
/// });
/// drop(guard);
/// let messages = capture.messages();
/// assert_eq!(messages[0].payload, "nearly full");
/// assert_eq!(messages[0].fields["disk"], "sda");
/// assert_eq!(messages[0].fields["id"], 7);
/// assert_eq!(messages[1].r#type, "timer");
/// assert_eq!(messages[1].fields["name"], "request");
/// # Ok::<(), tracing_metlog::BuildError>(())
/// ```
pub struct MetlogLayer {
    pipeline: Arc<Pipeline>,
    spans: Arc<SpanTable>,
    timers: Timers,
    /// The builder's own filter; the stack's filters come before it.
    filter: Option<Targets>,
    /// There is such a filter, or one of the messages'.
    is_filtering: bool,
    severities: [u8; 5],
    /// The same by [`plain_level`](callsite::Id::plain_level), whose three bits need no check.
    plain_severities: [u8; 8],
}

impl MetlogLayer {
    pub(crate) fn new(
        pipeline: Arc<Pipeline>,
        timers: Timers,
        filter: Option<Targets>,
        severities: [u8; 5],
    ) -> Self {
        let [error, warn, info, debug, trace] = severities;
        let plain_severities = [0, error, warn, info, debug, trace, trace, trace];
        let is_filtering = filter.is_some() || !pipeline.filters.is_empty();
        let spans = SpanTable::new();
        MetlogLayer { pipeline, spans, timers, filter, is_filtering, severities, plain_severities }
    }

    /// Whether a filter of this layer's own is against it, or one of the messages'.
    #[inline]
    fn is_plain_event_filtered_out(&self, metadata: &Metadata<'_>, severity: u8) -> bool {
        self.is_filtering
            && (self.is_filtered_out(metadata) || !self.pipeline.passes("oldstyle", severity, None))
    }

    #[inline]
    fn is_filtered_out(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.would_enable(metadata.target(), metadata.level()))
    }

    /// An event that is a message and fields: one record, one message.
    #[inline]
    fn plain_event<S>(&self, event: &Event<'_>, callsite: u64, severity: u8, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        Draft::capture(&self.pipeline, |mut draft| {
            self.set_context(draft.buffer(), event, context);
            let mut visitor = PlainVisitor { entries: draft.entries() };
            event.record(&mut visitor);
            let truncated = visitor.entries.truncated();
            draft.finish(Outline {
                kind: Kind::Event,
                severity,
                messages: 1,
                line: true,
                truncated,
                callsite,
            });
            draft.send(severity, 1);
        });
    }

    /// An event with metrics or with an envelope of its own.
    #[cold]
    #[inline(never)]
    fn special_event<S>(&self, event: &Event<'_>, id: u64, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if self.is_filtered_out(event.metadata()) {
            return;
        }
        Draft::capture(&self.pipeline, |mut draft| {
            self.set_context(draft.buffer(), event, context);
            self.capture_special(draft, event, id);
        });
    }

    fn capture_special(&self, mut draft: Draft<'_, '_>, event: &Event<'_>, id: u64) {
        let Some(callsite) = callsite::look_up(id) else { return };
        if thread::is_bridging() && event.metadata().target() == "log" {
            // `MetlogLogger` has this record already, and shows it to the other layers.
            return;
        }
        let severity = self.severities[usize::from(callsite::level(event.metadata()))];
        let passes = |message_type: &str| self.pipeline.passes(message_type, severity, None);
        let mut visitor = SpecialVisitor::new(draft.entries(), callsite, passes);
        event.record(&mut visitor);
        let (metrics, refused, truncated) = (visitor.metrics, visitor.refused, visitor.truncated());
        let is_line = visitor.is_line();
        if refused > 0 {
            self.pipeline.queue.counters.turned_away(LossReason::InvalidMetric, u64::from(refused));
        }
        let messages = metrics + u8::from(is_line);
        let kind = Kind::Event;
        draft.finish(Outline { kind, severity, messages, line: is_line, truncated, callsite: id });
        if is_line && !self.line_passes(&draft, callsite, severity) {
            if metrics == 0 {
                return;
            }
            draft.drop_line(metrics);
            draft.send(severity, metrics);
        } else if messages > 0 {
            draft.send(severity, messages);
        }
    }

    fn line_passes(&self, draft: &Draft<'_, '_>, callsite: &Callsite, severity: u8) -> bool {
        let Some(record) = draft.record() else { return true };
        let overrides = Overrides::of(&record, callsite);
        let message_type = overrides.message_type.as_deref().unwrap_or("oldstyle");
        self.pipeline.passes(
            message_type,
            overrides.severity.unwrap_or(severity),
            overrides.logger.as_deref(),
        )
    }

    /// The context of the span an event is in: the one it names, else the one this thread is in.
    #[inline]
    fn set_context<S>(&self, buffer: &mut Buffer, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if !event.is_contextual() || !buffer.has_context_of_current(self.spans.layer()) {
            self.set_new_context(buffer, event, context);
        }
    }

    #[inline(never)]
    fn set_new_context<S>(&self, buffer: &mut Buffer, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if event.is_contextual() {
            let current = thread::current_span(self.spans.layer());
            return buffer.set_context(current, |of, bytes| self.spans.append_context(of.span, bytes));
        }
        match event.parent().and_then(|parent| self.nearest_known(parent, context)) {
            Some(span) => {
                buffer.set_other_context(|bytes| self.spans.append_context(span, bytes));
            }
            None => buffer.clear_context(),
        }
    }

    /// The span a new span is in, as far as this layer knows it.
    fn parent_of<S>(&self, attributes: &Attributes<'_>, id: &SpanId, context: &Context<'_, S>) -> Option<u64>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if attributes.is_contextual() {
            let current = thread::current_span_number(self.spans.layer());
            return (current != 0).then_some(current);
        }
        let parent = attributes.parent()?;
        if self.spans.contains(parent.into_u64()) {
            return Some(parent.into_u64());
        }
        self.nearest_known_parent(id, context)
    }

    /// The named parent is one that a filter hid from this layer, or older than it: the next one above counts.
    #[cold]
    fn nearest_known_parent<S>(&self, id: &SpanId, context: &Context<'_, S>) -> Option<u64>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.nearest_known(&context.span(id)?.parent()?.id(), context)
    }

    /// A span, or if this layer does not know it the next one above that it knows.
    fn nearest_known<S>(&self, id: &SpanId, context: &Context<'_, S>) -> Option<u64>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if self.spans.contains(id.into_u64()) {
            return Some(id.into_u64());
        }
        let known =
            context.span(id)?.scope().map(|span| span.id().into_u64()).find(|&id| self.spans.contains(id));
        known
    }

    /// A timed span is over: one record, one message.
    #[inline]
    fn send_timer(&self, id: u64) {
        if !self.pipeline.takes_messages() {
            return self.drop_timer(id, LossReason::Forked);
        }
        let Some(mut buffer) = thread::take() else {
            return self.drop_timer(id, LossReason::Recursive);
        };
        self.capture_timer(Draft::new(&self.pipeline, &mut buffer), id);
        thread::put_back(buffer);
    }

    #[inline(always)]
    fn capture_timer(&self, mut draft: Draft<'_, '_>, id: u64) {
        let now = draft.time();
        let write = |closed: Closed<'_>| {
            if closed.rate == 0.0 {
                return None;
            }
            draft.buffer().set_other_context(|bytes| bytes.extend_from_slice(closed.context));
            let elapsed = now.saturating_sub(closed.created);
            let mut entries = draft.entries();
            entries.u64(Name::Part(Part::Elapsed), elapsed);
            entries.u64(Name::Part(Part::Busy), closed.busy.min(elapsed));
            entries.f64(Name::Part(Part::Rate), closed.rate);
            Some(record::first_callsite(closed.context))
        };
        let Some(callsite) = self.spans.remove(id, write).flatten() else { return };
        if !self.pipeline.passes("timer", TIMER_SEVERITY, None) {
            return;
        }
        let (kind, severity) = (Kind::Timer, TIMER_SEVERITY);
        draft.finish(Outline { kind, severity, messages: 1, line: true, truncated: false, callsite });
        draft.send(severity, 1);
    }

    /// A span is over where nothing can be captured: in a forked child, or too deep in a value that is being captured.
    /// On this crate's own threads too, but there no span is one this layer knows.
    #[cold]
    #[inline(never)]
    fn drop_timer(&self, id: u64, reason: LossReason) {
        let is_timed = self.spans.remove(id, |closed| closed.rate != 0.0).unwrap_or(false);
        if is_timed && self.pipeline.enabled {
            self.pipeline.queue.counters.turned_away(reason, 1);
        }
    }
}

/// How severe a timer's message is; the client's default, because nobody says how bad a span is.
const TIMER_SEVERITY: u8 = 6;

impl<S> Layer<S> for MetlogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        callsite::id(metadata);
        // Never `never`: that would switch the callsite off for the other layers too.
        Interest::always()
    }

    #[inline]
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let callsite = callsite::id(metadata);
        let level = callsite.plain_level();
        if level == 0 {
            return self.special_event(event, callsite.id, &context);
        }
        let severity = self.plain_severities[level % 8];
        if !self.is_plain_event_filtered_out(metadata, severity) {
            self.plain_event(event, callsite.id, severity, &context);
        }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &SpanId, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if !self.pipeline.takes_messages() || self.is_filtered_out(metadata) {
            return;
        }
        // A span made where nothing can be captured is one this layer does not know.
        let Some(mut buffer) = thread::take() else { return };
        let bytes = &mut buffer.bytes;
        let start = bytes.len();
        let callsite = callsite::id(metadata).id;
        let entries = record::begin_span(bytes, callsite);
        let mut visitor = PlainVisitor { entries: Entries::new(bytes) };
        attributes.record(&mut visitor);
        let is_cut = visitor.entries.truncated();
        record::finish_span(bytes, entries, is_cut);
        let rate = self.timers.rate(callsite, metadata, |name| self.pipeline.is_timer_disabled(name));
        let parent = self.parent_of(attributes, id, &context);
        self.spans.insert(id.into_u64(), parent, rate, clock::now(), bytes, start);
        thread::put_back(buffer);
    }

    fn on_record(&self, id: &SpanId, values: &SpanRecord<'_>, _context: Context<'_, S>) {
        if !self.spans.contains(id.into_u64()) {
            return;
        }
        // What a value that is being captured records about a span, too deep down, is left out.
        let Some(mut buffer) = thread::take() else { return };
        let bytes = &mut buffer.bytes;
        let start = bytes.len();
        let mut visitor = PlainVisitor { entries: Entries::new(bytes) };
        values.record(&mut visitor);
        let is_cut = visitor.entries.truncated();
        self.spans.record(id.into_u64(), &bytes[start..], is_cut);
        thread::put_back(buffer);
    }

    fn on_enter(&self, id: &SpanId, _context: Context<'_, S>) {
        let span = id.into_u64();
        if self.spans.enter(span, clock::now) {
            thread::enter(self.spans.layer(), span);
        }
    }

    fn on_exit(&self, id: &SpanId, _context: Context<'_, S>) {
        let span = id.into_u64();
        thread::exit(self.spans.layer(), span);
        self.spans.exit(span, clock::now);
    }

    fn on_close(&self, id: SpanId, _context: Context<'_, S>) {
        self.send_timer(id.into_u64());
    }
}

impl std::fmt::Debug for MetlogLayer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MetlogLayer").field("stats", &self.pipeline.stats()).finish_non_exhaustive()
    }
}
