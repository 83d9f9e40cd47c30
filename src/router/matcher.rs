//! Which messages a route takes. In: a message. Out: yes or no. Nothing can be lost or fail here.

use std::collections::BTreeSet;

use super::received::Received;
use crate::{Message, Severity};

/// A condition on a message. Build one with its functions, join them with [`and`](Matcher::and).
///
/// ```
/// use tracing_metlog::router::Matcher;
/// use tracing_metlog::{Message, Severity};
///
/// let urgent = Matcher::types(["oldstyle", "panic"]).and(Matcher::severity_at_most(Severity::Error));
/// assert!(!urgent.matches(&Message::new("oldstyle", "all is well")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher(Condition);

/// What a matcher is inside; private, so that it can grow into a compiled language.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Any,
    Types(BTreeSet<String>),
    SeverityAtMost(Severity),
    All(Vec<Condition>),
}

impl Matcher {
    /// Every message.
    pub fn any() -> Self {
        Matcher(Condition::Any)
    }

    /// Messages of exactly this type.
    pub fn type_is(message_type: impl Into<String>) -> Self {
        Matcher::types([message_type])
    }

    /// Messages of one of these types.
    pub fn types<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Matcher(Condition::Types(types.into_iter().map(Into::into).collect()))
    }

    /// Messages at least this bad: lower numbers are worse.
    pub fn severity_at_most(severity: Severity) -> Self {
        Matcher(Condition::SeverityAtMost(severity))
    }

    /// Messages that match both.
    #[must_use]
    pub fn and(self, other: Matcher) -> Self {
        Matcher(Condition::All(vec![self.0, other.0]))
    }

    /// Whether `message` matches.
    pub fn matches(&self, message: &Message) -> bool {
        self.0.holds(&message.r#type, message.severity)
    }

    /// Whether `message` matches.
    pub(super) fn takes(&self, message: &Received<'_>) -> bool {
        self.0.holds(message.r#type(), message.severity())
    }
}

impl Condition {
    fn holds(&self, message_type: &str, severity: Severity) -> bool {
        match self {
            Condition::Any => true,
            Condition::Types(types) => types.contains(message_type),
            Condition::SeverityAtMost(most) => severity <= *most,
            Condition::All(conditions) => {
                conditions.iter().all(|condition| condition.holds(message_type, severity))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_match_exactly_and_not_by_prefix() {
        let matcher = Matcher::types(["timer", "counter"]);
        assert!(matcher.matches(&Message::new("timer", "1")));
        assert!(!matcher.matches(&Message::new("timers", "1")));
        assert!(!matcher.matches(&Message::new("", "1")));
        assert!(!Matcher::types::<&str>([]).matches(&Message::new("timer", "1")));
    }

    #[test]
    fn severity_at_most_takes_the_named_one_and_worse() {
        let mut message = Message::new("oldstyle", "text");
        let matcher = Matcher::severity_at_most(Severity::Error).and(Matcher::type_is("oldstyle"));
        for (severity, expected) in
            [(Severity::Emergency, true), (Severity::Error, true), (Severity::Warning, false)]
        {
            message.severity = severity;
            assert_eq!(matcher.matches(&message), expected, "{severity}");
        }
    }
}
