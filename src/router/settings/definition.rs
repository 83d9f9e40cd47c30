//! What an option is: its name, what it takes, its default and what it means. Each is defined once, in `inputs.rs`,
//! `outputs.rs` and `tables.rs`; the reading of a file, `--print-default` and the reference page all come from there.
//!
//! There is no option without the function that takes its value, so that none can be read and forgotten.

use std::time::Duration;

use super::units;
use crate::router::matcher::Matcher;
use crate::router::RouterError;
use crate::Severity;

/// A table of the file, or a kind of one.
pub(super) struct Section<T: 'static> {
    /// As it is written in the file, for instance `[output.NAME]`.
    pub(super) title: &'static str,
    /// The `type` of an output.
    pub(super) kind: Option<&'static str>,
    /// What it is.
    pub(super) about: &'static str,
    /// What the options change, unless one of them makes it.
    pub(super) begin: Option<fn() -> T>,
    pub(super) options: &'static [Definition<T>],
}

/// An option.
pub(super) struct Definition<T> {
    pub(super) name: &'static str,
    pub(super) take: Take<T>,
    pub(super) default: Default,
    /// What it means, in Markdown.
    pub(super) about: &'static str,
    /// Its value is never shown.
    pub(super) is_secret: bool,
}

/// What holds when an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// It must be given; for instance this.
    Needed(&'static str),
    /// One of the options that are marked so must be given; this one for instance with this value.
    #[cfg_attr(not(feature = "sentry"), allow(dead_code))]
    OneOf(&'static str),
    /// This value, written as in the file.
    Is(&'static str),
    /// What the text says; a value for instance.
    Says(&'static str, &'static str),
}

/// What an option takes, and what is done with it.
pub(super) enum Take<T> {
    /// Makes what the other options change.
    First(fn(&str) -> Outcome<T>),
    Text(fn(T, &str) -> Outcome<T>),
    /// One after the other.
    Texts(fn(T, &str) -> Outcome<T>),
    /// All at once.
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    All(fn(T, Vec<String>) -> Outcome<T>),
    Flag(fn(T, bool) -> Outcome<T>),
    Count(fn(T, u64) -> Outcome<T>),
    Size(fn(T, u64) -> Outcome<T>),
    Duration(fn(T, Duration) -> Outcome<T>),
    Choice(&'static [&'static str], fn(T, &str) -> Outcome<T>),
    Severity(fn(T, Severity) -> Outcome<T>),
    /// An expression, as written in `Matcher::parse`.
    Matcher(fn(T, Matcher, &str) -> Outcome<T>),
    /// It needs a feature that this program is built without.
    #[allow(dead_code)] // With every feature there is none.
    Missing(&'static str),
}

pub(super) type Outcome<T> = Result<T, Wrong>;

/// What is wrong with a value, for people.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) text: String,
    /// Where in the value, in bytes.
    pub(super) place: Option<usize>,
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Wrong { text, place: None }
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Wrong::from(text.to_owned())
    }
}

impl From<RouterError> for Wrong {
    fn from(error: RouterError) -> Self {
        match error {
            // The value stands above the caret.
            RouterError::Config { accepted, .. } => Wrong::from(format!("accepted is {accepted}")),
            error => Wrong::from(error.to_string()),
        }
    }
}

impl<T> Definition<T> {
    pub(super) const fn new(
        name: &'static str,
        take: Take<T>,
        default: Default,
        about: &'static str,
    ) -> Self {
        Definition { name, take, default, about, is_secret: false }
    }

    #[cfg_attr(not(feature = "sentry"), allow(dead_code))]
    pub(super) const fn secret(self) -> Self {
        Definition { is_secret: true, ..self }
    }

    /// What is accepted, for people.
    pub(super) fn accepted(&self) -> String {
        match self.take {
            Take::First(_) | Take::Text(_) => String::from("a text"),
            Take::Texts(_) | Take::All(_) => String::from("a text, or a list of texts"),
            Take::Flag(_) => String::from("true or false"),
            Take::Count(_) => String::from("a whole number"),
            Take::Size(_) => units::SIZE.to_owned(),
            Take::Duration(_) => units::DURATION.to_owned(),
            Take::Choice(choices, _) => one_of(choices.iter().map(|choice| format!("{choice:?}"))),
            Take::Severity(_) => format!(
                "a number from 0 to 7, or {}",
                one_of(Severity::ALL.iter().map(|severity| format!("{:?}", severity.name())))
            ),
            Take::Matcher(_) => String::from("an expression"),
            Take::Missing(feature) => format!("nothing: it needs the feature `{feature}`"),
        }
    }
}

/// `a, b or c`.
pub(super) fn one_of(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    match texts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::from("nothing"),
    }
}
