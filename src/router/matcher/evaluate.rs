//! Whether a condition holds. In: a condition, a message. Out: yes or no. Nothing can be lost or fail here, and nothing
//! is allocated unless the message has to make a text that it does not hold.

use serde_json::Value;

use super::condition::{Comparison, Condition, FieldName, FieldTest, Number, TextTest};
use super::subject::Subject;

/// How deep a name with dots reaches: as deep as decoding lets JSON be.
const DEEPEST_FIELD: usize = 128;

impl Condition {
    pub(super) fn holds<S: Subject + ?Sized>(&self, subject: &S) -> bool {
        match self {
            Condition::Constant(value) => *value,
            Condition::Text(variable, test) => {
                test.holds(subject.text(*variable).as_deref().unwrap_or_default())
            }
            Condition::Number(variable, comparison, number) => {
                let value = subject.number(*variable).unwrap_or(variable.of_absent());
                compare_numbers(value, *comparison, *number)
            }
            Condition::Field(name, test) => name.look_at(subject, |value| test.holds(value)),
            Condition::All(conditions) => conditions.iter().all(|condition| condition.holds(subject)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.holds(subject)),
        }
    }
}

impl TextTest {
    fn holds(&self, text: &str) -> bool {
        match self {
            // Byte by byte, which is how `str` is ordered.
            TextTest::Compare(Comparison::Equal, other) => text == other,
            TextTest::Compare(comparison, other) => comparison.holds(text.cmp(other)),
            TextTest::Pattern { negated, pattern } => pattern.is_in(text) != *negated,
        }
    }
}

impl FieldTest {
    /// `None` is a field that is not there.
    fn holds(&self, value: Option<&Value>) -> bool {
        match (value, self) {
            (None | Some(Value::Null), test) => *test == FieldTest::Missing { negated: false },
            (Some(_), FieldTest::Missing { negated }) => *negated,
            (Some(Value::String(text)), FieldTest::Text(test)) => test.holds(text),
            // Heka compares with the word as it is written.
            (Some(Value::String(text)), FieldTest::Is(true)) => text == "TRUE",
            (Some(Value::String(text)), FieldTest::Is(false)) => text == "FALSE",
            (Some(Value::Number(value)), FieldTest::Number(comparison, number)) => {
                value.as_f64().is_some_and(|value| compare_numbers(value, *comparison, *number))
            }
            // Whatever else a boolean is compared with, and however, stands for FALSE in Heka.
            (Some(Value::Bool(value)), test) => *value == (*test == FieldTest::Is(true)),
            (Some(_), _) => false,
        }
    }
}

impl FieldName {
    /// What `ask` says of this field, which may not be there.
    pub(super) fn look_at<S: Subject + ?Sized, T>(
        &self,
        subject: &S,
        ask: impl FnOnce(Option<&Value>) -> T,
    ) -> T {
        // JSON has each name once.
        if self.field > 0 {
            return ask(None);
        }
        if let Some(value) = subject.field(&self.name) {
            return ask(self.element_of(&value));
        }
        for (dot, _) in self.name.rmatch_indices('.') {
            let outer = subject.field(&self.name[..dot]);
            let inner =
                outer.as_deref().and_then(|outer| within(outer, &self.name[dot + 1..], DEEPEST_FIELD));
            if let Some(inner) = inner {
                return ask(self.element_of(inner));
            }
        }
        ask(None)
    }

    fn element_of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match value {
            Value::Array(elements) => elements.get(usize::try_from(self.element).ok()?),
            other => (self.element == 0).then_some(other),
        }
    }
}

/// What `path` leads to; a name with dots wins over a way through objects, and a longer name over a shorter.
fn within<'a>(value: &'a Value, path: &str, deepest: usize) -> Option<&'a Value> {
    let object = value.as_object().filter(|_| deepest > 0)?;
    object.get(path).or_else(|| {
        path.rmatch_indices('.')
            .find_map(|(dot, _)| within(object.get(&path[..dot])?, &path[dot + 1..], deepest - 1))
    })
}

fn compare_numbers(value: f64, comparison: Comparison, number: Number) -> bool {
    match value.partial_cmp(&number.0) {
        Some(ordering) => comparison.holds(ordering),
        None => comparison == Comparison::NotEqual,
    }
}
