//! A million events from one thread until the last byte is read: messages per second, and what they cost in CPU
//! time, ours beside `tracing-subscriber`'s JSON with `tracing_appender::non_blocking` over a buffered writer.
//!
//! `cargo run --release --bin end_to_end` runs each way of both in turn, ours, theirs, ours, theirs, and prints the
//! medians; `--write` puts them into `docs/performance.md` too. A full queue makes the caller wait, so nothing is lost on the way to a stream or a file. The
//! sink is a process of its own: its CPU time is not counted. `sink WAY` and `send PEER WAY ADDRESS` are the two
//! ends of one run.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use bench_peers::document;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_metlog::WhenFull;
use tracing_subscriber::layer::SubscriberExt;

const MESSAGES: u64 = 1_000_000;
const PAIRS: usize = 5;
const BUFFER: usize = 256 * 1024;
/// A datagram that has not come by then does not come.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => compare(false),
        ["--write"] => compare(true),
        ["sink", way] => sink(Way::named(way)?),
        ["send", peer, way, address] => send(peer, Way::named(way)?, address),
        _ => Err("usage: end_to_end [--write | sink WAY | send PEER WAY ADDRESS]".into()),
    }
}

/// How the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    Udp,
    File,
}

impl Way {
    const ALL: [Way; 4] = [Way::Tcp, Way::Unix, Way::File, Way::Udp];

    fn name(self) -> &'static str {
        match self {
            Way::Tcp => "tcp",
            Way::Unix => "unix",
            Way::Udp => "udp",
            Way::File => "file",
        }
    }

    fn named(name: &str) -> Result<Way, Failure> {
        let known = Way::ALL.into_iter().find(|way| way.name() == name);
        known.ok_or_else(|| format!("no way is called `{name}`").into())
    }
}

// ---------------------------------------------------------------------------------------------- the comparison

/// What came of one run.
#[derive(Clone, Copy)]
struct Run {
    messages_per_second: f64,
    cpu_seconds_per_million: f64,
    received: f64,
}

fn compare(write: bool) -> Result<(), Failure> {
    let mut table = String::from(
        "| way | messages/s | theirs | to theirs | CPU s per million | theirs | theirs to ours | received |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for way in Way::ALL {
        eprintln!("{}", way.name());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            ours.push(run("ours", way)?);
            // Nobody writes lines to UDP with it.
            if way != Way::Udp {
                theirs.push(run("json", way)?);
            }
        }
        table += &row(way, median(&ours).ok_or("no run")?, median(&theirs));
    }
    print!("{table}");
    if write {
        document::write(document::PERFORMANCE, "end-to-end", &table)?;
    }
    Ok(())
}

fn row(way: Way, ours: Run, theirs: Option<Run>) -> String {
    let column = |of: &dyn Fn(Run) -> f64, digits| {
        theirs.map_or(String::from("-"), |theirs| format!("{:.digits$}", of(theirs)))
    };
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {} | {:.0} | {} | {}x | {:.2} | {} | {}x | {:.1} % |",
        way.name(),
        ours.messages_per_second,
        column(&|theirs| theirs.messages_per_second, 0),
        column(&|theirs| ours.messages_per_second / theirs.messages_per_second, 1),
        ours.cpu_seconds_per_million,
        column(&|theirs| theirs.cpu_seconds_per_million, 2),
        column(&|theirs| theirs.cpu_seconds_per_million / ours.cpu_seconds_per_million, 1),
        100.0 * ours.received / MESSAGES as f64,
    );
    row.replace("| -x |", "| - |")
}

fn median(runs: &[Run]) -> Option<Run> {
    let middle = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Run {
        messages_per_second: middle(|run| run.messages_per_second)?,
        cpu_seconds_per_million: middle(|run| run.cpu_seconds_per_million)?,
        received: middle(|run| run.received)?,
    })
}

/// A sink, a sender, and what both say.
fn run(peer: &str, way: Way) -> Result<Run, Failure> {
    let this = std::env::current_exe()?;
    let mut sink = Command::new(&this).args(["sink", way.name()]).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(sink.stdout.take().ok_or("a sink without an output")?);
    let mut address = String::new();
    said.read_line(&mut address)?;
    let address = address.trim();
    let sender = Command::new(&this).args(["send", peer, way.name(), address]).output()?;
    if !sender.status.success() {
        let _ = sink.kill();
        return Err(String::from_utf8_lossy(&sender.stderr).into_owned().into());
    }
    let [began, ended, cpu] = numbers(&String::from_utf8(sender.stdout)?)?;
    let [received, last] = result_of(way, address, &mut sink, said, ended)?;
    Ok(Run {
        messages_per_second: received / (last - began),
        cpu_seconds_per_million: cpu * 1e6 / MESSAGES as f64,
        received,
    })
}

/// How many messages arrived, and when the last one did.
fn result_of(
    way: Way,
    address: &str,
    sink: &mut Child,
    mut said: impl BufRead,
    ended: f64,
) -> Result<[f64; 2], Failure> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    sink.wait()?;
    match way {
        Way::File => {
            let received = count_lines(File::open(address)?)?;
            std::fs::remove_file(address)?;
            Ok([received as f64, ended])
        }
        Way::Unix => {
            std::fs::remove_file(address)?;
            numbers(&line)
        }
        Way::Tcp | Way::Udp => numbers(&line),
    }
    .and_then(|[received, last]| {
        let complete = way == Way::Udp || received == MESSAGES as f64;
        complete.then_some([received, last]).ok_or_else(|| format!("{received} messages arrived").into())
    })
}

fn numbers<const N: usize>(line: &str) -> Result<[f64; N], Failure> {
    let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
    numbers?.try_into().map_err(|_| format!("unexpected: {line}").into())
}

// ------------------------------------------------------------------------------------------------------ a sink

/// Prints its address; then, when everything has come, how much that was and when the last of it came.
fn sink(way: Way) -> Result<(), Failure> {
    let (received, last) = match way {
        Way::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            announce(listener.local_addr()?);
            (count_lines(listener.accept()?.0)?, now())
        }
        Way::Unix => {
            let path = temporary("sock");
            let listener = UnixListener::bind(&path)?;
            announce(path.display());
            (count_lines(listener.accept()?.0)?, now())
        }
        Way::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            announce(socket.local_addr()?);
            count_datagrams(&socket)?
        }
        Way::File => {
            announce(temporary("log").display());
            (0, 0.0)
        }
    };
    println!("{received} {last}");
    Ok(())
}

fn announce(address: impl std::fmt::Display) {
    println!("{address}");
}

fn temporary(extension: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bench-peers-{}.{extension}", std::process::id()))
}

/// Lines until all are there or the other side has closed.
fn count_lines(mut from: impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut lines = 0;
    while lines < MESSAGES {
        match from.read(&mut buffer)? {
            0 => break,
            length => lines += buffer[..length].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
    Ok(lines)
}

fn count_datagrams(socket: &UdpSocket) -> io::Result<(u64, f64)> {
    let mut buffer = vec![0; BUFFER];
    let (mut received, mut last) = (0, 0.0);
    socket.recv(&mut buffer)?;
    socket.set_read_timeout(Some(DATAGRAM_PATIENCE))?;
    loop {
        received += 1;
        if received == MESSAGES || received % 64 == 0 {
            last = now();
        }
        if received == MESSAGES || socket.recv(&mut buffer).is_err() {
            return Ok((received, last));
        }
    }
}

// ---------------------------------------------------------------------------------------------------- a sender

/// Prints when it began, when all was handed to the kernel, and the CPU time of all its threads in between.
fn send(peer: &str, way: Way, address: &str) -> Result<(), Failure> {
    let finish: Box<dyn FnOnce()> = match peer {
        "ours" => start_ours(way, address)?,
        "json" => start_json(way, address)?,
        _ => return Err(format!("no peer is called `{peer}`").into()),
    };
    let (began, cpu) = (now(), cpu_seconds());
    for id in 0..MESSAGES {
        tracing::info!(id, user = "amy.pond@example.org", ratio = 0.725, "request served");
    }
    finish();
    println!("{began} {} {}", now(), cpu_seconds() - cpu);
    Ok(())
}

fn start_ours(way: Way, address: &str) -> Result<Box<dyn FnOnce()>, Failure> {
    let scheme = way.name();
    let (layer, guard) = tracing_metlog::builder()
        .logger("bench")
        .router(format!("{scheme}://{address}"))
        .when_full(WhenFull::Block)
        .flush_timeout(Duration::from_secs(60))
        .build()?;
    install(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer))?;
    Ok(Box::new(move || {
        let stats = guard.finish();
        assert_eq!(stats.delivered, MESSAGES, "{stats}");
    }))
}

fn start_json(way: Way, address: &str) -> Result<Box<dyn FnOnce()>, Failure> {
    let out: Box<dyn Write + Send> = match way {
        Way::Tcp => Box::new(BufWriter::with_capacity(BUFFER, TcpStream::connect(address)?)),
        Way::Unix => Box::new(BufWriter::with_capacity(BUFFER, UnixStream::connect(address)?)),
        Way::File => Box::new(BufWriter::with_capacity(BUFFER, File::create(address)?)),
        Way::Udp => return Err("lines do not go over UDP".into()),
    };
    let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(out);
    let lines =
        tracing_subscriber::fmt().json().with_max_level(LevelFilter::INFO).with_writer(writer).finish();
    install(lines)?;
    Ok(Box::new(move || drop(guard)))
}

fn install(subscriber: impl tracing::Subscriber + Send + Sync) -> Result<(), Failure> {
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

/// Seconds; the same clock in every process.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

/// User and system time of all threads of this process so far.
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what is written, and all zeroes is a valid `rusage` if nothing is.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
