//! Matchers, of any text and against a second evaluation that was written from the reference alone: slow, by the word,
//! and without a parser.

#![cfg(feature = "router")]

use std::borrow::Cow;
use std::cell::Cell;

use proptest::prelude::*;
use serde_json::{json, Map, Value};
use tracing_metlog::router::{Matcher, MatcherSet, Matches, NumberVariable, Subject, TextVariable};
use tracing_metlog::{Message, Severity};

/// An expression, as a tree that says how it is written and what it means.
#[derive(Clone, Debug)]
enum Model {
    Constant(bool),
    /// A variable, an operator, a text.
    Text(&'static str, &'static str, &'static str),
    /// A variable, whether `!~`, and one of [`PATTERNS`].
    Pattern(&'static str, bool, usize),
    Number(&'static str, &'static str, u8),
    FieldText(&'static str, &'static str, &'static str),
    FieldPattern(&'static str, bool, usize),
    FieldNumber(&'static str, &'static str, u8),
    FieldIs(&'static str, bool),
    FieldIsMissing(&'static str, bool),
    And(Box<Model>, Box<Model>),
    Or(Box<Model>, Box<Model>),
}

type Finds = fn(&str) -> bool;

const TEXTS: [&str; 6] = ["", "a", "b", "ab", "TRUE", "7"];
const TEXT_VARIABLES: [&str; 6] = ["Uuid", "Type", "Logger", "Payload", "EnvVersion", "Hostname"];
const NUMBER_VARIABLES: [&str; 3] = ["Timestamp", "Severity", "Pid"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
/// As they stand in brackets; what they mean is in [`field`].
const FIELDS: [&str; 7] = ["x", "y", "x][0", "x][0][1", "x][1", "o.p", "o.p.q"];
/// How a regular expression is written, and what it means.
const PATTERNS: [(&str, Finds); 8] = [
    ("/a/", |text| text.contains('a')),
    ("/^a/", |text| text.starts_with('a')),
    ("/b$/", |text| text.ends_with('b')),
    ("/^ab$/", |text| text == "ab"),
    ("/^[ab]+$/", |text| !text.is_empty() && text.chars().all(|one| "ab".contains(one))),
    ("/(?i)t/", |text| text.to_lowercase().contains('t')),
    (r"/\d/", |text| text.chars().any(|one| one.is_ascii_digit())),
    ("/^a|7$/", |text| text.starts_with('a') || text.ends_with('7')),
];

impl Model {
    fn write(&self) -> String {
        let quoted = |text: &str| format!("'{text}'");
        let matching = |negated: &bool| if *negated { "!~" } else { "=~" };
        match self {
            Model::Constant(value) => value.to_string().to_uppercase(),
            Model::Text(variable, operator, text) => format!("{variable}{operator}{}", quoted(text)),
            Model::Pattern(variable, negated, pattern) => {
                format!("{variable} {} {}", matching(negated), PATTERNS[*pattern].0)
            }
            Model::Number(variable, operator, number) => format!("{variable} {operator} {number}"),
            Model::FieldText(name, operator, text) => format!("Fields[{name}] {operator} {}", quoted(text)),
            Model::FieldPattern(name, negated, pattern) => {
                format!("Fields[{name}]{}{}", matching(negated), PATTERNS[*pattern].0)
            }
            Model::FieldNumber(name, operator, number) => format!("Fields[{name}]\t{operator} {number}"),
            Model::FieldIs(name, value) => {
                format!("Fields[{name}] == {}", value.to_string().to_uppercase())
            }
            Model::FieldIsMissing(name, negated) => {
                format!("Fields[{name}] {} NIL", if *negated { "!=" } else { "==" })
            }
            Model::And(left, right) => format!("{} && {}", left.write_in_and(), right.write_in_and()),
            Model::Or(left, right) => format!("{}||({})", left.write(), right.write()),
        }
    }

    fn write_in_and(&self) -> String {
        match self {
            Model::Or(..) => format!("({})", self.write()),
            _ => self.write(),
        }
    }

    fn holds(&self, message: &Message) -> bool {
        match self {
            Model::Constant(value) => *value,
            Model::Text(variable, operator, other) => {
                compares(operator, text(message, variable).as_bytes(), other.as_bytes())
            }
            Model::Pattern(variable, negated, pattern) => {
                PATTERNS[*pattern].1(&text(message, variable)) != *negated
            }
            Model::Number(variable, operator, other) => {
                let value = match *variable {
                    "Severity" => i64::from(message.severity.number()),
                    "Pid" => message.pid.unwrap_or(0),
                    _ => 0,
                };
                compares(operator, &value, &i64::from(*other))
            }
            Model::FieldText(name, operator, other) => match field(message, name) {
                Some(Value::String(text)) => compares(operator, text.as_bytes(), other.as_bytes()),
                value => value == Some(Value::Bool(false)),
            },
            Model::FieldPattern(name, negated, pattern) => match field(message, name) {
                Some(Value::String(text)) => PATTERNS[*pattern].1(&text) != *negated,
                value => value == Some(Value::Bool(false)),
            },
            Model::FieldNumber(name, operator, other) => match field(message, name) {
                Some(Value::Number(number)) => {
                    compares(operator, &number.as_f64().expect("a number"), &f64::from(*other))
                }
                value => value == Some(Value::Bool(false)),
            },
            Model::FieldIs(name, expected) => match field(message, name) {
                Some(Value::Bool(value)) => value == *expected,
                Some(Value::String(text)) => text == expected.to_string().to_uppercase(),
                _ => false,
            },
            Model::FieldIsMissing(name, negated) => field(message, name).is_some() == *negated,
            Model::And(left, right) => left.holds(message) & right.holds(message),
            Model::Or(left, right) => left.holds(message) | right.holds(message),
        }
    }
}

fn compares<T: PartialOrd + ?Sized>(operator: &str, left: &T, right: &T) -> bool {
    match operator {
        "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    }
}

fn text(message: &Message, variable: &str) -> String {
    match variable {
        "Type" => message.r#type.clone(),
        "Logger" => message.logger.clone(),
        "Payload" => message.payload.to_string(),
        "EnvVersion" => message.env_version.clone(),
        "Hostname" => message.hostname.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

/// What one of [`FIELDS`] means.
fn field(message: &Message, name: &str) -> Option<Value> {
    let top = |name: &str| message.fields.get(name).cloned();
    let at = |value: Option<Value>, index: usize| match value {
        Some(Value::Array(elements)) => elements.get(index).cloned(),
        value => value.filter(|_| index == 0),
    };
    let found = match name {
        "x][0][1" => at(top("x"), 1),
        "x][1" => None,
        "o.p" => at(top("o.p").or_else(|| top("o")?.get("p").cloned()), 0),
        "o.p.q" => {
            let by_longer_name = || top("o.p")?.get("q").cloned();
            at(by_longer_name().or_else(|| top("o")?.get("p")?.get("q").cloned()), 0)
        }
        name => at(top(name.trim_end_matches("][0")), 0),
    };
    found.filter(|value| !value.is_null())
}

fn models() -> impl Strategy<Value = Model> {
    use prop::sample::select;
    let (texts, fields) = (|| select(&TEXTS[..]), || select(&FIELDS[..]));
    let operators = || select(&COMPARISONS[..]);
    let variables = || select(&TEXT_VARIABLES[..]);
    let patterns = || 0..PATTERNS.len();
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Model::Constant),
        4 => (variables(), operators(), texts()).prop_map(|(a, b, c)| Model::Text(a, b, c)),
        6 => (select(vec!["Type", "Logger"]), texts()).prop_map(|(a, b)| Model::Text(a, "==", b)),
        3 => (variables(), any::<bool>(), patterns()).prop_map(|(a, b, c)| Model::Pattern(a, b, c)),
        3 => (select(&NUMBER_VARIABLES[..]), operators(), 0_u8..9).prop_map(|(a, b, c)| Model::Number(a, b, c)),
        3 => (fields(), operators(), texts()).prop_map(|(a, b, c)| Model::FieldText(a, b, c)),
        4 => (fields(), texts()).prop_map(|(a, b)| Model::FieldText(a, "==", b)),
        2 => (fields(), any::<bool>(), patterns()).prop_map(|(a, b, c)| Model::FieldPattern(a, b, c)),
        2 => (fields(), operators(), 0_u8..9).prop_map(|(a, b, c)| Model::FieldNumber(a, b, c)),
        1 => (fields(), any::<bool>()).prop_map(|(a, b)| Model::FieldIs(a, b)),
        2 => (fields(), any::<bool>()).prop_map(|(a, b)| Model::FieldIsMissing(a, b)),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Model::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Model::Or(Box::new(a), Box::new(b))),
        ]
    })
}

fn messages() -> impl Strategy<Value = Message> {
    use prop::sample::select;
    let texts = || select(&TEXTS[..]);
    let scalar = || {
        prop_oneof![
            4 => select(&TEXTS[..]).prop_map(Value::from),
            2 => (0_u8..9).prop_map(Value::from),
            2 => any::<bool>().prop_map(Value::from),
            1 => Just(json!(6.5)),
            1 => Just(Value::Null),
        ]
    };
    let value = move || {
        prop_oneof![
            6 => scalar(),
            1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::from),
            1 => scalar().prop_map(|q| json!({ "q": q })),
        ]
    };
    let names = select(vec!["x", "y", "o.p"]);
    let fields = prop::collection::btree_map(names, value(), 0..4);
    let nested = prop::option::of(value());
    (
        texts(),
        texts(),
        texts(),
        prop::option::of(texts()),
        0_u8..8,
        prop::option::of(0_i64..9),
        fields,
        nested,
    )
        .prop_map(|(name, logger, payload, hostname, severity, pid, fields, nested)| {
            let mut message = Message::new(name, payload);
            message.logger = logger.to_owned();
            message.hostname = hostname.map(str::to_owned);
            message.severity = Severity::from_number(severity).expect("a severity");
            message.pid = pid;
            message.fields =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>();
            if let Some(nested) = nested {
                message.fields.insert(String::from("o"), json!({ "p": nested }));
            }
            message
        })
}

fn judged(set: &MatcherSet, message: &Message, matches: &mut Matches) -> Vec<usize> {
    set.judge(message, matches);
    let found: Vec<usize> = matches.iter().collect();
    assert!((0..set.len() + 70).all(|index| matches.contains(index) == found.contains(&index)));
    assert_eq!(matches.is_empty(), found.is_empty());
    found
}

/// What an expression may be made of, so that some are sound and most are nearly so.
const PIECES: &str = r#"(Type|Severity|Pid|Logger|Fields\[a\]|Fields\[|\]|\[0\]|==|!=|<|=~|!~|'a'|"|'|/a/|/\^b\$/|/|\\|\(|\)|&&|\|\||&|!|TRUE|NIL|7|-|\.5|1e| |\n|\t|é|[a-zA-Z]){0,14}"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn an_expression_means_what_the_reference_says(model in models(), message in messages()) {
        let matcher = Matcher::parse(&model.write()).expect("an expression");
        prop_assert_eq!(matcher.matches(&message), model.holds(&message), "{}", model.write());
    }

    #[test]
    fn what_is_written_is_read_as_the_same_matcher(model in models(), message in messages()) {
        let matcher = Matcher::parse(&model.write()).expect("an expression");
        let again = Matcher::parse(&matcher.to_string()).expect("what was written is read");
        prop_assert_eq!(&again, &matcher);
        prop_assert_eq!(again.matches(&message), matcher.matches(&message));
    }

    #[test]
    fn any_text_is_a_matcher_that_is_written_and_read_again_or_an_error(
        text in prop_oneof![any::<String>(), PIECES.prop_map(|text| text)],
    ) {
        match Matcher::parse(&text) {
            Ok(matcher) => prop_assert_eq!(Matcher::parse(&matcher.to_string()).expect("what was written"), matcher),
            Err(error) => {
                prop_assert!(error.column() <= text.chars().count() + 1);
                prop_assert_eq!(error.to_string().lines().count(), 3);
            }
        }
    }

    #[test]
    fn any_regular_expression_is_taken_or_refused(source in r"[ab.*+?^$|(){}\[\]\\1QEpx<é,:=P&~-]{0,16}") {
        if let Ok(matcher) = Matcher::parse(&format!("Type =~ /{source}/")) {
            prop_assert_eq!(Matcher::parse(&matcher.to_string()).expect("what was written"), matcher);
        }
    }

    #[test]
    fn a_type_of_any_text_is_written_and_read_again(name in any::<String>(), odd in r#"[\\'"/\n^$a]{0,6}"#) {
        for name in [name, odd] {
            let matcher = Matcher::type_is(name.clone());
            prop_assert!(matcher.matches(&Message::new(name, "")));
            prop_assert_eq!(Matcher::parse(&matcher.to_string()).expect("what was written"), matcher);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_set_says_what_its_matchers_say_one_by_one(
        models in prop::collection::vec(models(), 0..80),
        messages in prop::collection::vec(messages(), 1..6),
    ) {
        let matchers: Vec<Matcher> =
            models.iter().map(|model| Matcher::parse(&model.write()).expect("an expression")).collect();
        let set = MatcherSet::new(matchers.clone());
        let mut matches = Matches::default();
        for message in &messages {
            let expected: Vec<usize> =
                (0..matchers.len()).filter(|&index| matchers[index].matches(message)).collect();
            prop_assert_eq!(judged(&set, message, &mut matches), expected);
        }
    }
}

/// Counts what it is asked.
struct Asked<'a>(&'a Message, Cell<usize>);

impl Subject for Asked<'_> {
    fn text(&self, variable: TextVariable) -> Option<Cow<'_, str>> {
        self.1.set(self.1.get() + 1);
        self.0.text(variable)
    }

    fn number(&self, variable: NumberVariable) -> Option<f64> {
        self.1.set(self.1.get() + 1);
        self.0.number(variable)
    }

    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.1.set(self.1.get() + 1);
        self.0.field(name)
    }
}

#[test]
fn a_thousand_matchers_on_other_texts_are_not_asked() {
    let shapes: [fn(usize) -> String; 6] = [
        |number| format!("Type == 't{number}'"),
        |number| format!("Logger == 't{number}' && Severity < 7"),
        |number| format!("Hostname == 't{number}' || Hostname == 'u{number}'"),
        |number| format!("(Type == 't{number}' || Type == 'u{number}') && Payload =~ /^x.*y$/"),
        |number| format!("Type == 't1' && Fields[name] == 't{number}' && Severity <= 6"),
        |number| format!("Type =~ /^t{number}$/"),
    ];
    let mut message = Message::new("t1", "xy");
    message.logger = String::from("t1");
    message.hostname = Some(String::from("u1"));
    message.fields.insert(String::from("name"), json!("t1"));
    for shape in shapes {
        let asked = |count: usize| {
            let set: MatcherSet =
                (0..count).map(|number| Matcher::parse(&shape(number)).expect("an expression")).collect();
            let asked = Asked(&message, Cell::new(0));
            let mut matches = Matches::default();
            set.judge(&asked, &mut matches);
            assert_eq!(matches.iter().collect::<Vec<_>>(), [1], "{}", shape(1));
            asked.1.get()
        };
        assert_eq!(asked(1_000), asked(10), "{}", shape(1));
        assert!(asked(10) <= 5, "{}", shape(1));
    }
}
