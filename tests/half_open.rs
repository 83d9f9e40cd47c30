//! A peer whose network is gone without a word: noticed, and what it had not confirmed goes to the one that is there
//! instead. Needs root and a network namespace; without them it fails, unless that is allowed.
#![cfg(all(target_os = "linux", feature = "tracing"))]

mod process_support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use process_support::oracle::{assert_balanced, send};
use process_support::size::left_out;
use process_support::{built, eventually, fault_report};

/// A network namespace with one interface, and the other end of it here.
struct Network(String);

impl Network {
    /// `None` where this may not be done.
    fn make() -> Option<Network> {
        let name = format!("metlog{}", std::process::id() % 10_000);
        run("ip", &["netns", "add", &name]).then_some(())?;
        let network = Network(name.clone());
        let (here, there) = (format!("{name}h"), format!("{name}t"));
        let steps: [&[&str]; 5] = [
            &["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name],
            &["addr", "add", "10.213.77.1/24", "dev", &here],
            &["link", "set", &here, "up"],
            &["-n", &name, "addr", "add", "10.213.77.2/24", "dev", &there],
            &["-n", &name, "link", "set", &there, "up"],
        ];
        steps.iter().all(|step| run("ip", step)).then_some(network)
    }

    /// The far end of the cable stays, and nothing comes through it any more.
    fn cut(&self) {
        assert!(run("ip", &["-n", &self.0, "link", "set", &format!("{}t", self.0), "down"]));
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).stdin(Stdio::null());
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.0]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Accepts, reads for ever, and counts nothing.
const READER: &str = "import socket\n\
    s = socket.create_server(('10.213.77.2', 5565))\n\
    c, _ = s.accept()\n\
    while c.recv(65536): pass\n";

#[test]
fn a_peer_whose_network_is_gone_is_noticed_within_ten_seconds_of_the_next_message() {
    let Some(network) = Network::make() else {
        left_out("no network namespace can be made with ip");
        return;
    };
    let mut reader = network.command();
    let _reader = Killed(reader.args(["python3", "-c", READER]).spawn().expect("starts"));
    let builder = tracing_metlog::builder().router("tcp://10.213.77.2:5565");
    let guard = built(builder.flush_timeout(Duration::from_secs(1)));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    eventually("all is confirmed", || guard.stats().delivered == 10);
    let failures = guard.stats().destinations[0].failures;

    network.cut();
    let begun = Instant::now();
    send(&guard.client(), 0, 10);
    eventually("it is noticed", || guard.stats().destinations[0].failures > failures);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let stats = guard.stats();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.pending, stats.lost.total()), (10, 1, 0), "it is kept: {stats}");
    let promise =
        format!("noticed within 10 s ({:.1} s here), and what is not confirmed is kept", took.as_secs_f64());
    fault_report::record(
        "half-open peer: its network is gone (TCP, namespace)",
        &promise,
        11,
        10,
        &[("pending", 1)],
        0,
    );
}
