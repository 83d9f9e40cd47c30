//! The values of a `tracing` event or span, one by one.
//!
//! In: `Visit` calls. Out: entries of a record, and what they make: how many messages, whether a line of its own.
//! Lost here: metric values that cannot be one, counted by the layer.

use std::error::Error;
use std::fmt;

use tracing::field::{Field, Visit};

use super::callsite::{Callsite, Metric, Role};
use super::record::{Entries, Name};

fn name(field: &Field) -> Name<'static> {
    // Far below the limit of a name's number: `tracing` allows a callsite 32 fields.
    Name::Field(field.index() as u32)
}

/// Takes every value of a span, or of an event that is only a message and fields.
pub(crate) struct PlainVisitor<'b> {
    pub(crate) entries: Entries<'b>,
}

impl Visit for PlainVisitor<'_> {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.entries.f64(name(field), value);
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.entries.i64(name(field), value);
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.entries.u64(name(field), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.entries.i128(name(field), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.entries.u128(name(field), value);
    }

    #[inline]
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.entries.bool(name(field), value);
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        self.entries.text(name(field), value);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.entries.bytes(name(field), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.entries.error(name(field), value);
    }

    #[inline]
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.entries.debug(name(field), value);
    }

    #[cfg(all(tracing_unstable, feature = "valuable"))]
    fn record_value(&mut self, field: &Field, value: valuable::Value<'_>) {
        self.entries
            .json(name(field), |out| serde_json::to_writer(out, &valuable_serde::Serializable::new(value)));
    }
}

/// Takes the values of an event that may be more than a line: metrics, or an envelope of its own.
pub(crate) struct SpecialVisitor<'b, P> {
    plain: PlainVisitor<'b>,
    callsite: &'static Callsite,
    /// Whether the filters let a message of this type pass.
    passes: P,
    /// Metrics taken.
    pub(crate) metrics: u8,
    /// Metrics refused because their value cannot be one.
    pub(crate) refused: u8,
    /// A message or a payload was given.
    has_text: bool,
}

impl<'b, P: Fn(&str) -> bool> SpecialVisitor<'b, P> {
    /// An event makes at most this many metrics; more are refused, so that a record can count them in a byte.
    const MOST_METRICS: u8 = 200;

    pub(crate) fn new(entries: Entries<'b>, callsite: &'static Callsite, passes: P) -> Self {
        let plain = PlainVisitor { entries };
        SpecialVisitor { plain, callsite, passes, metrics: 0, refused: 0, has_text: false }
    }

    pub(crate) fn truncated(&self) -> bool {
        self.plain.entries.truncated()
    }

    /// Whether the event is a line of its own, besides its metrics: if it says something, or has no metrics.
    pub(crate) fn is_line(&self) -> bool {
        self.has_text || !self.callsite.roles.iter().any(|role| matches!(role, Role::Metric(..)))
    }

    /// Passes a value on to the entries; a metric's only if it is `accepted` as one.
    fn take(
        &mut self,
        field: &Field,
        accepted: impl FnOnce(Metric) -> bool,
        record: impl FnOnce(&mut PlainVisitor<'b>),
    ) {
        match self.callsite.roles.get(field.index()) {
            Some(Role::Metric(metric, _)) => {
                if !accepted(*metric) || self.metrics >= Self::MOST_METRICS {
                    self.refused = self.refused.saturating_add(1);
                    return;
                }
                if !(self.passes)(metric.message_type()) {
                    return;
                }
                self.metrics += 1;
            }
            Some(Role::Message | Role::Payload) => self.has_text = true,
            _ => {}
        }
        record(&mut self.plain);
    }
}

/// Whether a float counts something: whole, and below zero only where that makes sense.
fn is_metric(metric: Metric, value: f64) -> bool {
    match metric {
        Metric::Gauge | Metric::Histogram => value.is_finite(),
        Metric::Counter => value.is_finite() && value.fract() == 0.0,
        Metric::MonotonicCounter => value.is_finite() && value.fract() == 0.0 && value >= 0.0,
    }
}

impl<P: Fn(&str) -> bool> Visit for SpecialVisitor<'_, P> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, |metric| is_metric(metric, value), |plain| plain.record_f64(field, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let accepted = |metric| metric != Metric::MonotonicCounter || value >= 0;
        self.take(field, accepted, |plain| plain.record_i64(field, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, |_| true, |plain| plain.record_u64(field, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        let accepted = |metric| metric != Metric::MonotonicCounter || value >= 0;
        self.take(field, accepted, |plain| plain.record_i128(field, value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.take(field, |_| true, |plain| plain.record_u128(field, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, |_| false, |plain| plain.record_bool(field, value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, |_| false, |plain| plain.record_str(field, value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.take(field, |_| false, |plain| plain.record_bytes(field, value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.take(field, |_| false, |plain| plain.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, |_| false, |plain| plain.record_debug(field, value));
    }

    #[cfg(all(tracing_unstable, feature = "valuable"))]
    fn record_value(&mut self, field: &Field, value: valuable::Value<'_>) {
        self.take(field, |_| false, |plain| plain.record_value(field, value));
    }
}
