//! A ring is read as it was written, and damage costs what it touched.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU32;

use super::check::sound_records;
use super::dead::Image;
use super::*;
use crate::capture::bytes::Bytes;
use crate::capture::callsite::Description;
use crate::capture::record::{self, Entries, Header, Kind, Name, Part, Record, Value, HEADER};
use crate::delivery::encode::{NonFinite, Origin, SpanContext};
use crate::queue::map::SLOT_HEAD;

/// A directory of its own, in memory where there is some, gone with the test.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("metlog-ring-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("made");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn style() -> Style {
    Style {
        logger: String::from("a shop/with: odd \"name\""),
        hostname: String::from("host"),
        process_id: 4711,
        origin: Origin { file: false, ..Origin::default() },
        span_context: SpanContext::List,
        span_keys: Some(vec![String::from("user")]),
        non_finite: NonFinite::Null,
        whole_milliseconds: true,
        message_ids: true,
    }
}

pub(crate) fn description(name: &'static str) -> Description {
    Description {
        name: name.into(),
        target: "shop::cart".into(),
        module: Some("shop::cart".into()),
        file: None,
        line: Some(12),
        level: 2,
        is_event: true,
        fields: vec!["message".into(), "number".into()],
    }
}

pub(crate) const CALLSITE: u64 = 0x7777_0000;

/// A record whose entries are written by `write`.
fn record_of(header: Header, write: impl Fn(&mut Entries<'_>)) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.push([0; HEADER]);
    write(&mut Entries::new(&mut bytes));
    record::finish(&mut bytes, header, 0, 0);
    bytes.to_vec()
}

/// A record of an event that says `text`.
pub(crate) fn event(text: &str, number: u64) -> Vec<u8> {
    let (kind, severity, messages, line, truncated) = (Kind::Event, 6, 1, true, false);
    record_of(
        Header { kind, severity, messages, line, truncated, time: number, callsite: CALLSITE },
        |entries| {
            entries.text(Name::Field(0), text);
            entries.u64(Name::Field(1), number);
        },
    )
}

/// A ring with some records, and how many; its process is gone.
pub(crate) fn left_behind(directory: &Path) -> u64 {
    let ring = LiveRing::create(directory, &style(), 24).expect("made");
    let keeper = Arc::clone(&ring.0);
    keeper.keep(CALLSITE, Callsite::of_another_process(description("event")));
    let (queue, _calls) = Queue::in_ring(ring, WhenFull::DropNewest, Arc::default());
    for number in 0..5 {
        queue.push(0, &event("said", number), 6, 1);
    }
    queue.seal_all();
    for number in 5..8 {
        queue.push(1, &event("said", number), 6, 1);
    }
    8
}

pub(crate) fn the_file(directory: &Path) -> PathBuf {
    let mut names = directory::names(directory, directory::RING);
    assert_eq!(names.len(), 1, "{names:?}");
    directory.join(names.remove(0))
}

/// The numbers of the events in an image, in order, and how many records were damaged.
pub(crate) fn numbers(bytes: &[u8]) -> Option<(Vec<u64>, u64)> {
    let mut image = Image::read(&bytes).ok()?;
    let (mut numbers, mut damaged) = (Vec::new(), 0);
    while let Some((_, records)) = image.next(&bytes) {
        let each = |record: Record<'_>| {
            let value = record.entries().find(|(name, _)| *name == Name::Field(1)).map(|(_, value)| value);
            if let Some(Value::U64(number)) = value {
                numbers.push(number);
            }
        };
        damaged += sound_records(&records, &image.callsites, each);
    }
    Some((numbers, damaged + u64::from(image.is_damaged)))
}

#[test]
fn what_was_pushed_is_read_by_whoever_adopts_the_ring_in_the_order_of_each_thread() {
    let directory = Directory::new();
    let count = left_behind(&directory.0);
    let (mut rings, bad) = DeadRing::adopt_all(&directory.0, Some(&style().logger));
    assert_eq!((rings.len(), bad), (1, 0));
    let ring = &mut rings[0];
    assert_eq!(format!("{:?}", ring.image.style), format!("{:?}", style()));
    assert_eq!(ring.image.callsites[&CALLSITE].description, description("event"));
    let mut found = Vec::new();
    while let Some((slot, records)) = ring.next() {
        let each = |record: Record<'_>| found.push(record.header.time);
        assert_eq!(sound_records(&records, &ring.image.callsites, each), 0);
        ring.settle(slot);
    }
    assert_eq!(found, (0..count).collect::<Vec<_>>());
    assert!(DeadRing::adopt_all(&directory.0, None).0.is_empty(), "it is adopted");
    drop(rings);
    let bytes = fs::read(the_file(&directory.0)).expect("read");
    assert_eq!(numbers(&bytes), Some((vec![], 0)), "all of it is settled");
}

#[test]
fn a_chunk_that_is_given_back_has_nothing_for_a_reader_whatever_was_in_it() {
    let directory = Directory::new();
    let ring = LiveRing::create(&directory.0, &style(), 24).expect("made");
    let (queue, _calls) = Queue::in_ring(ring, WhenFull::DropNewest, Arc::default());
    queue.push(0, &event("a long text that was there before", 1), 6, 1);
    queue.seal_all();
    let chunk = queue.take().expect("one");
    queue.give_back(chunk);
    let bytes = fs::read(the_file(&directory.0)).expect("read");
    assert_eq!(numbers(&bytes), Some((vec![], 0)), "neither a record nor a damaged one");
}

#[test]
fn another_program_does_not_adopt_the_ring_and_a_living_one_is_left_alone() {
    let directory = Directory::new();
    let ring = LiveRing::create(&directory.0, &style(), 24).expect("made");
    assert!(DeadRing::adopt_all(&directory.0, None).0.is_empty(), "its process lives");
    drop(ring);
    assert!(DeadRing::adopt_all(&directory.0, Some("another")).0.is_empty());
    assert_eq!(directory::names(&directory.0, directory::RING).len(), 1, "it is not this program's");
    assert!(DeadRing::adopt_all(&directory.0, Some(&style().logger)).0.is_empty(), "there is nothing in it");
    assert_eq!(fs::read_dir(&directory.0).expect("there").count(), 0, "so it goes");
}

#[test]
fn a_ring_for_which_there_is_no_room_is_an_error_that_names_the_file_and_leaves_nothing() {
    let directory = Directory::new();
    let error = LiveRing::create(&directory.0, &style(), u32::MAX as usize).expect_err("too large");
    assert!(error.to_string().contains(&*directory.0.to_string_lossy()), "{error}");
    assert_eq!(fs::read_dir(&directory.0).expect("there").count(), 0);
}

#[test]
fn a_directory_that_others_may_write_into_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).expect("set");
    let error = LiveRing::create(&directory.0, &style(), 24).expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn rings_of_a_program_that_crashes_again_and_again_do_not_fill_the_memory() {
    let directory = Directory::new();
    let dies = || {
        let (mut queue, _calls) = queue(&directory.0, &style(), 0, WhenFull::DropNewest, &Arc::default());
        let is_in_ring = queue.ring().is_some();
        let record = event(&"x".repeat(60_000), 1);
        let chunks = queue.chunks;
        (0..chunks).for_each(|_| queue.push(0, &record, 6, 1));
        queue.ring = None;
        is_in_ring
    };
    let made = (0..30).take_while(|_| dies()).count() as u64;
    assert!((MOST_DEAD_RINGS..=MOST_DEAD_RINGS + 2).contains(&made), "{made} rings");
    assert_eq!(directory::names(&directory.0, directory::RING).len() as u64, made, "and none is thrown away");
}

#[test]
fn a_dead_ring_takes_no_more_memory_than_what_is_in_it() {
    let directory = Directory::new();
    left_behind(&directory.0);
    let blocks = || fs::metadata(the_file(&directory.0)).expect("there").blocks() * 512;
    let before = blocks();
    let rings = DeadRing::adopt_all(&directory.0, None);
    assert!(before >= 24 * SLOT_BYTES as u64 && blocks() < before / 2, "{before} {}", blocks());
    drop(rings);
    let bytes = fs::read(the_file(&directory.0)).expect("read");
    assert_eq!(numbers(&bytes).map(|(numbers, damaged)| (numbers.len(), damaged)), Some((8, 0)));
}

/// The parts of a ring that something is in: the header, the dictionary, and each slot as far as it is filled.
fn touched(bytes: &[u8]) -> BTreeSet<usize> {
    let header = layout::read_header(bytes.len() as u64, |at, length| {
        bytes.get(at as usize..at as usize + length).map(<[u8]>::to_vec)
    });
    let layout = header.expect("whole").layout;
    let mut parts: BTreeSet<usize> =
        (0..layout.slots_at as usize).filter(|&at| bytes[at] != 0 || at < 64).collect();
    for slot in 0..layout.slots {
        let at = layout.slot(slot) as usize;
        let length = u32::from_ne_bytes(*bytes[at..].first_chunk().expect("there")) as usize;
        parts.extend(at..at + 16);
        parts.extend(at + SLOT_HEAD..at + SLOT_HEAD + length);
    }
    let dictionary = layout.dictionary_at as usize;
    parts.extend((dictionary..bytes.len()).filter(|&at| bytes[at] != 0));
    parts
}

#[test]
fn every_byte_changed_is_no_panic_and_costs_at_most_what_it_touched() {
    let directory = Directory::new();
    left_behind(&directory.0);
    let mut bytes = fs::read(the_file(&directory.0)).expect("read");
    // What is empty takes long to be read a thousand times.
    bytes.truncate(bytes.len() - (DICTIONARY_BYTES as usize - 4096));
    let (whole, _) = numbers(&bytes).expect("whole");
    for at in touched(&bytes) {
        for change in [0x01, 0xFF] {
            bytes[at] ^= change;
            let found =
                catch_unwind(|| numbers(&bytes)).unwrap_or_else(|_| panic!("byte {at} ^ {change:#x}"));
            bytes[at] ^= change;
            let Some((numbers, damaged)) = found else { continue };
            let missing = whole.iter().filter(|number| !numbers.contains(number)).count();
            assert!(numbers.len() <= whole.len(), "byte {at} ^ {change:#x} makes messages up");
            // What is not there was counted; but a head that says less is there, or nothing, says so to nobody.
            let is_in_head = missing > 0 && damaged == 0;
            assert!(
                !is_in_head || is_head(&bytes, at) || missing == 1,
                "byte {at} ^ {change:#x}: {missing} missing"
            );
        }
    }
}

fn is_head(bytes: &[u8], at: usize) -> bool {
    let header = layout::read_header(bytes.len() as u64, |from, length| {
        bytes.get(from as usize..from as usize + length).map(<[u8]>::to_vec)
    });
    let layout = header.expect("whole").layout;
    (0..layout.slots).any(|slot| (0..16).contains(&(at as i64 - layout.slot(slot) as i64)))
}

#[test]
fn a_ring_cut_off_anywhere_is_no_panic_and_gives_no_more_than_was_there() {
    let directory = Directory::new();
    left_behind(&directory.0);
    let bytes = fs::read(the_file(&directory.0)).expect("read");
    let (whole, _) = numbers(&bytes).expect("whole");
    let ends = (0..600).chain((600..bytes.len()).step_by(9111));
    for end in ends {
        if let Some((numbers, _)) = numbers(&bytes[..end]) {
            assert!(numbers.iter().all(|number| whole.contains(number)), "cut at {end}");
        }
    }
}

#[test]
fn a_dictionary_goes_on_behind_what_is_damaged() {
    let one = layout::callsite(1, &description("one"));
    let two = layout::callsite(2, &Description { line: None, module: None, ..description("two") });
    let both = [one.clone(), two].concat();
    let ids =
        |bytes: &[u8]| layout::read_dictionary(bytes).callsites.iter().map(|one| one.0).collect::<Vec<_>>();
    assert_eq!(ids(&both), [1, 2]);
    assert!(!layout::read_dictionary(&both).is_damaged);
    for at in 0..one.len() {
        let mut damaged = both.clone();
        damaged[at] ^= 0x20;
        assert!(ids(&damaged).contains(&2), "byte {at}");
    }
    for end in 0..both.len() {
        assert!(ids(&both[..end]).len() < 2 || end > one.len());
    }
}

#[test]
fn a_setting_is_on_off_or_a_whole_path() {
    assert_eq!(Ring::parse("on"), Some(Ring::Default));
    assert_eq!(Ring::parse("off"), Some(Ring::Off));
    assert_eq!(Ring::parse("/var/lib/shop"), Some(Ring::from("/var/lib/shop")));
    assert_eq!(Ring::parse("ring"), None);
    assert!(!Ring::from("ring").is_possible());
}

#[test]
fn the_name_of_a_program_never_leads_out_of_the_directory() {
    let name = directory::name("../../etc/passwd\0x", 5, 7, directory::RING);
    assert_eq!(name, ".._.._etc_passwd_x-5-7.ring");
    assert!(directory::is_of(&name, "../../etc/passwd\0x") && !directory::is_of(&name, "passwd"));
    assert!(directory::is_of("a-b-5-7.ring", "a-b") && !directory::is_of("a-b-5-7.ring", "a"));
}

#[test]
fn a_message_with_a_part_that_no_encoder_could_write_is_damaged() {
    let callsites = std::collections::HashMap::new();
    let log = |severity: u8, write: &dyn Fn(&mut Entries<'_>)| {
        let (kind, messages, line, truncated, time, callsite) = (Kind::Log, 1, true, false, 1, 0);
        record_of(Header { kind, severity, messages, line, truncated, time, callsite }, write)
    };
    let damaged = |bytes: &[u8]| sound_records(bytes, &callsites, |_| {});
    assert_eq!(damaged(&log(6, &|entries| entries.text(Name::Part(Part::Payload), "fine"))), 0);
    assert_eq!(damaged(&log(8, &|entries| entries.text(Name::Part(Part::Payload), "fine"))), 1);
    assert_eq!(damaged(&log(6, &|entries| entries.f64(Name::Part(Part::Rate), f64::NAN))), 1);
    assert_eq!(damaged(&log(6, &|entries| entries.u64(Name::Field(0), 1))), 1);
    assert_eq!(damaged(&[0; 40]), 1);
}
