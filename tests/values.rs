//! Values and names arrive as they were given: by table, and by proptest through `serde_json`.
#![cfg(all(feature = "tracing", feature = "log"))]

mod support;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use log::Log;
use proptest::prelude::*;
use serde_json::{json, Map, Value};
use tracing::info;
use tracing_metlog::{Json, NonFinite};

use support::{bare, plain, traced, Pipe};

/// The value of `value` in the only message.
macro_rules! sent {
    ($($value:tt)*) => {{
        let messages = traced(bare, || info!(value = $($value)*));
        messages[0]["fields"].get("value").cloned()
    }};
}

#[test]
fn integers_are_numbers_as_long_as_sixty_four_bits_hold_them_and_texts_beyond() {
    assert_eq!(sent!(0_u64), Some(json!(0)));
    assert_eq!(sent!(u64::MAX), Some(json!(u64::MAX)));
    assert_eq!(sent!(i64::MAX), Some(json!(i64::MAX)));
    assert_eq!(sent!(i64::MIN), Some(json!(i64::MIN)));
    assert_eq!(sent!(u8::MAX), Some(json!(255)));
    assert_eq!(sent!(i8::MIN), Some(json!(-128)));
    assert_eq!(sent!(usize::MAX), Some(json!(usize::MAX)));
    assert_eq!(sent!(isize::MIN), Some(json!(isize::MIN)));
    assert_eq!(sent!(u128::from(u64::MAX)), Some(json!(u64::MAX)));
    assert_eq!(sent!(u128::from(u64::MAX) + 1), Some(json!("18446744073709551616")));
    assert_eq!(sent!(u128::MAX), Some(json!("340282366920938463463374607431768211455")));
    assert_eq!(sent!(i128::from(u64::MAX)), Some(json!(u64::MAX)));
    assert_eq!(sent!(i128::from(u64::MAX) + 1), Some(json!("18446744073709551616")));
    assert_eq!(sent!(i128::from(i64::MIN)), Some(json!(i64::MIN)));
    assert_eq!(sent!(i128::from(i64::MIN) - 1), Some(json!("-9223372036854775809")));
    assert_eq!(sent!(i128::MIN), Some(json!("-170141183460469231731687303715884105728")));
}

#[test]
fn floats_come_back_as_the_same_float() {
    for value in [0.0, 1.0, 0.1, 1e-7, 1e21, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 1.0 / 3.0] {
        assert_eq!(sent!(value).and_then(|value| value.as_f64()), Some(value));
        assert_eq!(sent!(-value).and_then(|value| value.as_f64()), Some(-value));
    }
    assert_eq!(sent!(1.5_f32), Some(json!(1.5)));
    assert_eq!(sent!(0.1_f32).and_then(|value| value.as_f64()), Some(f64::from(0.1_f32)));
}

#[test]
fn what_is_no_number_is_a_text_unless_null_is_wanted() {
    let floats =
        || info!(nan = f64::NAN, infinite = f64::INFINITY, negative = f64::NEG_INFINITY, f = f32::NAN);
    let expected = json!({"nan": "NaN", "infinite": "Infinity", "negative": "-Infinity", "f": "NaN"});
    assert_eq!(traced(bare, floats)[0]["fields"], expected);
    let expected = json!({"nan": null, "infinite": null, "negative": null, "f": null});
    let nulls = traced(|builder| bare(builder).non_finite(NonFinite::Null), floats);
    assert_eq!(nulls[0]["fields"], expected);
}

#[test]
fn booleans_texts_and_bytes_are_what_they_are() {
    assert_eq!(sent!(true), Some(json!(true)));
    assert_eq!(sent!(false), Some(json!(false)));
    assert_eq!(sent!(""), Some(json!("")));
    assert_eq!(sent!(String::from("owned")), Some(json!("owned")));
    let bytes: &[u8] = &[0, 1, 0x7f, 0x80, 0xff];
    assert_eq!(sent!(bytes), Some(json!("00017f80ff")), "bytes are hexadecimal");
    assert_eq!(sent!(&[] as &[u8]), Some(json!("")));
}

#[test]
fn every_control_character_and_every_kind_of_character_arrives() {
    let control: String = (0..0xA0).filter_map(char::from_u32).collect();
    let wide = "\u{2028}\u{2029}\u{FEFF}\u{FFFD}\u{FFFF}\u{10FFFF}é漢🦀\"\\/";
    assert_eq!(sent!(control.as_str()), Some(json!(control)));
    assert_eq!(sent!(wide), Some(json!(wide)));
    let messages = traced(bare, || info!("{control}{wide}"));
    assert_eq!(messages[0]["payload"], format!("{control}{wide}"));
}

#[test]
fn debug_and_display_are_texts() {
    assert_eq!(sent!(?Some("a\"b")), Some(json!("Some(\"a\\\"b\")")));
    assert_eq!(sent!(%"a\"b"), Some(json!("a\"b")));
    assert_eq!(sent!(tracing::field::debug(7)), Some(json!("7")));
    assert_eq!(sent!(tracing::field::display(7)), Some(json!("7")));
    assert_eq!(sent!(format_args!("{}-{}", 1, 2)), Some(json!("1-2")));
    assert_eq!(sent!(%Duration::from_millis(1).as_millis()), Some(json!("1")));
}

#[test]
fn an_option_is_its_value_or_not_there() {
    assert_eq!(sent!(Some(7)), Some(json!(7)));
    assert_eq!(sent!(None::<u64>), None);
    assert_eq!(sent!(Some("text")), Some(json!("text")));
    assert_eq!(sent!(tracing::field::Empty), None);
}

/// An error with others behind it.
#[derive(Debug)]
struct Failure(&'static str, Option<Box<Failure>>);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|source| source as _)
    }
}

fn failure() -> Failure {
    let cause = Failure("refused", None);
    let middle = Failure("cannot \"connect\"", Some(Box::new(cause)));
    Failure("request failed", Some(Box::new(middle)))
}

#[test]
fn an_error_is_its_text_and_its_sources_are_in_its_chain() {
    let messages = traced(bare, || {
        let error = failure();
        info!(error = &error as &(dyn Error + 'static));
        let lone = Failure("alone", None);
        info!(lone = &lone as &(dyn Error + 'static));
        let _span = tracing::info_span!("span", why = &error as &(dyn Error + 'static)).entered();
        info!("in a span");
    });
    let chain = json!(["cannot \"connect\"", "refused"]);
    assert_eq!(messages[0]["fields"], json!({"error": "request failed", "error.chain": chain}));
    assert_eq!(messages[1]["fields"], json!({"lone": "alone"}));
    assert_eq!(messages[2]["fields"], json!({"why": "request failed", "why.chain": chain}));
}

#[test]
fn an_error_chain_does_not_overwrite_a_field_of_its_name() {
    let messages = traced(bare, || {
        let error = failure();
        info!(error.chain = "own", error = &error as &(dyn Error + 'static));
    });
    assert_eq!(messages[0]["fields"], json!({"error.chain": "own", "error": "request failed"}));
}

#[test]
fn an_error_that_runs_in_a_circle_ends() {
    #[derive(Debug)]
    struct Circle;
    impl fmt::Display for Circle {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("round")
        }
    }
    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Circle)
        }
    }
    let messages = traced(bare, || info!(error = &Circle as &(dyn Error + 'static)));
    let chain = messages[0]["fields"]["error.chain"].as_array().expect("a list").len();
    assert!((1..1_000).contains(&chain));
}

#[test]
fn of_two_fields_with_one_name_the_first_counts() {
    let pipe = Pipe::layer(bare).1;
    pipe.client().message("twice").field("a", 1).field("b", 2).field("a", 3).send();
    assert_eq!(pipe.finish().messages[0]["fields"], json!({"a": 1, "b": 2}));

    let (logger, pipe) = Pipe::logger(bare);
    let pairs = [("a", 1), ("b", 2), ("a", 3)];
    log_with(&logger, &pairs);
    assert_eq!(pipe.finish().messages[0]["fields"], json!({"a": 1, "b": 2}));
}

#[test]
fn a_name_that_differs_only_in_the_way_it_is_escaped_is_the_same_name_to_a_reader() {
    let pipe = Pipe::layer(bare).1;
    pipe.client()
        .message("names")
        .field("\u{1}", 1)
        .field("\\u0001", 2)
        .field("é", 3)
        .field("e\u{301}", 4)
        .send();
    let expected = json!({"\u{1}": 1, "\\u0001": 2, "é": 3, "e\u{301}": 4});
    assert_eq!(pipe.finish().messages[0]["fields"], expected);
}

fn log_with(logger: &impl Log, pairs: &dyn log::kv::Source) {
    let mut record = log::Record::builder();
    logger.log(&record.level(log::Level::Error).target("t").key_values(pairs).build());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON", |float| float.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The first value of each name.
fn firsts<V: Clone + Into<Value>>(pairs: &[(String, V)]) -> Value {
    let mut map = Map::new();
    for (name, value) in pairs {
        map.entry(name.clone()).or_insert_with(|| value.clone().into());
    }
    map.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_under_any_name_comes_back_from_the_client(
        pairs in prop::collection::vec((any::<String>(), any_json()), 0..8),
        payload in any::<String>(),
        logger in any::<String>(),
        message_type in "\\PC+",
    ) {
        prop_assume!(!["counter", "timer", "gauge", "sentry", "cef", "procinfo"].contains(&&*message_type));
        let pipe = Pipe::layer(plain).1;
        let client = pipe.client();
        let mut message = client.message(&message_type).payload(&payload).logger(&logger);
        for (name, value) in &pairs {
            message = message.field(name, Json(value));
        }
        message.send();
        let message = &pipe.finish().messages[0];
        prop_assert_eq!(&message["fields"], &firsts(&pairs));
        prop_assert_eq!(&message["payload"], &Value::from(payload));
        prop_assert_eq!(&message["logger"], &Value::from(logger));
        prop_assert_eq!(&message["type"], &Value::from(message_type));
    }

    #[test]
    fn any_text_under_any_name_comes_back_from_a_log_record(
        pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..8),
        payload in any::<String>(),
    ) {
        let (logger, pipe) = Pipe::logger(bare);
        let borrowed: Vec<_> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let source = borrowed.as_slice();
        logger.log(
            &log::Record::builder()
                .level(log::Level::Error)
                .args(format_args!("{payload}"))
                .key_values(&source)
                .build(),
        );
        let message = &pipe.finish().messages[0];
        prop_assert_eq!(&message["fields"], &firsts(&pairs));
        prop_assert_eq!(&message["payload"], &Value::from(payload));
    }

    #[test]
    fn any_values_come_back_from_an_event(
        text in any::<String>(), unsigned in any::<u64>(), signed in any::<i64>(), wide in any::<u128>(),
        narrow in any::<i128>(), float in any::<f64>(), flag in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..64), maybe in any::<Option<u32>>(),
    ) {
        let messages = traced(bare, || info!(
            text, unsigned, signed, wide, narrow, float, flag, bytes = bytes.as_slice(), maybe, "{text}"
        ));
        let fields = &messages[0]["fields"];
        prop_assert_eq!(&messages[0]["payload"], &Value::from(text.clone()));
        prop_assert_eq!(&fields["text"], &Value::from(text));
        prop_assert_eq!(fields["unsigned"].as_u64(), Some(unsigned));
        prop_assert_eq!(fields["signed"].as_i64(), Some(signed));
        let number = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        prop_assert_eq!(number(&fields["wide"]), wide.to_string());
        prop_assert_eq!(fields["wide"].is_number(), u64::try_from(wide).is_ok());
        prop_assert_eq!(number(&fields["narrow"]), narrow.to_string());
        if float.is_finite() {
            prop_assert_eq!(fields["float"].as_f64().map(f64::to_bits), Some(float.to_bits()));
        }
        prop_assert_eq!(&fields["flag"], &Value::from(flag));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert_eq!(&fields["bytes"], &Value::from(hex));
        prop_assert_eq!(fields.get("maybe").cloned(), maybe.map(Value::from));
    }
}
