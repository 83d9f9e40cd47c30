//! A message as statsd's lines. In: any message. Out: `NAME:VALUE|TYPE`, or why there is none. Nothing in a message can
//! begin another line, name, value or tag.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Message, Payload};

/// The longest number: any that means something is shorter, and `1e-300` written out is not.
const MAX_NUMBER_BYTES: usize = 40;

/// Names that statsd's tables, which are JavaScript objects, have already: a timer so named ends the server.
const RESERVED: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// The lines of a message, with newlines between them and none at the end, `limit` bytes at most.
///
/// # Errors
/// What it is about the message that statsd cannot take.
pub(crate) fn lines(prefix: &str, message: &Message, limit: usize) -> Result<String, String> {
    let kind = match message.r#type.as_str() {
        "counter" => "c",
        "timer" => "ms",
        "gauge" => "g",
        _ => return Err(String::from("type: accepted are counter, timer and gauge")),
    };
    let key = name(prefix, message)?;
    let value = match &message.payload {
        Payload::Text(text) => number(text),
        Payload::Number(number_) => number(&number_.to_string()),
    };
    let value = value.ok_or("payload: a decimal number is accepted")?;
    let is_negative = value.starts_with('-');
    let mut lines = String::with_capacity(key.len() + value.len() + 16);
    match kind {
        "ms" if is_negative => return Err(String::from("payload: the time of a timer is not negative")),
        // Signed, it would be added to the gauge.
        "g" if is_negative => drop(writeln!(lines, "{key}:0|g")),
        _ => {}
    }
    let _ = write!(lines, "{key}:{value}|{kind}");
    match rate(message.fields.get("rate"))? {
        Some(rate) if kind != "g" => drop(write!(lines, "|@{rate}")),
        _ => {}
    }
    match lines.len() <= limit {
        true => Ok(lines),
        false => Err(format!("a metric of {} bytes; up to {limit} fit a datagram", lines.len())),
    }
}

fn name(prefix: &str, message: &Message) -> Result<String, String> {
    let text = |key| message.fields.get(key).and_then(Value::as_str);
    let name = text("name").ok_or("fields.name: a string is needed")?;
    if key(&[name]).is_empty() {
        return Err(String::from("fields.name: at least one letter, digit, _ or - is needed"));
    }
    let logger = text("logger").filter(|logger| !logger.trim().is_empty()).unwrap_or(&message.logger);
    let name = key(&[prefix, logger.trim(), name]);
    match RESERVED.contains(&name.as_str()) {
        true => Err(format!("fields.name: {name} on its own would break statsd")),
        false => Ok(name),
    }
}

/// These parts as one name.
pub(super) fn key(parts: &[&str]) -> String {
    let mut key = String::new();
    for part in parts {
        push_dot(&mut key);
        let mut characters = part.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '.' => push_dot(&mut key),
                ':' if characters.peek() == Some(&':') => {
                    characters.next();
                    push_dot(&mut key);
                }
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => key.push(character),
                '/' => key.push('-'),
                _ if character.is_whitespace() => {
                    while characters.next_if(|next| next.is_whitespace()).is_some() {}
                    key.push('_');
                }
                _ => key.push('_'),
            }
        }
    }
    if key.ends_with('.') {
        key.pop();
    }
    key
}

/// A dot, where one may stand.
fn push_dot(key: &mut String) {
    if !key.is_empty() && !key.ends_with('.') {
        key.push('.');
    }
}

/// A number as digits with at most one point between them and a minus before them; as it stands if it is so.
fn number(text: &str) -> Option<String> {
    let text = text.trim();
    let number = match is_decimal(text) {
        true => text.to_owned(),
        // Never with an exponent, which statsd's expression for rates would cut off.
        false => text.parse().ok().filter(|number: &f64| number.is_finite())?.to_string(),
    };
    (number.len() <= MAX_NUMBER_BYTES).then_some(number)
}

fn is_decimal(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    text.split_once('.').map_or_else(|| is_digits(text), |(whole, rest)| is_digits(whole) && is_digits(rest))
}

/// The rate, if statsd must know it.
fn rate(rate: Option<&Value>) -> Result<Option<String>, String> {
    let text = match rate {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => String::new(),
    };
    let number = text.trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    match number {
        Some(rate) if rate >= 1.0 => Ok(None),
        Some(rate) if rate.to_string().len() <= MAX_NUMBER_BYTES => Ok(Some(rate.to_string())),
        _ => Err(String::from("fields.rate: a number above 0 is accepted")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(message_type: &str, logger: &str, payload: &str, fields: Value) -> Message {
        let mut message = Message::new(message_type, payload);
        message.logger = logger.to_owned();
        message.fields = fields.as_object().cloned().expect("an object");
        message
    }

    fn drawn(message: &Message) -> Result<String, String> {
        lines("", message, 1_432)
    }

    #[test]
    fn the_lines_are_those_that_the_routers_before_this_one_sent() {
        for (message_type, payload, name, rate, expected) in [
            ("counter", "3.0", "acc.hits", json!(1.0), "acceptance.acc.hits:3.0|c"),
            ("counter", "3", "acc.hits", json!(1), "acceptance.acc.hits:3|c"),
            ("timer", "10.000000", "acc.timer", json!("1"), "acceptance.acc.timer:10.000000|ms"),
            ("counter", "1.0", "acc.sampled", json!(0.25), "acceptance.acc.sampled:1.0|c|@0.25"),
            ("counter", "1", "acc.sampled", json!("0.25"), "acceptance.acc.sampled:1|c|@0.25"),
            ("timer", "12", "acc.sampled", json!(1e-7), "acceptance.acc.sampled:12|ms|@0.0000001"),
            ("gauge", "42.5", "acc.gauge", json!(1.0), "acceptance.acc.gauge:42.5|g"),
            ("gauge", "42.5", "acc.gauge", json!(0.5), "acceptance.acc.gauge:42.5|g"),
            ("gauge", "-5", "acc.gauge", json!(null), "acceptance.acc.gauge:0|g\nacceptance.acc.gauge:-5|g"),
            ("counter", "-1", "acc.hits", json!(7), "acceptance.acc.hits:-1|c"),
            ("counter", " +1e3 ", "acc.hits", json!(1), "acceptance.acc.hits:1000|c"),
        ] {
            let message = message(message_type, "acceptance", payload, json!({"name": name, "rate": rate}));
            assert_eq!(drawn(&message).as_deref(), Ok(expected));
        }
        let number = serde_json::Number::from_f64(0.5).expect("finite");
        let mut numeric = message("gauge", "", "", json!({"name": "load"}));
        numeric.payload = Payload::Number(number);
        assert_eq!(drawn(&numeric).as_deref(), Ok("load:0.5|g"));
    }

    #[test]
    fn a_name_is_made_of_prefix_logger_and_name_and_injects_nothing() {
        for (prefix, logger, fields, expected) in [
            ("", "", json!({"name": "hits"}), "hits"),
            ("shop", "app", json!({"name": "hits"}), "shop.app.hits"),
            ("", "app", json!({"name": "hits", "logger": "psutil.net.host.1"}), "psutil.net.host.1.hits"),
            ("", "app", json!({"name": "hits", "logger": " "}), "app.hits"),
            ("", ".app.", json!({"name": "..a...b."}), "app.a.b"),
            ("", "app::http", json!({"name": "127_0_0_1:50007.LISTEN"}), "app.http.127_0_0_1_50007.LISTEN"),
            ("", "app", json!({"name": "GET /a  b\t c"}), "app.GET_-a_b_c"),
            (
                "",
                "a|c\nevil",
                json!({"name": "x:1|c|@0.1\r\nevil:9|c#é;k=v"}),
                "a_c_evil.x_1_c__0.1_evil_9_c___k_v",
            ),
            ("", "app", json!({"name": "constructor"}), "app.constructor"),
        ] {
            let message = message("counter", logger, "1", fields);
            assert_eq!(lines(prefix, &message, 1_432), Ok(format!("{expected}:1|c")));
        }
    }

    #[test]
    fn what_statsd_cannot_take_is_refused_with_the_reason() {
        let named = json!({"name": "x"});
        for (message, expected) in [
            (message("oldstyle", "", "1", named.clone()), "type: "),
            (message("histogram", "", "1", named.clone()), "type: "),
            (message("counter", "", "1", json!({})), "fields.name: a string"),
            (message("counter", "", "1", json!({"name": 7})), "fields.name: a string"),
            (message("counter", "app", "1", json!({"name": "..."})), "fields.name: at least"),
            (
                message("timer", "", "1", json!({"name": "constructor"})),
                "fields.name: constructor on its own",
            ),
            (message("gauge", "", "1", json!({"name": "__proto__"})), "fields.name: __proto__ on its own"),
            (message("timer", "", "-1", named.clone()), "payload: the time"),
            (
                message("counter", "", "1", json!({"name": "x".repeat(1_432)})),
                "a metric of 1436 bytes; up to 1432",
            ),
        ] {
            let refused = drawn(&message).expect_err(expected);
            assert!(refused.starts_with(expected), "{refused}");
        }
        let exact = message("counter", "", "1", json!({"name": "x".repeat(1_432 - 4)}));
        assert_eq!(drawn(&exact).map(|line| line.len()), Ok(1_432));
        for payload in ["", "soon", "NaN", "inf", "1e999", "0x10", "1|c", "1\n2", "1_000", "1e300", "1,5"] {
            let refused = drawn(&message("counter", "", payload, named.clone()));
            assert_eq!(refused, Err(String::from("payload: a decimal number is accepted")), "{payload}");
        }
        for rate in
            [json!(0), json!(-0.5), json!("often"), json!("nan"), json!(true), json!([0.5]), json!(5e-324)]
        {
            let refused = drawn(&message("counter", "", "1", json!({"name": "x", "rate": rate})));
            assert_eq!(refused, Err(String::from("fields.rate: a number above 0 is accepted")));
        }
    }

    /// Statsd's grammar, as strictly as it can be read.
    fn is_strict(line: &str) -> bool {
        let digits = |text: &str| {
            let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
            [whole, rest]
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let Some((name, rest)) = line.split_once(':') else { return false };
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        let is_rate =
            |rate: &str| rate.strip_prefix('@').is_some_and(|rate| digits(rate) && rate.starts_with("0."));
        let value = match rest.split('|').collect::<Vec<_>>()[..] {
            [value, "c" | "ms" | "g"] => value,
            [value, "c" | "ms", rate] if is_rate(rate) => value,
            _ => return false,
        };
        name.split('.').all(part) && digits(value.strip_prefix('-').unwrap_or(value))
    }

    proptest! {
        #[test]
        fn any_message_is_nothing_or_lines_of_statsds_strict_grammar_under_one_name(
            message_type in "counter|timer|gauge|x",
            logger in "([:|@#\r\n./ ]|[a-z]|.){0,12}",
            name in "([:|@#\r\n./ ]|[a-z]|.){0,12}",
            payload in "[-+]?[0-9]{0,20}[.]?[0-9]{0,4}(e[-+]?[0-9]{1,3})?|.{0,8}",
            rate in "[0-9]?[.][0-9]{1,9}(e-[0-9])?|.{0,4}",
        ) {
            let message = message(&message_type, &logger, &payload, json!({"name": name, "rate": rate}));
            if let Ok(lines) = drawn(&message) {
                prop_assert!(lines.split('\n').all(is_strict), "{lines:?}");
                let mut names: Vec<_> = lines.split('\n').map(|line| line.split(':').next()).collect();
                names.dedup();
                prop_assert_eq!(names.len(), 1);
                let most = if message_type == "gauge" { 2 } else { 1 };
                prop_assert!(lines.split('\n').count() <= most);
            }
        }
    }
}
