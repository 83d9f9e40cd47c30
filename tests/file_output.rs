//! The file output against real files, a real small file system, and gzip: every line is whole, once, and where it belongs.
#![cfg(all(unix, feature = "router"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{json, Value};
use tracing_metlog::router::{
    Config, Counters, FileFormat, FileOutput, Input, Matcher, OutputCounters, Route, Router,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A router with one output, and a client's connection to it.
struct Running {
    router: Router,
    client: TcpStream,
    next: u64,
}

impl Running {
    fn start(output: FileOutput) -> Self {
        let config =
            Config::new().input(Input::tcp("127.0.0.1:0")).route(Route::new(Matcher::any(), output.into()));
        let router = Router::start(config).expect("starts");
        let address = router.addresses()[0].strip_prefix("tcp://").expect("a tcp address").to_owned();
        Running { client: TcpStream::connect(address).expect("connects"), router, next: 0 }
    }

    /// Sends a message with the next id.
    fn send(&mut self, message_type: &str, text: &str) {
        let message = json!({"type": message_type, "payload": text, "fields": {"id": self.next}});
        self.next += 1;
        self.client.write_all(format!("{message}\n").as_bytes()).expect("sent");
    }

    fn output(&self) -> OutputCounters {
        self.router.counters().outputs[0].clone()
    }

    /// Waits until everything that was sent has been written, or could not be.
    fn settle(&self) -> OutputCounters {
        wait("settled", || {
            let output = self.output();
            (output.delivered + output.failed + output.dropped == self.next).then_some(output)
        })
    }

    fn end(self) -> Counters {
        drop(self.client);
        let counters = self.router.shutdown(PATIENCE);
        let output = &counters.outputs[0];
        assert_eq!(output.delivered + output.failed + output.dropped, self.next, "{counters}");
        assert_eq!(output.queued, 0);
        counters
    }

    /// Ends it, and everything was written.
    fn end_whole(self) -> Counters {
        let sent = self.next;
        let counters = self.end();
        assert_eq!(counters.outputs[0].delivered, sent, "{counters}");
        assert_eq!(counters.outputs[0].last_error, None);
        counters
    }
}

/// Waits for the router's thread, as long as it may reasonably take.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory for one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("file-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("made");
        Directory(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    /// Every file in it, with its text, unpacked by gzip if it is packed.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("readable") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let name = path.strip_prefix(&self.0).expect("inside").to_str().expect("text").to_owned();
                files.insert(name, text(&path));
            }
        }
        files
    }

    fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> String {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return fs::read_to_string(path).expect("readable");
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip, to check what was packed");
    assert!(output.status.success(), "{}: {output:?}", path.display());
    String::from_utf8(output.stdout).expect("text")
}

/// The ids of all lines, in order; every line must be a whole message.
fn ids(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
    let id = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        message["fields"]["id"].as_u64().expect("an id")
    };
    text.lines().map(id).collect()
}

/// All ids there are, each of which must be there once.
fn ids_once<'a>(texts: impl IntoIterator<Item = &'a String>) -> BTreeSet<u64> {
    let all: Vec<u64> = texts.into_iter().flat_map(|text| ids(text)).collect();
    let set: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len(), "a message was written twice");
    set
}

#[test]
fn every_message_is_in_the_file_that_its_words_name_and_none_outside_the_directory() {
    let directory = Directory::new("built");
    fs::create_dir(directory.path("logs")).expect("made");
    let mut running = Running::start(FileOutput::new(directory.path("logs/{type}/x.log")));
    let words =
        ["timer", "..", ".", "", "../../../escaped", "a/b", "/tmp/absolute", "nul\0nul", "new\nline", "~"];
    for round in 0..20 {
        for word in words {
            running.send(word, &round.to_string());
        }
    }
    running.end_whole();
    let files = directory.files();
    let expected = ["_.", "_._.._.._escaped", "_", "_tmp_absolute", "a_b", "new_line", "nul_nul", "timer"];
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, expected.map(|name| format!("logs/{name}/x.log")));
    assert_eq!(ids(&files["logs/timer/x.log"]), (0..20).map(|round| round * 10).collect::<Vec<_>>());
    assert_eq!(ids_once(files.values()), (0..200).collect());
}

#[test]
fn a_link_inside_the_directory_is_not_followed_and_its_messages_are_counted() {
    let directory = Directory::new("links");
    let outside = Directory::new("links-outside");
    let victim = outside.write("victim.log", "precious\n");
    fs::create_dir(directory.path("logs")).expect("made");
    std::os::unix::fs::symlink(&victim, directory.path("logs/file.log")).expect("linked");
    let mut running = Running::start(FileOutput::new(directory.path("logs/{type}.log")));
    running.send("file", "follows a link?");
    running.send("other", "is not disturbed");
    let output = running.end().outputs.remove(0);
    assert_eq!((output.delivered, output.failed), (1, 1));
    assert!(output.last_error.expect("an error").contains("logs/file.log: "));
    std::os::unix::fs::symlink(&outside.0, directory.path("logs/directory")).expect("linked");
    let mut running = Running::start(FileOutput::new(directory.path("logs/{type}/x.log")));
    running.send("directory", "follows a link?");
    assert_eq!(running.end().outputs[0].failed, 1);
    assert_eq!(outside.files(), [("victim.log".to_owned(), "precious\n".to_owned())].into());
}

#[test]
fn more_files_than_may_be_open_get_every_message_in_order() {
    let directory = Directory::new("many");
    let mut running = Running::start(FileOutput::new(directory.path("{type}.log")));
    for _ in 0..5 {
        for number in 0..200 {
            running.send(&format!("t{number}"), "x");
        }
    }
    running.settle();
    let links =
        fs::read_dir("/proc/self/fd").expect("Linux").flatten().flat_map(|fd| fs::read_link(fd.path()));
    let open = links.filter(|path| path.starts_with(&directory.0)).count();
    assert_eq!(open, 64);
    running.end_whole();
    let files = directory.files();
    assert_eq!(files.len(), 200);
    for (number, expected) in [(0, [0, 200, 400, 600, 800]), (199, [199, 399, 599, 799, 999])] {
        assert_eq!(ids(&files[&format!("t{number}.log")]), expected);
    }
    assert_eq!(ids_once(files.values()), (0..1000).collect());
}

#[test]
fn invented_names_do_not_fill_the_directory_and_lose_no_message() {
    let directory = Directory::new("invented");
    let mut running = Running::start(FileOutput::new(directory.path("{type}.log")));
    for number in 0..1_500 {
        running.send(&format!("t{number}"), "x");
    }
    running.send("t0", "known from before");
    running.end_whole();
    let files = directory.files();
    assert_eq!(files.len(), 1_001);
    assert_eq!(ids(&files["t0.log"]), [0, 1_500]);
    assert_eq!(ids(&files["other.log"]), (1_000..1_500).collect::<Vec<_>>());
    assert_eq!(ids_once(files.values()), (0..=1_500).collect());
}

#[test]
fn rotation_by_size_keeps_every_message_whole_and_every_file_within_the_limit() {
    let directory = Directory::new("size");
    let output = FileOutput::new(directory.path("x.log")).rotate_bytes(1_000);
    let mut running = Running::start(output);
    for _ in 0..300 {
        running.send("oldstyle", "some text");
    }
    running.send("oldstyle", &"longer than a file may be ".repeat(50));
    running.send("oldstyle", "afterwards");
    running.end_whole();
    let files = directory.files();
    assert!(files.len() > 30, "{:?}", files.keys());
    assert_eq!(ids_once(files.values()), (0..302).collect());
    let long: Vec<&String> = files.values().filter(|text| text.len() > 1_000).collect();
    assert_eq!(long.len(), 1);
    assert_eq!(ids(long[0]), [300]);
    assert_eq!(ids(&files["x.log"]), [301]);
}

#[test]
fn retention_removes_the_oldest_and_nothing_that_is_not_its_own() {
    let directory = Directory::new("keep");
    let foreign = [
        "x.log.1",
        "x.log~",
        "x.log~20200101T000000Z.bak",
        "x.log~20200101T000000Z-1",
        "x.log~2020",
        "x.log.gzip",
        "y.log~20200101T000000Z",
        "xx.log~20200101T000000Z",
        "sub/x.log~20200101T000000Z",
        "x.log~20200101T000001Z/in-a-directory-of-that-name",
    ];
    for name in foreign {
        directory.write(name, "not yours\n");
    }
    let target = directory.write("precious", "not yours\n");
    std::os::unix::fs::symlink(target, directory.path("x.log~20200101T000002Z")).expect("linked");
    // One that an earlier router has finished: it goes first.
    directory.write("x.log~20200101T000003Z", "");
    let mut running = Running::start(FileOutput::new(directory.path("x.log")).rotate_bytes(1_000).keep(3));
    for round in 0..300 {
        running.send("oldstyle", "some text");
        if round % 50 == 0 {
            // Removed meanwhile: a name that has become free must not be used again.
            running.settle();
        }
    }
    running.end_whole();
    let mut files = directory.files();
    for name in foreign.into_iter().chain(["precious", "x.log~20200101T000002Z"]) {
        assert_eq!(files.remove(name).as_deref(), Some("not yours\n"), "{name}");
    }
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    let last = ids_once(files.values());
    assert_eq!(last, (300 - last.len() as u64..300).collect(), "the newest are kept, without a gap");
}

#[test]
fn finished_files_are_packed_and_gzip_reads_every_message() {
    let directory = Directory::new("gzip");
    let output = FileOutput::new(directory.path("{type}.log")).rotate_bytes(5_000).gzip(true);
    let mut running = Running::start(output);
    for number in 0..1_000 {
        running.send(["a", "b"][number % 2], "some text");
    }
    running.end_whole();
    let files = directory.files();
    let plain: Vec<&str> = files.keys().map(String::as_str).filter(|name| !name.ends_with(".gz")).collect();
    assert_eq!(plain, ["a.log", "b.log"]);
    assert!(files.len() > 20);
    assert_eq!(ids_once(files.values()), (0..1_000).collect());
}

#[test]
fn what_an_interrupted_router_left_half_packed_is_packed_at_the_next_start() {
    let directory = Directory::new("interrupted");
    directory.write("x.log~20200101T000000Z", "plain\n");
    directory.write("x.log~20200101T000000Z.gz.part", "half");
    directory.write("x.log~20200101T000001Z", "packed and not removed\n");
    let gzip = Command::new("gzip").arg("-k").arg(directory.path("x.log~20200101T000001Z")).status();
    assert!(gzip.expect("gzip").success());
    let output = FileOutput::new(directory.path("x.log")).rotate_bytes(1_000).gzip(true);
    // Two files they are, however many names they have.
    Running::start(output.keep(2)).end_whole();
    let expected = [
        ("x.log", ""),
        ("x.log~20200101T000000Z.gz", "plain\n"),
        ("x.log~20200101T000001Z.gz", "packed and not removed\n"),
    ];
    assert_eq!(directory.files(), expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
}

#[test]
fn files_of_days_that_have_passed_are_packed_and_count_as_finished() {
    let directory = Directory::new("dated");
    for day in 1..=4 {
        directory.write(&format!("2020-01-0{day}/x.log"), &format!("day {day}\n"));
    }
    directory.write("2020-01-05/y.log", "another name\n");
    directory.write("2999-01-01/x.log", "a day to come\n");
    let output = FileOutput::new(directory.path("{date}/{type}.log")).gzip(true).keep(2);
    let mut running = Running::start(output);
    running.send("x", "today");
    running.settle();
    let before = today();
    running.end_whole();
    let files = directory.files();
    let packed = |day: u32| -> Vec<&str> {
        let start = format!("2020-01-0{day}/x.log~");
        let of_day = files.iter().filter(|(name, _)| name.starts_with(&start) && name.ends_with(".gz"));
        of_day.map(|(_, text)| text.as_str()).collect()
    };
    assert_eq!((packed(3), packed(4)), (vec!["day 3\n"], vec!["day 4\n"]), "{:?}", files.keys());
    assert!(!directory.path("2020-01-01").exists() && !directory.path("2020-01-02").exists());
    assert_eq!(files["2020-01-05/y.log"], "another name\n");
    assert_eq!(files["2999-01-01/x.log"], "a day to come\n");
    let todays = files.get(&format!("{before}/x.log")).or_else(|| files.get(&format!("{}/x.log", today())));
    assert_eq!(ids(todays.expect("a file of today")), [0]);
    assert_eq!(files.len(), 5);
}

/// The date in UTC, by another program's calendar.
fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().expect("date");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn a_file_is_finished_when_its_time_is_over_though_nobody_writes() {
    let directory = Directory::new("every");
    let output = FileOutput::new(directory.path("x.log")).rotate_every(Duration::from_secs(2));
    let mut running = Running::start(output);
    running.send("oldstyle", "x");
    running.settle();
    wait("rotated", || (directory.names().len() == 2).then_some(()));
    let files = directory.files();
    assert_eq!(files["x.log"], "");
    assert_eq!(ids_once(files.values()), [0].into());
    running.send("oldstyle", "y");
    assert_eq!(
        ids(&wait("written", || Some(directory.files()["x.log"].clone()).filter(|text| !text.is_empty()))),
        [1]
    );
    running.end_whole();
}

#[test]
fn a_file_of_an_earlier_period_is_finished_at_the_start() {
    let directory = Directory::new("earlier");
    let path = directory.write("x.log", "of yesterday\n");
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    fs::File::options().append(true).open(&path).expect("opens").set_modified(yesterday).expect("set");
    let mut running = Running::start(FileOutput::new(&path).rotate_every(Duration::from_secs(86_400)));
    running.send("oldstyle", "of today");
    running.end_whole();
    let mut files = directory.files();
    assert_eq!(ids(&files.remove("x.log").expect("a new file")), [0]);
    assert_eq!(files.into_values().collect::<Vec<_>>(), ["of yesterday\n"]);
}

#[test]
fn a_file_that_is_renamed_removed_or_truncated_loses_no_later_message() {
    let directory = Directory::new("moved");
    let path = directory.path("x.log");
    let mut running = Running::start(FileOutput::new(&path));
    running.send("oldstyle", "before the rename");
    running.settle();
    fs::rename(&path, directory.path("moved")).expect("renamed");
    running.send("oldstyle", "after the rename");
    running.settle();
    assert_eq!(ids(&text(&directory.path("moved"))), [0]);
    assert_eq!(ids(&text(&path)), [1]);
    fs::rename(&path, directory.path("moved")).expect("renamed");
    fs::write(&path, "").expect("a new one in its place, as logrotate makes it");
    running.send("oldstyle", "after the rename and the new file");
    running.settle();
    assert_eq!(ids(&text(&path)), [2]);
    fs::remove_file(&path).expect("removed");
    running.send("oldstyle", "after the removal");
    running.settle();
    assert_eq!(ids(&text(&path)), [3]);
    fs::File::options().write(true).open(&path).expect("opens").set_len(0).expect("truncated");
    running.send("oldstyle", "after the truncation");
    running.settle();
    assert_eq!(ids(&text(&path)), [4]);
    fs::File::options().write(true).open(&path).expect("opens").set_len(5).expect("truncated");
    running.send("oldstyle", "after a cut in a line");
    running.end_whole();
    let after = text(&path);
    let (cut, rest) = after.split_once('\n').expect("the cut line is ended");
    assert_eq!((cut.len(), ids(rest)), (5, vec![5]));
}

#[test]
fn a_file_that_is_asked_to_be_opened_anew_is_made_at_once() {
    let directory = Directory::new("reopen");
    let path = directory.path("x.log");
    let mut running = Running::start(FileOutput::new(&path));
    running.send("oldstyle", "before");
    running.settle();
    fs::rename(&path, directory.path("moved")).expect("renamed");
    running.router.reopen();
    wait("made anew", || path.exists().then_some(()));
    running.send("oldstyle", "after");
    running.end_whole();
    assert_eq!((ids(&text(&directory.path("moved"))), ids(&text(&path))), (vec![0], vec![1]));
}

#[test]
fn a_removed_file_that_cannot_be_made_anew_counts_its_messages_as_failed() {
    let directory = Directory::new("gone");
    let path = directory.write("sub/x.log", "");
    let mut running = Running::start(FileOutput::new(&path));
    running.send("oldstyle", "before");
    running.settle();
    fs::remove_dir_all(path.parent().expect("a parent")).expect("removed");
    running.send("oldstyle", "into nothing");
    let output = running.settle();
    assert_eq!((output.delivered, output.failed), (1, 1));
    fs::create_dir(path.parent().expect("a parent")).expect("made");
    running.send("oldstyle", "again");
    assert_eq!(running.end().outputs[0].delivered, 2);
    assert_eq!(ids(&text(&path)), [2]);
}

#[test]
fn a_text_file_has_a_line_of_timestamp_and_payload_for_each_message() {
    let directory = Directory::new("text");
    let path = directory.path("x.log");
    let mut running = Running::start(FileOutput::new(&path).format(FileFormat::Text));
    let message = json!({"type": "oldstyle", "timestamp": "2012-10-24T22:20:43.123456Z",
        "payload": "failed\nTraceback:\n2012-10-24T22:20:43.123456Z forged"});
    running.client.write_all(format!("{message}\n").as_bytes()).expect("sent");
    running.next += 1;
    running.end_whole();
    let expected = "2012-10-24T22:20:43.123456Z failed\\nTraceback:\\n2012-10-24T22:20:43.123456Z forged\n";
    assert_eq!(text(&path), expected);
}

/// A file system of 256 KiB.
#[cfg(target_os = "linux")]
struct Small(Directory);

#[cfg(target_os = "linux")]
impl Small {
    /// `None` for who may not mount one.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let directory = Directory::new("full");
        let mut mount = Command::new("mount");
        let mounted = mount
            .args(["-t", "tmpfs", "-o", "size=256k", "metlog-test"])
            .arg(&directory.0)
            .status()
            .expect("mount");
        assert!(
            mounted.success(),
            "root cannot mount a tmpfs here: run this test where it can, or as somebody else"
        );
        Some(Small(directory))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0 .0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_what_did_not_fit_counted_by_the_message_and_the_file_goes_on() {
    let Some(small) = Small::mount() else {
        eprintln!("not root: the full disk is tested with /dev/full only, in the unit tests");
        return;
    };
    let directory = &small.0;
    let ballast = directory.write("ballast", &"x".repeat(128 * 1024));
    let path = directory.path("x.log");
    let mut running = Running::start(FileOutput::new(&path));
    let full = |running: &mut Running| {
        let before = running.settle().failed;
        while running.settle().failed == before {
            (0..50).for_each(|_| running.send("oldstyle", &"some text ".repeat(20)));
        }
    };
    full(&mut running);
    let error = running.output().last_error.expect("an error");
    assert!(error.contains("x.log: No space left on device"), "{error}");
    fs::remove_file(ballast).expect("removed");
    (0..50).for_each(|_| running.send("oldstyle", "there is room again"));
    let output = running.settle();
    full(&mut running);
    let sent = running.next;
    let end = running.end().outputs.remove(0);
    assert!(output.delivered >= 50 && end.failed > output.failed);
    let text = text(&path);
    let whole: Vec<&str> =
        text.split('\n').filter(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    let torn = text.split('\n').filter(|line| !line.is_empty()).count() - whole.len();
    let found: BTreeSet<u64> = whole.iter().flat_map(|line| ids(&format!("{line}\n"))).collect();
    assert_eq!(
        (found.len() as u64, whole.len()),
        (end.delivered, found.len()),
        "counted is what is in the file"
    );
    assert!(torn <= 2, "{torn} torn lines after two times full");
    assert!((sent - end.failed) == end.delivered && found.contains(&0));
}
