//! What `=~` and `!~` look for. In: a regular expression in the syntax of RE2, as Heka knows it. Out: a prefix, a
//! suffix or a text to be found where that is all it says, and else a regular expression of the `regex` crate: time is
//! linear in the text whatever the expression is.
//!
//! Nothing of a message is lost here. What is too large to compile is an error.

use std::fmt::{self, Display, Formatter, Write};

use regex::{Regex, RegexBuilder};

use super::error::Problem;
use super::re2::{self, Translation};
use super::LARGEST_REGULAR;

/// A pattern, compiled. Two are equal when they are written the same.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    source: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regular(Regex),
}

/// What a regular expression says.
#[derive(Debug)]
pub(super) enum Compiled {
    /// The text is this one and no other: a comparison says the same.
    Exactly(String),
    Pattern(Pattern),
}

impl Pattern {
    pub(super) fn compile(source: &str) -> Result<Compiled, Problem> {
        if let Some(compiled) = plain(source) {
            return Ok(compiled);
        }
        let translation = re2::translate(source)?;
        let regex = RegexBuilder::new(&translation.pattern)
            .size_limit(LARGEST_REGULAR)
            .dfa_size_limit(LARGEST_REGULAR)
            .build()
            .map_err(|error| too_hard(&error))?;
        Ok(Compiled::Pattern(Pattern { source: source.to_owned(), kind: Kind::Regular(regex) }))
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Kind::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Kind::Contains(part) => text.contains(part.as_str()),
            Kind::Regular(regex) => regex.is_match(text),
        }
    }

    pub(super) fn needs_engine(&self) -> bool {
        matches!(self.kind, Kind::Regular(_))
    }

    fn compiled(source: String, kind: Kind) -> Compiled {
        Compiled::Pattern(Pattern { source, kind })
    }
}

/// What needs no engine. That `^` before a plain text, and else `$` behind one, is all there is to see is Heka's rule,
/// also where it is wrong by the letter: `(?m)` before `text$` changes nothing.
fn plain(source: &str) -> Option<Compiled> {
    if let Some(prefix) = source.strip_prefix('^').and_then(literal) {
        return Some(Pattern::compiled(format!("^{}", escaped(&prefix)), Kind::Prefix(prefix)));
    }
    if let Some(suffix) = source.strip_suffix('$').and_then(literal) {
        return Some(Pattern::compiled(format!("{}$", escaped(&suffix)), Kind::Suffix(suffix)));
    }
    let between = source.strip_prefix('^').and_then(|source| source.strip_suffix('$'));
    if let Some(Translation { literal: Some(text), has_flags: false, .. }) =
        between.and_then(|between| re2::translate(between).ok())
    {
        return Some(Compiled::Exactly(text));
    }
    literal(source).map(|part| Pattern::compiled(escaped(&part), Kind::Contains(part)))
}

fn literal(source: &str) -> Option<String> {
    re2::translate(source).ok()?.literal
}

#[cold]
fn too_hard(error: &regex::Error) -> Problem {
    match error {
        regex::Error::CompiledTooBig(limit) => Problem::new(
            0,
            format!(
                "this regular expression needs more than {limit} bytes: fewer or smaller repetitions fit"
            ),
        ),
        // The syntax was checked before; what is left are names of Unicode classes and of groups. One line of many says it.
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Problem::new(0, format!("this regular expression cannot be compiled: {reason}"))
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        // `(?m)a$` is a suffix, and is written as one.
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// The pattern between slashes.
impl Display for Pattern {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_char('/')?;
        let mut characters = self.source.chars();
        while let Some(character) = characters.next() {
            match character {
                '/' => formatter.write_str("\\/")?,
                '\\' => {
                    formatter.write_char('\\')?;
                    characters.next().map_or(Ok(()), |next| formatter.write_char(next))?;
                }
                other => formatter.write_char(other)?,
            }
        }
        formatter.write_char('/')
    }
}

/// A pattern between slashes that is true of exactly this text.
pub(super) fn exactly(text: &str) -> String {
    format!("/^{}$/", escaped(text).replace('/', "\\/"))
}

/// A regular expression that looks for this text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\0' => escaped.push_str("\\x00"),
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                escaped.extend(['\\', character]);
            }
            other => escaped.push(other),
        }
    }
    escaped
}
