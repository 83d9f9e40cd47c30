//! `metlog-router spool` as an operator uses it: on what a program left, damaged or not.
#![cfg(all(unix, feature = "router", feature = "spool", feature = "tracing"))]

mod process_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process_support::oracle::{send, Got};
use process_support::receiver::Receiver;
use process_support::{built, closed_port, Directory, LONG};

/// A spool with messages 0/0 to 0/99 of a program that has ended.
fn left_behind(directory: &Directory) -> PathBuf {
    let spool = directory.file("spool");
    let router = format!("tcp://127.0.0.1:{}", closed_port());
    let guard = built(tracing_metlog::builder().router(router).spool(&spool));
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    assert_eq!(guard.finish().spooled, 100);
    spool
}

fn router(arguments: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metlog-router"));
    command.arg("spool").arg(arguments[0]).arg(directory).args(&arguments[1..]).output().expect("runs")
}

fn text(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

fn fields(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The files with messages in slot 0, the oldest first.
fn segments(spool: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(spool.join("0"))
        .expect("there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "segment"));
    paths.sort();
    paths
}

/// Flips a byte of the last message; the segment of it.
fn damage(spool: &Path) -> PathBuf {
    let segment = segments(spool).pop().expect("one");
    let mut bytes = std::fs::read(&segment).expect("read");
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    segment
}

#[test]
fn ls_and_cat_show_what_is_there_and_change_nothing() {
    let directory = Directory::new();
    let spool = left_behind(&directory);
    for _ in 0..2 {
        let listed = router(&["ls"], &spool);
        assert!(listed.status.success());
        let lines = text(&listed.stdout);
        assert_eq!(fields(&lines[0])[..2], ["slot", "messages"]);
        let row = fields(&lines[1]);
        assert_eq!((row[0], row[1], row[4], row[5], row[6]), ("0", "100", "0", "0", "no"), "{lines:?}");
        let printed = router(&["cat"], &spool);
        assert!(printed.status.success());
        let got = Got::read(&text(&printed.stdout));
        got.assert_complete(1, 100);
        got.assert_ordered();
    }
}

#[test]
fn a_slot_that_a_program_uses_is_shown_as_such_and_not_sent() {
    let directory = Directory::new();
    let spool = directory.file("spool");
    let dead = format!("tcp://127.0.0.1:{}", closed_port());
    let guard = built(tracing_metlog::builder().router(dead).spool(&spool));
    (0..100).for_each(|n| send(&guard.client(), 0, n));
    guard.flush(LONG);
    assert_eq!(fields(&text(&router(&["ls"], &spool).stdout)[1])[6], "yes");
    let receiver = Receiver::tcp();
    let sent = router(&["send", "--to", &receiver.address], &spool);
    assert!(sent.status.success());
    assert_eq!(text(&sent.stderr)[0], "delivered 0, lost 0");
    assert!(text(&sent.stderr)[1].starts_with("1 slots with messages are in use"), "{sent:?}");
    drop(guard);
    assert_eq!(fields(&text(&router(&["ls"], &spool).stdout)[1])[1], "100", "all of it is there still");
}

#[test]
fn check_says_what_is_damaged_and_fails_only_then() {
    let directory = Directory::new();
    let spool = left_behind(&directory);
    assert!(router(&["check"], &spool).status.success());
    let segment = damage(&spool);
    let checked = router(&["check"], &spool);
    assert_eq!(checked.status.code(), Some(1));
    let lines = text(&checked.stdout);
    assert_eq!((fields(&lines[1])[1], fields(&lines[1])[4]), ("99", "1"), "{lines:?}");
    let name = segment.file_name().expect("named").to_string_lossy().into_owned();
    assert!(lines[2].starts_with(&format!("0/{name}: 1 of ")), "{lines:?}");
    assert!(router(&["ls"], &spool).status.success(), "to list a damaged spool is no failure");
}

#[test]
fn send_delivers_what_is_whole_keeps_what_is_damaged_and_removes_the_rest() {
    let directory = Directory::new();
    let (whole, receiver) = (left_behind(&directory), Receiver::tcp());
    let sent = router(&["send", "--to", &receiver.address], &whole);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(text(&sent.stderr), ["delivered 100, lost 0"]);
    Got::read(&receiver.close_at_end()).assert_complete(1, 100);
    assert_eq!(std::fs::read_dir(&whole).expect("there").count(), 0, "nothing is left");

    let (damaged, receiver) = (left_behind(&directory), Receiver::tcp());
    damage(&damaged);
    let sent = router(&["send", "--to", &receiver.address], &damaged);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(text(&sent.stderr), ["delivered 99, lost 1"]);
    Got::read(&receiver.close_at_end()).assert_complete(1, 99);
    let row = text(&router(&["ls"], &damaged).stdout)[1].clone();
    assert_eq!((fields(&row)[1], fields(&row)[5]), ("0", "1"), "one file is kept: {row}");
}

#[test]
fn send_to_a_router_that_is_down_fails_and_leaves_everything() {
    let directory = Directory::new();
    let spool = left_behind(&directory);
    let to = format!("tcp://127.0.0.1:{}", closed_port());
    let sent = router(&["send", "--to", &to, "--patience", "1"], &spool);
    assert_eq!(sent.status.code(), Some(1));
    assert!(text(&sent.stderr)[0].contains("refused"), "{sent:?}");
    assert_eq!(fields(&text(&router(&["ls"], &spool).stdout)[1])[1], "100");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = Directory::new();
    for arguments in [&["ls"][..], &["cat"], &["check"], &["send", "--to", "stdout:"]] {
        let output = router(arguments, &directory.file("missing"));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr)[0].contains("missing: "), "{output:?}");
    }
}
