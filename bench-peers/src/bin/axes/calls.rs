//! The calls along each axis: the same call again and again, at one size of one thing.

use std::hint::black_box;

use tracing::span::EnteredSpan;

/// Calls of the size they were made for.
pub type Calls = Box<dyn FnMut(u64)>;

/// An event inside so many spans with a field each, all of different names.
pub fn event_in_spans(depth: u64) -> Calls {
    enter_spans(depth);
    Box::new(|calls| {
        for id in 0..calls {
            tracing::info!(id, "request served");
        }
    })
}

/// A span with a field: made, entered, left and closed, inside so many others.
pub fn span_in_spans(depth: u64) -> Calls {
    enter_spans(depth);
    Box::new(spans)
}

/// The same, while so many other spans live that this thread is not in.
pub fn span_beside_spans(live: u64) -> Calls {
    let others: Vec<_> = (0..live).map(|id| tracing::info_span!("session", id)).collect();
    Box::new(move |calls| {
        let _live = &others;
        spans(calls);
    })
}

fn spans(calls: u64) {
    for id in 0..calls {
        let _inside = tracing::info_span!("query", id).entered();
    }
}

/// An event with a text of so many bytes and no field.
pub fn event_with_payload(bytes: u64) -> Calls {
    let text = "x".repeat(bytes as usize);
    Box::new(move |calls| {
        for _ in 0..calls {
            tracing::info!("{text}");
        }
    })
}

/// Enters spans that stay until the process ends.
fn enter_spans(depth: u64) {
    for span in SPANS.iter().take(depth as usize) {
        std::mem::forget(span());
    }
}

macro_rules! spans_with_a_field_each {
    ($($name:ident)*) => {
        [$(|| tracing::info_span!("step", $name = black_box(7u64)).entered()),*]
    };
}

/// As many callsites: fields of one name would hide each other.
const SPANS: [fn() -> EnteredSpan; 64] = spans_with_a_field_each![
    a00 a01 a02 a03 a04 a05 a06 a07 a08 a09 a10 a11 a12 a13 a14 a15 a16 a17 a18 a19 a20 a21 a22 a23 a24 a25 a26 a27
    a28 a29 a30 a31 a32 a33 a34 a35 a36 a37 a38 a39 a40 a41 a42 a43 a44 a45 a46 a47 a48 a49 a50 a51 a52 a53 a54 a55
    a56 a57 a58 a59 a60 a61 a62 a63
];

macro_rules! event_with {
    ($($name:ident)*) => {
        Box::new(|calls| {
            for id in 0..calls {
                tracing::info!($($name = black_box(id),)* "request served");
            }
        })
    };
}

/// An event with so many integer fields; those of [`FIELDS`] only.
pub fn event_with_fields(fields: u64) -> Calls {
    match fields {
        0 => Box::new(|calls| {
            for id in 0..calls {
                black_box(id);
                tracing::info!("request served");
            }
        }),
        1 => event_with!(a0),
        2 => event_with!(a0 a1),
        4 => event_with!(a0 a1 a2 a3),
        8 => event_with!(a0 a1 a2 a3 a4 a5 a6 a7),
        16 => event_with!(a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5),
        24 => event_with!(a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3),
        _ => event_with!(
            a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 d0 d1
        ),
    }
}

/// The numbers of fields that [`event_with_fields`] has: a callsite each.
pub const FIELDS: &[u64] = &[0, 1, 2, 4, 8, 16, 24, 32];
