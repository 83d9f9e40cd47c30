//! Quotas by bytes and age, and processes that share a directory.

use std::time::SystemTime;

use super::*;

fn bytes_on(disk: &MemoryDisk) -> usize {
    let segments = disk.names().into_iter().filter(|name| name.ends_with(".segment"));
    segments.map(|name| disk.bytes_of(Path::new(&name)).len()).sum()
}

#[test]
fn nothing_is_on_disk_as_long_as_nothing_is_put_in_nor_after_everything_was_confirmed() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    process.spool.tick();
    assert_eq!(disk.names(), Vec::<String>::new());
    process.put(1..=5, 10);
    assert_eq!(process.drain(), [1, 2, 3, 4, 5]);
    assert_eq!(bytes_on(&disk), 0);
    process.spool.close();
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn the_quota_is_never_exceeded_and_what_does_not_fit_stays_in_memory() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, settings(200_000));
    process.put(1..=100, 5000);
    assert!(bytes_on(&disk) <= 200_000);
    assert!(!process.spool.has_room());
    assert_eq!(process.lost().total(), 0);
    assert_eq!(process.drain(), (1..=100).collect::<Vec<_>>());
    assert!(process.spool.has_room());
}

#[test]
fn under_drop_oldest_the_oldest_make_room_and_are_counted() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, Settings { drops_oldest: true, ..settings(200_000) });
    process.put(1..=100, 5000);
    assert!(bytes_on(&disk) <= 200_000);
    let lost = process.lost_for(LossReason::SpoolFull);
    assert!(lost >= 60, "{lost}");
    assert_eq!(process.drain(), (lost + 1..=100).collect::<Vec<_>>());
}

#[test]
fn what_is_being_sent_while_it_makes_room_is_lost_only_if_it_does_not_arrive() {
    for arrives in [true, false] {
        let disk = MemoryDisk::new(root());
        let mut process = Process::start(&disk, Settings { drops_oldest: true, ..settings(200_000) });
        process.put(1..=20, 5000);
        let sending = process.read();
        assert_eq!(sending[0], 1);
        process.put(21..=100, 5000);
        let lost = process.lost_for(LossReason::SpoolFull);
        if arrives {
            process.confirm();
        } else {
            process.in_flight.clear();
            process.spool.keep(sending.len() as u64);
            process.assert_balanced();
        }
        let got = process.drain();
        assert_eq!(got.first().copied(), Some(100 - got.len() as u64 + 1));
        let never_came = 100 - got.len() - if arrives { sending.len() } else { 0 };
        assert_eq!(process.lost_for(LossReason::SpoolFull), never_came as u64, "{lost} before");
    }
}

#[test]
fn what_is_too_old_is_given_up_and_counted_and_what_is_not_stays() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    process.put(1..=5, 10);
    let store = process.spool.slots.last_mut().unwrap();
    let now = SystemTime::now();
    assert_eq!(store.expire(now + Duration::from_secs(3000)), 0);
    assert_eq!(store.expire(now + Duration::from_secs(3700)), 5);
    process.counters.lose_spooled(LossReason::SpoolExpired, 5);
    process.assert_balanced();
    assert_eq!(process.drain(), [] as [u64; 0]);
    process.put(6..=7, 10);
    assert_eq!(process.drain(), [6, 7]);
}

#[test]
fn two_processes_never_share_a_slot_and_the_next_start_adopts_what_both_left() {
    let disk = MemoryDisk::new(root());
    let mut one = Process::start(&disk, roomy());
    let mut two = Process::start(&disk, roomy());
    one.put(1..=3, 10);
    two.put(4..=6, 10);
    disk.kill();
    let mut next = Process::start(&disk, roomy());
    assert_eq!(next.counters.on_disk(), (6, 6));
    let mut beside = Process::start(&disk, roomy());
    assert_eq!(beside.drain(), [] as [u64; 0], "they are taken");
    let mut got = next.drain();
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
    beside.spool.close();
    next.spool.close();
    assert_eq!(disk.names(), Vec::<String>::new(), "and nothing is left of it");
}

#[test]
fn a_batch_that_did_not_arrive_before_the_end_is_there_at_the_next_start() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    process.put(1..=5, 10);
    assert_eq!(process.read().len(), 5);
    process.in_flight.clear();
    process.spool.keep(5);
    process.assert_balanced();
    assert_eq!(process.spooled(), 5);
    process.spool.close();
    drop(process);
    assert_eq!(Process::start(&disk, roomy()).drain(), [1, 2, 3, 4, 5]);
}
