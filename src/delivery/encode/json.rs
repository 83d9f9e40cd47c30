//! Metlog's JSON envelope, version 0.8.
//!
//! In: a record. Out: one message on one line, with exactly the nine keys of the envelope. Which value stands under
//! a name that several want is one rule: the first of 1. what the message's type demands (`name`, `rate`,
//! `busy_ms`, `idle_ms`), 2. the event's own fields, in their order, 3. the fields of the enclosing spans, innermost
//! first, 4. what this crate adds (`target`, `thread`, ...). A name is written once in an object, always.
//!
//! What a callsite makes of its names is prepared once and copied from then on.

use std::collections::HashMap;
use std::time::Duration;

#[cfg(feature = "tracing")]
use crate::capture::callsite::{self, Callsite, Description, Metric, Role};
use crate::capture::clock::WallClock;
#[cfg(feature = "tracing")]
use crate::capture::envelope::{self, Overrides};
use crate::capture::record::{EntryIter, Kind, Name, Part, Record, Texts, Value};
use crate::message::ENVELOPE_VERSION;

use super::ids::{Ids, FIELD};
use super::names::{own, Names, Taken, OWN};
use super::text::{self, Timestamps};
use super::{Origin, SpanContext, Style};
#[cfg(feature = "heka")]
use crate::delivery::heka::Exact;

/// Whose records are encoded: what their callsites are, and what their clock says.
#[derive(Debug, Default)]
enum Source {
    /// Of this process.
    #[default]
    Here,
    /// Of a process that has crashed, with its callsites by id.
    #[cfg(feature = "ring")]
    CrashRing(std::sync::Arc<HashMap<u64, &'static Callsite>>),
}

impl Source {
    #[cfg(feature = "tracing")]
    fn look_up(&self, id: u64) -> Option<&'static Callsite> {
        match self {
            Source::Here => callsite::look_up(id),
            #[cfg(feature = "ring")]
            Source::CrashRing(callsites) => callsites.get(&id).copied(),
        }
    }
}

/// Encodes records as Metlog JSON.
pub(crate) struct JsonEncoder {
    style: Style,
    source: Source,
    clock: WallClock,
    timestamps: Timestamps,
    names: Names,
    taken: Taken,
    prepared: Vec<Prepared>,
    indices: HashMap<u64, usize>,
    /// The callsite that was looked up last, and its index.
    last: (u64, usize),
    /// Indices of the spans of the record at hand, innermost first.
    spans: Vec<usize>,
    ids: Option<Ids>,
    /// Something of the record at hand was cut.
    is_cut: bool,
    /// From the type to the payload's opening quote, of an `oldstyle` message, by severity.
    heads: [Vec<u8>; 8],
    /// From the end of the fields to the end of the message.
    tail: Vec<u8>,
}

/// What is known of a callsite's names, ready to be copied.
#[derive(Debug, Default)]
struct Prepared {
    keys: Vec<Key>,
    /// The name of a span, as the inside of a JSON string.
    name: Vec<u8>,
    /// `target`, `module`, `file` and `line`, as far as they are wanted, each followed by a comma.
    origin: Vec<u8>,
    /// No span, but what stands for those that were left out.
    is_left_out: bool,
    /// The index of an event's message.
    message: Option<u32>,
    #[cfg(feature = "tracing")]
    callsite: Option<&'static Callsite>,
    #[cfg(feature = "tracing")]
    plain: bool,
}

#[derive(Debug)]
struct Key {
    number: u32,
    /// The number of `<name>.chain`.
    chain: u32,
    /// `"name":`
    json: Vec<u8>,
    /// Whether it is written when a span has it.
    in_context: bool,
}

impl Key {
    fn new(name: &[u8], names: &mut Names, style: &Style) -> Key {
        let chain = [name, b".chain"].concat();
        let wanted = |keys: &Vec<String>| keys.iter().any(|key| key.as_bytes() == name);
        Key {
            number: names.number(name),
            chain: names.number(&chain),
            json: key(name),
            in_context: style.span_keys.as_ref().is_none_or(wanted),
        }
    }
}

/// `"name":`
fn key(name: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(name.len() + 3);
    text::string(name, &mut json);
    json.push(b':');
    json
}

impl JsonEncoder {
    pub(crate) fn new(style: Style) -> Self {
        let heads = std::array::from_fn(|severity| head("oldstyle", &style.logger, severity as u8));
        let tail = tail(&style);
        JsonEncoder {
            clock: WallClock::new(),
            timestamps: Timestamps::new(),
            names: Names::new(),
            taken: Taken::default(),
            prepared: Vec::new(),
            indices: HashMap::new(),
            last: (0, 0),
            spans: Vec::new(),
            ids: style.message_ids.then(|| Ids::new(style.process_id)),
            is_cut: false,
            heads,
            tail,
            style,
            source: Source::Here,
        }
    }

    /// Encodes what a process has left that crashed.
    #[cfg(feature = "ring")]
    pub(crate) fn of_crash_ring(
        style: Style,
        clock: WallClock,
        callsites: std::sync::Arc<HashMap<u64, &'static Callsite>>,
    ) -> Self {
        JsonEncoder { clock, source: Source::CrashRing(callsites), ..JsonEncoder::new(style) }
    }

    /// To be called now and then: keeps time, and memory within bounds.
    pub(crate) fn tick(&mut self) {
        if matches!(self.source, Source::Here) {
            self.clock.refresh();
        }
        if self.names.is_full() {
            let (source, ids) = (std::mem::take(&mut self.source), self.ids.take());
            *self = JsonEncoder { source, ids, clock: self.clock, ..JsonEncoder::new(self.style.clone()) };
        }
    }

    /// Appends message number `index` of those the record makes. Whether it says that it was cut.
    pub(crate) fn encode(&mut self, record: &Record<'_>, index: u8, out: &mut Vec<u8>) -> bool {
        self.write_timestamp(record, out);
        let own = self.find_spans_and_callsite(record);
        match record.header.kind {
            Kind::Event => self.event(record, own, index, out),
            Kind::Timer => self.timer(record, own, out),
            Kind::Log => self.log(record, out),
            Kind::Message => self.message(record, out),
        }
        if out.last() == Some(&b',') {
            out.pop();
        }
        out.extend_from_slice(&self.tail);
        self.is_cut
    }

    /// A message of this crate itself, with ready fields: `"reason":12,` and so on.
    pub(crate) fn encode_own(
        &mut self,
        message_type: &str,
        severity: u8,
        payload: &str,
        fields: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.timestamps.write(self.clock.at(crate::capture::clock::now()), out);
        out.extend_from_slice(&head(message_type, &self.style.logger, severity));
        text::escape(payload.as_bytes(), out);
        out.extend_from_slice(b"\",\"fields\":{");
        if let Some(ids) = &mut self.ids {
            out.extend_from_slice(&key(FIELD.as_bytes()));
            ids.write(out);
            out.push(b',');
        }
        out.extend_from_slice(fields.strip_suffix(b",").unwrap_or(fields));
        out.extend_from_slice(&self.tail);
    }

    #[inline]
    fn write_timestamp(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        let time = self.time(record);
        self.timestamps.write(time, out);
    }

    /// When the message was made, in nanoseconds since the epoch.
    #[inline]
    fn time(&self, record: &Record<'_>) -> u64 {
        match record.header.kind {
            Kind::Message => match record.part(Part::Timestamp) {
                Some(Value::U64(time)) => time,
                _ => self.clock.at(record.header.time),
            },
            _ => self.clock.at(record.header.time),
        }
    }

    /// What the message that [`encode`](JsonEncoder::encode) made of `record` does not say: another form may.
    #[cfg(feature = "heka")]
    pub(crate) fn exact(&self, record: &Record<'_>) -> Exact {
        let mut bytes = Vec::new();
        let mut find = |callsite: u64, entries: EntryIter<'_>| {
            for (name, value) in entries {
                if let Value::Bytes(value) = value {
                    bytes.extend(self.name_of(callsite, name).map(|name| (name, value.to_vec())));
                }
            }
        };
        find(record.header.callsite, record.entries());
        record.context().for_each(|span| find(span.callsite, span.entries));
        Exact { nanoseconds: self.time(record), bytes }
    }

    #[cfg(feature = "heka")]
    fn name_of(&self, callsite: u64, name: Name<'_>) -> Option<String> {
        match name {
            Name::Inline(name) => Some(String::from_utf8_lossy(name).into_owned()),
            #[cfg(feature = "tracing")]
            Name::Field(index) => {
                let fields = &self.source.look_up(callsite)?.description.fields;
                fields.get(index as usize).map(|name| name.to_string())
            }
            _ => {
                let _ = callsite;
                None
            }
        }
    }

    /// Looks up, or prepares, every callsite of the record. Returns the index of its own.
    #[inline]
    fn find_spans_and_callsite(&mut self, record: &Record<'_>) -> usize {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        self.is_cut = record.header.truncated;
        spans.extend(record.context().map(|span| {
            self.is_cut |= span.is_cut;
            self.index(span.callsite)
        }));
        self.is_cut |= spans.last().is_some_and(|&outermost| self.prepared[outermost].is_left_out);
        self.spans = spans;
        self.index(record.header.callsite)
    }

    #[inline]
    fn index(&mut self, callsite: u64) -> usize {
        if self.last.0 == callsite && !self.prepared.is_empty() {
            return self.last.1;
        }
        let index = match self.indices.get(&callsite) {
            Some(&index) => index,
            None => self.prepare(callsite),
        };
        self.last = (callsite, index);
        index
    }

    #[cold]
    fn prepare(&mut self, callsite: u64) -> usize {
        let mut prepared = Prepared::new(callsite, &self.source, &mut self.names, &self.style);
        if callsite == 0 {
            // Stands for outer spans that were left out of a context.
            prepared.name = b"...".to_vec();
            prepared.is_left_out = true;
        }
        self.prepared.push(prepared);
        let index = self.prepared.len() - 1;
        self.indices.insert(callsite, index);
        index
    }

    /// Begins the fields of a message: a writer for them, and what it needs. A message that was cut says so first.
    #[inline]
    fn begin_fields(&mut self, out: &mut Vec<u8>) -> (Fields<'_>, &[Prepared], &[usize], &Style) {
        let JsonEncoder { names, taken, prepared, spans, style, ids, is_cut, .. } = self;
        taken.begin();
        let mut fields = Fields { names, taken, style };
        out.extend_from_slice(b"\",\"fields\":{");
        if *is_cut {
            fields.own_key(own::TRUNCATED, out);
            out.extend_from_slice(b"true,");
        }
        if let Some(ids) = ids {
            fields.own_key(own::METLOG_ID, out);
            ids.write(out);
            out.push(b',');
        }
        (fields, prepared, spans, style)
    }

    #[cfg(feature = "tracing")]
    #[inline]
    fn event(&mut self, record: &Record<'_>, own: usize, index: u8, out: &mut Vec<u8>) {
        if !self.prepared[own].plain {
            return self.special_event(record, own, index, out);
        }
        let message = self.prepared[own].message;
        out.extend_from_slice(&self.heads[usize::from(record.header.severity & 7)]);
        if let Some(message) = message {
            if let Some((_, value)) = record.entries().find(|(name, _)| *name == Name::Field(message)) {
                payload(value, &self.style, out);
            }
        }
        let (mut fields, prepared, spans, _) = self.begin_fields(out);
        fields.own(record.entries(), &prepared[own], |index| Some(index) != message, out);
        fields.surroundings(record, prepared, spans, out);
        fields.origin(record, &prepared[own], prepared, spans, out);
    }

    /// An event with metrics, or with an envelope of its own, or handed over by `tracing-log`.
    #[cfg(feature = "tracing")]
    #[cold]
    fn special_event(&mut self, record: &Record<'_>, own: usize, index: u8, out: &mut Vec<u8>) {
        let Some(callsite) = self.prepared[own].callsite else {
            out.extend_from_slice(&self.heads[usize::from(record.header.severity & 7)]);
            return out.extend_from_slice(b"\",\"fields\":{");
        };
        let role = |name: Name<'_>| match name {
            Name::Field(index) => callsite.roles.get(index as usize).unwrap_or(&Role::Plain),
            _ => &Role::Plain,
        };
        let metrics = record.entries().filter(|(name, _)| matches!(role(*name), Role::Metric(..)));
        let overrides = Overrides::of(record, callsite);
        let logger = overrides.logger.as_deref().unwrap_or(&self.style.logger);
        let severity = overrides.severity.unwrap_or(record.header.severity);
        let metric = metrics.clone().nth(index as usize).and_then(|(name, value)| match role(name) {
            Role::Metric(metric, name) => Some((*metric, name, value)),
            _ => None,
        });
        let message =
            record.entries().find(|(name, _)| *role(*name) == Role::Message).map(|(_, value)| value);
        let message_type = match metric {
            Some((metric, ..)) => metric.message_type(),
            None => overrides.message_type.as_deref().unwrap_or("oldstyle"),
        };
        out.extend_from_slice(&head(message_type, logger, severity));
        match (metric, overrides.payload.or(message)) {
            (Some((metric, _, value)), _) => metric_payload(metric, value, out),
            (None, Some(value)) => payload(value, &self.style, out),
            (None, None) => {}
        }
        let payload_overridden = overrides.payload.is_some() && metric.is_none();
        let (mut fields, prepared, spans, style) = self.begin_fields(out);
        if let Some((_, name, _)) = metric {
            fields.name_and_rate(name.as_bytes(), 1.0, out);
        }
        let is_field = |index: u32, value: Value<'_>| match role(Name::Field(index)) {
            Role::Plain => true,
            Role::Message => payload_overridden,
            // What cannot be used as what it is called stays a field, so that it is not lost.
            Role::Severity => envelope::severity(value).is_none(),
            _ => false,
        };
        for (name, value) in record.entries() {
            if let Name::Field(index) = name {
                if is_field(index, value) {
                    fields.one(&prepared[own].keys[index as usize], value, out);
                }
            }
        }
        fields.surroundings(record, prepared, spans, out);
        fields.bridged_origin(record, callsite, style.origin, out);
        fields.origin(record, &prepared[own], prepared, spans, out);
    }

    #[cfg(not(feature = "tracing"))]
    fn event(&mut self, _: &Record<'_>, _: usize, _: u8, _: &mut Vec<u8>) {}

    fn timer(&mut self, record: &Record<'_>, own: usize, out: &mut Vec<u8>) {
        let duration = |part| match record.part(part) {
            Some(Value::U64(nanoseconds)) => Duration::from_nanos(nanoseconds),
            _ => Duration::ZERO,
        };
        let (elapsed, busy) = (duration(Part::Elapsed), duration(Part::Busy));
        let rate = match record.part(Part::Rate) {
            Some(Value::F64(rate)) => rate,
            _ => 1.0,
        };
        out.extend_from_slice(&head("timer", &self.style.logger, record.header.severity));
        text::milliseconds(elapsed, self.style.whole_milliseconds, out);
        let (mut fields, prepared, spans, _) = self.begin_fields(out);
        fields.name_and_rate_escaped(&prepared[own].name, rate, out);
        for (number, value) in [(own::BUSY, busy), (own::IDLE, elapsed.saturating_sub(busy))] {
            fields.own_key(number, out);
            text::milliseconds(value, false, out);
            out.push(b',');
        }
        fields.surroundings(record, prepared, spans, out);
        fields.origin(record, &prepared[own], prepared, spans, out);
    }

    fn log(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        match record.part(Part::Type) {
            Some(Value::Text(message_type)) => {
                let message_type = String::from_utf8_lossy(message_type);
                out.extend_from_slice(&head(&message_type, &self.style.logger, record.header.severity));
            }
            _ => out.extend_from_slice(&self.heads[usize::from(record.header.severity & 7)]),
        }
        if let Some(value) = record.part(Part::Payload) {
            payload(value, &self.style, out);
        }
        let (mut fields, prepared, spans, style) = self.begin_fields(out);
        fields.inline(record.entries(), out);
        fields.surroundings(record, prepared, spans, out);
        let Origin { target, module, file, line, .. } = style.origin;
        let wanted = [target, module, file, line];
        let parts = [Part::Target, Part::Module, Part::File, Part::Line];
        let numbers = [own::TARGET, own::MODULE, own::FILE, own::LINE];
        for ((part, number), _) in parts.into_iter().zip(numbers).zip(wanted).filter(|(_, wanted)| *wanted) {
            if let Some(value) = record.part(part) {
                fields.added(number, value, out);
            }
        }
        fields.place(record, prepared, spans, out);
    }

    fn message(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let part = |part| match record.part(part) {
            Some(Value::Text(text)) => Some(String::from_utf8_lossy(text)),
            _ => None,
        };
        let logger = part(Part::Logger);
        let logger = logger.as_deref().unwrap_or(&self.style.logger);
        out.extend_from_slice(&head(
            part(Part::Type).as_deref().unwrap_or("oldstyle"),
            logger,
            record.header.severity,
        ));
        if let Some(value) = record.part(Part::Payload) {
            payload(value, &self.style, out);
        }
        let (mut fields, ..) = self.begin_fields(out);
        fields.inline(record.entries(), out);
    }
}

impl Prepared {
    #[cfg(feature = "tracing")]
    fn new(id: u64, source: &Source, names: &mut Names, style: &Style) -> Prepared {
        let Some(callsite) = source.look_up(id) else { return Prepared::default() };
        let Description { fields, name: plain_name, .. } = &callsite.description;
        let keys = fields.iter().map(|field| Key::new(field.as_bytes(), names, style)).collect();
        let message = callsite.roles.iter().position(|role| *role == Role::Message);
        let mut name = Vec::new();
        text::escape(plain_name.as_bytes(), &mut name);
        Prepared {
            keys,
            name,
            origin: origin(&callsite.description, style.origin),
            is_left_out: false,
            message: message.and_then(|index| u32::try_from(index).ok()),
            callsite: Some(callsite),
            plain: callsite.is_plain(),
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn new(_: u64, _: &Source, _: &mut Names, _: &Style) -> Prepared {
        Prepared::default()
    }
}

#[cfg(feature = "tracing")]
fn origin(description: &Description, wanted: Origin) -> Vec<u8> {
    let mut json = Vec::new();
    let mut add = |number: u32, value: Option<&str>| {
        if let Some(value) = value {
            json.extend_from_slice(&key(OWN[number as usize].as_bytes()));
            text::string(value.as_bytes(), &mut json);
            json.push(b',');
        }
    };
    add(own::TARGET, Some(&*description.target).filter(|_| wanted.target));
    add(own::MODULE, description.module.as_deref().filter(|_| wanted.module));
    add(own::FILE, description.file.as_deref().filter(|_| wanted.file));
    if let Some(line) = description.line.filter(|_| wanted.line) {
        json.extend_from_slice(b"\"line\":");
        text::integer(line, &mut json);
        json.push(b',');
    }
    json
}

/// Writes the inside of a `fields` object, every value followed by a comma.
struct Fields<'e> {
    names: &'e mut Names,
    taken: &'e mut Taken,
    style: &'e Style,
}

impl Fields<'_> {
    /// The message's own fields, those `wanted`.
    #[inline]
    fn own(
        &mut self,
        entries: EntryIter<'_>,
        own: &Prepared,
        wanted: impl Fn(u32) -> bool,
        out: &mut Vec<u8>,
    ) {
        for (name, value) in entries {
            let Name::Field(index) = name else { continue };
            if wanted(index) {
                if let Some(key) = own.keys.get(index as usize) {
                    self.one(key, value, out);
                }
            }
        }
    }

    #[inline]
    fn one(&mut self, key: &Key, value: Value<'_>, out: &mut Vec<u8>) {
        if self.taken.take(key.number) {
            out.extend_from_slice(&key.json);
            self.value(value, out);
            if let Value::Error(_, sources) = value {
                self.chain(key, sources, out);
            }
        }
    }

    /// `<name>.chain`: the sources of an error.
    fn chain(&mut self, key: &Key, sources: Texts<'_>, out: &mut Vec<u8>) {
        if sources.clone().next().is_none() || !self.taken.take(key.chain) {
            return;
        }
        // The key without `":`, and then the rest of it.
        out.extend_from_slice(&key.json[..key.json.len() - 2]);
        out.extend_from_slice(b".chain\":[");
        for source in sources {
            text::string(source, out);
            out.push(b',');
        }
        out.pop();
        out.extend_from_slice(b"],");
    }

    /// Fields that bring their names along.
    fn inline(&mut self, entries: EntryIter<'_>, out: &mut Vec<u8>) {
        for (name, value) in entries {
            if let Name::Inline(name) = name {
                let key = Key::new(name, self.names, self.style);
                self.one(&key, value, out);
            }
        }
    }

    fn value(&self, value: Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::U64(value) => text::integer(value, out),
            Value::I64(value) => text::integer(value, out),
            Value::U128(value) => self.wide(value, u64::try_from(value).is_ok(), out),
            Value::I128(value) => {
                self.wide(value, i64::try_from(value).is_ok() || u64::try_from(value).is_ok(), out);
            }
            Value::F64(value) => text::float(value, self.style.non_finite, out),
            Value::Duration(value) => text::milliseconds(value, false, out),
            Value::Text(value) | Value::Error(value, _) => text::string(value, out),
            Value::Bytes(value) => {
                out.push(b'"');
                text::hex(value, out);
                out.push(b'"');
            }
            Value::Json(value) => out.extend_from_slice(value),
        }
        out.push(b',');
    }

    /// A number as it is if a 64-bit reader can hold it, else as a string.
    fn wide(&self, value: impl itoa::Integer, fits: bool, out: &mut Vec<u8>) {
        if fits {
            return text::integer(value, out);
        }
        out.push(b'"');
        text::integer(value, out);
        out.push(b'"');
    }

    /// The fields of the enclosing spans, in the shape that is wanted.
    #[inline]
    fn surroundings(
        &mut self,
        record: &Record<'_>,
        prepared: &[Prepared],
        spans: &[usize],
        out: &mut Vec<u8>,
    ) {
        if spans.is_empty() {
            return;
        }
        match self.style.span_context {
            SpanContext::Flat => self.flat(record, prepared, spans, out),
            SpanContext::Nested => self.nested(record, prepared, spans, out),
            SpanContext::List => self.list(record, prepared, spans, out),
            SpanContext::None => {}
        }
    }

    #[inline]
    fn flat(&mut self, record: &Record<'_>, prepared: &[Prepared], spans: &[usize], out: &mut Vec<u8>) {
        for (part, &span) in record.context().zip(spans) {
            self.span(part.entries, &prepared[span], out);
        }
    }

    #[inline]
    fn span(&mut self, entries: EntryIter<'_>, span: &Prepared, out: &mut Vec<u8>) {
        for (name, value) in entries {
            let Name::Field(index) = name else { continue };
            if let Some(key) = span.keys.get(index as usize).filter(|key| key.in_context) {
                self.one(key, value, out);
            }
        }
    }

    fn nested(&mut self, record: &Record<'_>, prepared: &[Prepared], spans: &[usize], out: &mut Vec<u8>) {
        if self.taken.take(own::CONTEXT) {
            out.extend_from_slice(b"\"context\":{");
            self.inside(|fields| fields.flat(record, prepared, spans, out));
            close(b'}', out);
        }
    }

    fn list(&mut self, record: &Record<'_>, prepared: &[Prepared], spans: &[usize], out: &mut Vec<u8>) {
        if !self.taken.take(own::CONTEXT) {
            return;
        }
        out.extend_from_slice(b"\"context\":[");
        let entries: Vec<_> = record.context().map(|span| span.entries).collect();
        for (entries, &span) in entries.into_iter().zip(spans).rev() {
            out.extend_from_slice(b"{\"name\":\"");
            out.extend_from_slice(&prepared[span].name);
            out.extend_from_slice(b"\",\"fields\":{");
            self.inside(|fields| fields.span(entries, &prepared[span], out));
            close(b'}', out);
            close(b'}', out);
        }
        close(b']', out);
    }

    /// Writes an object inside this one, which has no names yet.
    fn inside(&mut self, write: impl FnOnce(&mut Fields<'_>)) {
        let mut taken = Taken::default();
        taken.begin();
        write(&mut Fields { taken: &mut taken, names: self.names, style: self.style });
    }

    /// `target`, `module`, `file`, `line` of a callsite, and where the message was made.
    #[inline]
    fn origin(
        &mut self,
        record: &Record<'_>,
        own: &Prepared,
        prepared: &[Prepared],
        spans: &[usize],
        out: &mut Vec<u8>,
    ) {
        let clashes =
            [own::TARGET, own::MODULE, own::FILE, own::LINE].iter().any(|&name| self.taken.has(name));
        if clashes {
            self.origin_one_by_one(own, out);
        } else {
            out.extend_from_slice(&own.origin);
        }
        self.place(record, prepared, spans, out);
    }

    #[cfg(feature = "tracing")]
    #[cold]
    fn origin_one_by_one(&mut self, own: &Prepared, out: &mut Vec<u8>) {
        let Some(callsite) = own.callsite else { return };
        let has = |number| self.taken.has(number);
        let wanted = self.style.origin;
        let left = Origin {
            target: wanted.target && !has(own::TARGET),
            module: wanted.module && !has(own::MODULE),
            file: wanted.file && !has(own::FILE),
            line: wanted.line && !has(own::LINE),
            ..wanted
        };
        out.extend_from_slice(&origin(&callsite.description, left));
    }

    #[cfg(not(feature = "tracing"))]
    fn origin_one_by_one(&mut self, _: &Prepared, _: &mut Vec<u8>) {}

    /// The true origin of a `log` record that `tracing-log` made an event of.
    #[cfg(feature = "tracing")]
    fn bridged_origin(
        &mut self,
        record: &Record<'_>,
        callsite: &Callsite,
        wanted: Origin,
        out: &mut Vec<u8>,
    ) {
        let mut is_bridged = false;
        for (name, value) in record.entries() {
            let Name::Field(index) = name else { continue };
            let (number, wanted) = match callsite.roles.get(index as usize) {
                Some(Role::LogTarget) => (own::TARGET, wanted.target),
                Some(Role::LogModule) => (own::MODULE, wanted.module),
                Some(Role::LogFile) => (own::FILE, wanted.file),
                Some(Role::LogLine) => (own::LINE, wanted.line),
                _ => continue,
            };
            is_bridged = true;
            if wanted {
                self.added(number, value, out);
            }
        }
        if is_bridged {
            // The bridge's own place in the source says nothing.
            for name in [own::TARGET, own::MODULE, own::FILE, own::LINE] {
                self.taken.take(name);
            }
        }
    }

    /// Thread, span and path of spans.
    #[inline]
    fn place(&mut self, record: &Record<'_>, prepared: &[Prepared], spans: &[usize], out: &mut Vec<u8>) {
        let wanted = self.style.origin;
        if wanted.thread && !record.thread.is_empty() && self.taken.take(own::THREAD) {
            out.extend_from_slice(b"\"thread\":");
            text::string(record.thread, out);
            out.push(b',');
        }
        if let Some(&innermost) = spans.first() {
            if wanted.span && self.taken.take(own::SPAN) {
                out.extend_from_slice(b"\"span\":\"");
                out.extend_from_slice(&prepared[innermost].name);
                out.extend_from_slice(b"\",");
            }
            if wanted.spans && self.taken.take(own::SPANS) {
                self.path(prepared, spans, out);
            }
        }
    }

    /// `"spans":"outer:inner",`
    fn path(&mut self, prepared: &[Prepared], spans: &[usize], out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"spans\":\"");
        for &span in spans.iter().rev() {
            out.extend_from_slice(&prepared[span].name);
            out.push(b':');
        }
        out.pop();
        out.extend_from_slice(b"\",");
    }

    fn name_and_rate(&mut self, name: &[u8], rate: f64, out: &mut Vec<u8>) {
        let mut escaped = Vec::with_capacity(name.len());
        text::escape(name, &mut escaped);
        self.name_and_rate_escaped(&escaped, rate, out);
    }

    /// What makes a message a metric. `name` is the inside of a JSON string.
    fn name_and_rate_escaped(&mut self, name: &[u8], rate: f64, out: &mut Vec<u8>) {
        self.own_key(own::NAME, out);
        out.push(b'"');
        out.extend_from_slice(name);
        out.extend_from_slice(b"\",");
        self.own_key(own::RATE, out);
        text::finite(rate, out);
        out.push(b',');
    }

    /// One of this crate's own keys, which nothing was before.
    fn own_key(&mut self, number: u32, out: &mut Vec<u8>) {
        self.taken.take(number);
        out.push(b'"');
        out.extend_from_slice(OWN[number as usize].as_bytes());
        out.extend_from_slice(b"\":");
    }

    /// One of this crate's own keys, unless the message has it already.
    fn added(&mut self, number: u32, value: Value<'_>, out: &mut Vec<u8>) {
        if !self.taken.has(number) {
            self.own_key(number, out);
            self.value(value, out);
        }
    }
}

/// Ends an object or array whose last value has a comma behind it; leaves a comma behind itself.
fn close(bracket: u8, out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(&[bracket, b',']);
}

/// From the type to the payload's opening quote.
fn head(message_type: &str, logger: &str, severity: u8) -> Vec<u8> {
    let mut json = Vec::with_capacity(64 + logger.len());
    json.extend_from_slice(b"\",\"type\":");
    text::string(message_type.as_bytes(), &mut json);
    json.extend_from_slice(b",\"logger\":");
    text::string(logger.as_bytes(), &mut json);
    json.extend_from_slice(b",\"severity\":");
    text::integer(severity & 7, &mut json);
    json.extend_from_slice(b",\"payload\":\"");
    json
}

/// From the end of the fields to the end of the message.
fn tail(style: &Style) -> Vec<u8> {
    let mut json = b"},\"env_version\":".to_vec();
    text::string(ENVELOPE_VERSION.as_bytes(), &mut json);
    json.extend_from_slice(b",\"metlog_pid\":");
    text::integer(style.process_id, &mut json);
    json.extend_from_slice(b",\"metlog_hostname\":");
    text::string(style.hostname.as_bytes(), &mut json);
    json.push(b'}');
    json
}

/// A value as the text of a payload, inside its quotes.
#[inline]
fn payload(value: Value<'_>, style: &Style, out: &mut Vec<u8>) {
    match value {
        Value::Text(value) | Value::Error(value, _) | Value::Json(value) => text::escape(value, out),
        Value::Null => {}
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::U64(value) => text::integer(value, out),
        Value::I64(value) => text::integer(value, out),
        Value::U128(value) => text::integer(value, out),
        Value::I128(value) => text::integer(value, out),
        Value::F64(value) if value.is_finite() => text::finite(value, out),
        Value::F64(value) => out.extend_from_slice(text::non_finite_name(value).as_bytes()),
        Value::Duration(value) => text::milliseconds(value, style.whole_milliseconds, out),
        Value::Bytes(value) => text::hex(value, out),
    }
}

/// The payload of a metric: a number as text. What is counted is whole.
#[cfg(feature = "tracing")]
fn metric_payload(metric: Metric, value: Value<'_>, out: &mut Vec<u8>) {
    match (metric, value) {
        (Metric::Counter | Metric::MonotonicCounter, Value::F64(value)) => {
            out.extend_from_slice(format!("{:.0}", value + 0.0).as_bytes());
        }
        (_, Value::U64(value)) => text::integer(value, out),
        (_, Value::I64(value)) => text::integer(value, out),
        (_, Value::U128(value)) => text::integer(value, out),
        (_, Value::I128(value)) => text::integer(value, out),
        (_, Value::F64(value)) => text::finite(value, out),
        // Nothing else was taken as a metric.
        _ => out.push(b'0'),
    }
}
