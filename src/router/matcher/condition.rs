//! What a matcher is inside: tests of a message, joined by "and" and "or". In: what the parser or a constructor makes.
//! Out: the expression that says the same.
//!
//! Nothing can be lost here. There is one form for each meaning as far as joining goes: an "and" holds no "and", an
//! "or" no "or", so that what is written and read again is equal.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter, Write};

use super::pattern::Pattern;
use super::{NumberVariable, TextVariable};

/// A condition on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Constant(bool),
    Text(TextVariable, TextTest),
    Number(NumberVariable, Comparison, Number),
    Field(FieldName, FieldTest),
    /// All of two or more.
    All(Vec<Condition>),
    /// At least one of two or more.
    Any(Vec<Condition>),
}

/// What is asked of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    Compare(Comparison, String),
    Pattern { negated: bool, pattern: Pattern },
}

/// What is asked of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldTest {
    Text(TextTest),
    Number(Comparison, Number),
    Is(bool),
    /// `== NIL`, and negated `!= NIL`.
    Missing {
        negated: bool,
    },
}

/// `Fields[name][field][element]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldName {
    pub(super) name: String,
    /// Which of several fields of that name.
    pub(super) field: u64,
    /// Which element of a list.
    pub(super) element: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A number of an expression: finite and not negative, because nothing else can be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub(super) f64);

/// It is never NaN, see above.
impl Eq for Number {}

impl Comparison {
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Condition {
    /// All of `conditions`; of one, that one; of none, `TRUE`.
    pub(super) fn all(conditions: Vec<Condition>) -> Condition {
        let flat = conditions.into_iter().flat_map(|condition| match condition {
            Condition::All(inner) => inner,
            other => vec![other],
        });
        only_or(flat.collect(), true, Condition::All)
    }

    /// Any of `conditions`; of one, that one; of none, `FALSE`.
    pub(super) fn any(conditions: Vec<Condition>) -> Condition {
        let flat = conditions.into_iter().flat_map(|condition| match condition {
            Condition::Any(inner) => inner,
            other => vec![other],
        });
        only_or(flat.collect(), false, Condition::Any)
    }
}

fn only_or(
    mut conditions: Vec<Condition>,
    of_none: bool,
    join: fn(Vec<Condition>) -> Condition,
) -> Condition {
    match conditions.len() {
        0 => Condition::Constant(of_none),
        1 => conditions.remove(0),
        _ => join(conditions),
    }
}

impl Display for Condition {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Constant(true) => formatter.write_str("TRUE"),
            Condition::Constant(false) => formatter.write_str("FALSE"),
            Condition::Text(variable, test) => write_text_test(formatter, variable.name(), test),
            Condition::Number(variable, comparison, number) => {
                write!(formatter, "{} {comparison} {number}", variable.name())
            }
            Condition::Field(name, test) => write_field_test(formatter, name, test),
            Condition::All(conditions) => write_joined(formatter, conditions, " && "),
            Condition::Any(conditions) => write_joined(formatter, conditions, " || "),
        }
    }
}

fn write_joined(formatter: &mut Formatter<'_>, conditions: &[Condition], joint: &str) -> fmt::Result {
    for (index, condition) in conditions.iter().enumerate() {
        if index > 0 {
            formatter.write_str(joint)?;
        }
        // `&&` binds tighter: only an "or" inside an "and" needs them.
        match condition {
            Condition::Any(_) => write!(formatter, "({condition})")?,
            _ => write!(formatter, "{condition}")?,
        }
    }
    Ok(())
}

fn write_field_test(formatter: &mut Formatter<'_>, name: &FieldName, test: &FieldTest) -> fmt::Result {
    match test {
        FieldTest::Text(test) => write_text_test(formatter, name, test),
        FieldTest::Number(comparison, number) => write!(formatter, "{name} {comparison} {number}"),
        FieldTest::Is(true) => write!(formatter, "{name} == TRUE"),
        FieldTest::Is(false) => write!(formatter, "{name} == FALSE"),
        FieldTest::Missing { negated: false } => write!(formatter, "{name} == NIL"),
        FieldTest::Missing { negated: true } => write!(formatter, "{name} != NIL"),
    }
}

fn write_text_test(formatter: &mut Formatter<'_>, subject: impl Display, test: &TextTest) -> fmt::Result {
    match test {
        TextTest::Compare(comparison, text) => match quoted(text) {
            Some(quoted) => write!(formatter, "{subject} {comparison} {quoted}"),
            // Only constructors make such texts, and only to be compared for equality.
            None => {
                let operator = if *comparison == Comparison::NotEqual { "!~" } else { "=~" };
                write!(formatter, "{subject} {operator} {}", super::pattern::exactly(text))
            }
        },
        TextTest::Pattern { negated, pattern } => {
            write!(formatter, "{subject} {} {pattern}", if *negated { "!~" } else { "=~" })
        }
    }
}

/// The text in quotes; `None` when the language cannot say it in quotes: it has no escape for a newline, nor for a
/// backslash before both kinds of quotes.
fn quoted(text: &str) -> Option<String> {
    quoted_with('\'', text).or_else(|| quoted_with('"', text))
}

fn quoted_with(quote: char, text: &str) -> Option<String> {
    let mut quoted = String::from(quote);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                None | Some('\n') => return None,
                Some(next) if next == quote => return None,
                Some(next) => quoted.extend(['\\', next]),
            },
            '\n' | '\0' => return None,
            _ if character == quote => quoted.extend(['\\', quote]),
            _ => quoted.push(character),
        }
    }
    quoted.push(quote);
    Some(quoted)
}

impl Display for FieldName {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fields[{}]", self.name)?;
        match (self.field, self.element) {
            (0, 0) => Ok(()),
            (field, 0) => write!(formatter, "[{field}]"),
            (field, element) => write!(formatter, "[{field}][{element}]"),
        }
    }
}

impl Display for Comparison {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Number {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 24;
        let mut plain = String::new();
        write!(plain, "{}", self.0)?;
        if plain.len() <= LONGEST {
            formatter.write_str(&plain)
        } else {
            write!(formatter, "{:e}", self.0)
        }
    }
}
