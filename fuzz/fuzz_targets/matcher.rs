//! Any text is a matcher or an error with a place; a matcher that is written and read again is the same, also in what
//! it says of a message, alone and in a set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::router::{decode, Matcher, MatcherSet, Matches};

const MESSAGE: &[u8] = br#"{"timestamp": "2012-10-24T22:20:43Z", "type": "a", "logger": "ab", "severity": 3, "payload": "7",
    "fields": {"a": "b", "b": [1, "a", true], "a.b": false, "c": {"d": null, "e": "aa"}}, "metlog_pid": 7}"#;

fuzz_target!(|text: &str| {
    let message = decode(MESSAGE).expect("a message");
    match Matcher::parse(text) {
        Ok(matcher) => {
            let again: Matcher = matcher.to_string().parse().expect("what was written is read");
            assert_eq!(again, matcher);
            let holds = matcher.matches(&message);
            assert_eq!(again.matches(&message), holds);
            let mut matches = Matches::default();
            MatcherSet::new([matcher]).judge(&message, &mut matches);
            assert_eq!(matches.contains(0), holds);
        }
        Err(error) => {
            assert!(error.column() <= error.expression().chars().count() + 1);
            assert_eq!(error.to_string().lines().count(), 3);
        }
    }
});
