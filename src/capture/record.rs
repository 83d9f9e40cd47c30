//! The captured form of a message: one compact, self-describing record. Written here by the caller, read here by
//! the background thread.
//!
//! In: typed values, in the order the program gave them. Out: the same values, in the same order, borrowed from
//! the record's bytes. A record that does not fit into a chunk loses the ends of its longest texts, marked by
//! [`Record::truncated`]; nothing else can be lost. A damaged record reads as a shorter one, never as a panic.
//!
//! ```text
//! record  = length u32 | kind u8 | severity u8 | messages u8 | flags u8 | time u64 | callsite u64
//!           | entries length u32 | thread length u32 | thread | entries | context
//! entry   = tag u8 | name u16 | 0 | [ name length u16 | name ] | value
//! context = span*, innermost first;   span = callsite u64 | cut u1, entries length u31 | entries
//! ```
//! Numbers are little-endian. A `name` below [`INLINE`] is the index of a field of the callsite, [`INLINE`] says
//! that the name itself follows, and the names above it are the parts of the envelope ([`Part`]).

use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use super::thread;

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
    Field(u16),
    /// A field with its name in the record. UTF-8.
    Inline(&'a [u8]),
    /// Not a field.
    Part(Part),
}

impl<'a> Name<'a> {
    /// The name as a number, or the name itself if it must follow.
    #[inline]
    fn code(self) -> Result<u16, &'a [u8]> {
        match self {
            Name::Field(index) => Ok(index),
            Name::Part(part) => Ok(PART | part as u16),
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
    out: &'b mut Vec<u8>,
    /// Some text was cut.
    truncated: bool,
}

impl<'b> Entries<'b> {
    #[inline]
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        Entries { out, truncated: false }
    }

    #[inline]
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    #[inline]
    fn head(&mut self, tag: u8, name: Name<'_>) {
        match name.code() {
            Ok(code) => self.out.extend_from_slice(&head(tag, code).to_le_bytes()),
            Err(name) => self.inline_head(tag, name),
        }
    }

    #[inline(never)]
    fn inline_head(&mut self, tag: u8, name: &[u8]) {
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        self.out.extend_from_slice(&head(tag, INLINE).to_le_bytes());
        self.out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.out.extend_from_slice(name);
    }

    /// Whether the buffer takes this much without growing. Who asks first, and lets a function of its own do the rare
    /// rest, has nothing to save and restore on the usual way (a third of it).
    #[inline(always)]
    fn has_room(&self, length: usize) -> bool {
        length <= self.out.capacity().wrapping_sub(self.out.len())
    }

    /// The most common entry by far: two stores.
    #[inline(always)]
    fn eight(&mut self, tag: u8, name: Name<'_>, value: u64) {
        match name.code() {
            Ok(code) if self.has_room(12) => self.out.extend_from_slice(&twelve(head(tag, code), value)),
            Ok(code) => self.eight_growing(head(tag, code), value),
            Err(name) => {
                self.inline_head(tag, name);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn eight_growing(&mut self, head: u32, value: u64) {
        self.out.extend_from_slice(&twelve(head, value));
    }

    /// The head of a text that is `length` bytes long.
    #[inline(always)]
    fn text_head(&mut self, name: Name<'_>, length: u32) {
        match name.code() {
            Ok(code) => self.out.extend_from_slice(&eight(head(tag::TEXT, code), length)),
            Err(name) => {
                self.inline_head(tag::TEXT, name);
                self.out.extend_from_slice(&length.to_le_bytes());
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
            Ok(code) if value.len() <= MAX_TEXT && self.has_room(8 + value.len()) => {
                self.out.extend_from_slice(&eight(head(tag::TEXT, code), value.len() as u32));
                self.out.extend_from_slice(value.as_bytes());
            }
            _ => self.text_rarely(name, value),
        }
    }

    /// A text with its name, one that is too long, or one the buffer has no room for yet.
    #[inline(never)]
    fn text_rarely(&mut self, name: Name<'_>, value: &str) {
        let fitting = thread::cut(value, MAX_TEXT);
        self.truncated |= fitting.len() < value.len();
        self.text_head(name, fitting.len() as u32);
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
    pub(crate) fn json(
        &mut self,
        name: Name<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) {
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
        self.truncated |= format_limited(self.out, arguments);
        self.patch_length(start - 4);
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
    fn measured<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let result = write(self.out);
        self.patch_length(start);
        result
    }

    #[inline]
    fn patch_length(&mut self, start: usize) {
        let length = self.out.len().wrapping_sub(start + 4) as u32;
        if let Some(place) = self.out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *place = length.to_le_bytes();
        }
    }
}

/// Tag and name of an entry, as they stand in a record.
#[inline(always)]
fn head(tag: u8, name: u16) -> u32 {
    u32::from(tag) | u32::from(name) << 8
}

#[inline(always)]
fn eight(head: u32, length: u32) -> [u8; 8] {
    (u64::from(head) | u64::from(length) << 32).to_le_bytes()
}

#[inline(always)]
fn twelve(head: u32, value: u64) -> [u8; 12] {
    (u128::from(head) | u128::from(value) << 32).to_le_bytes().first_chunk().copied().unwrap_or_default()
}

/// What stands for a value whose own code panicked.
const PANICKED: &[u8] = b"<panicked while it was formatted>";

#[cold]
fn replace_by_note(out: &mut Vec<u8>, start: usize) {
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

/// Appends what the program's own code writes, up to a limit. Whether it was cut there.
#[inline(always)]
fn format_limited(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) -> bool {
    let start = out.len();
    let mut text = LimitedText { start, out };
    // The buffer stays whole whatever the program's code does: at worst it holds half a text.
    let outcome = catch_unwind(AssertUnwindSafe(|| text.write_fmt(arguments)));
    if outcome.is_err() {
        replace_by_note(out, start);
    }
    let is_too_long = out.len() > start + MAX_TEXT;
    if is_too_long {
        cut_text(out, start + MAX_TEXT);
    }
    is_too_long
}

/// Cuts the text that `out` ends with, in front of a character that begins at `end` or reaches over it.
#[cold]
#[inline(never)]
fn cut_text(out: &mut Vec<u8>, end: usize) {
    let is_begin = |&index: &usize| out.get(index).is_none_or(|byte| byte & 0xC0 != 0x80);
    let end = (0..=end).rev().find(is_begin).unwrap_or(0);
    out.truncate(end);
}

/// Takes formatted text, until it is longer than the limit: what is too much is cut off later.
struct LimitedText<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl fmt::Write for LimitedText<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.out.capacity().wrapping_sub(self.out.len()) {
            return self.write_growing(text);
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
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

/// Fills in the header. Entries are from `entries` to `context`, the context from there to the end.
#[inline]
pub(crate) fn finish(out: &mut Vec<u8>, header: Header, entries: usize, context: usize) {
    let mut flags = if header.truncated { TRUNCATED } else { 0 } | if header.line { LINE } else { 0 };
    let mut context = context;
    if out.len() > MAX_RECORD {
        context = shorten(out, entries, context);
        flags |= TRUNCATED;
    }
    let mut bytes = [0; HEADER];
    bytes[0..4].copy_from_slice(&(out.len() as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&[header.kind as u8, header.severity, header.messages, flags]);
    bytes[8..16].copy_from_slice(&header.time.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.callsite.to_le_bytes());
    bytes[24..28].copy_from_slice(&((context - entries) as u32).to_le_bytes());
    bytes[28..32].copy_from_slice(&((entries - HEADER) as u32).to_le_bytes());
    out[..HEADER].copy_from_slice(&bytes);
}

/// Takes the line away from a finished record: what is left are its `metrics`. The record's layout stays as it is,
/// also where it had to be shortened.
#[cfg(feature = "tracing")]
pub(crate) fn drop_line(out: &mut [u8], metrics: u8) {
    out[6] = metrics;
    out[7] &= !LINE;
}

/// Makes a record fit: texts are cut short, and if that is not enough the context and then the last entries go.
/// Returns where the context begins now.
#[cold]
fn shorten(out: &mut Vec<u8>, entries: usize, context: usize) -> usize {
    let old = std::mem::take(out);
    out.extend_from_slice(&old[..entries]);
    let mut writer = Entries::new(out);
    for (name, value) in EntryIter(Reader(&old[entries..context])) {
        let before = writer.out.len();
        writer.shortened(name, value);
        if writer.out.len() > MAX_RECORD {
            writer.out.truncate(before);
        }
    }
    let new_context = out.len();
    append_innermost(out, &old[context..], MAX_RECORD);
    new_context
}

/// The context of a span is no longer than this: a context in every span of a deep nest would be a lot of memory.
#[cfg(feature = "tracing")]
const MAX_CONTEXT: usize = 16 * 1024;
/// Stands, as the outermost span of a context, for those that were left out.
const LEFT_OUT: [u8; 12] = [0; 12];

/// Makes a context, which begins at `start`, short enough for a span to keep: the outermost spans are left out, never
/// the span's own part.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn limit_context(buffer: &mut Vec<u8>, start: usize) {
    if buffer.len() - start > MAX_CONTEXT {
        leave_out_outermost(buffer, start);
    }
}

#[cfg(feature = "tracing")]
#[cold]
fn leave_out_outermost(buffer: &mut Vec<u8>, start: usize) {
    let whole = buffer.split_off(start);
    let own = first_span_len(&whole);
    buffer.extend_from_slice(&whole[..own]);
    append_innermost(buffer, &whole[own..], start + MAX_CONTEXT.max(own + LEFT_OUT.len()));
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
        let entries = reader.u32()? as usize;
        let thread = reader.u32()? as usize;
        let thread = reader.take(thread)?;
        let entries = reader.take(entries)?;
        let (truncated, line) = (flags & TRUNCATED != 0, flags & LINE != 0);
        let header = Header { kind, severity, messages, line, truncated, time, callsite };
        Some(Record { header, thread, entries, context: reader.0 })
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
pub(crate) fn begin_span(out: &mut Vec<u8>, callsite: u64) -> usize {
    out.extend_from_slice(&callsite.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.len()
}

/// Ends the part begun by [`begin_span`], whose entries began at `entries`; `is_cut` if not all of a text is in them.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn finish_span(out: &mut [u8], entries: usize, is_cut: bool) {
    let length = (out.len() - entries) as u32 | if is_cut { CUT } else { 0 };
    out[entries - 4..entries].copy_from_slice(&length.to_le_bytes());
}

/// One span's part of a context, with `newer` values in place of those it had.
#[cfg(feature = "tracing")]
pub(crate) fn merge_span(out: &mut Vec<u8>, older: &[u8], newer: &[u8], newer_is_cut: bool) {
    let Some(older) = ContextIter(Reader(older)).next() else { return };
    let start = begin_span(out, older.callsite);
    for (name, entry) in RawEntries(older.entries.0) {
        if !RawEntries(Reader(newer)).any(|(other, _)| other == name) {
            out.extend_from_slice(entry);
        }
    }
    out.extend_from_slice(newer);
    finish_span(out, start, older.is_cut || newer_is_cut);
}

/// The callsite of the innermost span of a context.
#[cfg(feature = "tracing")]
pub(crate) fn first_callsite(context: &[u8]) -> u64 {
    Reader(context).u64().unwrap_or_default()
}

/// Length of the first span's part of a context.
pub(crate) fn first_span_len(context: &[u8]) -> usize {
    let mut reader = Reader(context.get(8..).unwrap_or_default());
    reader.u32().map_or(0, |length| 12 + (length & !CUT) as usize).min(context.len())
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
        let callsite = self.0.u64()?;
        let length = self.0.u32()?;
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
            index if index < INLINE => Some(Name::Field(index)),
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
