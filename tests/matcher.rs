//! The language of message matchers: it means what it means to Heka. In: expressions and messages. Out: whether they
//! match. Nothing of ours judges here: `support/heka-matcher.jsonl` holds the answers of Heka's own grammar and
//! evaluation (0.10) and of Go's `regexp`, to expressions written by hand and made at random.

#![cfg(feature = "router")]

use serde_json::{json, Map, Value};
use tracing_metlog::router::{Matcher, MatcherError};
use tracing_metlog::{Message, Severity};

const ANSWERS: &str = include_str!("support/heka-matcher.jsonl");

fn parse(expression: &str) -> Matcher {
    Matcher::parse(expression).unwrap_or_else(|error| panic!("{error}"))
}

fn error(expression: &str) -> MatcherError {
    match Matcher::parse(expression) {
        Ok(matcher) => panic!("{expression:?} was taken: {matcher}"),
        Err(error) => error,
    }
}

fn message(fields: Value) -> Message {
    let mut message = Message::new("oldstyle", "text");
    message.fields = fields.as_object().expect("an object").clone();
    message
}

/// Asserts what each expression says of a message.
#[track_caller]
fn all_say(message: &Message, expressions: &[(&str, bool)]) {
    for (expression, expected) in expressions {
        assert_eq!(parse(expression).matches(message), *expected, "{expression}");
    }
}

#[test]
fn every_expression_means_what_it_means_to_heka() {
    let lines: Vec<Value> = ANSWERS.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let messages: Vec<Message> = lines
        .iter()
        .filter_map(|line| line.get("message"))
        .map(|message| message.to_string().parse().expect("a message"))
        .collect();
    let mut asked = 0;
    for line in lines.iter().filter(|line| line.get("expression").is_some()) {
        let expression = line["expression"].as_str().expect("text");
        let holds = Matcher::parse(expression).ok().map(|matcher| {
            messages
                .iter()
                .map(|message| if matcher.matches(message) { '1' } else { '0' })
                .collect::<String>()
        });
        assert_eq!(holds.as_deref(), line["holds"].as_str(), "{expression:?}");
        asked += 1;
    }
    assert!(asked > 500, "{asked}");
}

#[test]
fn every_regular_expression_finds_what_go_finds() {
    let lines: Vec<Value> = ANSWERS.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let texts = lines.iter().find_map(|line| line.get("texts")?.as_array()).expect("texts");
    let mut asked = 0;
    for line in lines.iter().filter(|line| line.get("regular").is_some()) {
        let source = line["regular"].as_str().expect("text");
        // A flag of no effect before it, so that none is a mere prefix or suffix.
        let expression = format!("Payload =~ /(?-U){}/", with_slashes_escaped(source));
        let finds = Matcher::parse(&expression).ok().map(|matcher| {
            let payloads = texts.iter().map(|text| text.as_str().expect("text"));
            let found = payloads.map(|payload| matcher.matches(&Message::new("", payload)));
            found.map(|found| if found { '1' } else { '0' }).collect::<String>()
        });
        assert_eq!(finds.as_deref(), line["finds"].as_str(), "{source:?}");
        asked += 1;
    }
    assert!(asked > 300, "{asked}");
}

fn with_slashes_escaped(source: &str) -> String {
    let mut escaped = String::new();
    let mut characters = source.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => escaped.extend(std::iter::once('\\').chain(characters.next())),
            '/' => escaped.push_str("\\/"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[test]
fn the_examples_of_the_reference_are_true() {
    let document = include_str!("../docs/matcher.md");
    let json = document.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a message");
    let message: Message = json.parse().expect("a message");
    let mut examples = 0;
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(expected @ ("true" | "false")) = cells.get(2).copied() else { continue };
        let expression = cells[1].trim_matches('`').replace('\u{1}', "|");
        assert_eq!(parse(&expression).matches(&message), expected == "true", "{expression}");
        examples += 1;
    }
    assert!(examples > 40, "{examples}");
}

#[test]
fn and_binds_tighter_than_or() {
    let message = Message::new("a", "");
    all_say(
        &message,
        &[
            ("TRUE || TRUE && FALSE", true),
            ("(TRUE || TRUE) && FALSE", false),
            ("FALSE && FALSE || TRUE", true),
            ("FALSE && (FALSE || TRUE)", false),
        ],
    );
}

#[test]
fn of_expressions_in_a_row_the_last_one_counts() {
    let message = Message::new("a", "");
    all_say(&message, &[("TRUE FALSE", false), ("FALSE TRUE", true), ("TRUE || TRUE FALSE && TRUE", false)]);
    assert_eq!(parse("FALSE Type == 'a'"), parse("Type == 'a'"));
    error("(TRUE TRUE)");
}

#[test]
fn a_newline_ends_the_expression() {
    let message = Message::new("a", "");
    all_say(&message, &[("TRUE\n && FALSE", true), ("FALSE\n!%$", false)]);
    for expression in ["TRUE &&\nTRUE", "\nTRUE", "Type == 'a\nb'", "Fields[a\nb] == 1", "(TRUE\n)"] {
        error(expression);
    }
}

#[test]
fn a_missing_field_makes_everything_false_but_equal_nil() {
    let message = message(json!({"there": "y", "null": null, "list": ["a"], "empty": []}));
    for name in ["gone", "null", "there][1", "list][0][1", "empty", "there.deeper", "there][0][1"] {
        for (test, expected) in [
            ("== NIL", true),
            ("!= NIL", false),
            ("== 'y'", false),
            ("!= 'y'", false),
            ("< 'y'", false),
            ("=~ /y/", false),
            ("!~ /y/", false),
            ("!~ /^y$/", false),
            ("== 1", false),
            ("!= 1", false),
            ("== TRUE", false),
            ("== FALSE", false),
        ] {
            let expression = format!("Fields[{name}] {test}");
            assert_eq!(parse(&expression).matches(&message), expected, "{expression}");
        }
    }
}

#[test]
fn another_type_makes_a_test_false_also_an_unequal_one() {
    let message = message(json!({"text": "7", "number": 7, "object": {"a": 7}, "nested": [[7]]}));
    for (expression, expected) in [
        ("Fields[text] == 7", false),
        ("Fields[text] != 7", false),
        ("Fields[text] != 8", false),
        ("Fields[text] == '7'", true),
        ("Fields[number] == '7'", false),
        ("Fields[number] != '8'", false),
        ("Fields[number] =~ /7/", false),
        ("Fields[number] !~ /8/", false),
        ("Fields[number] == TRUE", false),
        ("Fields[number] == FALSE", false),
        ("Fields[number] != 8", true),
        ("Fields[object] != 'x'", false),
        ("Fields[object] != 8", false),
        ("Fields[object] == FALSE", false),
        ("Fields[object] != NIL", true),
        ("Fields[nested] != 8", false),
        ("Fields[nested] != NIL", true),
    ] {
        assert_eq!(parse(expression).matches(&message), expected, "{expression}");
    }
}

#[test]
fn a_boolean_takes_everything_but_true_and_nil_for_false() {
    let message = message(json!({"yes": true, "no": false, "word": "TRUE", "other": "true"}));
    all_say(
        &message,
        &[
            ("Fields[yes] == TRUE", true),
            ("Fields[yes] == FALSE", false),
            ("Fields[no] == FALSE", true),
            ("Fields[no] == 'x'", true),
            ("Fields[no] != 'x'", true),
            ("Fields[no] > 3", true),
            ("Fields[no] =~ /x/", true),
            ("Fields[no] !~ /x/", true),
            ("Fields[yes] != 'x'", false),
            ("Fields[yes] !~ /x/", false),
            ("Fields[yes] != NIL", true),
            ("Fields[no] == NIL", false),
            ("Fields[word] == TRUE", true),
            ("Fields[word] == FALSE", false),
            ("Fields[other] == TRUE", false),
        ],
    );
    error("Fields[yes] != TRUE");
    error("Fields[yes] < TRUE");
}

#[test]
fn numbers_that_are_none_count_as_zero_and_none_has_a_sign() {
    let mut message = message(json!({"zero": 0, "large": 1e300, "below": -1}));
    message.pid = Some(12);
    for number in [".", "1e", "1-2", "1+1", "1.2.3", "1e5e5", "1e999", ".e3"] {
        assert!(parse(&format!("Fields[zero] == {number}")).matches(&message), "{number}");
    }
    for number in ["12", "12.", "12.0", "1.2e1", "1.2e+1", "120e-1", "012"] {
        assert!(parse(&format!("Pid == {number}")).matches(&message), "{number}");
    }
    all_say(
        &message,
        &[("Fields[large] > 1e299", true), ("Fields[below] < 0", true), ("Pid == 1.2e1TRUE", true)],
    );
    assert!(error("Fields[below] == -1").to_string().contains("sign"));
    error("Pid == 0x10");
    error("Pid == 1E1");
}

#[test]
fn only_the_quote_is_escaped_in_a_text() {
    for (expression, payload) in [
        (r"Payload == 'it\'s'", "it's"),
        (r#"Payload == "it's""#, "it's"),
        (r#"Payload == "a\"b""#, "a\"b"),
        (r#"Payload == 'a\"b'"#, r#"a\"b"#),
        (r"Payload == 'a\nb'", r"a\nb"),
        (r"Payload == 'a\\'", r"a\\"),
        (r"Payload =~ /^a\/b$/", "a/b"),
        (r"Payload =~ /a\\\/b/", r"a\/b"),
        (r"Payload =~ /^a\nb$/", "a\nb"),
    ] {
        assert!(parse(expression).matches(&Message::new("", payload)), "{expression}");
    }
    error(r"Payload == 'a\'");
}

#[test]
fn texts_are_compared_byte_by_byte() {
    let message = Message::new("é", "B");
    all_say(
        &message,
        &[
            ("Type > 'z'", true),
            ("Payload < 'a'", true),
            ("Payload >= 'B'", true),
            ("Payload <= 'A'", false),
            ("Payload > ''", true),
            ("Payload == 'b'", false),
        ],
    );
}

#[test]
fn the_time_is_a_number_of_nanoseconds() {
    let mut message = Message::new("", "");
    message.timestamp = String::from("2012-10-24T22:20:43.000001Z");
    all_say(
        &message,
        &[
            ("Timestamp > 1351117243000000000", true),
            ("Timestamp <= 1351117243000001024", true),
            ("Timestamp > 1351117243000001024", false),
            ("Timestamp > 1.351117243e18", true),
        ],
    );
    message.timestamp = String::from("yesterday");
    all_say(&message, &[("Timestamp == 0", true)]);
}

#[test]
fn what_a_message_does_not_say_reads_as_in_heka() {
    let nothing = Nothing;
    for (expression, expected) in [
        ("Type == ''", true),
        ("Uuid == ''", true),
        ("Hostname =~ /^$/", true),
        ("Severity == 7", true),
        ("Pid == 0", true),
        ("Timestamp == 0", true),
        ("Fields[x] == NIL", true),
        ("Type != ''", false),
    ] {
        assert_eq!(parse(expression).holds_for(&nothing), expected, "{expression}");
    }
}

/// A message that says nothing.
struct Nothing;

impl tracing_metlog::router::Subject for Nothing {
    fn text(&self, _: tracing_metlog::router::TextVariable) -> Option<std::borrow::Cow<'_, str>> {
        None
    }

    fn number(&self, _: tracing_metlog::router::NumberVariable) -> Option<f64> {
        None
    }

    fn field(&self, _: &str) -> Option<std::borrow::Cow<'_, Value>> {
        None
    }
}

#[test]
fn a_name_with_dots_reaches_into_objects_and_the_very_name_wins() {
    let message = message(json!({
        "a": {"b": "deep", "c": {"d": [1, 2]}, "x": null},
        "a.b": "flat",
        "http.request": {"method": "GET", "head.er": "h", "head": {"er": "other"}},
        "dots.": {"": 1},
        "text": "no object",
    }));
    all_say(
        &message,
        &[
            ("Fields[a.b] == 'flat'", true),
            ("Fields[a.c.d] == 1", true),
            ("Fields[a.c.d][0][1] == 2", true),
            ("Fields[a.c.d][1] == NIL", true),
            ("Fields[a.c] != NIL", true),
            ("Fields[a.x] == NIL", true),
            ("Fields[a.y] == NIL", true),
            ("Fields[http.request.method] == 'GET'", true),
            ("Fields[http.request.head.er] == 'h'", true),
            ("Fields[dots..] == 1", true),
            ("Fields[text.no] == NIL", true),
            ("Fields[.] == NIL", true),
        ],
    );
}

#[test]
fn payloads_that_are_numbers_are_texts() {
    let mut message = Message::new("procinfo", "");
    message.payload = tracing_metlog::Payload::Number(12.into());
    all_say(&message, &[("Payload == '12'", true), ("Payload =~ /^1/", true)]);
    error("Payload == 12");
}

#[test]
fn an_error_shows_the_place_and_what_was_expected() {
    for (expression, expected) in [
        ("Type = 'timer'", "column 6: expected one of ==, !=, <, <=, >, >=, =~, !~, found `=`\n    Type = 'timer'\n         ^"),
        ("Type == timer", "column 9: expected a variable, TRUE, FALSE or NIL: they begin with a capital letter\n    Type == timer\n            ^"),
        ("Typ == 'a'", "column 1: `Typ` is no variable; there are Uuid, Type, Logger, Payload, EnvVersion, Hostname, Timestamp, Severity, Pid, Fields[name], and the constants TRUE, FALSE and NIL\n    Typ == 'a'\n    ^"),
        ("Type == 'a' &&", "column 15: expected a test of Uuid, Type, Logger, Payload, EnvVersion, Hostname, Timestamp, Severity, Pid, Fields[name], or TRUE, FALSE, `(`, found the end (a newline ends an expression)\n    Type == 'a' &&\n                  ^"),
        ("(Type == 'é' 7", "column 14: expected `&&`, `||` or `)`, found `7`\n    (Type == 'é' 7\n                 ^"),
        ("TRUE )", "column 6: expected `&&`, `||` or the end, found `)`\n    TRUE )\n         ^"),
        ("Type == 'a", "column 9: this text does not end: expected `'` before the end of the line\n    Type == 'a\n            ^"),
        ("Severity =~ /3/", "column 10: expected one of ==, !=, <, <=, >, >= (Severity is a number), found `=~`\n    Severity =~ /3/\n             ^"),
        ("Severity == '3'", "column 13: expected a number after Severity, found `'3'`\n    Severity == '3'\n                ^"),
        ("Type == 3", "column 9: expected a text in quotes after Type, found `3`\n    Type == 3\n            ^"),
        ("Fields[a] != TRUE", "column 14: expected a text in quotes, a number or NIL (== alone takes TRUE and FALSE), found `TRUE`\n    Fields[a] != TRUE\n                 ^"),
        ("Type =~ 'a'", "column 9: expected a regular expression between slashes, as in /^a/, found `'a'`\n    Type =~ 'a'\n            ^"),
        ("Type =~ /a\\/(b/", "column 13: this parenthesis is not closed\n    Type =~ /a\\/(b/\n                ^"),
        ("Fields[a][x] == 1", "column 11: expected an index, a number from 0 to 9223372036854775807\n    Fields[a][x] == 1\n              ^"),
    ] {
        assert_eq!(error(expression).to_string(), expected, "{expression}");
    }
}

#[test]
fn what_heka_reads_over_is_an_error() {
    for (expression, column) in [
        ("Type == 'a' Hostnme == 'b'", 13),
        ("TRUE Fields", 12),
        ("TRUE 'never closed", 6),
        ("!(Type == 'a')", 1),
        ("TRUE |(FALSE)", 6),
    ] {
        assert_eq!(error(expression).column(), column, "{expression}");
    }
}

#[test]
fn an_error_in_a_long_expression_shows_its_surroundings_in_one_line() {
    let expression = format!("{}\t%{}", "TRUE || ".repeat(100), " || TRUE".repeat(100));
    let error = error(&expression);
    assert_eq!(error.column(), 802);
    let shown = error.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].len() < 160 && !lines[1].contains('\t'), "{shown}");
    let caret = lines[2].chars().position(|character| character == '^').expect("a caret");
    assert_eq!(lines[1].chars().nth(caret), Some('%'));
}

#[test]
fn hostile_expressions_meet_a_limit_and_not_the_end_of_the_stack() {
    let nested = |depth: usize| format!("{}TRUE{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(parse(&nested(100)), Matcher::any());
    assert!(error(&nested(101)).to_string().contains("100 parentheses"));
    error(&"(".repeat(60_000));
    let long = format!("{}TRUE", " ".repeat(65_532));
    parse(&long);
    assert!(error(&format!("{long} ")).to_string().contains("65536 bytes"));
    assert!(error(&"é".repeat(40_000)).expression().len() <= 65_536);
    assert!(error("Type =~ /((a{100}){100}){100}/").to_string().contains("1048576 bytes"));
    error(&format!("Type =~ /{}/", "(".repeat(60_000)));
    error(&format!("Type =~ /{}a{}/", "(".repeat(30_000), ")".repeat(30_000)));
    let many = |count: usize| vec!["Type =~ /a.c/"; count].join("||");
    assert!(error(&many(1_001)).to_string().contains("1000 regular expressions"));
}

#[test]
fn a_name_of_a_thousand_dots_reaches_128_levels_and_no_further() {
    let path = |levels: usize| vec!["a"; levels].join(".");
    let mut fields = Map::from_iter([(String::from("a"), json!("bottom"))]);
    for _ in 0..1_000 {
        fields = Map::from_iter([(String::from("a"), Value::Object(fields))]);
    }
    let mut message = Message::new("oldstyle", "text");
    message.fields = fields;
    assert!(parse(&format!("Fields[{}] != NIL", path(129))).matches(&message));
    assert!(parse(&format!("Fields[{}] == NIL", path(1_001))).matches(&message));
}

#[test]
fn constructors_and_expressions_make_the_same_matchers() {
    for (built, expression) in [
        (Matcher::any(), "TRUE"),
        (Matcher::type_is("a"), "Type == 'a'"),
        (Matcher::types(["b", "a", "b"]), "Type == 'a' || Type == 'b'"),
        (Matcher::types::<&str>([]), "FALSE"),
        (Matcher::severity_at_most(Severity::Error), "Severity <= 3"),
        (
            Matcher::types(["a", "b"]).and(Matcher::any()).and(Matcher::severity_at_most(Severity::Error)),
            "(Type == 'a' || Type == 'b') && TRUE && Severity <= 3",
        ),
    ] {
        assert_eq!(built, expression.parse().expect("an expression"));
        assert_eq!(built.to_string(), expression);
    }
}

#[test]
fn a_type_that_no_quotes_can_hold_is_written_as_a_regular_expression() {
    for name in ["a\nb", "a\\", r#"\'\""#, "\0", "", "a'b", r"a\'b", "é/.*", "\\\n", "tab\t"] {
        let matcher = Matcher::type_is(name);
        assert!(matcher.matches(&Message::new(name, "")), "{name:?}");
        assert_eq!(parse(&matcher.to_string()), matcher, "{matcher}");
    }
    assert_eq!(Matcher::type_is("a\nb").to_string(), r"Type =~ /^a\nb$/");
}

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
