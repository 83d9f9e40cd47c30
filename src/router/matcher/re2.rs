//! From the syntax of RE2, which Heka's regular expressions have, to that of the `regex` crate. In: an expression.
//! Out: one that is true of the same texts, or the place of the first mistake.
//!
//! The two are alike enough to be taken for each other, and differ where it hurts: `\d`, `\w`, `\s` and `\b` are of
//! ASCII in RE2 and of Unicode there; `\<` is a `<` in RE2 and the start of a word there; `[[a]` and `[a&&b]` are
//! plain sets of characters in RE2, and nested sets and intersections there; `\Q...\E`, octal escapes and a `{` that
//! begins no repetition are unknown there; `(?x)` is unknown to RE2.

use std::fmt::Write;

use super::error::Problem;

/// The most repetitions that `{}` may ask for: RE2's bound.
const MOST_REPETITIONS: u32 = 1_000;

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
/// Without the vertical tab.
const SPACE: &str = r"\t\n\f\r ";

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// An expression that the `regex` crate understands.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) pattern: String,
    /// The text, if the expression is nothing but that.
    pub(super) literal: Option<String>,
    /// Whether it sets flags on the way.
    pub(super) has_flags: bool,
}

pub(super) fn translate(source: &str) -> Result<Translation, Problem> {
    let mut translator = Translator {
        source,
        at: 0,
        out: Translation { literal: Some(String::new()), ..Translation::default() },
        open: Vec::new(),
        repeatable: Repeatable::No,
        flags: String::new(),
    };
    while translator.peek().is_some() {
        translator.piece()?;
    }
    match translator.open.pop() {
        Some(open) => Err(Problem::new(open, "this parenthesis is not closed")),
        None => Ok(translator.out),
    }
}

/// Whether `*` may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeatable {
    No,
    Yes,
    /// It just came.
    Repeated,
}

struct Translator<'a> {
    source: &'a str,
    at: usize,
    out: Translation,
    /// Where the parentheses stand that are open.
    open: Vec<usize>,
    repeatable: Repeatable,
    /// What was set and not written yet: RE2 repeats what stands before it, and so the repetition comes first.
    flags: String,
}

impl<'a> Translator<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Something that is no plain text.
    fn emit(&mut self, pattern: &str, repeatable: Repeatable) {
        if repeatable != Repeatable::Repeated {
            self.write_flags();
        }
        self.out.pattern.push_str(pattern);
        self.out.literal = None;
        self.repeatable = repeatable;
    }

    fn write_flags(&mut self) {
        self.out.pattern.push_str(&std::mem::take(&mut self.flags));
    }

    fn emit_literal(&mut self, character: char) {
        self.write_flags();
        push_character(&mut self.out.pattern, character);
        if let Some(literal) = &mut self.out.literal {
            literal.push(character);
        }
        self.repeatable = Repeatable::Yes;
    }

    fn piece(&mut self) -> Result<(), Problem> {
        let start = self.at;
        match self.take() {
            Some('\\') => self.escape(start)?,
            Some('[') => self.class(start)?,
            Some('(') => self.group(start)?,
            Some(')') => {
                self.open.pop().ok_or_else(|| Problem::new(start, "no parenthesis is open here"))?;
                self.emit(")", Repeatable::Yes);
            }
            Some('|') => self.emit("|", Repeatable::No),
            Some('.') => self.emit(".", Repeatable::Yes),
            Some('^') => self.emit("^", Repeatable::Yes),
            Some('$') => self.emit("$", Repeatable::Yes),
            Some(operator @ ('*' | '+' | '?')) => self.repeat(start, operator.encode_utf8(&mut [0; 4]))?,
            Some('{') => match self.counts(start)? {
                Some(counts) => self.repeat(start, &counts)?,
                None => self.emit_literal('{'),
            },
            Some(character) => self.emit_literal(character),
            None => {}
        }
        Ok(())
    }

    fn repeat(&mut self, start: usize, operator: &str) -> Result<(), Problem> {
        match self.repeatable {
            Repeatable::No => return Err(Problem::new(start, "there is nothing here to repeat")),
            Repeatable::Repeated => {
                return Err(Problem::new(start, "a repetition cannot be repeated: use parentheses"))
            }
            Repeatable::Yes => {}
        }
        self.emit(operator, Repeatable::Repeated);
        if self.take_if("?") {
            self.out.pattern.push('?');
        }
        Ok(())
    }

    /// The rest of `{n}`, `{n,}` or `{n,m}`; `None` if it is none of them, and the brace stands for itself.
    fn counts(&mut self, start: usize) -> Result<Option<String>, Problem> {
        let Some((inside, _)) = self.rest().split_once('}') else {
            return Ok(None);
        };
        let (least, most) = match inside.split_once(',') {
            None => (inside, Some(inside)),
            Some((least, "")) => (least, None),
            Some((least, most)) => (least, Some(most)),
        };
        let is_count = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number && (text == "0" || !text.starts_with('0'))
        };
        if !is_count(least) || !most.is_none_or(is_count) {
            return Ok(None);
        }
        let in_bounds = |text: &str| text.parse().ok().filter(|&count: &u32| count <= MOST_REPETITIONS);
        let bounds = match most {
            None => in_bounds(least).is_some(),
            Some(most) => matches!((in_bounds(least), in_bounds(most)), (Some(a), Some(b)) if a <= b),
        };
        if !bounds {
            return Err(Problem::new(
                start,
                format!("expected {{n}}, {{n,}} or {{n,m}} with n <= m <= {MOST_REPETITIONS}"),
            ));
        }
        self.at += inside.len() + 1;
        Ok(Some(format!("{{{inside}}}")))
    }

    /// What is behind a parenthesis: a group, a group with a name, flags, or a group with flags.
    fn group(&mut self, start: usize) -> Result<(), Problem> {
        if !self.take_if("?") {
            self.open.push(start);
            self.emit("(?:", Repeatable::No);
            return Ok(());
        }
        if self.take_if("P<") || self.take_if("<") {
            return self.named_group(start);
        }
        let flags_start = self.at;
        let (mut negated, mut set) = (false, false);
        loop {
            match self.take() {
                Some('i') => {
                    set = true;
                    self.out.literal = None;
                }
                Some('m' | 's' | 'U') => set = true,
                Some('-') if !negated => (negated, set) = (true, false),
                Some(end @ (':' | ')')) if set || !negated => return self.flags(start, flags_start, end),
                _ => {
                    return Err(Problem::new(
                        start,
                        "expected (?P<name>...), or flags of i, m, s and U: (?i), (?i:...)",
                    ))
                }
            }
        }
    }

    fn flags(&mut self, start: usize, flags_start: usize, end: char) -> Result<(), Problem> {
        let flags = &self.source[flags_start..self.at - 1];
        if end == ':' {
            self.open.push(start);
            self.emit(&format!("(?{flags}:"), Repeatable::No);
        } else if !flags.is_empty() {
            // Plain text stays plain text behind most flags: not `emit`.
            write_to(&mut self.flags, format_args!("(?{flags})"));
            self.out.has_flags = true;
        }
        Ok(())
    }

    /// Nobody asks what a group has found: names only have to be sound.
    fn named_group(&mut self, start: usize) -> Result<(), Problem> {
        let name = self.rest().split('>').next().unwrap_or_default();
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !sound || name.len() == self.rest().len() {
            return Err(Problem::new(
                start,
                "expected the name of a group, of letters, digits and _: (?P<name>...)",
            ));
        }
        self.at += name.len() + 1;
        self.open.push(start);
        self.emit("(?:", Repeatable::No);
        Ok(())
    }

    fn escape(&mut self, start: usize) -> Result<(), Problem> {
        match self.peek() {
            Some('A') => self.emit(r"\A", Repeatable::Yes),
            Some('z') => self.emit(r"\z", Repeatable::Yes),
            Some('b') => self.emit(r"(?-u:\b)", Repeatable::Yes),
            Some('B') => self.emit(r"(?-u:\B)", Repeatable::Yes),
            Some('Q') => {
                self.take();
                self.quoted();
                return Ok(());
            }
            _ => {
                return match self.set(start)? {
                    Some(set) => {
                        self.emit(&set, Repeatable::Yes);
                        Ok(())
                    }
                    None => self.escaped_character(start).map(|character| self.emit_literal(character)),
                }
            }
        }
        self.take();
        Ok(())
    }

    /// The rest of `\Q...\E`; without the end, all the rest.
    fn quoted(&mut self) {
        let quoted = self.rest().split(r"\E").next().unwrap_or_default();
        self.at += quoted.len();
        self.take_if(r"\E");
        quoted.chars().for_each(|character| self.emit_literal(character));
    }

    /// The rest of `\d`, `\pL` and their kin, outside and inside of brackets; `None` if it is none of them.
    fn set(&mut self, start: usize) -> Result<Option<String>, Problem> {
        let set = match self.peek() {
            Some('d') => format!("[{DIGIT}]"),
            Some('D') => format!("[^{DIGIT}]"),
            Some('w') => format!("[{WORD}]"),
            Some('W') => format!("[^{WORD}]"),
            Some('s') => format!("[{SPACE}]"),
            Some('S') => format!("[^{SPACE}]"),
            Some(letter @ ('p' | 'P')) => {
                self.take();
                return self.unicode(start, letter == 'P').map(Some);
            }
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(set))
    }

    fn unicode(&mut self, start: usize, negated: bool) -> Result<String, Problem> {
        let (mut negated, mut name) = (negated, "");
        if self.take_if("{") {
            negated ^= self.take_if("^");
            if let Some((inside, _)) = self.rest().split_once('}') {
                name = inside;
                self.at += inside.len() + 1;
            }
        } else {
            let rest = self.rest();
            self.take();
            name = &rest[..rest.len() - self.rest().len()];
        }
        // The `regex` crate takes names for equal that differ in case.
        let sound = name.starts_with(|first: char| first.is_ascii_uppercase())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !sound {
            return Err(Problem::new(start, r"expected a class of characters, as in \pL or \p{Greek}"));
        }
        Ok(format!(r"\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// The rest of an escape that stands for one character.
    fn escaped_character(&mut self, start: usize) -> Result<char, Problem> {
        let character = match self.take() {
            None => return Err(Problem::new(start, r"expected a character after the backslash")),
            Some('a') => Some('\x07'),
            Some('f') => Some('\x0c'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('v') => Some('\x0b'),
            Some('x') => self.hexadecimal(),
            Some(digit @ '0'..='7') => self.octal(digit),
            Some(other) => Some(other).filter(|other| other.is_ascii() && !other.is_ascii_alphanumeric()),
        };
        character.ok_or_else(|| {
            let escape = &self.source[start..self.at];
            Problem::new(start, format!("`{escape}` is no escape of a regular expression"))
        })
    }

    fn hexadecimal(&mut self) -> Option<char> {
        let digits = if self.take_if("{") {
            let (digits, _) = self.rest().split_once('}')?;
            self.at += digits.len() + 1;
            digits
        } else {
            let digits = self.rest().get(..2)?;
            self.at += 2;
            digits
        };
        let digits_only = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        // As many zeros as one likes may stand before it.
        let number = match digits.trim_start_matches('0') {
            "" if digits.is_empty() => return None,
            "" => 0,
            digits => u32::from_str_radix(digits, 16).ok().filter(|_| digits_only)?,
        };
        char::from_u32(number)
    }

    /// One digit other than 0 would be a backreference, which RE2 has not.
    fn octal(&mut self, first: char) -> Option<char> {
        let mut number = first.to_digit(8)?;
        let mut more = 0;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(8)).filter(|_| more < 2) {
            number = number * 8 + digit;
            more += 1;
            self.take();
        }
        if first != '0' && more == 0 {
            return None;
        }
        char::from_u32(number)
    }

    /// The rest of a class in brackets.
    fn class(&mut self, start: usize) -> Result<(), Problem> {
        let mut class = String::from(if self.take_if("^") { "[^" } else { "[" });
        let mut first = true;
        loop {
            let item = self.at;
            if self.take_if("]") && !first {
                class.push(']');
                self.emit(&class, Repeatable::Yes);
                return Ok(());
            }
            self.at = item;
            first = false;
            self.class_item(start, &mut class)?;
        }
    }

    /// A character, a range or a set, in the class that begins at `start`.
    fn class_item(&mut self, start: usize, class: &mut String) -> Result<(), Problem> {
        let item = self.at;
        if let Some(named) = self.posix()? {
            write_to(class, format_args!("{named}"));
            return Ok(());
        }
        if self.take_if("\\") {
            if let Some(set) = self.set(item)? {
                class.push_str(&set);
                return Ok(());
            }
            self.at = item;
        }
        let low = self.class_character(start)?;
        let mut high = low;
        let rest = self.rest();
        if rest.starts_with('-') && !rest.starts_with("-]") && rest.len() > 1 {
            self.take();
            high = self.class_character(start)?;
        }
        if high < low {
            return Err(Problem::new(item, "this range ends before it begins"));
        }
        push_character(class, low);
        if high != low {
            class.push('-');
            push_character(class, high);
        }
        Ok(())
    }

    fn class_character(&mut self, start: usize) -> Result<char, Problem> {
        let at = self.at;
        match self.take() {
            None => Err(Problem::new(start, "this bracket is not closed")),
            Some('\\') => self.escaped_character(at),
            Some(character) => Ok(character),
        }
    }

    /// `[:alpha:]` inside of brackets; without the closing `:]` it is no such thing.
    fn posix(&mut self) -> Result<Option<&'a str>, Problem> {
        let rest = self.rest();
        let Some((name, _)) = rest.strip_prefix("[:").and_then(|inside| inside.split_once(":]")) else {
            return Ok(None);
        };
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(Problem::new(self.at, format!("expected one of the classes {}", POSIX.join(", "))));
        }
        let length = name.len() + 4;
        self.at += length;
        Ok(Some(&rest[..length]))
    }
}

/// A character that stands for itself, wherever it stands.
fn push_character(out: &mut String, character: char) {
    if character.is_ascii() && !character.is_ascii_alphanumeric() {
        write_to(out, format_args!(r"\x{:02X}", character as u32));
    } else {
        out.push(character);
    }
}

/// A `String` takes everything.
fn write_to(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}
