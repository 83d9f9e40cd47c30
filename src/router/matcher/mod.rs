//! Which messages a route takes: Heka's message matcher, a small language. In: an expression, then messages. Out: yes or
//! no for each; or, once and before any message, an error that shows the place.
//!
//! ```text
//! "Type == 'a'" ── lexer ── parser ── Condition ──┬─ evaluate ── yes or no
//!                              │                  └─ set: many at once
//!                              └─ pattern ── re2
//! ```
//!
//! Nothing can be lost or fail once an expression is read. `docs/matcher.md` is the reference of the language.

#[doc = include_str!("../../../docs/matcher.md")]
pub mod language {}

mod condition;
mod error;
mod evaluate;
mod lexer;
mod parser;
mod pattern;
mod re2;
mod set;
mod subject;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::{Message, Severity};

pub use error::MatcherError;
pub use set::{MatcherSet, Matches};
#[cfg(feature = "http")]
pub(in crate::router) use subject::nanoseconds;
pub use subject::{NumberVariable, Subject, TextVariable};

use condition::{Comparison, Condition, Number, TextTest};

/// The longest expression, in bytes: room for more than a thousand alternatives, and no way to fill the memory.
const LONGEST_EXPRESSION: usize = 65_536;

/// How many parentheses may be open at a time: reading, asking and dropping an expression recurse as deep as that.
const MOST_NESTED: usize = 100;

/// How many regular expressions one expression may have that are more than a plain text.
const MOST_REGULAR: usize = 1_000;

/// What one compiled regular expression may take, in bytes.
const LARGEST_REGULAR: usize = 1 << 20;

/// A condition on a message, in Heka's language: [`parse`](Matcher::parse) one, or build one with the functions here.
///
/// ```
/// use tracing_metlog::router::Matcher;
/// use tracing_metlog::{Message, Severity};
///
/// let urgent = Matcher::parse("(Type == 'oldstyle' || Type == 'panic') && Severity <= 3")?;
/// assert!(!urgent.matches(&Message::new("oldstyle", "all is well")));
///
/// let same = Matcher::types(["oldstyle", "panic"]).and(Matcher::severity_at_most(Severity::Error));
/// assert_eq!(same, urgent);
/// assert_eq!(same.to_string(), "(Type == 'oldstyle' || Type == 'panic') && Severity <= 3");
/// # Ok::<(), tracing_metlog::router::MatcherError>(())
/// ```
///
/// Its `Display` is an expression that parses to an equal matcher, as long as that is within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher(Condition);

impl Matcher {
    /// Reads an expression, once and for all messages. What it may say is in [the reference](crate::router::language).
    ///
    /// # Errors
    /// [`MatcherError`] names the place of the first mistake and what was expected there. It is one, too, to have more
    /// than 65,536 bytes, 100 parentheses open at a time, 1,000 regular expressions that are more than plain texts, or
    /// one that takes more than 1 MiB when it is compiled.
    pub fn parse(expression: &str) -> Result<Self, MatcherError> {
        parser::parse(expression).map(Matcher)
    }

    /// Every message.
    pub fn any() -> Self {
        Matcher(Condition::Constant(true))
    }

    /// Messages of exactly this type.
    pub fn type_is(message_type: impl Into<String>) -> Self {
        Matcher::types([message_type])
    }

    /// Messages of one of these types.
    pub fn types<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        let types: BTreeSet<String> = types.into_iter().map(Into::into).collect();
        let is = |name| Condition::Text(TextVariable::Type, TextTest::Compare(Comparison::Equal, name));
        Matcher(Condition::any(types.into_iter().map(is).collect()))
    }

    /// Messages at least this bad: lower numbers are worse.
    pub fn severity_at_most(severity: Severity) -> Self {
        let number = Number(f64::from(severity.number()));
        Matcher(Condition::Number(NumberVariable::Severity, Comparison::LessOrEqual, number))
    }

    /// Messages that match both.
    #[must_use]
    pub fn and(self, other: Matcher) -> Self {
        Matcher(Condition::all(vec![self.0, other.0]))
    }

    /// Messages that match at least one.
    pub(super) fn any_of(matchers: impl IntoIterator<Item = Matcher>) -> Self {
        Matcher(Condition::any(matchers.into_iter().map(|matcher| matcher.0).collect()))
    }

    /// Whether `message` matches. Allocates nothing, unless the payload is a number and is asked for; and what a regular
    /// expression needs for the first message of a thread.
    pub fn matches(&self, message: &Message) -> bool {
        self.0.holds(message)
    }

    /// Whether a message in another form matches.
    pub fn holds_for<S: Subject + ?Sized>(&self, subject: &S) -> bool {
        self.0.holds(subject)
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    /// [`Matcher::parse`].
    fn from_str(expression: &str) -> Result<Self, Self::Err> {
        Matcher::parse(expression)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
