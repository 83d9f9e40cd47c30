//! Why a text is no expression. In: the text, the place, what was expected there. Out: an error for people, with the
//! place marked.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

/// Why a text is no message matcher, and where.
///
/// Its `Display` has three lines: what was expected, the expression (of a long one, the surroundings of the place), and
/// a caret under the place.
///
/// ```
/// use tracing_metlog::router::Matcher;
///
/// let error = Matcher::parse("Type = 'timer'").unwrap_err();
/// assert_eq!(error.column(), 6);
/// assert_eq!(error.to_string(), "\
/// column 6: expected one of ==, !=, <, <=, >, >=, =~, !~, found `=`
///     Type = 'timer'
///          ^");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatcherError {
    expression: String,
    /// In bytes.
    offset: usize,
    problem: Cow<'static, str>,
}

/// A problem and its place, in bytes from the start of the expression.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) offset: usize,
    pub(super) text: Cow<'static, str>,
}

impl Problem {
    pub(super) fn new(offset: usize, text: impl Into<Cow<'static, str>>) -> Self {
        Problem { offset, text: text.into() }
    }
}

impl MatcherError {
    #[cold]
    pub(super) fn new(expression: &str, problem: Problem) -> Self {
        MatcherError { expression: expression.to_owned(), offset: problem.offset, problem: problem.text }
    }

    /// The text that is no expression; of one that is too long, its beginning.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The place in the expression: the number of the character, from 1. One more than the last at its end.
    pub fn column(&self) -> usize {
        self.before().chars().count() + 1
    }

    /// What was expected at that place, or is wrong with it; one line.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    fn before(&self) -> &str {
        self.expression.get(..self.offset).unwrap_or(&self.expression)
    }
}

impl Display for MatcherError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        /// How many characters are shown before the place, and after it.
        const SHOWN: usize = 60;
        let (before, after) = (self.before(), self.expression.get(self.offset..).unwrap_or_default());
        let hidden = before.chars().count().saturating_sub(SHOWN);
        let mut start: String = before.chars().skip(hidden).map(printable).collect();
        let mut end: String = after.chars().take(SHOWN).map(printable).collect();
        if hidden > 0 {
            start.insert_str(0, "...");
        }
        if after.chars().nth(SHOWN).is_some() {
            end.push_str("...");
        }
        let caret = " ".repeat(start.chars().count());
        write!(formatter, "column {}: {}\n    {start}{end}\n    {caret}^", self.column(), self.problem)
    }
}

/// What stands in one column of a terminal and does nothing to it.
pub(super) fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        '\n' => '\u{21b5}',
        _ if character.is_control() => '\u{fffd}',
        _ => character,
    }
}

impl std::error::Error for MatcherError {}
