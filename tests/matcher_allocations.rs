//! What a message costs the allocator when matchers are asked about it: nothing.

#![cfg(feature = "router")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use serde_json::json;
use tracing_metlog::router::{Matcher, MatcherSet, Matches};
use tracing_metlog::Message;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all work is `System`'s; counting allocates nothing and touches a thread-local without a destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn asking_allocates_nothing() {
    let expressions = [
        "Type == 'counter' && Severity <= 6 || Logger == 'web'",
        "Payload =~ /^[a-z]+\\d{2,3}$/ && Hostname !~ /(?i)WEB/",
        "Payload =~ /^ab/ || Payload =~ /cd$/ || Payload =~ /bc/",
        "Fields[name] == 'orders' && Fields[tags][0][1] != 'x' && Fields[gone] == NIL",
        "Fields[request.method] == 'POST' && Fields[request.deep.er] > 3",
        "Timestamp > 1e18 && Pid == 7 && Uuid == ''",
    ];
    let matchers = expressions.map(|expression| Matcher::parse(expression).expect("an expression"));
    let set = MatcherSet::new(matchers.clone());
    let mut message = Message::new("counter", "abcd12");
    message.timestamp = String::from("2012-10-24T22:20:43.000000Z");
    message.hostname = Some(String::from("host-1"));
    message.pid = Some(7);
    let fields = json!({
        "name": "orders", "tags": ["new", "eu"], "request": {"method": "POST", "deep": {"er": 4}}
    });
    message.fields = fields.as_object().expect("an object").clone();
    let mut matches = Matches::default();
    // A regular expression gets its memory with the first message, and a clone its own.
    set.judge(&message, &mut matches);
    assert_eq!(matches.iter().count(), matchers.len());
    assert!(matchers.iter().all(|matcher| matcher.matches(&message)));
    let spent = allocations(|| {
        for _ in 0..100 {
            set.judge(black_box(&message), &mut matches);
            assert!(matchers.iter().all(|matcher| matcher.matches(black_box(&message))));
        }
    });
    assert_eq!(spent, 0);
    assert!(allocations(|| drop(black_box(message.clone()))) > 0, "the count counts");
}
