//! `metlog-router --config FILE`: what a file decides, what is said of a wrong one, and what SIGHUP does.
#![cfg(all(unix, feature = "router"))]

mod router_support;

use std::path::Path;
use std::process::Stdio;

use router_support::{command, line, output, Directory, Program};

const ROUTES: &str = r#"
[router]
drain_deadline = "10s"
[[input]]
url = "udp://127.0.0.1:0"
[[input]]
url = "${DIRECTORY_URL}/socket"
[output.text]
type = "file"
path = "${DIRECTORY}/text.jsonl"
[output.metrics]
type = "file"
path = "${DIRECTORY}/metrics.jsonl"
[output.rest]
type = "null"
[[route]]
type = "oldstyle"
to = "text"
[[route]]
types = ["timer", "counter"]
to = ["metrics", "rest"]
[[route]]
severity_at_most = "error"
to = "text"
"#;

fn start(directory: &Directory, name: &str) -> Program {
    let mut command = command(&["--config", name]);
    command.current_dir(directory.path());
    command.env("DIRECTORY", directory.path());
    command.env("DIRECTORY_URL", format!("unixgram://{}", directory.path().display()));
    Program::of(command)
}

fn message(message_type: &str, severity: u8, id: u32) -> String {
    format!(r#"{{"type": "{message_type}", "severity": {severity}, "payload": "{id}"}}"#)
}

/// The payloads of a file of messages.
fn payloads(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let messages = text.lines().map(|line| line.parse::<tracing_metlog::Message>().expect("a message"));
    messages.map(|message| message.payload.to_string()).collect()
}

#[test]
fn a_file_decides_where_messages_come_from_and_where_they_go() {
    let directory = Directory::new();
    directory.write("router.toml", ROUTES);
    let program = start(&directory, "router.toml");
    let url = program.address("unixgram://");
    assert_eq!(Path::new(&url), directory.path().join("socket"));
    for (id, (message_type, severity)) in
        [("oldstyle", 6), ("timer", 6), ("counter", 3), ("other", 3), ("other", 4)].into_iter().enumerate()
    {
        program.send(&message(message_type, severity, id as u32));
    }
    let report = program.terminate();
    assert_eq!(payloads(&directory.path().join("text.jsonl")), ["0", "2", "3"]);
    assert_eq!(payloads(&directory.path().join("metrics.jsonl")), ["1", "2"]);
    assert!(report.contains("unrouted   1\n"), "{report}");
}

#[test]
fn check_says_what_a_file_would_do_and_opens_nothing() {
    let directory = Directory::new();
    directory.write("router.toml", ROUTES);
    let mut command = command(&["--config", "router.toml", "--check"]);
    command
        .current_dir(directory.path())
        .env("DIRECTORY", "/nonexistent")
        .env("DIRECTORY_URL", "unixgram:///no");
    let output = command.output().expect("runs");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "input   udp://127.0.0.1:0",
        "input   unixgram:///no/socket",
        "route   type = \"oldstyle\" -> text",
        "route   types = [\"timer\", \"counter\"] -> metrics, rest",
        "route   severity_at_most = \"error\" -> text",
        "drains for up to 10s at its end",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
    }
    let files: Vec<_> = std::fs::read_dir(directory.path()).expect("there").collect();
    assert_eq!(files.len(), 1, "nothing but the configuration: {files:?}");
}

#[test]
fn a_wrong_file_ends_it_with_code_1_and_every_place_that_is_wrong() {
    let directory = Directory::new();
    let path = directory
        .write("router.toml", "[router]\nadmn = \"127.0.0.1:1\"\n[[input]]\nurl = \"tcp://${NOT_SET}:1\"\n");
    let path = path.to_str().expect("text");
    for arguments in [&["--config", path][..], &["--config", path, "--check"]] {
        let (code, _, error) = output(arguments);
        let expected = format!(
            "metlog-router: {path}:2:1: router.admn: unknown; did you mean `admin`?\n \
             2 | admn = \"127.0.0.1:1\"\n   | ^^^^\n\
             {path}:4:7: input.url: the environment variable NOT_SET is not set\n \
             4 | url = \"tcp://${{NOT_SET}}:1\"\n   |       ^^^^^^^^^^^^^^^^^^^^\n"
        );
        assert_eq!((code, error), (Some(1), expected), "{arguments:?}");
    }
    let (code, _, error) = output(&["--config", "/nonexistent/router.toml"]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("metlog-router: /nonexistent/router.toml: No such file"), "{error}");
}

#[test]
fn the_printed_file_is_valid_and_does_what_no_file_does() {
    let (code, printed, _) = output(&["--print-default"]);
    assert_eq!(code, Some(0));
    let directory = Directory::new();
    let path = directory.write("router.toml", &printed);
    let (code, said, error) = output(&["--config", path.to_str().expect("text"), "--check"]);
    assert_eq!(code, Some(0), "{error}");
    let expected =
        "input   udp://127.0.0.1:5565\ninput   tcp://127.0.0.1:5565\nroute   every message -> console\n\
                    drains for up to 5s at its end\n";
    assert_eq!(said, expected);
}

#[test]
fn a_file_and_arguments_that_say_the_same_things_exclude_each_other() {
    for other in [["--listen", "udp://127.0.0.1:0"], ["--route", "*=null"], ["--color", "never"]] {
        let (code, _, error) = output(&["--config", "router.toml", other[0], other[1]]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("--config <FILE>") && error.contains(other[0]), "{error}");
    }
}

#[test]
fn no_error_ever_shows_a_secret() {
    let directory = Directory::new();
    for (text, variable) in [
        ("[output.s]\ntype = \"sentry\"\ndsn = \"https://s3cr3t@h/x y\"\n", ""),
        ("[output.s]\ntype = \"sentry\"\ndsn = 5 \"https://s3cr3t@h/1\"\n", ""),
        ("[output.s]\ntype = \"sentry\"\ndsn = \"${DSN}\"\n", "s3cr3t"),
        ("[output.s]\ntype = \"sentrie\"\n'dsn' = 'https://s3cr3t@h/1'\nx = 1\n", ""),
        ("[output.s]\ntype = \"http\"\nurl = \"gopher://bob:s3cr3t@h/1\"\n", ""),
        ("output = { s = { type = \"sentry\", dsn = \"s3cr3t\", dsn = 5 } }\n", ""),
    ] {
        let path = directory.write("router.toml", text);
        for more in [&[][..], &["--check"]] {
            let mut command = command(&["--config", path.to_str().expect("text")]);
            let output = command.args(more).env("DSN", variable).output().expect("runs");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).expect("text");
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(!said.contains("s3cr3t"), "{text}\n{said}");
        }
    }
}

#[test]
fn a_hangup_opens_files_anew() {
    let directory = Directory::new();
    directory.write("router.toml", ROUTES);
    let mut program = start(&directory, "router.toml");
    let path = directory.path().join("text.jsonl");
    program.send(&message("oldstyle", 6, 1));
    program.wait_until("the first message is written", || payloads(&path) == ["1"]);
    let moved = directory.path().join("text.1.jsonl");
    std::fs::rename(&path, &moved).expect("moved");
    program.hang_up();
    assert_eq!(
        line(&mut program.stderr),
        "metlog-router: router.toml is read again: 5 kept, 0 opened, 0 removed"
    );
    program.wait_until("the file is there again", || path.exists());
    program.send(&message("oldstyle", 6, 2));
    program.terminate();
    assert_eq!((payloads(&moved), payloads(&path)), (vec!["1".to_owned()], vec!["2".to_owned()]));
}

/// Messages go on while the file changes twice, and each is in one of the files that it has named.
#[test]
fn a_file_that_has_changed_holds_from_then_on_and_no_message_is_lost() {
    let directory = Directory::new();
    let file = |name: &str| {
        format!(
            "[[input]]\nurl = \"udp://127.0.0.1:0\"\n[output.text]\ntype = \"file\"\npath = \"{name}.jsonl\"\n\
             [[route]]\nto = \"text\"\n"
        )
    };
    directory.write("router.toml", &file("one"));
    let mut program = start(&directory, "router.toml");
    let mut sent = 0..;
    for name in ["one", "two", "three"] {
        if name != "one" {
            directory.write("router.toml", &file(name));
            program.hang_up();
        }
        for id in sent.by_ref().take(500) {
            program.send(&message("oldstyle", 6, id));
            // UDP: no more than the kernel holds for sure.
            if id % 50 == 0 {
                std::thread::yield_now();
            }
        }
        if name != "one" {
            let said = line(&mut program.stderr);
            assert_eq!(said, "metlog-router: router.toml is read again: 1 kept, 1 opened, 1 removed");
        }
        let path = |name: &str| directory.path().join(format!("{name}.jsonl"));
        // The batch that was being read may still be the old file's: when its end is written, the next one is not.
        let last = sent.next().expect("a number");
        program.send(&message("oldstyle", 6, last));
        let is_last = |name: &&str| payloads(&path(name)).last() == Some(&last.to_string());
        program.wait_until(name, || ["one", "two", "three"].iter().any(is_last));
        let next = sent.next().expect("a number");
        program.send(&message("oldstyle", 6, next));
        program.wait_until(name, || payloads(&path(name)).last() == Some(&next.to_string()));
    }
    let report = program.terminate();
    let written =
        ["one", "two", "three"].map(|name| payloads(&directory.path().join(format!("{name}.jsonl"))));
    let mut ids: Vec<u32> = written.iter().flatten().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1_506).collect::<Vec<_>>(), "{report}");
}

#[test]
fn a_file_that_has_become_wrong_changes_nothing_and_is_named() {
    let directory = Directory::new();
    directory.write("router.toml", ROUTES);
    let mut program = start(&directory, "router.toml");
    directory.write("router.toml", "[[input]]\nurl = \"nowhere\"\n");
    program.hang_up();
    let said = line(&mut program.stderr);
    assert!(
        said.starts_with(
            "metlog-router: everything stays as it was: router.toml:2:7: input.url: accepted is udp://"
        ),
        "{said}"
    );
    program.send(&message("oldstyle", 6, 1));
    program.terminate();
    assert_eq!(payloads(&directory.path().join("text.jsonl")), ["1"]);
}

/// Nobody reads standard output, and so the console is stuck.
#[test]
fn the_drain_deadline_is_the_files_and_what_is_left_then_is_said() {
    let directory = Directory::new();
    directory.write(
        "router.toml",
        "[router]\ndrain_deadline = \"20ms\"\n[[input]]\nurl = \"udp://127.0.0.1:0\"\n",
    );
    let mut command = command(&["--config", "router.toml"]);
    command.current_dir(directory.path()).stdout(Stdio::piped());
    let program = Program::of(command);
    let long = "x ".repeat(3_000);
    for _ in 0..50 {
        program.send(&format!(r#"{{"type": "oldstyle", "payload": "{long}"}}"#));
    }
    let report = program.terminate();
    let left = report.lines().last().expect("a line");
    assert!(left.starts_with("metlog-router: not written within 20ms: "), "{report}");
    assert!(left.ends_with(" messages of console"), "{report}");
}
