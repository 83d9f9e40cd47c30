//! Each operation of the disk fails, once and for good, with each error; and the process dies before and after each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use super::super::memory::Fault;
use super::*;
use crate::fault_report::record;

const ERRORS: [i32; 3] = [libc::ENOSPC, libc::EIO, libc::EROFS];

/// A run that comes by every step: create, append, sync, seal, read, commit, unlink, adopt. `each` is told after each
/// step. What was delivered, by the spool or at its end from memory.
fn run(disk: &MemoryDisk, mut each: impl FnMut(&Process)) -> Option<(Process, Vec<u64>)> {
    let mut process = Process::try_start(disk, settings(2 << 20)).ok()?;
    let mut got = Vec::new();
    let mut next = 1;
    for round in 0..6 {
        // More than one segment, and less.
        let (count, length) = if round % 2 == 0 { (60, 5000) } else { (3, 10) };
        if process.spool.has_room() {
            process.put(next..next + count, length);
            next += count;
        }
        each(&process);
        if round % 3 == 0 {
            process.spool.sync();
        }
        process.spool.tick();
        got.extend(process.read());
        each(&process);
        process.confirm();
        each(&process);
    }
    Some((process, got))
}

/// How many operations a run without faults takes.
fn operations() -> usize {
    let disk = MemoryDisk::new(root());
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    disk.plan(move |_| {
        theirs.fetch_add(1, Ordering::Relaxed);
        None
    });
    run(&disk, |_| {}).unwrap();
    count.load(Ordering::Relaxed)
}

fn fault_kinds() -> Vec<Fault> {
    let errors = ERRORS.iter().flat_map(|&error| {
        [
            Fault::Error(error),
            Fault::After(error),
            Fault::Short(0, error),
            Fault::Short(37, error),
            Fault::Short(5100, error),
        ]
    });
    errors.collect()
}

#[test]
fn one_failing_operation_costs_nothing_and_the_spool_goes_on() {
    let (mut faults, mut put) = (0, 0);
    for at in 0..operations() {
        for fault in fault_kinds() {
            let disk = MemoryDisk::new(root());
            let mut seen = 0;
            disk.plan(move |_| {
                seen += 1;
                (seen - 1 == at).then_some(fault)
            });
            // What cannot even be opened is told to the program.
            let Some((mut process, mut got)) = run(&disk, |_| {}) else { continue };
            got.extend(process.drain());
            assert_eq!(process.lost().total(), 0, "operation {at}, {fault:?}");
            assert_eq!(got, (1..=process.put).collect::<Vec<_>>(), "operation {at}, {fault:?}");
            faults += 1;
            put += process.put;
        }
    }
    let fault =
        format!("ENOSPC, EIO, EROFS or half a write at each operation of a spool, once ({faults} runs)");
    record(&fault, "0 lost, none twice, and it goes on", put, put, &[], 0);
}

#[test]
fn a_disk_that_fails_for_good_leaves_everything_in_memory_and_counted_and_one_that_heals_takes_it() {
    let (mut faults, mut put, mut delivered) = (0, 0, 0);
    for at in 0..operations() {
        for fault in fault_kinds() {
            let disk = MemoryDisk::new(root());
            let mut seen = 0;
            disk.plan(move |_| {
                seen += 1;
                (seen > at).then_some(fault)
            });
            let Some((mut process, mut got)) = run(&disk, |_| {}) else { continue };
            disk.heal();
            got.extend(process.drain());
            let missing = process.put - got.len() as u64;
            assert_eq!(missing, process.lost().total(), "operation {at}, {fault:?}");
            // Only what could not be read three times is given up.
            assert_eq!(missing, process.lost_for(LossReason::SpoolDamaged), "operation {at}, {fault:?}");
            assert!(process.spool.has_room(), "it takes messages again: operation {at}, {fault:?}");
            faults += 1;
            put += process.put;
            delivered += got.len() as u64;
        }
    }
    let fault = format!("ENOSPC, EIO, EROFS or half a write from each operation of a spool on, until it heals ({faults} runs)");
    let lost = [("spool_damaged: three times unreadable", put - delivered)];
    record(&fault, "messages wait in memory, and the disk is used again", put, delivered, &lost, 0);
}

#[test]
fn a_process_that_dies_at_any_operation_loses_nothing_it_has_spooled_and_repeats_one_batch_at_most() {
    let operations = operations();
    let mut most_repeated = 0;
    for at in 0..operations {
        for half in [None, Some(0), Some(37), Some(5100)] {
            let disk = MemoryDisk::new(root());
            // From `at` on nothing is done any more; of a write in that moment, a part.
            let mut seen = 0;
            disk.plan(move |_| {
                seen += 1;
                match half {
                    Some(bytes) if seen == at + 1 => Some(Fault::Short(bytes, libc::EIO)),
                    _ => (seen > at).then_some(Fault::Error(libc::EIO)),
                }
            });
            // What was counted as spooled before that moment, what was confirmed, and what until that moment.
            let account = Mutex::new((0, 0, 0));
            let mut has_died = false;
            let outcome = run(&disk, |process| {
                let mut account = account.lock().unwrap();
                account.1 = process.delivered;
                if !has_died {
                    account.2 = process.delivered;
                }
                has_died = process.spool.told.is_some();
                if !has_died {
                    account.0 = process.spooled() + process.in_flight.len() as u64 + process.delivered;
                }
            });
            drop(outcome);
            let (spooled, delivered, before) = *account.lock().unwrap();
            disk.kill();
            disk.heal();
            let mut after = Process::start(&disk, settings(2 << 20));
            let got = after.drain();
            let first = got.first().copied().unwrap_or(spooled + 1);
            assert!(first <= delivered + 1, "{first} is the first after {delivered}: dies at {at}, {half:?}");
            most_repeated = most_repeated.max((before + 1).saturating_sub(first));
            let wanted: Vec<u64> = (first..=spooled).collect();
            assert!(got.starts_with(&wanted), "{} of {spooled}: dies at {at}, {half:?}", got.len());
        }
    }
    assert!(most_repeated <= 60, "{most_repeated} came twice");
}

#[test]
fn a_directory_that_cannot_be_one_is_an_error_and_a_full_disk_is_not() {
    let disk = MemoryDisk::new(Path::new("/elsewhere"));
    assert!(Process::try_start(&disk, roomy()).is_err(), "its parent is missing");

    let disk = MemoryDisk::new(root());
    disk.plan(|_| Some(Fault::Error(libc::ENOSPC)));
    let mut process = Process::start(&disk, roomy());
    process.put(1..=3, 10);
    assert_eq!(process.spooled(), 0);
    assert!(!process.spool.has_room());
    disk.heal();
    process.spool.hurry();
    process.spool.tick();
    assert_eq!(process.spooled(), 3);
    assert_eq!(process.drain(), [1, 2, 3]);
}

#[test]
fn what_the_disk_does_not_take_is_sent_from_memory_when_nothing_older_waits_on_disk() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    process.put(1..=2, 10);
    disk.plan(|name| (name == "append").then_some(Fault::Error(libc::ENOSPC)));
    process.put(3..=4, 10);
    assert_eq!(process.read(), [1, 2]);
    process.confirm();
    assert_eq!(process.read(), [3, 4]);
    assert_eq!(process.delivered, 4);
}

#[test]
fn what_neither_the_disk_nor_a_destination_took_is_lost_at_the_end_and_counted() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    disk.plan(|name| (name == "append").then_some(Fault::Error(libc::EROFS)));
    process.put(1..=4, 10);
    process.spool.close();
    assert_eq!(process.lost_for(LossReason::SpoolFull), 4);
}
