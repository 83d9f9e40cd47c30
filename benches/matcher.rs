//! What a message costs when many matchers are asked about it: `cargo bench --bench matcher --features router`.
//!
//! Read it as ratios within one run: a thousand matchers on different types, loggers or names must not cost more than
//! ten times what ten cost.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion};
use tracing_metlog::router::{Matcher, MatcherSet, Matches};
use tracing_metlog::Message;

/// The expression of the matcher with a number.
type Shape = fn(usize) -> String;

const SHAPES: [(&str, Shape); 4] = [
    ("types", |number| format!("Type == 'type-{number}'")),
    ("loggers and severity", |number| format!("Logger == 'app-{number}' && Severity <= 6")),
    ("one type, names in fields", |number| format!("Type == 'type-7' && Fields[name] == 'name-{number}'")),
    ("prefixes, asked one by one", |number| format!("Payload =~ /^payload {number} /")),
];

fn message() -> Message {
    let mut message = Message::new("type-7", "payload 7 and the rest of it");
    message.logger = String::from("app-7");
    message.fields.insert(String::from("name"), "name-7".into());
    message
}

fn sets(criterion: &mut Criterion) {
    let message = message();
    for (name, shape) in SHAPES {
        let mut group = criterion.benchmark_group(name);
        group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
        for count in [10, 1_000] {
            let matchers: Vec<Matcher> =
                (0..count).map(|number| Matcher::parse(&shape(number)).expect("an expression")).collect();
            let set = MatcherSet::new(matchers.clone());
            let mut matches = Matches::default();
            group.bench_function(BenchmarkId::new("set", count), |bencher| {
                bencher.iter(|| {
                    set.judge(black_box(&message), &mut matches);
                    black_box(matches.iter().next())
                });
            });
            group.bench_function(BenchmarkId::new("one by one", count), |bencher| {
                bencher.iter(|| {
                    let message = black_box(&message);
                    matchers.iter().filter(|matcher| matcher.matches(message)).count()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sets);
criterion_main!(benches);
