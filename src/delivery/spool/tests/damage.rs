//! Damage to what is on disk costs what it touches, is counted, and is kept for people.

use super::*;
use crate::fault_report::record;

/// A spool of five messages of a process that has died, and where its records begin and end.
fn dead_spool() -> (MemoryDisk, PathBuf, Vec<usize>) {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, roomy());
    process.put(1..=5, 3);
    disk.kill();
    let segment = only_segment(&disk);
    let starts = (0..=5).map(|index| 32 + index * (20 + 11)).collect();
    (disk, segment, starts)
}

#[test]
fn every_flipped_byte_costs_only_its_message_which_is_counted_and_the_segment_is_kept() {
    let (disk, segment, starts) = dead_spool();
    let whole = disk.bytes_of(&segment);
    assert_eq!(whole.len(), starts[5]);
    let (mut spools, mut delivered) = (0, 0);
    for at in 0..whole.len() {
        for change in [1, 0x80, 0xFF] {
            let (disk, ..) = dead_spool();
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            disk.set_bytes(&segment, damaged.clone());
            let mut process = Process::start(&disk, roomy());
            let hit =
                starts.windows(2).position(|pair| (pair[0]..pair[1]).contains(&at)).map(|hit| hit as u64 + 1);
            let expected: Vec<u64> = (1..=5).filter(|id| Some(*id) != hit).collect();
            assert_eq!(process.drain(), expected, "byte {at}");
            spools += 1;
            delivered += expected.len() as u64;
            assert_eq!(process.lost_for(LossReason::SpoolDamaged), u64::from(hit.is_some()), "byte {at}");
            let kept: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".bad")).collect();
            assert_eq!(kept.len(), usize::from(hit.is_some()), "byte {at}");
            for path in kept {
                assert_eq!(disk.bytes_of(Path::new(&path)), damaged, "byte {at}");
            }
        }
    }
    let fault = format!("each byte of a spool of 5 messages changed, {spools} spools");
    let lost = [("spool_damaged", spools * 5 - delivered)];
    record(&fault, "lost, and counted, is only what was touched", spools * 5, delivered, &lost, 0);
}

#[test]
fn every_truncation_costs_only_what_was_cut() {
    let (disk, segment, starts) = dead_spool();
    let whole = disk.bytes_of(&segment);
    let mut delivered = 0;
    for length in 0..whole.len() {
        let (disk, ..) = dead_spool();
        disk.set_bytes(&segment, whole[..length].to_vec());
        let mut process = Process::start(&disk, roomy());
        let left = starts[1..].iter().filter(|&&end| end <= length).count() as u64;
        assert_eq!(process.drain(), (1..=left).collect::<Vec<_>>(), "cut to {length}");
        delivered += left;
        // A record that was cut in two is seen; those that are not there at all nobody can know of.
        let is_cut = length > 0 && !starts.contains(&length);
        assert_eq!(process.lost_for(LossReason::SpoolDamaged), u64::from(is_cut), "cut to {length}");
        process.put([6], 3);
        assert_eq!(process.drain(), [6], "and it goes on: cut to {length}");
    }
    let spools = whole.len() as u64;
    let fault = format!("a spool of 5 messages cut after each byte, {spools} spools");
    let lost = [("cut off", spools * 5 - delivered)];
    record(&fault, "lost is only what was cut off", spools * 5, delivered, &lost, 0);
}

#[test]
fn every_flipped_byte_of_the_commit_costs_nothing_and_repeats_one_batch_at_most() {
    for at in 0..64 {
        let (disk, ..) = dead_spool();
        let mut process = Process::start(&disk, roomy());
        assert_eq!(process.read(), [1, 2, 3, 4, 5]);
        process.confirm();
        process.put(6..=8, 3);
        assert_eq!(process.read(), [6, 7, 8]);
        process.confirm();
        process.put(9..=10, 3);
        disk.kill();
        let commit = root().join("dir/0/commit");
        let mut bytes = disk.bytes_of(&commit);
        bytes[at] ^= 0x10;
        disk.set_bytes(&commit, bytes);
        let mut process = Process::start(&disk, roomy());
        let got = process.drain();
        assert!(got.ends_with(&[9, 10]) && got.len() <= 5, "byte {at}: {got:?}");
        assert_eq!(process.lost().total(), 0, "byte {at}");
    }
}

#[test]
fn a_commit_of_which_nothing_is_whole_is_kept_and_everything_on_disk_is_sent() {
    let (disk, ..) = dead_spool();
    let mut process = Process::start(&disk, roomy());
    process.read();
    process.confirm();
    process.put(6..=7, 3);
    disk.kill();
    disk.set_bytes(&root().join("dir/0/commit"), vec![7; 64]);
    let mut process = Process::start(&disk, roomy());
    assert_eq!(process.drain(), [6, 7]);
    let kept = disk.names().into_iter().filter(|name| name.contains("/commit.") && name.ends_with(".bad"));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_segment_that_somebody_removed_is_counted_by_its_numbers() {
    let disk = MemoryDisk::new(root());
    let mut process = Process::start(&disk, settings(1 << 20));
    process.put(1..=60, 5000);
    disk.kill();
    let mut segments: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".segment")).collect();
    segments.sort();
    assert!(segments.len() >= 3, "{segments:?}");
    let number =
        |index: usize| segments[index][segments[index].len() - 28..segments[index].len() - 8].parse::<u64>();
    let (from, to) = (number(1).unwrap(), number(2).unwrap());
    super::super::fs::Disk::remove(&disk, Path::new(&segments[1])).unwrap();
    let mut process = Process::start(&disk, settings(1 << 20));
    let expected: Vec<u64> = (1..=60).filter(|id| !(from..to).contains(id)).collect();
    assert_eq!(process.drain(), expected);
    assert_eq!(process.lost_for(LossReason::SpoolDamaged), to - from);
}

#[test]
fn files_of_other_names_and_absurd_numbers_are_nobodys_messages() {
    let (disk, ..) = dead_spool();
    for name in
        ["notes.txt", "99999999999999999999.segment", "00000000000000000000.segment", "1.segment", "x.bad"]
    {
        drop(super::super::fs::Disk::create(&disk, &root().join("dir/0").join(name)).unwrap());
    }
    let mut process = Process::start(&disk, roomy());
    assert_eq!(process.drain(), [1, 2, 3, 4, 5]);
    assert_eq!(process.lost().total(), 0);
}
