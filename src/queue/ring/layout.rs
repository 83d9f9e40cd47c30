//! What the parts of a ring file look like, apart from the slots (`queue/map.rs`) and the records in them
//! (`capture/record.rs`). docs/crash-ring.md has the whole picture.
//!
//! In: what a reader must know of the process that writes. Out: bytes, and the same from bytes. Damaged bytes are
//! `None`, never a panic. Lost here: nothing.
//!
//! ```text
//! file       = header | slots | dictionary
//! header     = "METLOGR" | format of records u8 | slots u32 | slot bytes u32 | slots at u64 | dictionary at u64 | details length u32
//!              | crc32c u32, of all this and the details | clock u64 | the same inverted u64 | unused u64 | details
//! details    = JSON: what every message of the process says
//! dictionary = callsite*, each at a multiple of 8
//! callsite   = "CALL" | length u32 | crc32c u32 | 0 u32 | id u64 | level u8 | flags u8 | line u32 | name | target
//!              | module | file | fields u16 | field*;   a text is its length as u32, and the text
//! ```
//! Numbers are little-endian. `clock` is what must be added to a record's time to get nanoseconds since the Unix
//! epoch.

use std::borrow::Cow;

use serde_json::{json, Value};

use crate::capture::callsite::Description;
use crate::capture::record::FORMAT;
use crate::delivery::encode::{NonFinite, Origin, SpanContext, Style};

/// A ring of another version of this crate, whose records are written differently, is not read but put aside.
const MAGIC: [u8; 8] = [b'M', b'E', b'T', b'L', b'O', b'G', b'R', FORMAT];
/// Bytes of a header in front of its details.
pub(crate) const HEAD: usize = 64;
const CHECKED: usize = 36;
/// Where the clock stands.
pub(crate) const CLOCK_AT: u64 = 40;
/// No details are longer.
const MOST_DETAILS: usize = 1 << 20;
const PAGE: u64 = 4096;

/// Where things are in a ring file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) slots: u32,
    pub(crate) slot_bytes: u32,
    pub(crate) slots_at: u64,
    pub(crate) dictionary_at: u64,
}

impl Layout {
    /// For so many slots, and details of this length.
    pub(crate) fn new(slots: u32, slot_bytes: u32, details: usize) -> Layout {
        let slots_at = ((HEAD + details) as u64).next_multiple_of(PAGE);
        let dictionary_at = slots_at + (u64::from(slots) * u64::from(slot_bytes)).next_multiple_of(PAGE);
        Layout { slots, slot_bytes, slots_at, dictionary_at }
    }

    /// Where a slot begins.
    pub(crate) fn slot(&self, index: u32) -> u64 {
        self.slots_at + u64::from(index) * u64::from(self.slot_bytes)
    }

    /// Whether all of it lies in a file of `length` bytes.
    fn fits(&self, length: u64) -> bool {
        let slots_end = u64::from(self.slots)
            .checked_mul(self.slot_bytes.into())
            .and_then(|end| end.checked_add(self.slots_at));
        slots_end.is_some_and(|end| end <= self.dictionary_at) && self.dictionary_at <= length
    }
}

/// The header's bytes.
pub(crate) fn header(layout: Layout, clock: u64, details: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + details.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&layout.slots.to_le_bytes());
    bytes.extend_from_slice(&layout.slot_bytes.to_le_bytes());
    bytes.extend_from_slice(&layout.slots_at.to_le_bytes());
    bytes.extend_from_slice(&layout.dictionary_at.to_le_bytes());
    bytes.extend_from_slice(&(details.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, details).to_le_bytes());
    bytes.extend_from_slice(&clock_bytes(clock));
    bytes.resize(HEAD, 0);
    bytes.extend_from_slice(details);
    bytes
}

/// What stands at [`CLOCK_AT`].
pub(crate) fn clock_bytes(clock: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&clock.to_le_bytes());
    bytes[8..].copy_from_slice(&(!clock).to_le_bytes());
    bytes
}

fn checksum(head: &[u8], details: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..CHECKED]), details)
}

/// A header that was read.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) layout: Layout,
    pub(crate) details: Vec<u8>,
    /// `None` when it was being written, or damaged.
    pub(crate) clock: Option<u64>,
}

/// Reads the header of a file of `length` bytes; `read` gives the bytes from there to there.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_header(
    length: u64,
    read: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Result<Header, &'static str> {
    let head = read(0, HEAD).ok_or("it is shorter than a header")?;
    let mut fields = Fields(&head);
    if fields.take(8) != Some(&MAGIC) {
        return Err("it does not begin as a crash ring of this version of tracing-metlog does");
    }
    let mut parse = || {
        let (slots, slot_bytes) = (fields.u32()?, fields.u32()?);
        let layout = Layout { slots, slot_bytes, slots_at: fields.u64()?, dictionary_at: fields.u64()? };
        Some((layout, fields.u32()? as usize, fields.u32()?, fields.u64()?, fields.u64()?))
    };
    let (layout, details, expected, clock, inverted) = parse().ok_or("its header is damaged")?;
    if details > MOST_DETAILS {
        return Err("its header is damaged");
    }
    let details = read(HEAD as u64, details).ok_or("it ends in its header")?;
    if checksum(&head, &details) != expected {
        return Err("its header is damaged");
    }
    if !layout.fits(length) {
        return Err("it is shorter than its header says");
    }
    Ok(Header { layout, details, clock: (clock == !inverted).then_some(clock) })
}

/// What every message of a process says, and when it began.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) style: Style,
    /// The clock at the start, should the header's own be damaged.
    pub(crate) clock: u64,
}

impl Details {
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let Style { logger, hostname, process_id, origin, span_context, span_keys, non_finite, .. } =
            &self.style;
        let Origin { target, module, file, line, thread, span, spans } = *origin;
        let details = json!({
            "logger": logger,
            "hostname": hostname,
            "pid": process_id,
            "clock": self.clock,
            "origin": [target, module, file, line, thread, span, spans],
            "span_context": match span_context {
                SpanContext::Flat => "flat",
                SpanContext::Nested => "nested",
                SpanContext::List => "list",
                SpanContext::None => "none",
            },
            "span_keys": span_keys,
            "non_finite": match non_finite {
                NonFinite::Text => "text",
                NonFinite::Null => "null",
            },
            "whole_milliseconds": self.style.whole_milliseconds,
            "message_ids": self.style.message_ids,
        });
        details.to_string().into_bytes()
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Option<Details> {
        let details: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| details[name].as_str().map(str::to_owned);
        let flags: Vec<bool> = details["origin"].as_array()?.iter().filter_map(Value::as_bool).collect();
        let &[target, module, file, line, thread, span, spans] = &flags[..] else { return None };
        let keys = |keys: &Vec<Value>| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let style = Style {
            logger: text("logger")?,
            hostname: text("hostname")?,
            process_id: u32::try_from(details["pid"].as_u64()?).ok()?,
            origin: Origin { target, module, file, line, thread, span, spans },
            span_context: match details["span_context"].as_str()? {
                "nested" => SpanContext::Nested,
                "list" => SpanContext::List,
                "none" => SpanContext::None,
                _ => SpanContext::Flat,
            },
            span_keys: details["span_keys"].as_array().map(keys),
            non_finite: match details["non_finite"].as_str()? {
                "null" => NonFinite::Null,
                _ => NonFinite::Text,
            },
            whole_milliseconds: details["whole_milliseconds"].as_bool()?,
            message_ids: details["message_ids"].as_bool()?,
        };
        Some(Details { style, clock: details["clock"].as_u64()? })
    }
}

const CALLSITE: &[u8; 4] = b"CALL";
const CALLSITE_HEAD: usize = 16;
const ALIGNMENT: usize = 8;
/// No callsite is described by more bytes.
const MOST_CALLSITE: usize = 1 << 20;

const EVENT: u8 = 1;
const HAS_LINE: u8 = 2;
const HAS_MODULE: u8 = 4;
const HAS_FILE: u8 = 8;

/// A callsite's bytes in the dictionary.
pub(crate) fn callsite(id: u64, description: &Description) -> Vec<u8> {
    let Description { name, target, module, file, line, level, is_event, fields } = description;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(*is_event, EVENT)
        | flag(line.is_some(), HAS_LINE)
        | flag(module.is_some(), HAS_MODULE)
        | flag(file.is_some(), HAS_FILE);
    let mut bytes = vec![0; CALLSITE_HEAD];
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&[*level, flags]);
    bytes.extend_from_slice(&line.unwrap_or_default().to_le_bytes());
    let mut text = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    [name, target].into_iter().for_each(|one| text(one));
    [module, file].into_iter().for_each(|one| text(one.as_deref().unwrap_or_default()));
    let count = fields.len().min(usize::from(u16::MAX));
    bytes.extend_from_slice(&(count as u16).to_le_bytes());
    for field in &fields[..count] {
        bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    let length = (bytes.len() - CALLSITE_HEAD) as u32;
    let checksum = crc32c::crc32c(&bytes[CALLSITE_HEAD..]);
    bytes[..4].copy_from_slice(CALLSITE);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// What is found in a dictionary.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) callsites: Vec<(u64, Description)>,
    /// Behind this many bytes is nothing.
    pub(crate) length: usize,
    /// Something in it is neither a callsite nor empty.
    pub(crate) is_damaged: bool,
}

/// Reads a dictionary. After something that is not a callsite it goes on with the next thing that is.
pub(crate) fn read_dictionary(bytes: &[u8]) -> Dictionary {
    // Most of what was made ready is not used.
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let mut found = Dictionary { length, ..Dictionary::default() };
    let mut rest = &bytes[..length.next_multiple_of(ALIGNMENT).min(bytes.len())];
    while !rest.is_empty() {
        let step = match read_callsite(rest) {
            Some((callsite, length)) => {
                found.callsites.push(callsite);
                length.next_multiple_of(ALIGNMENT)
            }
            None => {
                found.is_damaged |= rest.iter().take(ALIGNMENT).any(|&byte| byte != 0);
                ALIGNMENT
            }
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    found
}

/// The callsite at the front of `bytes`, and how many of them it takes.
fn read_callsite(bytes: &[u8]) -> Option<((u64, Description), usize)> {
    let mut head = Fields(bytes);
    if head.take(4)? != CALLSITE {
        return None;
    }
    let (length, checksum) = (head.u32()? as usize, head.u32()?);
    if length > MOST_CALLSITE || head.u32()? != 0 {
        return None;
    }
    let body = head.take(length)?;
    (crc32c::crc32c(body) == checksum).then_some(())?;
    let mut fields = Fields(body);
    let id = fields.u64()?;
    let &[level, flags] = fields.take(2)? else { return None };
    let line = fields.u32()?;
    let (name, target, module, file) = (fields.text()?, fields.text()?, fields.text()?, fields.text()?);
    let has = |flag: u8| flags & flag != 0;
    let description = Description {
        name,
        target,
        module: Some(module).filter(|_| has(HAS_MODULE)),
        file: Some(file).filter(|_| has(HAS_FILE)),
        line: Some(line).filter(|_| has(HAS_LINE)),
        level,
        is_event: has(EVENT),
        fields: (0..fields.u16()?).map(|_| fields.text()).collect::<Option<_>>()?,
    };
    Some(((id, description), CALLSITE_HEAD + length))
}

/// Reads from the front of a slice; `None` at its end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Cow<'static, str>> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        Some(Cow::Owned(text.to_owned()))
    }
}
