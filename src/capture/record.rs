//! The captured form of a message: one compact, self-describing record. Written here by the caller, read here by
//! the background thread.
//!
//! In: typed values, in the order the program gave them. Out: the same values, in the same order, borrowed from
//! the record's bytes. A record that does not fit into a chunk loses the ends of its longest texts, marked by
//! [`Record::truncated`]; nothing else can be lost. A damaged record reads as a shorter one, never as a panic.
//!
//! ```text
//! record  = length u32 | kind u8 | severity u8 | messages u8 | flags u8 | time u64 | callsite u64
//!           | thread length u32 | context length u32 | thread | context | entries
//! entry   = tag u8 | name u16 | 0 | [ name length u16 | name ] | value
//! context = span*, innermost first;   span = cut u1, entries length u31 | callsite u64 | entries
//! ```
//! What changes least comes first, so that a thread can keep all of it in front of the entries.
//! Numbers are little-endian. A `name` below [`INLINE`] is the index of a field of the callsite, [`INLINE`] says
//! that the name itself follows, and the names above it are the parts of the envelope ([`Part`]).

use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use super::bytes::Bytes;
use super::thread;

/// The number of this layout, in every crash ring: it must change when the layout does, because what a program left is
/// read by the next version of it too.
#[cfg(feature = "ring")]
pub(crate) const FORMAT: u8 = 1;
/// Bytes before the thread's name.
pub(crate) const HEADER: usize = 32;
/// The longest record, and so the size of a chunk of the queue.
pub(crate) const MAX_RECORD: usize = 64 * 1024;
/// The longest single text in a record; leaves room for the rest of the message and for a few more like it.
const MAX_TEXT: usize = 56 * 1024;
/// What is cut from a record that got too long is cut to this.
const SHORT_TEXT: usize = 1024;

const INLINE: u16 = 0x8000;
const PART: u16 = 0xFF00;
const TRUNCATED: u8 = 1;
const LINE: u8 = 2;
/// The bit of a span's length that says that a text in it was cut.
const CUT: u32 = 1 << 31;

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A `tracing` event; `callsite` says which.
    Event = 1,
    /// A closed span; `callsite` says which, and its context begins with its own fields.
    Timer = 2,
    /// A record of the `log` crate.
    Log = 3,
    /// An explicit message.
    Message = 4,
}

/// A part of the message that is not a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Payload = 0,
    Type = 1,
    Logger = 2,
    Target = 3,
    Module = 4,
    File = 5,
    Line = 6,
    Timestamp = 7,
    Rate = 8,
    Elapsed = 9,
    Busy = 10,
}

const PARTS: [Part; 11] = [
    Part::Payload,
    Part::Type,
    Part::Logger,
    Part::Target,
    Part::Module,
    Part::File,
    Part::Line,
    Part::Timestamp,
    Part::Rate,
    Part::Elapsed,
    Part::Busy,
];

/// Whose value an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The callsite's field of this index.
    Field(u32),
    /// A field with its name in the record. UTF-8.
    Inline(&'a [u8]),
    /// Not a field.
    Part(Part),
}

impl<'a> Name<'a> {
    /// The name as a number, or the name itself if it must follow.
    #[inline]
    fn code(self) -> Result<u32, &'a [u8]> {
        match self {
            Name::Field(index) => Ok(index),
            Name::Part(part) => Ok(u32::from(PART) | part as u32),
            Name::Inline(name) => Err(name),
        }
    }
}

/// A captured value. Texts are UTF-8, kept as bytes because all that is done with them is copying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Duration(Duration),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// A JSON text, ready.
    Json(&'a [u8]),
    /// An error's text, and its sources one after the other.
    Error(&'a [u8], Texts<'a>),
}

/// Several texts behind one another, each after its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut reader = Reader(self.0);
        let text = reader.text()?;
        self.0 = reader.0;
        Some(text)
    }
}

mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const U64: u8 = 3;
    pub(super) const I64: u8 = 4;
    pub(super) const U128: u8 = 5;
    pub(super) const I128: u8 = 6;
    pub(super) const F64: u8 = 7;
    pub(super) const DURATION: u8 = 8;
    pub(super) const TEXT: u8 = 9;
    pub(super) const BYTES: u8 = 10;
    pub(super) const JSON: u8 = 11;
    pub(super) const ERROR: u8 = 12;
}

/// Writes entries at the end of a buffer.
pub(crate) struct Entries<'b> {
    out: &'b mut Bytes,
    /// Some text was cut.
    truncated: bool,
}

impl<'b> Entries<'b> {
    #[inline]
    pub(crate) fn new(out: &'b mut Bytes) -> Self {
        Entries { out, truncated: false }
    }

    #[inline]
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    #[inline]
    fn head(&mut self, tag: u8, name: Name<'_>) {
        match name.code() {
            Ok(code) => self.out.push(head(tag, code).to_le_bytes()),
            Err(name) => self.inline_head(tag, name),
        }
    }

    #[inline(never)]
    fn inline_head(&mut self, tag: u8, name: &[u8]) {
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        self.out.push(head(tag, u32::from(INLINE)).to_le_bytes());
        self.out.push((name.len() as u16).to_le_bytes());
        self.out.extend_from_slice(name);
    }

    /// The most common entry by far: two stores.
    #[inline(always)]
    fn eight(&mut self, tag: u8, name: Name<'_>, value: u64) {
        match name.code() {
            Ok(code) => self.out.push_numbers(head(tag, code), value),
            Err(name) => {
                self.inline_head(tag, name);
                self.out.push(value.to_le_bytes());
            }
        }
    }

    /// The head of a text that is `length` bytes long.
    #[inline(always)]
    fn text_head(&mut self, name: Name<'_>, length: usize) {
        match name.code() {
            Ok(code) => self.out.push(text_head(code, length).to_le_bytes()),
            Err(name) => {
                self.inline_head(tag::TEXT, name);
                self.out.push((length as u32).to_le_bytes());
            }
        }
    }

    pub(crate) fn null(&mut self, name: Name<'_>) {
        self.head(tag::NULL, name);
    }

    #[inline]
    pub(crate) fn bool(&mut self, name: Name<'_>, value: bool) {
        self.head(if value { tag::TRUE } else { tag::FALSE }, name);
    }

    #[inline(always)]
    pub(crate) fn u64(&mut self, name: Name<'_>, value: u64) {
        self.eight(tag::U64, name, value);
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self, name: Name<'_>, value: i64) {
        self.eight(tag::I64, name, value as u64);
    }

    #[inline(always)]
    pub(crate) fn f64(&mut self, name: Name<'_>, value: f64) {
        self.eight(tag::F64, name, value.to_bits());
    }

    pub(crate) fn u128(&mut self, name: Name<'_>, value: u128) {
        self.head(tag::U128, name);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i128(&mut self, name: Name<'_>, value: i128) {
        self.head(tag::I128, name);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn duration(&mut self, name: Name<'_>, value: Duration) {
        self.eight(tag::DURATION, name, nanoseconds(value));
    }

    #[inline(always)]
    pub(crate) fn text(&mut self, name: Name<'_>, value: &str) {
        match name.code() {
            Ok(code) if value.len() <= MAX_TEXT => {
                self.out.push_number_and_text(text_head(code, value.len()), value.as_bytes());
            }
            Ok(code) => self.long_text(code, value),
            Err(name) => self.text_with_name(name, value),
        }
    }

    #[cold]
    #[inline(never)]
    fn long_text(&mut self, name: u32, value: &str) {
        let fitting = thread::cut(value, MAX_TEXT);
        self.truncated = true;
        self.out.push_number_and_text(text_head(name, fitting.len()), fitting.as_bytes());
    }

    #[inline(never)]
    fn text_with_name(&mut self, name: &[u8], value: &str) {
        let fitting = thread::cut(value, MAX_TEXT);
        self.truncated |= fitting.len() < value.len();
        self.inline_head(tag::TEXT, name);
        self.out.push((fitting.len() as u32).to_le_bytes());
        self.out.extend_from_slice(fitting.as_bytes());
    }

    pub(crate) fn bytes(&mut self, name: Name<'_>, value: &[u8]) {
        self.head(tag::BYTES, name);
        // Two hexadecimal digits a byte on the wire.
        self.truncated |= value.len() > MAX_TEXT / 2;
        let value = &value[..value.len().min(MAX_TEXT / 2)];
        self.out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.out.extend_from_slice(value);
    }

    /// A value as JSON, written by `write`; `null` when `write` fails, its text when it is too long to stay JSON.
    pub(crate) fn json(&mut self, name: Name<'_>, write: impl FnOnce(&mut Bytes) -> serde_json::Result<()>) {
        let start = self.out.len();
        self.head(tag::JSON, name);
        let body = self.out.len();
        // Writing runs the program's own `Serialize`.
        let written = self.measured(|out| catch_unwind(AssertUnwindSafe(|| write(out))));
        if !matches!(written, Ok(Ok(()))) {
            self.out.truncate(start);
            self.null(name);
        } else if self.out.len() - body > MAX_TEXT {
            let text = String::from_utf8_lossy(&self.out[body + 4..]).into_owned();
            self.out.truncate(start);
            self.text(name, &text);
        } else {
            // Inside of strings they are escaped; a `RawValue` may have some between its tokens.
            self.out[body + 4..]
                .iter_mut()
                .filter(|byte| matches!(byte, b'\n' | b'\r'))
                .for_each(|byte| *byte = b' ');
        }
    }

    /// What `value` displays, formatted here because it borrows.
    #[inline]
    pub(crate) fn display(&mut self, name: Name<'_>, value: impl fmt::Display) {
        self.format(name, format_args!("{value}"));
    }

    /// What `value` shows as `Debug`, formatted here because it borrows.
    #[inline(always)]
    pub(crate) fn debug(&mut self, name: Name<'_>, value: &dyn fmt::Debug) {
        self.format(name, format_args!("{value:?}"));
    }

    /// A text made by the program's own code. If that code panics, the panic is the value.
    #[inline(always)]
    pub(crate) fn format(&mut self, name: Name<'_>, arguments: fmt::Arguments<'_>) {
        if let Some(literal) = arguments.as_str() {
            return self.text(name, literal);
        }
        self.text_head(name, 0);
        self.format_behind_head(arguments);
    }

    /// A text and, in front of it, its length.
    #[inline]
    fn formatted(&mut self, arguments: fmt::Arguments<'_>) {
        self.out.extend_from_slice(&[0; 4]);
        self.format_behind_head(arguments);
    }

    /// A text behind its length, which is filled in.
    #[inline(always)]
    fn format_behind_head(&mut self, arguments: fmt::Arguments<'_>) {
        let start = self.out.len();
        format_into(self.out, start, arguments);
        if self.out.len() > start + MAX_TEXT {
            self.cut_text(start + MAX_TEXT);
        }
        self.patch_length(start.wrapping_sub(4));
    }

    /// Cuts the text that ends the buffer, in front of a character that begins at `end` or reaches over it.
    #[cold]
    #[inline(never)]
    fn cut_text(&mut self, end: usize) {
        let is_begin = |&index: &usize| self.out.get(index).is_none_or(|byte| byte & 0xC0 != 0x80);
        let end = (0..=end).rev().find(is_begin).unwrap_or(0);
        self.out.truncate(end);
        self.truncated = true;
    }

    /// An error and every error behind it.
    pub(crate) fn error(&mut self, name: Name<'_>, error: &(dyn Error + 'static)) {
        /// A chain that is longer than this runs in a circle.
        const LONGEST_CHAIN: usize = 64;
        self.head(tag::ERROR, name);
        self.formatted(format_args!("{error}"));
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let mut next = source_of(error);
        for _ in 0..LONGEST_CHAIN {
            let Some(source) = next else { break };
            self.formatted(format_args!("{source}"));
            next = source_of(source);
        }
        self.patch_length(start);
    }

    /// Entries that were written elsewhere.
    pub(crate) fn append(&mut self, entries: &[u8], truncated: bool) {
        self.out.extend_from_slice(entries);
        self.truncated |= truncated;
    }

    /// Writes something and, in front of it, its length.
    #[inline]
    fn measured<R>(&mut self, write: impl FnOnce(&mut Bytes) -> R) -> R {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let result = write(self.out);
        self.patch_length(start);
        result
    }

    #[inline]
    fn patch_length(&mut self, start: usize) {
        let length = self.out.len().wrapping_sub(start + 4) as u32;
        self.out.set(start, length.to_le_bytes());
    }
}

/// Tag and name of an entry, as they stand in a record.
#[inline(always)]
fn head(tag: u8, name: u32) -> u32 {
    u32::from(tag) | name << 8
}

/// The same for a text, and its length.
#[inline(always)]
fn text_head(name: u32, length: usize) -> u64 {
    u64::from(head(tag::TEXT, name)) | (length as u64) << 32
}

/// What stands for a value whose own code panicked.
const PANICKED: &[u8] = b"<panicked while it was formatted>";

#[cold]
fn replace_by_note(out: &mut Bytes, start: usize) {
    out.truncate(start);
    out.extend_from_slice(PANICKED);
}

/// The error behind an error; an error whose `source` panics has none.
fn source_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    catch_unwind(AssertUnwindSafe(|| error.source())).unwrap_or(None)
}

fn nanoseconds(value: Duration) -> u64 {
    u64::try_from(value.as_nanos()).unwrap_or(u64::MAX)
}

/// Appends what the program's own code writes; of a text that is too long, a little more than the limit.
#[inline(always)]
fn format_into(out: &mut Bytes, start: usize, arguments: fmt::Arguments<'_>) {
    let mut text = LimitedText { start, out };
    // The buffer stays whole whatever the program's code does: at worst it holds half a text.
    let outcome = catch_unwind(AssertUnwindSafe(|| text.write_fmt(arguments)));
    if outcome.is_err() {
        replace_by_note(out, start);
    }
}

/// Takes formatted text, until it is longer than the limit: what is too much is cut off later.
struct LimitedText<'o> {
    out: &'o mut Bytes,
    start: usize,
}

impl fmt::Write for LimitedText<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.out.push_if_room(text.as_bytes()) {
            true => Ok(()),
            false => self.write_growing(text),
        }
    }
}

impl LimitedText<'_> {
    /// The buffer has no room left; it grows as long as the text is not too long already.
    #[cold]
    #[inline(never)]
    fn write_growing(&mut self, text: &str) -> fmt::Result {
        /// More than the limit, also if the last character does not fit.
        const ENOUGH: usize = MAX_TEXT + 4;
        let room = (self.start + ENOUGH).saturating_sub(self.out.len());
        let fitting = thread::cut(text, room);
        self.out.extend_from_slice(fitting.as_bytes());
        if fitting.len() < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// What a record's header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) severity: u8,
    /// How many messages the record makes; an event with two counters makes two or three.
    pub(crate) messages: u8,
    /// One of the messages is the event itself; the others are its metrics.
    pub(crate) line: bool,
    pub(crate) truncated: bool,
    pub(crate) time: u64,
    pub(crate) callsite: u64,
}

impl Header {
    /// Everything but the two numbers.
    #[inline(always)]
    fn summary(&self) -> u32 {
        let flags = if self.truncated { TRUNCATED } else { 0 } | if self.line { LINE } else { 0 };
        u32::from_le_bytes([self.kind as u8, self.severity, self.messages, flags])
    }
}

/// Fills in the header, which begins the buffer; the thread's name, the context and then the entries follow. In a
/// record that is too long nothing behind the thread's name stays what it was.
#[inline(always)]
pub(crate) fn finish(out: &mut Bytes, header: Header, thread: usize, context: usize) {
    let (summary, time, callsite) = (header.summary(), header.time, header.callsite);
    match out.len() <= MAX_RECORD {
        true => write_header(out, summary, time, callsite, thread, context),
        false => finish_shortened(out, summary, time, callsite, thread, context),
    }
}

#[inline(always)]
fn write_header(out: &mut Bytes, summary: u32, time: u64, callsite: u64, thread: usize, context: usize) {
    let length = out.len() as u32;
    let Some(place) = out.beginning::<HEADER>() else { return };
    place[0..4].copy_from_slice(&length.to_le_bytes());
    place[4..8].copy_from_slice(&summary.to_le_bytes());
    place[8..16].copy_from_slice(&time.to_le_bytes());
    place[16..24].copy_from_slice(&callsite.to_le_bytes());
    place[24..28].copy_from_slice(&(thread as u32).to_le_bytes());
    place[28..32].copy_from_slice(&(context as u32).to_le_bytes());
}

/// Takes the line away from a finished record: what is left are its `metrics`. The record's layout stays as it is,
/// also where it had to be shortened.
#[cfg(feature = "tracing")]
pub(crate) fn drop_line(out: &mut [u8], metrics: u8) {
    out[6] = metrics;
    out[7] &= !LINE;
}

/// Makes a record fit: texts are cut short, and if that is not enough the last entries go and then the context.
#[cold]
#[inline(never)]
fn finish_shortened(out: &mut Bytes, summary: u32, time: u64, callsite: u64, thread: usize, context: usize) {
    let old = out.to_vec();
    let (front, rest) = old.split_at(HEADER + thread);
    let (old_context, old_entries) = rest.split_at(context);
    let mut entries = Bytes::default();
    for (name, value) in EntryIter(Reader(old_entries)) {
        let before = entries.len();
        Entries::new(&mut entries).shortened(name, value);
        if front.len() + entries.len() > MAX_RECORD {
            entries.truncate(before);
        }
    }
    let mut context = Vec::new();
    append_innermost(&mut context, old_context, MAX_RECORD - front.len() - entries.len());
    out.truncate(front.len());
    out.extend_from_slice(&context);
    out.extend_from_slice(&entries);
    let summary = summary | u32::from(TRUNCATED) << 24;
    write_header(out, summary, time, callsite, thread, context.len());
}

/// The context of a span is no longer than this: a context in every span of a deep nest would be a lot of memory.
#[cfg(feature = "tracing")]
const MAX_CONTEXT: usize = 16 * 1024;
/// Stands, as the outermost span of a context, for those that were left out.
const LEFT_OUT: [u8; SPAN_HEADER] = [0; SPAN_HEADER];

/// Makes a context short enough for a span to keep: the outermost spans are left out, never the span's own part.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn limit_context(context: &mut Vec<u8>) {
    if context.len() > MAX_CONTEXT {
        leave_out_outermost(context);
    }
}

#[cfg(feature = "tracing")]
#[cold]
#[inline(never)]
fn leave_out_outermost(context: &mut Vec<u8>) {
    let own = first_span_len(context);
    let outer = context.split_off(own);
    append_innermost(context, &outer, MAX_CONTEXT.max(own + LEFT_OUT.len()));
}

/// Appends what fits of a context into `limit` bytes, and what stands for the rest.
fn append_innermost(out: &mut Vec<u8>, mut context: &[u8], limit: usize) {
    if out.len() + context.len() <= limit {
        return out.extend_from_slice(context);
    }
    while !context.is_empty() {
        let (span, outer) = context.split_at(first_span_len(context));
        if span.is_empty() || out.len() + span.len() + LEFT_OUT.len() > limit {
            break;
        }
        out.extend_from_slice(span);
        context = outer;
    }
    if out.len() + LEFT_OUT.len() <= limit {
        out.extend_from_slice(&LEFT_OUT);
    }
}

impl Entries<'_> {
    /// Copies a value, long texts cut short.
    fn shortened(&mut self, name: Name<'_>, value: Value<'_>) {
        match value {
            Value::Null => self.null(name),
            Value::Bool(value) => self.bool(name, value),
            Value::U64(value) => self.u64(name, value),
            Value::I64(value) => self.i64(name, value),
            Value::U128(value) => self.u128(name, value),
            Value::I128(value) => self.i128(name, value),
            Value::F64(value) => self.f64(name, value),
            Value::Duration(value) => self.duration(name, value),
            Value::Bytes(value) => self.bytes(name, &value[..value.len().min(SHORT_TEXT)]),
            // JSON that is cut is JSON no more.
            Value::Json(value) if value.len() <= SHORT_TEXT => self.json(name, |out| {
                out.extend_from_slice(value);
                Ok(())
            }),
            Value::Text(text) | Value::Json(text) | Value::Error(text, _) => {
                let text = String::from_utf8_lossy(text);
                self.text(name, thread::cut(&text, SHORT_TEXT));
            }
        }
    }
}

/// A record, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) thread: &'a [u8],
    entries: &'a [u8],
    context: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of `bytes`, and what is behind it.
    pub(crate) fn split_first(bytes: &'a [u8]) -> Option<(Record<'a>, &'a [u8])> {
        let length = Reader(bytes).u32()? as usize;
        let record = Record::parse(bytes.get(..length)?)?;
        Some((record, &bytes[length..]))
    }

    fn parse(bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut reader = Reader(bytes.get(4..)?);
        let [kind, severity, messages, flags] = reader.array()?;
        let kind = match kind {
            1 => Kind::Event,
            2 => Kind::Timer,
            3 => Kind::Log,
            4 => Kind::Message,
            _ => return None,
        };
        let time = reader.u64()?;
        let callsite = reader.u64()?;
        let thread = reader.u32()? as usize;
        let context = reader.u32()? as usize;
        let thread = reader.take(thread)?;
        let context = reader.take(context)?;
        let (truncated, line) = (flags & TRUNCATED != 0, flags & LINE != 0);
        let header = Header { kind, severity, messages, line, truncated, time, callsite };
        Some(Record { header, thread, entries: reader.0, context })
    }

    /// The values of the message itself, in the order they were given.
    pub(crate) fn entries(&self) -> EntryIter<'a> {
        EntryIter(Reader(self.entries))
    }

    /// The value of one part of the envelope.
    pub(crate) fn part(&self, part: Part) -> Option<Value<'a>> {
        self.entries().find(|(name, _)| *name == Name::Part(part)).map(|(_, value)| value)
    }

    /// The enclosing spans, innermost first.
    pub(crate) fn context(&self) -> ContextIter<'a> {
        ContextIter(Reader(self.context))
    }
}

/// When the first record of `bytes` was made, without reading the rest of it.
pub(crate) fn time_of(bytes: &[u8]) -> Option<u64> {
    Reader(bytes.get(8..)?).u64()
}

/// Begins the part of a context that belongs to one span; its entries follow.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn begin_span(out: &mut Bytes, callsite: u64) -> usize {
    out.push_numbers(0, callsite);
    out.len()
}

/// Ends the part begun by [`begin_span`], whose entries began at `entries`; `is_cut` if not all of a text is in them.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn finish_span(out: &mut Bytes, entries: usize, is_cut: bool) {
    let length = span_length(out.len().wrapping_sub(entries), is_cut);
    out.set(entries.wrapping_sub(SPAN_HEADER), length);
}

/// Bytes in front of a span's entries.
const SPAN_HEADER: usize = 12;

#[cfg(feature = "tracing")]
#[inline]
fn span_length(entries: usize, is_cut: bool) -> [u8; 4] {
    (entries as u32 | if is_cut { CUT } else { 0 }).to_le_bytes()
}

/// One span's part of a context, with `newer` values in place of those it had.
#[cfg(feature = "tracing")]
pub(crate) fn merge_span(out: &mut Vec<u8>, older: &[u8], newer: &[u8], newer_is_cut: bool) {
    let Some(older) = ContextIter(Reader(older)).next() else { return };
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&older.callsite.to_le_bytes());
    for (name, entry) in RawEntries(older.entries.0) {
        if !RawEntries(Reader(newer)).any(|(other, _)| other == name) {
            out.extend_from_slice(entry);
        }
    }
    out.extend_from_slice(newer);
    let length = span_length(out.len() - start - SPAN_HEADER, older.is_cut || newer_is_cut);
    out[start..start + 4].copy_from_slice(&length);
}

/// The callsite of the innermost span of a context.
#[cfg(feature = "tracing")]
pub(crate) fn first_callsite(context: &[u8]) -> u64 {
    Reader(context.get(4..).unwrap_or_default()).u64().unwrap_or_default()
}

/// Length of the first span's part of a context.
pub(crate) fn first_span_len(context: &[u8]) -> usize {
    let length = Reader(context).u32();
    length.map_or(0, |length| SPAN_HEADER + (length & !CUT) as usize).min(context.len())
}

/// Entries, in order.
#[derive(Clone, Debug)]
pub(crate) struct EntryIter<'a>(Reader<'a>);

impl<'a> Iterator for EntryIter<'a> {
    type Item = (Name<'a>, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.entry()
    }
}

/// Whether all of it was read: what is damaged ends early.
#[cfg(feature = "ring")]
impl EntryIter<'_> {
    pub(crate) fn is_at_end(&self) -> bool {
        self.0 .0.is_empty()
    }
}

#[cfg(feature = "ring")]
impl ContextIter<'_> {
    pub(crate) fn is_at_end(&self) -> bool {
        self.0 .0.is_empty()
    }
}

#[cfg(feature = "ring")]
impl Texts<'_> {
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

/// Entries as bytes, each with its name.
struct RawEntries<'a>(Reader<'a>);

impl<'a> Iterator for RawEntries<'a> {
    type Item = (Name<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0 .0;
        let (name, _) = self.0.entry()?;
        Some((name, &before[..before.len() - self.0 .0.len()]))
    }
}

/// The spans of a context, innermost first.
#[derive(Clone, Debug)]
pub(crate) struct ContextIter<'a>(Reader<'a>);

/// One span's part of a context.
#[derive(Clone, Debug)]
pub(crate) struct SpanPart<'a> {
    pub(crate) callsite: u64,
    /// Not all of a text is in its entries.
    pub(crate) is_cut: bool,
    pub(crate) entries: EntryIter<'a>,
}

impl<'a> Iterator for ContextIter<'a> {
    type Item = SpanPart<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let length = self.0.u32()?;
        let callsite = self.0.u64()?;
        let entries = EntryIter(Reader(self.0.take((length & !CUT) as usize)?));
        Some(SpanPart { callsite, is_cut: length & CUT != 0, entries })
    }
}

/// Reads from the front of a slice; `None` at its end.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    #[inline]
    fn entry(&mut self) -> Option<(Name<'a>, Value<'a>)> {
        let [tag, low, high, _] = self.array()?;
        let name = self.name(u16::from_le_bytes([low, high]))?;
        Some((name, self.value(tag)?))
    }

    #[inline]
    fn name(&mut self, code: u16) -> Option<Name<'a>> {
        match code {
            INLINE => {
                let length = usize::from(self.u16()?);
                Some(Name::Inline(self.take(length)?))
            }
            index if index < INLINE => Some(Name::Field(u32::from(index))),
            part => PARTS.get(usize::from(part & 0xFF)).map(|&part| Name::Part(part)),
        }
    }

    #[inline]
    fn value(&mut self, tag: u8) -> Option<Value<'a>> {
        Some(match tag {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::U64 => Value::U64(self.u64()?),
            tag::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            tag::U128 => Value::U128(u128::from_le_bytes(self.array()?)),
            tag::I128 => Value::I128(i128::from_le_bytes(self.array()?)),
            tag::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            tag::DURATION => Value::Duration(Duration::from_nanos(self.u64()?)),
            tag::TEXT => Value::Text(self.text()?),
            tag::BYTES => Value::Bytes(self.text()?),
            tag::JSON => Value::Json(self.text()?),
            tag::ERROR => Value::Error(self.text()?, Texts(self.text()?)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
