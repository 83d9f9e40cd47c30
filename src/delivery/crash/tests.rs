//! Every point at which a process can die, as docs/crash-ring.md lists them: at each, what another process would find is
//! copied and read. What a call has returned from and no destination has confirmed must be there.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::capture::callsite::{Callsite, Keeper};
use crate::capture::record::{Name, Record as Read, Value};
use crate::delivery::destination::Destination;
use crate::delivery::transport::capture::Capture;
use crate::fault_report::record;
use crate::queue::points::at_each;
use crate::queue::ring::check::sound_records;
use crate::queue::ring::tests::{
    description, event, left_behind, numbers, style, the_file, Directory, CALLSITE,
};
use crate::queue::ring::{self, LiveRing};
use crate::queue::WhenFull;
use crate::stats::{Counters, DestinationCounters};

/// What must be true now, and which points were passed.
#[derive(Default)]
struct Truth {
    /// Calls that have returned: numbers below this. The one in progress may be there too.
    returned: u64,
    /// Numbers below this were confirmed, and need not be there.
    settled: u64,
    /// Numbers below this were given back, and must not be there.
    gone: u64,
    passed: BTreeSet<&'static str>,
    looks: u64,
}

/// What would be found if the process died now: numbers in their order, and whether anything was damaged.
fn after_a_death(directory: &Path) -> (Vec<u64>, bool) {
    let copy = Directory::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
    }
    let (rings, bad) = DeadRing::adopt_all(&copy.0, None);
    let (mut found, mut is_damaged) = (Vec::new(), bad > 0);
    for mut ring in rings {
        while let Some((_, records)) = ring.next() {
            let each = |record: Read<'_>| {
                let value =
                    record.entries().find(|(name, _)| *name == Name::Field(1)).map(|(_, value)| value);
                if let Some(Value::U64(number)) = value {
                    found.push(number);
                }
            };
            is_damaged |= sound_records(&records, &ring.image.callsites, each) > 0;
        }
        is_damaged |= ring.image.is_damaged;
    }
    // The next start finds room for its own beside it, and takes away what was only being made.
    drop(LiveRing::create(&copy.0, &style(), 24).unwrap());
    let half_made = fs::read_dir(&copy.0).unwrap().flatten();
    assert_eq!(half_made.filter(|entry| entry.path().extension().is_some_and(|end| end == "new")).count(), 0);
    (found, is_damaged)
}

/// Looks at each point whether what would be found is what must be.
fn look(directory: &Path, truth: &Rc<RefCell<Truth>>) -> impl FnMut(&'static str) + 'static {
    let (directory, truth) = (directory.to_owned(), Rc::clone(truth));
    move |point| {
        let (found, is_damaged) = after_a_death(&directory);
        let mut truth = truth.borrow_mut();
        truth.passed.insert(point);
        truth.looks += 1;
        assert!(!is_damaged, "{point}: nothing is damaged");
        let distinct: BTreeSet<u64> = found.iter().copied().collect();
        let missing: Vec<_> = (truth.settled..truth.returned).filter(|n| !distinct.contains(n)).collect();
        assert_eq!(missing, [] as [u64; 0], "{point}: every call that returned is there, of {found:?}");
        let known = truth.gone..=truth.returned;
        assert!(found.iter().all(|n| known.contains(n)), "{point}: {found:?} of {known:?}");
        let twice = found.len() - distinct.len();
        assert!(
            twice == 0 || point == "its length is stored" || point == "a chunk is given back",
            "{point}: {found:?}"
        );
        let mut first = found.clone();
        let mut seen = BTreeSet::new();
        first.retain(|n| seen.insert(*n));
        assert!(first.is_sorted(), "{point}: in order: {found:?}");
    }
}

fn outlet_to(capture: &Capture) -> Vec<Outlet> {
    let counters = Arc::new(DestinationCounters::new(String::from("one"), Duration::MAX));
    let destination = Destination::new(Box::new(capture.clone()), counters);
    vec![Outlet::here(destination, &Arc::new(Counters::default()), None)]
}

/// Takes what is queued, as the worker does.
fn take_all(queue: &Queue, crash: &mut Crash, outlets: &mut [Outlet]) {
    while let Some(chunk) = queue.take() {
        (0..chunk.messages).for_each(|_| outlets[0].put(b"{}"));
        crash.keep_or_give_back(queue, chunk, outlets);
    }
}

#[test]
fn whatever_it_was_doing_a_process_that_dies_leaves_every_call_that_returned_and_is_not_settled() {
    let directory = Directory::new();
    let truth = Rc::new(RefCell::new(Truth::default()));
    at_each(look(&directory.0, &truth), || {
        let ring = LiveRing::create(&directory.0, &style(), 24).unwrap();
        ring.0.keep(CALLSITE, &Callsite::of_another_process(description("event")));
        let live = Arc::clone(&ring.0);
        let (queue, _calls) = Queue::in_ring(ring, WhenFull::DropNewest, Arc::default());
        let mut crash = Crash::new(&queue);
        let capture = Capture::new();
        let mut outlets = outlet_to(&capture);
        let push = |text: &str| {
            let number = truth.borrow().returned;
            queue.push(0, &event(text, number), 6, 1);
            truth.borrow_mut().returned += 1;
        };
        // Several chunks, taken while more come; then little ones, which are copied together.
        let long = "x".repeat(20_000);
        (0..8).for_each(|_| push(&long));
        take_all(&queue, &mut crash, &mut outlets);
        for _ in 0..3 {
            push("little");
            queue.seal_all();
            take_all(&queue, &mut crash, &mut outlets);
        }
        outlets[0].send();
        let settled = truth.borrow().returned;
        truth.borrow_mut().settled = settled;
        crash.release_settled(&queue, &outlets);
        truth.borrow_mut().gone = settled;
        // In chunks that were used before.
        (0..4).for_each(|_| push(&long));
        queue.seal_all();
        take_all(&queue, &mut crash, &mut outlets);
        outlets[0].send();
        truth.borrow_mut().settled = settled + 4;
        crash.leave(&queue, &outlets);
        drop(live);
    });
    let expected = [
        "a callsite is written",
        "a chunk has its lane",
        "a chunk has its order",
        "a chunk is given back",
        "a chunk is taken",
        "a record is copied",
        "all is settled at the end",
        "it has its blocks",
        "it has its header",
        "it has its name",
        "it is mapped",
        "its length is stored",
        "the file is made",
    ];
    let mut passed = truth.borrow().passed.clone();
    // Only where this takes longer than a second.
    passed.remove("the clock is noted");
    assert_eq!(passed, BTreeSet::from(expected), "each was passed");
    assert_eq!(after_a_death(&directory.0), (vec![], false), "nothing is left");
    let truth = truth.borrow();
    let fault =
        format!("death at each point of a process with a ring, copied and read ({} points)", truth.looks);
    record(
        &fault,
        "every returned call that is not settled is there",
        truth.returned,
        truth.returned,
        &[],
        0,
    );
}

/// The old ring and the new one of who delivers it: slots that were settled are not delivered again, the others are.
#[test]
fn a_process_that_dies_while_it_delivers_an_old_ring_leaves_what_it_had_not_settled() {
    let directory = Directory::new();
    let count = left_behind(&directory.0);
    let truth = Rc::new(RefCell::new(Truth { returned: count, ..Truth::default() }));
    // One slot at a time may be delivered twice, which a copy of the file cannot show.
    let (queue, _calls) = ring::queue(&directory.0, &style(), 1, WhenFull::DropNewest, &Arc::default());
    let (mut crash, capture) = (Crash::new(&queue), Capture::new());
    let mut outlets = outlet_to(&capture);
    at_each(look(&directory.0, &truth), || {
        while crash.replay_next(&queue, &mut outlets) {
            outlets[0].send();
            truth.borrow_mut().settled = capture.len() as u64;
            crash.release_settled(&queue, &outlets);
            truth.borrow_mut().gone = capture.len() as u64;
        }
        crash.leave(&queue, &outlets);
    });
    let passed = truth.borrow().passed.clone();
    for point in ["a slot of a dead ring is settled", "a dead ring is delivered", "all is settled at the end"]
    {
        assert!(passed.contains(point), "{point}: {passed:?}");
    }
    assert_eq!((capture.len() as u64, after_a_death(&directory.0)), (count, (vec![], false)));
}

/// Of what differs between two states of a file, every beginning: a copy or a write that was cut short by a death.
fn each_cut(before: &[u8], after: &[u8], mut each: impl FnMut(&[u8])) {
    let mut now = before.to_vec();
    now.resize(after.len().max(before.len()), 0);
    for (at, &byte) in after.iter().enumerate() {
        if now[at] != byte {
            now[at] = byte;
            each(&now);
        }
    }
}

#[test]
fn a_process_that_dies_while_it_copies_a_record_or_writes_a_callsite_leaves_what_was_there_before() {
    let directory = Directory::new();
    let ring = LiveRing::create(&directory.0, &style(), 24).unwrap();
    let live = Arc::clone(&ring.0);
    live.keep(CALLSITE, &Callsite::of_another_process(description("event")));
    let (queue, _calls) = Queue::in_ring(ring, WhenFull::DropNewest, Arc::default());
    queue.push(0, &event("before", 0), 6, 1);
    let path = the_file(&directory.0);
    let before = fs::read(&path).unwrap();
    // The file as it is when the copy is whole and its length is not stored.
    let copied = Rc::new(RefCell::new(Vec::new()));
    let (kept, from) = (Rc::clone(&copied), path.clone());
    at_each(
        move |point| {
            if point == "a record is copied" {
                *kept.borrow_mut() = fs::read(&from).unwrap();
            }
        },
        || queue.push(0, &event("in progress", 1), 6, 1),
    );
    let mut cuts = 0;
    each_cut(&before, &copied.borrow(), |file| {
        assert_eq!(numbers(file), Some((vec![0], 0)), "the record that was being copied is not there");
        cuts += 1;
    });
    assert!(cuts > 10, "{cuts}");

    let before = fs::read(&path).unwrap();
    live.keep(CALLSITE + 64, &Callsite::of_another_process(description("another")));
    let after = fs::read(&path).unwrap();
    let (mut cuts, mut damaged) = (0, 0);
    each_cut(&before, &after, |file| {
        let (found, counted) = numbers(file).expect("the header is whole");
        assert_eq!(found, [0, 1], "no record needs it yet");
        cuts += 1;
        damaged += u64::from(counted > 0);
    });
    assert!(cuts > 10 && damaged > 0 && damaged < cuts, "{damaged} of {cuts} count as damaged");
}
