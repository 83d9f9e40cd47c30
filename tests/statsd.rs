//! The statsd output against the real one: what Etsy's statsd flushes equals what was counted, timed and measured.
//!
//! Needs `node`, and the npm package `statsd` in `target/statsd`, where `.ci/test` puts it. Without them it fails.
#![cfg(all(unix, feature = "router"))]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tracing_metlog::router::{Config, Input, Matcher, Route, Router, StatsdOutput};

const PATIENCE: Duration = Duration::from_secs(60);

/// A backend that prints what statsd flushes as one line of JSON.
const BACKEND: &str = "
exports.init = function (start, config, events) {
  events.on('flush', function (time, metrics) {
    console.log('FLUSHED ' + JSON.stringify({
      counters: metrics.counters, gauges: metrics.gauges, timer_data: metrics.timer_data}));
  });
  return true;
};";

/// Etsy's statsd, running.
struct Statsd {
    child: Child,
    lines: Receiver<String>,
    port: u16,
    directory: PathBuf,
}

/// What it has flushed so far, flushes taken together.
#[derive(Debug, Default)]
struct Totals {
    counters: BTreeMap<String, f64>,
    gauges: BTreeMap<String, f64>,
    timers: BTreeMap<String, Timer>,
}

#[derive(Debug, PartialEq)]
struct Timer {
    count: f64,
    sum: f64,
    lower: f64,
    upper: f64,
}

impl Statsd {
    fn start(name: &str) -> Self {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/statsd/node_modules/statsd/stats.js");
        assert!(program.exists(), "{} is missing: run .ci/test, or npm install statsd", program.display());
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("statsd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        let (backend, config) = (directory.join("backend.js"), directory.join("config.js"));
        std::fs::write(&backend, BACKEND).expect("written");
        // It says nothing of the ports it gets: they are chosen here, and free a moment before.
        let port =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let admin =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let settings = json!({"address": "127.0.0.1", "port": port, "mgmt_address": "127.0.0.1", "mgmt_port": admin,
            "flushInterval": 500, "backends": [backend]});
        std::fs::write(&config, settings.to_string()).expect("written");
        let mut child = Command::new("node")
            .args([&program, &config])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("node, which runs statsd");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (line, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        let statsd = Statsd { child, lines, port, directory };
        // The first flush shows that it listens.
        statsd.flush(Instant::now() + PATIENCE);
        statsd
    }

    /// What it flushes next.
    fn flush(&self, deadline: Instant) -> Value {
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(patience).expect("statsd flushes");
            if let Some(flushed) = line.strip_prefix("FLUSHED ") {
                return serde_json::from_str(flushed).expect("JSON");
            }
        }
    }

    /// What it flushes until it has got so many metrics.
    fn totals(&self, metrics: u64) -> Totals {
        let deadline = Instant::now() + PATIENCE;
        let mut totals = Totals::default();
        while totals.counters.get("statsd.metrics_received").is_none_or(|&received| received < metrics as f64)
        {
            totals.add(&self.flush(deadline));
        }
        // What came twice would come by the next flush.
        totals.add(&self.flush(deadline));
        totals
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Totals {
    fn add(&mut self, flushed: &Value) {
        for (name, value) in entries(&flushed["counters"]) {
            *self.counters.entry(name.clone()).or_default() += number(value);
        }
        self.gauges.extend(entries(&flushed["gauges"]).map(|(name, value)| (name.clone(), number(value))));
        for (name, data) in entries(&flushed["timer_data"]).filter(|(_, data)| number(&data["count"]) > 0.0) {
            let [count, sum, lower, upper] = ["count", "sum", "lower", "upper"].map(|key| number(&data[key]));
            let timer =
                self.timers.entry(name.clone()).or_insert(Timer { count: 0.0, sum: 0.0, lower, upper });
            timer.count += count;
            timer.sum += sum;
            timer.lower = timer.lower.min(lower);
            timer.upper = timer.upper.max(upper);
        }
    }

    /// The names of all metrics that are not statsd's own.
    fn names(&self) -> Vec<&str> {
        let names = self.counters.keys().chain(self.gauges.keys()).chain(self.timers.keys());
        names.map(String::as_str).filter(|name| !name.starts_with("statsd.")).collect()
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().expect("an object").iter()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A router in front of a statsd, and a client's connection to it.
struct Running {
    router: Router,
    client: TcpStream,
    sent: u64,
}

impl Running {
    fn start(output: StatsdOutput) -> Self {
        let config =
            Config::new().input(Input::tcp("127.0.0.1:0")).route(Route::new(Matcher::any(), output.into()));
        let router = Router::start(config).expect("starts");
        let address = router.addresses()[0].strip_prefix("tcp://").expect("a tcp address").to_owned();
        Running { client: TcpStream::connect(address).expect("connects"), router, sent: 0 }
    }

    fn send(&mut self, message_type: &str, name: &str, value: impl ToString, rate: impl Into<Value>) {
        let fields = json!({"name": name, "rate": rate.into()});
        let message =
            json!({"type": message_type, "logger": "app", "payload": value.to_string(), "fields": fields});
        self.client.write_all(format!("{message}\n").as_bytes()).expect("sent");
        self.sent += 1;
    }

    /// Ends it: delivered and failed.
    fn end(self) -> (u64, u64) {
        drop(self.client);
        let counters = self.router.shutdown(PATIENCE);
        let output = &counters.outputs[0];
        assert_eq!(output.delivered + output.failed, self.sent, "{counters}");
        (output.delivered, output.failed)
    }
}

#[test]
fn what_statsd_flushes_equals_the_true_totals_for_every_type_and_rate() {
    let statsd = Statsd::start("totals");
    let mut running = Running::start(StatsdOutput::new(format!("127.0.0.1:{}", statsd.port)).prefix("shop"));
    let (mut timed, mut sampled) = (0.0, 0.0);
    for number in 0..1_000_u32 {
        running.send("counter", "whole", number % 7, 1);
        running.send("counter", "fraction", "0.5", 1.0);
        let milliseconds = f64::from(number % 100) + 0.25;
        running.send("timer", "timed", milliseconds, "1");
        timed += milliseconds;
        // A client that samples one in four, and says so.
        if number % 4 == 0 {
            running.send("counter", "sampled", 1, 0.25);
            running.send("timer", "sampled.time", number, 0.25);
            sampled += f64::from(number);
        }
    }
    running.send("counter", "whole", -10, 1);
    for value in ["7", "-3", "-4.5"] {
        running.send("gauge", "below", value, 1);
    }
    running.send("gauge", "above", "42.5", 0.5);
    let sent = running.sent;
    assert_eq!(running.end(), (sent, 0));
    // Each of the two negative gauges is two lines.
    let totals = statsd.totals(sent + 2);
    let whole: u32 = (0..1_000).map(|number| number % 7).sum();
    assert_eq!(totals.counters["shop.app.whole"], f64::from(whole) - 10.0);
    assert_eq!(totals.counters["shop.app.fraction"], 500.0);
    assert_eq!(totals.counters["shop.app.sampled"], 1_000.0);
    assert_eq!(totals.gauges["shop.app.below"], -4.5);
    assert_eq!(totals.gauges["shop.app.above"], 42.5);
    let expected = Timer { count: 1_000.0, sum: timed, lower: 0.25, upper: 99.25 };
    assert_eq!(totals.timers["shop.app.timed"], expected);
    let expected = Timer { count: 1_000.0, sum: sampled, lower: 0.0, upper: 996.0 };
    assert_eq!(totals.timers["shop.app.sampled.time"], expected);
    assert_eq!(totals.counters["statsd.metrics_received"], (sent + 2) as f64);
    assert_eq!(totals.counters["statsd.bad_lines_seen"], 0.0);
    assert!(totals.counters["statsd.packets_received"] < (sent / 10) as f64, "datagrams are not packed");
}

#[test]
fn no_message_injects_a_metric_a_tag_or_a_bad_line_or_ends_statsd() {
    let statsd = Statsd::start("hostile");
    let mut running = Running::start(StatsdOutput::new(format!("127.0.0.1:{}", statsd.port)));
    running.send("counter", "x:1|c\nevil.metric:1000|c", 1, 1);
    running.send("counter", "tag|#host:evil;a=b", 1, 1);
    running.send("counter", "value", "1|c\nevil.metric:1000", 1);
    running.send("counter", "rate", 1, "0.5\nevil.metric:1000|c");
    running.send("timer", "negative", -1, 1);
    running.send("counter", "große Zahl", 1, 1);
    for name in ["constructor", "__proto__", "toString"] {
        for message_type in ["counter", "timer", "gauge"] {
            let message = json!({"type": message_type, "payload": "1", "fields": {"name": name}});
            running.client.write_all(format!("{message}\n").as_bytes()).expect("sent");
            running.sent += 1;
        }
    }
    running.send("counter", "last", 1, 1);
    assert_eq!(running.end(), (4, 12));
    let totals = statsd.totals(4);
    assert_eq!(totals.counters["statsd.bad_lines_seen"], 0.0);
    let expected = ["app.gro_e_Zahl", "app.last", "app.tag__host_evil_a_b", "app.x_1_c_evil.metric_1000_c"];
    assert_eq!(totals.names(), expected);
    assert!(expected.iter().all(|name| totals.counters[*name] == 1.0));
}

#[cfg(feature = "http")]
#[test]
fn a_request_is_answered_when_its_metrics_have_been_sent() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
    server.set_nonblocking(true).expect("set");
    let output = StatsdOutput::new(server.local_addr().expect("bound").to_string());
    let config =
        Config::new().input(Input::http("127.0.0.1:0")).route(Route::new(Matcher::any(), output.into()));
    let router = Router::start(config).expect("starts");
    for number in 0..20 {
        let metric = json!({"type": "counter", "payload": number.to_string(), "fields": {"name": "x"}});
        let answer = ureq::post(&router.addresses()[0]).send(metric.to_string()).expect("answered");
        assert_eq!(answer.status(), 200);
        let mut datagram = [0; 100];
        let length = server.recv(&mut datagram).expect("it has arrived already");
        assert_eq!(datagram[..length], *format!("x:{number}|c").as_bytes());
    }
}
