//! The oracle: what was written is what is read.

use super::*;
use proptest::prelude::*;

fn record(write: impl FnOnce(&mut Entries<'_>)) -> Vec<u8> {
    let mut out = Bytes::default();
    out.push([0; HEADER]);
    let mut writer = Entries::new(&mut out);
    write(&mut writer);
    let truncated = writer.truncated();
    let header =
        Header { kind: Kind::Message, severity: 6, messages: 1, line: true, truncated, time: 7, callsite: 9 };
    finish(&mut out, header, 0, 0);
    out.to_vec()
}

fn read(bytes: &[u8]) -> Record<'_> {
    let (record, rest) = Record::split_first(bytes).expect("a record");
    assert!(rest.is_empty());
    record
}

#[derive(Clone, Debug)]
enum Given {
    Null,
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Text(String),
    Bytes(Vec<u8>),
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        Just(Given::Null),
        any::<bool>().prop_map(Given::Bool),
        any::<u64>().prop_map(Given::U64),
        any::<i64>().prop_map(Given::I64),
        any::<u128>().prop_map(Given::U128),
        any::<i128>().prop_map(Given::I128),
        proptest::num::f64::NORMAL.prop_map(Given::F64),
        ".*".prop_map(Given::Text),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Given::Bytes),
    ]
}

proptest! {
    #[test]
    fn every_value_is_read_as_it_was_written(values in proptest::collection::vec((".{0,20}", given()), 0..12)) {
        let bytes = record(|entries| {
            for (name, value) in &values {
                let name = Name::Inline(name.as_bytes());
                match value {
                    Given::Null => entries.null(name),
                    Given::Bool(value) => entries.bool(name, *value),
                    Given::U64(value) => entries.u64(name, *value),
                    Given::I64(value) => entries.i64(name, *value),
                    Given::U128(value) => entries.u128(name, *value),
                    Given::I128(value) => entries.i128(name, *value),
                    Given::F64(value) => entries.f64(name, *value),
                    Given::Text(value) => entries.text(name, value),
                    Given::Bytes(value) => entries.bytes(name, value),
                }
            }
        });
        let record = read(&bytes);
        prop_assert_eq!(record.entries().count(), values.len());
        for ((name, value), (read_name, read_value)) in values.iter().zip(record.entries()) {
            prop_assert_eq!(Name::Inline(name.as_bytes()), read_name);
            let expected = match value {
                Given::Null => Value::Null,
                Given::Bool(value) => Value::Bool(*value),
                Given::U64(value) => Value::U64(*value),
                Given::I64(value) => Value::I64(*value),
                Given::U128(value) => Value::U128(*value),
                Given::I128(value) => Value::I128(*value),
                Given::F64(value) => Value::F64(*value),
                Given::Text(value) => Value::Text(value.as_bytes()),
                Given::Bytes(value) => Value::Bytes(value),
            };
            prop_assert_eq!(expected, read_value);
        }
    }

    #[test]
    fn any_bytes_read_as_some_record_or_none_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some((record, _)) = Record::split_first(&bytes) {
            let _ = record.entries().count() + record.context().count();
        }
    }

    #[test]
    fn a_damaged_record_never_panics(position in 0usize..80, byte: u8) {
        let mut bytes = record(|entries| {
            entries.u64(Name::Field(1), 5);
            entries.error(Name::Inline(b"e"), &std::fmt::Error);
            entries.text(Name::Part(Part::Payload), "hello");
        });
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Some((record, _)) = Record::split_first(&bytes) {
            let _ = record.entries().count() + record.context().count();
        }
    }
}

#[test]
fn a_record_longer_than_a_chunk_is_cut_to_fit_and_says_so() {
    let long = "é".repeat(25_000);
    let bytes = record(|entries| {
        for index in 0..20 {
            entries.text(Name::Field(index), &long);
        }
        entries.u64(Name::Field(20), 42);
    });
    assert!(bytes.len() <= MAX_RECORD);
    let record = read(&bytes);
    assert!(record.header.truncated);
    assert_eq!(record.entries().count(), 21);
    assert_eq!(record.entries().last(), Some((Name::Field(20), Value::U64(42))));
    for (_, value) in record.entries().take(20) {
        let Value::Text(text) = value else { panic!("a text") };
        assert!(long.starts_with(std::str::from_utf8(text).expect("cut between characters")));
    }
}

#[test]
fn a_single_text_that_is_too_long_is_cut_while_it_is_written() {
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                formatter.write_str("again and ")?;
            }
        }
    }
    let bytes = record(|entries| entries.display(Name::Field(0), Endless));
    assert!(read(&bytes).header.truncated);
}

#[test]
fn a_value_that_panics_costs_itself_only() {
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("half a ")?;
            panic!("no")
        }
    }
    let bytes = record(|entries| {
        entries.debug(Name::Field(0), &Panics);
        entries.u64(Name::Field(1), 1);
    });
    let values: Vec<_> = read(&bytes).entries().map(|(_, value)| value).collect();
    assert_eq!(values, [Value::Text(PANICKED), Value::U64(1)]);
}

#[test]
fn newer_values_of_a_span_replace_older_ones_and_leave_the_rest() {
    let mut older = Bytes::default();
    let start = begin_span(&mut older, 77);
    let mut entries = Entries::new(&mut older);
    entries.u64(Name::Field(0), 1);
    entries.text(Name::Field(1), "kept");
    finish_span(&mut older, start, false);
    let mut newer = Bytes::default();
    Entries::new(&mut newer).u64(Name::Field(0), 2);
    let mut merged = Vec::new();
    merge_span(&mut merged, &older, &newer, true);
    assert_eq!(first_span_len(&merged), merged.len());
    let span = ContextIter(Reader(&merged)).next().expect("a span");
    assert_eq!((span.callsite, span.is_cut), (77, true));
    let values: Vec<_> = span.entries.collect();
    assert_eq!(values, [(Name::Field(1), Value::Text(b"kept")), (Name::Field(0), Value::U64(2))]);
}

#[test]
fn json_of_several_lines_becomes_one_line_and_stays_the_same_value() {
    // As a `RawValue` writes it, which is passed on as somebody else wrote it.
    let given = b"{\r\n  \"a\\n\": [1,\n2]\n}";
    let write = |out: &mut Bytes| {
        out.extend_from_slice(given);
        Ok(())
    };
    let bytes = record(|entries| entries.json(Name::Field(0), write));
    let Some((_, Value::Json(kept))) = read(&bytes).entries().next() else { panic!("JSON") };
    assert!(!kept.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).expect("JSON");
    assert_eq!(value(kept), value(given));
}
