//! Any message is refused by the statsd output, or becomes lines of statsd's strict grammar, all under one name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::fuzzing::statsd_lines;
use tracing_metlog::router::decode;

fuzz_target!(|bytes: &[u8]| {
    let Some(lines) = decode(bytes).ok().as_ref().and_then(statsd_lines) else { return };
    assert!(lines.len() <= 1_432);
    let names: Vec<&str> = lines.split('\n').map(name_of_strict_line).collect();
    assert!(names.len() == 1 || (names.len() == 2 && names[0] == names[1]), "{lines:?}");
});

fn name_of_strict_line(line: &str) -> &str {
    let (name, rest) = line.split_once(':').expect("a colon");
    assert!(name.starts_with("prefix."), "{line:?}");
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    assert!(name.split('.').all(is_part), "{line:?}");
    let parts: Vec<&str> = rest.split('|').collect();
    let (value, rate) = match parts[..] {
        [value, "c" | "ms" | "g"] => (value, None),
        [value, "c" | "ms", rate] => (value, Some(rate.strip_prefix('@').expect("a rate"))),
        _ => panic!("{line:?}"),
    };
    assert!(is_decimal(value.strip_prefix('-').unwrap_or(value)), "{line:?}");
    assert!(rate.is_none_or(|rate| is_decimal(rate) && rate.starts_with("0.")), "{line:?}");
    name
}

fn is_decimal(text: &str) -> bool {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    [whole, rest].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
