//! What a call costs the calling thread in time, by criterion: `cargo bench --bench time`.
//!
//! Read it as ratios within one run. The queue takes what the discarding destination leaves it; a figure is of the
//! call alone, with the background thread at work beside it.

#![allow(missing_docs)]

mod support;

use criterion::{criterion_group, criterion_main, Criterion};

fn calls(criterion: &mut Criterion) {
    let guard = support::install();
    let mut group = criterion.benchmark_group("call");
    for workload in support::WORKLOADS {
        group.bench_function(workload, |bencher| {
            bencher.iter_custom(|calls| {
                let start = std::time::Instant::now();
                support::measured(workload, calls);
                start.elapsed()
            });
        });
    }
    group.finish();
    drop(guard);
}

criterion_group!(benches, calls);
criterion_main!(benches);
