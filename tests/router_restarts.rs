//! The router of this crate, killed again and again in the middle of a stream: what each kind of connection can promise,
//! and what it really costs.
//!
//! A message is confirmed when the router's kernel has acknowledged it (TCP) or the router has read it (Unix socket). A
//! router that is killed takes with it what it had read and not yet written, and over TCP what its kernel had for it.
//! Nobody at the sender can know of that; everything else must be in the router's file.
#![cfg(all(target_os = "linux", feature = "tracing", feature = "router"))]

mod process_support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use process_support::oracle::{assert_balanced, send, Got};
#[cfg(feature = "tls")]
use process_support::size::sized;
use process_support::{closed_port, eventually, fault_report, lines_of, Directory, LONG};
use tracing_metlog::WhenFull;

const RESTARTS: u64 = 50;
/// Those of a router whose every connection begins with a handshake, in every run.
#[cfg(feature = "tls")]
fn encrypted_restarts() -> u64 {
    sized(15, RESTARTS)
}
/// Messages made while each router lives, and delivered before it is killed in the middle of the next ones.
const EACH: u64 = 400;

/// A router that writes all it gets to a file; killed with SIGKILL when it is dropped.
struct Router(Child);

impl Router {
    fn start(address: &str, file: &Path) -> Router {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metlog-router"));
        command.args(["--listen", address, "--route", &format!("*=file:{}", file.display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        // It says where it listens, or ends.
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("text");
        assert!(line.starts_with("metlog-router listens on"), "{line:?}");
        Router(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What stands in the router's file. The last line of a router that was killed may be half a line; the next router
/// goes on behind it, so a line with two beginnings is a damaged one and what follows it.
fn whole_lines(file: &Path) -> (Vec<String>, u64) {
    let (mut whole, mut damaged) = (Vec::new(), 0);
    for line in lines_of(file) {
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(_) => whole.push(line),
            Err(_) => {
                damaged += 1;
                let last = line.rfind("{\"timestamp\"").map(|start| line[start..].to_owned());
                whole.extend(last.filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
            }
        }
    }
    (whole, damaged)
}

/// What a router that was killed may have taken along.
#[derive(PartialEq)]
enum InHand {
    /// What it had confirmed and not written.
    Some,
    /// It confirms what it has written.
    Nothing,
}

/// Kills and restarts a router while messages flow, and says what came of it. It listens at `address`; the generator
/// sends to that, with `options`.
fn killed_again_and_again(
    name: &str,
    restarts: u64,
    (address, options): (&str, &str),
    in_hand: InHand,
    promise: &str,
) {
    let directory = Directory::new();
    let file = directory.file("messages.jsonl");
    let router = format!("{}{options}", address.split('?').next().expect("an address"));
    let builder = tracing_metlog::builder().router(router).when_full(WhenFull::Block).flush_timeout(LONG);
    let (client, guard) = builder.message_ids(true).build_client().expect("builds");
    let mut router = Router::start(address, &file);
    let mut sent = 0;
    for _ in 0..restarts {
        // Some of these are on their way when the router dies: the middle of a stream, not its end.
        let before = guard.stats().delivered;
        (0..EACH).for_each(|n| send(&client, 0, sent + n));
        sent += EACH;
        eventually("messages flow", || guard.stats().delivered >= before + EACH / 2);
        std::thread::scope(|scope| {
            let rest = scope.spawn(|| (0..EACH).for_each(|n| send(&client, 0, sent + n)));
            router.kill();
            rest.join().expect("sent");
        });
        sent += EACH;
        router = Router::start(address, &file);
    }
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.emitted, stats.delivered, stats.lost.total()), (sent, sent, 0), "{stats}");
    // The last one is asked to end, and writes what it has.
    let _ = Command::new("kill").arg(router.0.id().to_string()).status();
    router.0.wait().expect("ends");

    let (lines, damaged) = whole_lines(&file);
    let got = Got::read(&lines);
    let missing = got.missing(1, sent).count() as u64;
    let duplicates = got.count() - got.ids.len() as u64;
    assert!(damaged <= restarts, "a killed router leaves at most one half line");
    // What a router that is killed can have in hand, and a bound that a real loss would break: most of what was sent
    // was confirmed while the router lived, and has to be there.
    let most_missing = if in_hand == InHand::Nothing { 0 } else { sent * 3 / 4 };
    assert!(missing <= most_missing, "{missing} of {sent} are missing");
    let [lost, again] = [missing, duplicates].map(|count| count as f64 / restarts as f64);
    fault_report::record(
        &format!("router killed (-9) and restarted {restarts} times in the middle of a stream, {name}"),
        &format!("{promise} (for each kill {lost:.1} lost, {again:.1} twice)"),
        sent,
        got.ids.len() as u64,
        &[("in the killed router", missing)],
        duplicates,
    );
}

#[test]
fn a_tcp_router_that_is_killed_again_and_again_costs_no_more_than_it_and_its_kernel_had_in_hand() {
    let address = format!("tcp://127.0.0.1:{}", closed_port());
    let promise =
        "0 lost on the way; lost with the router what its kernel had acknowledged and it had not written";
    killed_again_and_again("TCP", RESTARTS, (&address, ""), InHand::Some, promise);
}

#[test]
fn a_unix_router_that_is_killed_again_and_again_costs_no_more_than_it_had_in_hand() {
    let directory = Directory::new();
    let address = format!("unix://{}", directory.file("router").display());
    let promise = "0 lost on the way; lost with the router what it had read and not written";
    killed_again_and_again("Unix socket", RESTARTS, (&address, ""), InHand::Some, promise);
}

/// Where a router with a certificate for `localhost` listens, and how it is trusted.
#[cfg(feature = "tls")]
fn encrypted(scheme: &str, directory: &Directory) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
    let [certificate, key] = ["cert", "key"].map(|name| directory.file(name));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    let address = format!("{scheme}://localhost:{}", closed_port());
    (format!("{address}?cert={certificate}&key={key}"), format!("?ca={certificate}"))
}

#[cfg(feature = "tls")]
#[test]
fn a_tls_router_that_is_killed_again_and_again_costs_no_more_than_it_and_its_kernel_had_in_hand() {
    let directory = Directory::new();
    let (address, options) = encrypted("tls", &directory);
    let promise =
        "0 lost on the way; lost with the router what its kernel had acknowledged and it had not written";
    killed_again_and_again("TLS", encrypted_restarts(), (&address, &options), InHand::Some, promise);
}

#[cfg(all(feature = "tls", feature = "http"))]
#[test]
fn an_https_router_that_is_killed_again_and_again_costs_no_message() {
    let directory = Directory::new();
    let (address, options) = encrypted("https", &directory);
    let promise = "0 lost; what was written and not answered comes twice";
    killed_again_and_again("HTTPS", encrypted_restarts(), (&address, &options), InHand::Nothing, promise);
}

/// A receiver with nothing in hand: what it has read is in its memory, which is this test's. So nothing at all is lost
/// over a Unix socket, however often its connections end with messages unread.
#[test]
fn a_unix_receiver_that_goes_12_times_with_messages_unread_and_loses_nothing_it_read_gets_every_message() {
    use std::io::Read;
    let directory = Directory::new();
    let path = directory.file("router");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    let address = format!("unix://{}", path.display());
    let builder = tracing_metlog::builder().router(&address).when_full(WhenFull::Block).flush_timeout(LONG);
    let (client, guard) = builder.build_client().expect("builds");
    const TURNS: u64 = 12;
    const TOTAL: u64 = 20_000;
    let (last_turn, is_last_turn) = std::sync::mpsc::channel();
    let producer = std::thread::spawn(move || {
        (0..TOTAL).for_each(|n| send(&client, 0, n));
        is_last_turn.recv().expect("comes");
        guard.finish()
    });
    let mut lines = Vec::new();
    for turn in 0..=TURNS {
        let mut stream = listener.accept().expect("connected").0;
        let mut bytes = Vec::new();
        if turn < TURNS {
            // A part of what is there, ending anywhere, and then gone: often more than the kernel holds at a time, so that
            // the sender gets on.
            let some = 300_000 + (turn * 7_919) % 100_000;
            stream.by_ref().take(some).read_to_end(&mut bytes).expect("read");
        } else {
            last_turn.send(()).expect("heard");
            stream.read_to_end(&mut bytes).expect("read");
        }
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        lines.extend(String::from_utf8(bytes[..whole].to_vec()).expect("UTF-8").lines().map(str::to_owned));
    }
    let stats = producer.join().expect("sent");
    let got = Got::read(&lines);
    let duplicates = got.count() - got.ids.len() as u64;
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.total(), stats.pending), (TOTAL, 0, 0), "{stats}");
    assert_eq!(got.missing(1, TOTAL).count(), 0, "everything came");
    fault_report::record(
        "connection ended 12 times with messages unread, Unix socket",
        "0 lost; what was read and not confirmed comes twice",
        TOTAL,
        got.ids.len() as u64,
        &[],
        duplicates,
    );
    // Long enough to have been in the middle of it.
    assert!(stats.destinations[0].failures >= TURNS / 2, "{stats:?}");
}
