//! From a table of the file to what it sets. In: the table, and the definitions of its options. Out: the thing, or
//! problems.
//!
//! After a problem it goes on, so that one look at a file finds all that is wrong with it.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeInteger, DeString, DeTable, DeValue};
use toml::Spanned;

use super::definition::{one_of, Default, Definition, Outcome, Section, Take, Wrong};
use super::error::{nearest, quoted, ConfigProblem};
use super::substitute::{substitute, Variables};
use super::{place, units};
use crate::router::matcher::Matcher;
use crate::Severity;

/// A file that is being read.
pub(super) struct Reader<'f> {
    pub(super) file: &'f str,
    pub(super) variables: Variables<'f>,
    pub(super) problems: Vec<ConfigProblem>,
    /// What the routes say, for people.
    pub(super) outline: Vec<String>,
}

pub(super) type Key<'f> = Spanned<DeString<'f>>;
pub(super) type Value<'f> = Spanned<DeValue<'f>>;

/// A text of the file with its variables put in.
struct Text<'t> {
    text: Cow<'t, str>,
    /// As in the file: a place in it can be shown there.
    is_verbatim: bool,
}

impl<'f> Reader<'f> {
    pub(super) fn problem(&mut self, span: Range<usize>, key: &str, text: impl Into<String>) {
        self.problems.push(ConfigProblem::new(self.file, span, key, text.into()));
    }

    /// The table under a key, or a problem.
    pub(super) fn table<'v>(&mut self, value: &'v Value<'f>, path: &str) -> Option<&'v DeTable<'f>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.problem(value.span(), path, format!("a table is accepted, not {}", described(other)));
                None
            }
        }
    }

    /// A key that nobody knows.
    pub(super) fn unknown<'n>(
        &mut self,
        key: &Key<'f>,
        path: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) {
        let text = match nearest(key.get_ref(), known.clone()) {
            Some(meant) => format!("unknown; did you mean `{meant}`?"),
            None => format!("unknown; accepted is {}", one_of(known.map(|name| format!("`{name}`")))),
        };
        self.problem(key.span(), &join(path, key.get_ref()), text);
    }

    /// Reads a table by its section. `others` are keys that somebody else reads.
    pub(super) fn section<T>(
        &mut self,
        section: &Section<T>,
        (path, span): (&str, Range<usize>),
        table: &DeTable<'f>,
        others: &[&str],
    ) -> Option<T> {
        let known = section.options.iter().map(|option| option.name).chain(others.iter().copied());
        for (key, _) in table.iter() {
            if !known.clone().any(|name| name == key.get_ref()) {
                self.unknown(key, path, known.clone());
            }
        }
        let mut thing = self.first(section, (path, span.clone()), table);
        for option in section.options {
            match find(table, option.name) {
                Some(_) if matches!(option.take, Take::First(_)) => {}
                Some(value) => thing = self.option(option, &join(path, option.name), value, thing),
                None if matches!((option.default, &option.take), (Default::Needed(_), Take::First(_))) => {}
                None if matches!(option.default, Default::Needed(_)) => {
                    self.missing(option, path, span.clone());
                    thing = None;
                }
                None => {}
            }
        }
        thing
    }

    fn missing<T>(&mut self, option: &Definition<T>, path: &str, span: Range<usize>) {
        let example = match option.default {
            Default::Needed(example) | Default::OneOf(example) => example,
            Default::Is(_) | Default::Says(..) => "",
        };
        self.problem(
            span,
            path,
            format!("`{}` is missing; for instance {} = {example}", option.name, option.name),
        );
    }

    /// What the options of a section change: from the one that makes it, or as it begins.
    fn first<T>(
        &mut self,
        section: &Section<T>,
        (path, span): (&str, Range<usize>),
        table: &DeTable<'f>,
    ) -> Option<T> {
        let mut given = section.options.iter().filter_map(|option| match option.take {
            Take::First(make) => find(table, option.name).map(|value| (option, make, value)),
            _ => None,
        });
        let Some((option, make, value)) = given.next() else {
            if let Some(begin) = section.begin {
                return Some(begin());
            }
            if let Some(option) = section.options.iter().find(|option| matches!(option.take, Take::First(_)))
            {
                self.missing(option, path, span);
            }
            return None;
        };
        if let Some((second, _, value)) = given.next() {
            let text = format!("accepted is this or `{}`, not both", option.name);
            self.problem(value.span(), &join(path, second.name), text);
        }
        let key = join(path, option.name);
        let text = self.text(option, &key, value)?;
        let made = make(&text.text);
        self.outcome(option, &key, value, Some(&text), made)
    }

    /// One option of a thing, which is gone after a problem.
    fn option<T>(
        &mut self,
        option: &Definition<T>,
        key: &str,
        value: &Value<'f>,
        thing: Option<T>,
    ) -> Option<T> {
        match option.take {
            Take::First(_) => thing,
            Take::Text(set) => {
                let text = self.text(option, key, value)?;
                self.outcome(option, key, value, Some(&text), set(thing?, &text.text))
            }
            Take::Texts(set) => self.texts(option, key, value, thing, set),
            Take::All(set) => {
                fn add(mut all: Vec<String>, text: &str) -> Outcome<Vec<String>> {
                    all.push(text.to_owned());
                    Ok(all)
                }
                let all = self.texts(option, key, value, Some(Vec::new()), add)?;
                self.outcome(option, key, value, None, set(thing?, all))
            }
            Take::Choice(choices, set) => {
                let text = self.text(option, key, value)?;
                if !choices.contains(&&*text.text) {
                    self.not_accepted(option, key, value, &quoted(&text.text));
                    return None;
                }
                self.outcome(option, key, value, Some(&text), set(thing?, &text.text))
            }
            Take::Matcher(set) => {
                let text = self.text(option, key, value)?;
                let matcher = self.outcome(option, key, value, Some(&text), matcher(&text.text))?;
                self.outcome(option, key, value, None, set(thing?, matcher, &text.text))
            }
            Take::Flag(set) => {
                let flag = self.converted(option, key, value, flag)?;
                self.outcome(option, key, value, None, set(thing?, flag))
            }
            Take::Count(set) => {
                let count = self.converted(option, key, value, count)?;
                self.outcome(option, key, value, None, set(thing?, count))
            }
            Take::Size(set) => {
                let size = self.converted(option, key, value, size)?;
                self.outcome(option, key, value, None, set(thing?, size))
            }
            Take::Duration(set) => {
                let duration = self.converted(option, key, value, duration)?;
                self.outcome(option, key, value, None, set(thing?, duration))
            }
            Take::Severity(set) => {
                let severity = self.converted(option, key, value, severity)?;
                self.outcome(option, key, value, None, set(thing?, severity))
            }
            Take::Missing(feature) => {
                let text = format!("needs the feature `{feature}`, which this program is built without");
                self.problem(value.span(), key, text);
                None
            }
        }
    }

    fn texts<T, V>(
        &mut self,
        option: &Definition<T>,
        key: &str,
        value: &Value<'f>,
        mut thing: Option<V>,
        set: fn(V, &str) -> Outcome<V>,
    ) -> Option<V> {
        let texts = match value.get_ref() {
            DeValue::Array(values) => &values[..],
            _ => std::slice::from_ref(value),
        };
        if texts.is_empty() {
            self.not_accepted(option, key, value, "an empty list");
            return None;
        }
        for value in texts {
            let text = self.text(option, key, value);
            thing = match (thing, text) {
                (Some(thing), Some(text)) => {
                    self.outcome(option, key, value, Some(&text), set(thing, &text.text))
                }
                _ => None,
            };
        }
        thing
    }

    /// A value of another type than text, for which a variable may stand.
    fn converted<T, V>(
        &mut self,
        option: &Definition<T>,
        key: &str,
        value: &Value<'f>,
        convert: fn(Scalar<'_>) -> Option<V>,
    ) -> Option<V> {
        let converted = match value.get_ref() {
            DeValue::String(_) => {
                let text = self.text(option, key, value)?;
                let scalar = Scalar::Text { text: &text.text, is_substituted: !text.is_verbatim };
                convert(scalar).ok_or_else(|| quoted(&text.text))
            }
            DeValue::Integer(integer) => convert(Scalar::Integer(integer)).ok_or_else(|| integer.to_string()),
            DeValue::Boolean(flag) => convert(Scalar::Flag(*flag)).ok_or_else(|| flag.to_string()),
            other => Err(described(other).to_owned()),
        };
        match converted {
            Ok(converted) => Some(converted),
            Err(found) => {
                self.not_accepted(option, key, value, &found);
                None
            }
        }
    }

    /// A text with its variables, or a problem.
    fn text<'v, T>(&mut self, option: &Definition<T>, key: &str, value: &'v Value<'f>) -> Option<Text<'v>> {
        match value.get_ref() {
            DeValue::String(text) => match substitute(text, self.variables) {
                Ok(substituted) => {
                    let is_verbatim = matches!(substituted, Cow::Borrowed(_));
                    Some(Text { text: substituted, is_verbatim })
                }
                Err(problem) => {
                    self.problem(value.span(), key, problem);
                    None
                }
            },
            other => {
                self.not_accepted(option, key, value, described(other));
                None
            }
        }
    }

    fn not_accepted<T>(&mut self, option: &Definition<T>, key: &str, value: &Value<'f>, found: &str) {
        let found = if option.is_secret { "this" } else { found };
        self.problem(value.span(), key, format!("accepted is {}, not {found}", option.accepted()));
    }

    fn outcome<T, V>(
        &mut self,
        option: &Definition<T>,
        key: &str,
        value: &Value<'f>,
        text: Option<&Text<'_>>,
        outcome: Outcome<V>,
    ) -> Option<V> {
        let wrong = match outcome {
            Ok(thing) => return Some(thing),
            Err(wrong) => wrong,
        };
        let span = value.span();
        let place = match (wrong.place, text) {
            (Some(place), Some(text)) if text.is_verbatim => {
                place::in_file(self.file.get(span.clone()).unwrap_or_default(), place)
            }
            _ => None,
        };
        let span = place.map_or(span.clone(), |place| span.start + place..span.start + place + 1);
        let is_told = option.is_secret && text.is_some_and(|text| wrong.text.contains(&*text.text));
        let mut message = if is_told { String::from("the value is not accepted") } else { wrong.text };
        if let (Some(text), false) = (text.filter(|text| !text.is_verbatim), option.is_secret) {
            message.push_str(&format!("; with its variables it is {}", quoted(&text.text)));
        }
        self.problem(span, key, message);
        None
    }
}

/// What a value that is no text may be given as.
enum Scalar<'v> {
    Text { text: &'v str, is_substituted: bool },
    Integer(&'v DeInteger<'v>),
    Flag(bool),
}

fn flag(value: Scalar<'_>) -> Option<bool> {
    match value {
        Scalar::Flag(flag) => Some(flag),
        Scalar::Text { text, is_substituted: true } => text.parse().ok(),
        _ => None,
    }
}

fn count(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        Scalar::Text { text, is_substituted: true } => text.parse().ok(),
        _ => None,
    }
}

fn size(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Text { text, .. } => units::size(text),
        value => count(value),
    }
}

fn duration(value: Scalar<'_>) -> Option<std::time::Duration> {
    match value {
        Scalar::Text { text, .. } => units::duration(text),
        _ => None,
    }
}

fn severity(value: Scalar<'_>) -> Option<Severity> {
    match value {
        Scalar::Text { text, .. } => {
            let named = Severity::ALL.into_iter().find(|severity| severity.name() == text);
            named.or_else(|| Severity::from_number(text.parse().ok()?))
        }
        value => Severity::from_number(count(value)?.try_into().ok()?),
    }
}

/// The one place that reads expressions.
fn matcher(text: &str) -> Outcome<Matcher> {
    Matcher::parse(text).map_err(|error| {
        let place = text.char_indices().nth(error.column() - 1).map_or(text.len(), |(place, _)| place);
        Wrong { text: error.problem().to_owned(), place: Some(place) }
    })
}

fn find<'v, 'f>(table: &'v DeTable<'f>, name: &str) -> Option<&'v Value<'f>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

pub(super) fn join(path: &str, key: &str) -> String {
    let key = if key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') && !key.is_empty() {
        Cow::Borrowed(key)
    } else {
        Cow::Owned(quoted(key))
    };
    if path.is_empty() {
        key.into_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
