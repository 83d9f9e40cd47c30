//! One pass over the bytes of a message. In: text. Out: where each value of the envelope stands, or `None` for what is
//! left to [`decode`](crate::router::decode()), which is slow and knows everything. Nothing is lost here.
//!
//! What is found here is JSON to its last byte, and it is what `decode` would find. So whatever is rare goes the slow way
//! instead of being taken care of twice: errors, keys that are unknown or come twice, nesting beyond 100 levels, numbers
//! that may overflow, what has to be repaired.

use crate::Severity;

/// How deep values may be nested for the quick way. The slow one goes a little further, and then it is an error.
const MAX_DEPTH: usize = 100;

/// How long a number may be for the quick way: no overflow with [`MAX_EXPONENT_DIGITS`].
const MAX_NUMBER_BYTES: usize = 40;

/// 10^99 times a number of 40 digits is far from the largest double.
const MAX_EXPONENT_DIGITS: usize = 2;

/// An integer of so many digits fits `i64`.
const MAX_INTEGER_BYTES: usize = 18;

/// A string as it stands in the message, with its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) quoted: &'a str,
    has_escapes: bool,
}

impl<'a> Text<'a> {
    /// What it says, if that is what stands there.
    pub(super) fn plain(self) -> Option<&'a str> {
        let inner = self.quoted.get(1..self.quoted.len().saturating_sub(1));
        inner.filter(|_| !self.has_escapes)
    }
}

/// A value of the envelope.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Text(Text<'a>),
    Number(&'a str),
}

/// What is known of the id in `fields` without reading them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Id<'a> {
    /// There is none.
    None,
    /// The text of the id.
    Plain(&'a str),
    /// Something is spelled with escapes: only reading tells.
    Unclear,
}

/// Where everything is. `None` is a key that is not there, or is `null`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    /// The whole object, from brace to brace.
    pub(super) object: &'a str,
    pub(super) timestamp: Option<Text<'a>>,
    pub(super) logger: Option<Text<'a>>,
    pub(super) r#type: Text<'a>,
    pub(super) severity: Severity,
    pub(super) payload: Option<Scalar<'a>>,
    pub(super) fields: Option<&'a str>,
    pub(super) env_version: Option<Text<'a>>,
    pub(super) pid: Option<i64>,
    pub(super) hostname: Option<Text<'a>>,
    pub(super) id: Id<'a>,
    /// Every key is there that must be, none is `null`, and it is one line.
    pub(super) is_canonical: bool,
}

/// Takes `text` apart, if it is a message without peculiarities.
pub(super) fn scan(text: &str) -> Option<Envelope<'_>> {
    let bytes = text.as_bytes();
    // All bytes at once, for which the compiler has wide instructions: strings need not look for them then.
    let has_controls = bytes.iter().fold(false, |found, &byte| found | (byte < 0x20));
    let mut scanner = Scanner { text, bytes, at: 0, has_controls, has_line_breaks: false };
    scanner.blanks();
    let start = scanner.at;
    let found = scanner.envelope()?;
    let object = text.get(start..scanner.at)?;
    let is_one_line = !scanner.has_line_breaks;
    scanner.blanks();
    (scanner.at == text.len()).then_some(())?;
    found.finish(object, is_one_line)
}

/// Keys as they are found; each at most once.
#[derive(Default)]
struct Found<'a> {
    seen: u16,
    timestamp: Option<Text<'a>>,
    logger: Option<Text<'a>>,
    r#type: Option<Text<'a>>,
    severity: Option<Severity>,
    payload: Option<Scalar<'a>>,
    fields: Option<(&'a str, Id<'a>)>,
    env_version: Option<Text<'a>>,
    pid: Option<i64>,
    hostname: Option<Text<'a>>,
    has_null: bool,
}

impl<'a> Found<'a> {
    fn finish(self, object: &'a str, is_one_line: bool) -> Option<Envelope<'a>> {
        let is_complete = self.timestamp.is_some()
            && self.logger.is_some()
            && self.severity.is_some()
            && self.payload.is_some()
            && self.fields.is_some()
            && self.env_version.is_some();
        Some(Envelope {
            object,
            timestamp: self.timestamp,
            logger: self.logger,
            r#type: self.r#type?,
            severity: self.severity.unwrap_or(Severity::Informational),
            payload: self.payload,
            fields: self.fields.map(|(fields, _)| fields),
            env_version: self.env_version,
            pid: self.pid,
            hostname: self.hostname,
            id: self.fields.map_or(Id::None, |(_, id)| id),
            is_canonical: is_complete && is_one_line && !self.has_null,
        })
    }

    /// Notes that a key has come; `None` the second time.
    fn first(&mut self, key: u16) -> Option<()> {
        let is_first = self.seen & (1 << key) == 0;
        self.seen |= 1 << key;
        is_first.then_some(())
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// There are control characters somewhere: between values they are blanks, in a string an error.
    has_controls: bool,
    has_line_breaks: bool,
}

impl<'a> Scanner<'a> {
    fn envelope(&mut self) -> Option<Found<'a>> {
        let mut found = Found::default();
        self.take(b'{')?;
        self.blanks();
        loop {
            let key = self.text()?.plain()?;
            self.colon()?;
            self.entry(key, &mut found)?;
            if self.ends(b'}')? {
                return Some(found);
            }
        }
    }

    /// The value of one key of the envelope.
    fn entry(&mut self, key: &str, found: &mut Found<'a>) -> Option<()> {
        match key {
            "timestamp" => {
                found.first(0)?;
                found.timestamp = self.text_or_null(&mut found.has_null)?;
            }
            "logger" => {
                found.first(1)?;
                found.logger = self.text_or_null(&mut found.has_null)?;
            }
            "type" => {
                found.first(2)?;
                found.r#type = self.text_or_null(&mut found.has_null)?;
            }
            "severity" => {
                found.first(3)?;
                found.severity = self.severity(&mut found.has_null)?;
            }
            "payload" => {
                found.first(4)?;
                found.payload = match self.scalar()? {
                    Scalar::Null => {
                        found.has_null = true;
                        None
                    }
                    value => Some(value),
                };
            }
            "fields" => {
                found.first(5)?;
                found.fields = Some(self.fields()?);
            }
            "env_version" => {
                found.first(6)?;
                found.env_version = self.text_or_null(&mut found.has_null)?;
            }
            "metlog_pid" => {
                found.first(7)?;
                found.pid = self.integer(&mut found.has_null)?;
            }
            "metlog_hostname" => {
                found.first(8)?;
                found.hostname = self.text_or_null(&mut found.has_null)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// A string; `Some(None)` is `null`.
    fn text_or_null(&mut self, has_null: &mut bool) -> Option<Option<Text<'a>>> {
        match self.scalar()? {
            Scalar::Text(text) => Some(Some(text)),
            Scalar::Number(_) => None,
            Scalar::Null => {
                *has_null = true;
                Some(None)
            }
        }
    }

    fn severity(&mut self, has_null: &mut bool) -> Option<Option<Severity>> {
        let number = self.integer(has_null)?;
        match number {
            None => Some(None),
            Some(number) => Some(Some(Severity::from_number(u8::try_from(number).ok()?)?)),
        }
    }

    /// An integer written as one; `Some(None)` is `null`.
    fn integer(&mut self, has_null: &mut bool) -> Option<Option<i64>> {
        match self.scalar()? {
            Scalar::Number(number) if number.len() <= MAX_INTEGER_BYTES && number != "-0" => {
                Some(Some(number.parse().ok()?))
            }
            Scalar::Null => {
                *has_null = true;
                Some(None)
            }
            _ => None,
        }
    }

    fn scalar(&mut self) -> Option<Scalar<'a>> {
        match self.next()? {
            b'"' => self.text().map(Scalar::Text),
            b'-' | b'0'..=b'9' => self.number().map(Scalar::Number),
            b'n' => self.word(b"null").map(|()| Scalar::Null),
            _ => None,
        }
    }

    /// The object of the fields, as it stands, and the id in it.
    fn fields(&mut self) -> Option<(&'a str, Id<'a>)> {
        let start = self.at;
        let (mut id, mut has_odd_keys) = (Id::None, false);
        self.take(b'{')?;
        self.blanks();
        if self.next()? == b'}' {
            self.at += 1;
            return Some((self.text.get(start..self.at)?, id));
        }
        loop {
            let key_start = self.at;
            has_odd_keys |= self.string()?;
            let is_id = &self.bytes[key_start..self.at] == b"\"metlog_id\"";
            self.colon()?;
            if is_id && self.next()? == b'"' {
                // Of a key that comes twice the last counts.
                id = self.text()?.plain().map_or(Id::Unclear, Id::Plain);
            } else {
                self.value(2)?;
                if is_id {
                    id = Id::None;
                }
            }
            if self.ends(b'}')? {
                let fields = self.text.get(start..self.at)?;
                return Some((fields, if has_odd_keys { Id::Unclear } else { id }));
            }
        }
    }

    /// Any value.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        if self.opens(b'}', depth)? {
            return Some(());
        }
        loop {
            self.string()?;
            self.colon()?;
            self.value(depth)?;
            if self.ends(b'}')? {
                return Some(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if self.opens(b']', depth)? {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.ends(b']')? {
                return Some(());
            }
        }
    }

    /// Goes behind the opening brace or bracket; whether the closing one follows.
    #[inline(always)]
    fn opens(&mut self, closing: u8, depth: usize) -> Option<bool> {
        (depth <= MAX_DEPTH).then_some(())?;
        self.at += 1;
        self.blanks();
        let is_empty = self.next()? == closing;
        self.at += usize::from(is_empty);
        Some(is_empty)
    }

    /// Goes behind what follows a value: a comma, after which there must be more, or the end.
    #[inline(always)]
    fn ends(&mut self, closing: u8) -> Option<bool> {
        self.blanks();
        let byte = self.next()?;
        self.at += 1;
        match byte {
            b',' => {
                self.blanks();
                Some(false)
            }
            _ => (byte == closing).then_some(true),
        }
    }

    #[inline(always)]
    fn colon(&mut self) -> Option<()> {
        self.blanks();
        self.take(b':')?;
        self.blanks();
        Some(())
    }

    #[inline(always)]
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())?;
        self.at += 1;
        Some(())
    }

    #[inline(always)]
    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then_some(())?;
        self.at += word.len();
        Some(())
    }

    #[inline(always)]
    fn blanks(&mut self) {
        while let Some(byte) = self.next() {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.has_line_breaks = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Goes behind the string that begins here, and keeps it.
    fn text(&mut self) -> Option<Text<'a>> {
        let start = self.at;
        let has_escapes = self.string()?;
        Some(Text { quoted: self.text.get(start..self.at)?, has_escapes })
    }

    /// Goes behind the string that begins here; whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        self.take(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.ordinary();
            if self.next()? == b'"' {
                break;
            }
            has_escapes = true;
            self.escape()?;
        }
        if self.has_controls && self.bytes.get(start..self.at)?.iter().any(|&byte| byte < 0x20) {
            return None;
        }
        self.at += 1;
        Some(has_escapes)
    }

    /// Goes to the next quote or backslash, eight bytes at a time.
    #[inline(always)]
    fn ordinary(&mut self) {
        while let Some(word) = self.bytes.get(self.at..self.at + 8).and_then(|word| word.try_into().ok()) {
            let special = special(u64::from_le_bytes(word));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.next().is_some_and(|byte| !matches!(byte, b'"' | b'\\')) {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => match self.unit()? {
                0xd800..=0xdbff => {
                    // Half of a pair is repaired the slow way.
                    matches!(self.unit()?, 0xdc00..=0xdfff).then_some(())?;
                }
                0xdc00..=0xdfff => return None,
                _ => {}
            },
            _ => return None,
        }
        Some(())
    }

    /// The number of a `\uXXXX`.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.bytes.get(self.at..self.at + 6)?.strip_prefix(b"\\u")?;
        self.at += 6;
        digits.iter().try_fold(0, |number, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(number << 4 | digit as u16)
        })
    }

    /// Goes behind the number that begins here.
    fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += usize::from(self.next()? == b'-');
        match self.next()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => drop(self.digits()),
            _ => return None,
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.next() {
            self.at += 1;
            self.at += usize::from(matches!(self.next()?, b'+' | b'-'));
            (self.digits()? <= MAX_EXPONENT_DIGITS).then_some(())?;
        }
        self.text.get(start..self.at).filter(|number| number.len() <= MAX_NUMBER_BYTES)
    }

    /// Goes behind digits, of which there must be one; how many there were.
    #[inline(always)]
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(self.at - start)
    }
}

/// Marks, in their highest bits, the bytes that are quotes or backslashes. The lowest mark is right; those above it may be
/// too many.
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = ONES << 7;
    let is = |byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero
    };
    (is(b'"') | is(b'\\')) & HIGHEST
}
