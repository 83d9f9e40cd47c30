//! A name server that answers late, or never: what builds, logs, flushes and ends keeps its time, and what was logged is
//! delivered when the name is known. The system's own resolver asks it: the child of each test runs in a network and a
//! mount namespace, with an `/etc/resolv.conf` that names a server of the child's.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use process_support::child;
use process_support::fault_report::record;
use process_support::oracle::{assert_balanced, send, Got};
use process_support::size::left_out;
use process_support::{built, eventually, flush_of_a_second, timed, Directory, LONG};

const NAME: &str = "router.slow.test";
/// How late the server answers that does.
const LATE: Duration = Duration::from_secs(3);
const MESSAGES: u64 = 100;
/// What building and a call may take at most.
const PROMPT: Duration = Duration::from_millis(500);

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    match child::mode().as_deref() {
        None => {}
        Some("late") => answered_late(),
        Some("never") => never_answered(),
        Some("possible") => child::say("possible", "yes"),
        Some(other) => panic!("mode {other}"),
    }
}

/// A question's answer: the address 127.0.0.1 for the name as it was asked for. None for another kind of address.
fn answer(question: &[u8]) -> Vec<u8> {
    let name_ends = 12 + question[12..].iter().position(|&byte| byte == 0).expect("a name") + 1;
    let is_v4 = question[name_ends..name_ends + 2] == [0, 1];
    let mut answer = question[..2].to_vec();
    // An answer without an error; one question, and one address or none.
    answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
    answer.extend_from_slice(&question[12..name_ends + 4]);
    if is_v4 {
        // The name of the question, an IPv4 address, for one second, of four bytes.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// Serves names, each late, or never.
fn serve(late: Option<Duration>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("alone in this network");
    std::thread::spawn(move || {
        let mut space = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut space) {
            let (question, socket) = (space[..length].to_vec(), socket.try_clone().expect("cloned"));
            if let Some(late) = late {
                std::thread::spawn(move || {
                    std::thread::sleep(late);
                    let _ = socket.send_to(&answer(&question), from);
                });
            }
        }
    });
}

/// A generator that sends to the name: `build`, calls and flush take no longer than they may.
fn speaks_to(address: &str, flush_timeout: Duration) -> tracing_metlog::Guard {
    let builder = tracing_metlog::builder().router(address).flush_timeout(flush_timeout);
    let (took, guard) = timed(|| built(builder));
    // Far less than any answer takes, and time enough for a machine that does ten other things.
    assert!(took < PROMPT, "{address}: built in {took:?}");
    let client = guard.client();
    let slowest = (0..MESSAGES).map(|n| timed(|| send(&client, 0, n)).0).max();
    assert!(slowest < Some(PROMPT), "{address}: a call took {slowest:?}");
    let (_, flushed) = flush_of_a_second(&guard);
    assert_eq!(flushed.pending, MESSAGES, "{address}");
    guard
}

fn answered_late() {
    serve(Some(LATE));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        listener.accept().expect("connected").0.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let guard = speaks_to(&format!("tcp://{NAME}:{port}"), LONG);
    let (took, ()) = timed(|| eventually("it is delivered", || guard.stats().delivered == MESSAGES));
    let stats = guard.finish();
    assert_balanced(&stats);
    let text = reader.join().expect("read");
    Got::read(&text.lines().collect::<Vec<_>>()).assert_complete(1, MESSAGES);
    child::say("took", format!("{:.1}", took.as_secs_f64() + 1.0));
    child::say("delivered", stats.delivered);
}

fn never_answered() {
    serve(None);
    let mut addresses = vec![format!("tcp://{NAME}:9"), format!("udp://{NAME}:9")];
    if cfg!(feature = "http") {
        addresses.push(format!("http://{NAME}:9/in"));
    }
    let directory = Directory::new();
    let trusted = directory.file("ca");
    if cfg!(feature = "tls") {
        // One certificate is read sooner than all that a system trusts.
        let made = rcgen::generate_simple_self_signed(vec![NAME.into()]).expect("made");
        std::fs::write(&trusted, made.cert.pem()).expect("written");
        addresses.push(format!("tls://{NAME}:9?ca={}", trusted.display()));
    }
    let ended = |address: &String| {
        let guard = speaks_to(address, Duration::from_secs(1));
        let (took, stats) = timed(|| guard.finish());
        assert!(took < Duration::from_secs(2), "{address}: ended in {took:?}");
        assert_balanced(&stats);
        assert_eq!((stats.lost.total(), stats.pending), (MESSAGES, 0), "{address}: {stats}");
        took.as_millis()
    };
    let slowest = std::thread::scope(|scope| {
        let all: Vec<_> = addresses.iter().map(|address| scope.spawn(|| ended(address))).collect();
        all.into_iter().map(|one| one.join().expect("it keeps its time")).max()
    });
    child::say("slowest", slowest.expect("there are addresses"));
    child::say("addresses", addresses.len());
}

/// The command, alone in namespaces in which only the name server that it starts can be asked.
fn alone(directory: &Directory, mode: &str) -> Command {
    let (resolver, names) = (directory.file("resolv.conf"), directory.file("hosts"));
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n").expect("written");
    std::fs::write(&names, "127.0.0.1 localhost\n").expect("written");
    let inner = child::command("child", mode, "");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--net", "sh", "-c"]);
    command.arg("mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/hosts && ip link set lo up && shift 2 && exec \"$@\"");
    command.args(["sh".as_ref(), resolver.as_path(), names.as_path(), Path::new(inner.get_program())]);
    command.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether there can be such namespaces here.
fn is_impossible(directory: &Directory) -> bool {
    let ended = alone(directory, "possible").output();
    let is_possible =
        ended.is_ok_and(|ended| String::from_utf8_lossy(&ended.stdout).contains("possible: yes"));
    if !is_possible {
        left_out("no network and mount namespace can be made with unshare, mount and ip");
    }
    !is_possible
}

#[test]
fn a_name_server_that_answers_late_holds_nothing_up_and_what_was_logged_is_delivered_then() {
    let directory = Directory::new();
    if is_impossible(&directory) {
        return;
    }
    let ended = child::run(alone(&directory, "late"));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    record(
        "name server that answers after 3 s",
        &format!(
            "neither build nor a call waits, flush(1 s) within 1.1 s, delivered after {} s",
            ended.said("took")
        ),
        MESSAGES,
        ended.said("delivered").parse().expect("a number"),
        &[],
        0,
    );
}

#[test]
fn a_name_server_that_never_answers_holds_neither_build_nor_call_nor_flush_nor_the_end_up() {
    let directory = Directory::new();
    if is_impossible(&directory) {
        return;
    }
    let ended = child::run(alone(&directory, "never"));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let addresses: u64 = ended.said("addresses").parse().expect("a number");
    record(
        "name server that never answers (TCP, UDP, HTTP, TLS)",
        &format!(
            "neither build nor a call waits, flush(1 s) within 1.1 s, an end of 1 s in {} ms",
            ended.said("slowest")
        ),
        MESSAGES * addresses,
        0,
        &[("at the end, the router's address not known", MESSAGES * addresses)],
        0,
    );
}
