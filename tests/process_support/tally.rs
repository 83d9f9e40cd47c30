//! Receivers for very many messages: what comes is ticked off in a table and not kept.
//!
//! In: bytes as a router gets them, over each kind of connection, with nothing of this crate in it. Out: which numbers
//! came, how many twice, and the first thing that was not right. Every line is compared with what its number demands;
//! one in a thousand is also read by the schema's oracle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::oracle::text;
use super::schema::Oracle;

/// How often somebody who waits looks whether he should end.
const SLICE: Duration = Duration::from_millis(10);

/// What has come of messages `0..each` of each producer.
pub struct Tally {
    producers: u64,
    each: u64,
    came: Vec<bool>,
    schema: Oracle,
    pub distinct: u64,
    pub duplicates: u64,
    pub timers: u64,
    pub loss_reports: u64,
    /// The first line that was not what it should be.
    wrong: Option<String>,
}

impl Tally {
    fn new(producers: u64, each: u64) -> Tally {
        // Touched now: what comes later must cost no memory that a test would take for a leak.
        let mut came = vec![true; (producers * each) as usize];
        came.fill(false);
        let schema = Oracle::new();
        Tally {
            producers,
            each,
            came,
            schema,
            distinct: 0,
            duplicates: 0,
            timers: 0,
            loss_reports: 0,
            wrong: None,
        }
    }

    /// What is in these lines.
    pub fn of(lines: &[String], (producers, each): (u64, u64)) -> Tally {
        let mut tally = Tally::new(producers, each);
        lines.iter().for_each(|line| tally.take(line));
        tally
    }

    /// All that came, each as often as it came.
    pub fn count(&self) -> u64 {
        self.distinct + self.duplicates + self.timers + self.loss_reports
    }

    fn take(&mut self, line: &str) {
        if let Err(why) = self.try_take(line) {
            self.wrong.get_or_insert_with(|| format!("{why}: {line}"));
        }
    }

    fn try_take(&mut self, line: &str) -> Result<(), &'static str> {
        if line.contains(r#""type":"timer""#) {
            self.timers += 1;
            return Ok(());
        }
        if line.contains(r#""type":"metlog.loss""#) {
            self.loss_reports += 1;
            return Ok(());
        }
        let (t, n) = (number(line, r#""t":"#).ok_or("no t")?, number(line, r#""n":"#).ok_or("no n")?);
        if t >= self.producers || n >= self.each {
            return Err("never sent");
        }
        let payload = serde_json::to_string(&text(t, n)).map_err(|_| "no text")?;
        if !line.contains(&format!(r#""payload":{payload}"#))
            || !line.starts_with('{')
            || !line.ends_with('}')
        {
            return Err("changed on its way");
        }
        if n % 1_000 == 0 {
            self.schema.read(line);
        }
        let came = &mut self.came[(t * self.each + n) as usize];
        match std::mem::replace(came, true) {
            true => self.duplicates += 1,
            false => self.distinct += 1,
        }
        Ok(())
    }

    /// Nothing was changed, made up or cut.
    #[track_caller]
    pub fn assert_genuine(&self) {
        assert_eq!(self.wrong, None);
    }

    /// Every message came, and nothing else.
    #[track_caller]
    pub fn assert_all(&self) {
        self.assert_genuine();
        let missing = self.came.iter().position(|&came| !came);
        let missing = missing.map(|at| (at as u64 / self.each, at as u64 % self.each));
        assert_eq!(missing, None, "{} came", self.distinct);
    }

    /// Every message came, once.
    #[track_caller]
    pub fn assert_complete(&self) {
        self.assert_all();
        assert_eq!(self.duplicates, 0, "{} came", self.distinct);
    }
}

/// The digits behind the first `key`.
fn number(line: &str, key: &str) -> Option<u64> {
    let digits = &line[line.find(key)? + key.len()..];
    let end = digits.find(|character: char| !character.is_ascii_digit())?;
    digits[..end].parse().ok()
}

/// Listens, and ticks off what comes.
pub struct Counter {
    pub address: String,
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
    /// Connections that are being read.
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What is spoken on a connection, and how long it is kept.
#[derive(Clone, Copy, PartialEq)]
pub enum Speech {
    Lines,
    Http,
    /// A connection ends as soon as something has come over it.
    LinesOnce,
    HttpOnce,
}

impl Counter {
    fn start(
        producers: u64,
        each: u64,
        address: String,
        run: impl FnOnce(&Arc<Mutex<Tally>>, &AtomicBool, &Arc<AtomicUsize>) + Send + 'static,
    ) -> Counter {
        let tally = Arc::new(Mutex::new(Tally::new(producers, each)));
        let ended = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (their_tally, their_ended, their_open) =
            (Arc::clone(&tally), Arc::clone(&ended), Arc::clone(&open));
        let thread = std::thread::spawn(move || run(&their_tally, &their_ended, &their_open));
        Counter { address, tally, ended, open, thread: Some(thread) }
    }

    /// Accepts connections and reads each on a thread of its own, to its end.
    fn streams<S: Read + Write + Send + 'static>(
        (producers, each): (u64, u64),
        address: String,
        speech: Speech,
        accept: impl FnMut() -> Option<S> + Send + 'static,
    ) -> Counter {
        Counter::start(producers, each, address, move |tally, ended, open| {
            let (mut accept, mut readers) = (accept, Vec::new());
            loop {
                let is_last = ended.load(Ordering::Acquire);
                match accept() {
                    Some(stream) => {
                        let tally = Arc::clone(tally);
                        readers.push(std::thread::spawn(move || speak(stream, speech, &tally)));
                    }
                    None if is_last => break,
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
                let (done, left): (Vec<_>, Vec<_>) =
                    readers.into_iter().partition(|reader: &JoinHandle<()>| reader.is_finished());
                done.into_iter().for_each(|reader| reader.join().expect("a reader"));
                readers = left;
                open.store(readers.len(), Ordering::Release);
            }
            readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
        })
    }

    pub fn tcp(size: (u64, u64), speech: Speech) -> Counter {
        let (listener, port) = listener();
        let address = match speech {
            Speech::Lines | Speech::LinesOnce => format!("tcp://localhost:{port}"),
            Speech::Http | Speech::HttpOnce => format!("http://localhost:{port}/in"),
        };
        Counter::streams(size, address, speech, move || accepted(&listener))
    }

    /// A router that accepts nothing, and so reads nothing, before `may_read`. Little of what is sent disappears in its
    /// connection meanwhile.
    pub fn tcp_that_waits(size: (u64, u64), may_read: &Arc<AtomicBool>) -> Counter {
        let (listener, port) = listener();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("set");
        let may_read = Arc::clone(may_read);
        Counter::streams(size, format!("tcp://127.0.0.1:{port}"), Speech::Lines, move || {
            may_read.load(Ordering::Acquire).then(|| accepted(&listener))?
        })
    }

    pub fn unix(size: (u64, u64), path: &Path, speech: Speech) -> Counter {
        let listener = UnixListener::bind(path).expect("binds");
        listener.set_nonblocking(true).expect("set");
        Counter::streams(size, format!("unix://{}", path.display()), speech, move || {
            let stream = listener.accept().ok()?.0;
            stream.set_nonblocking(false).expect("set");
            Some(stream)
        })
    }

    /// A server of `rustls`' own, with a certificate for `localhost` that is written to `path`.
    #[cfg(feature = "tls")]
    pub fn tls(size: (u64, u64), path: &Path, speech: Speech) -> Counter {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        std::fs::write(path, made.cert.pem()).expect("written");
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate");
        let (server, (listener, port)) = (Arc::new(server), listener());
        let address = match speech {
            Speech::Lines | Speech::LinesOnce => format!("tls://localhost:{port}?ca={}", path.display()),
            Speech::Http | Speech::HttpOnce => format!("https://localhost:{port}/in?ca={}", path.display()),
        };
        Counter::streams(size, address, speech, move || {
            let connection = rustls::ServerConnection::new(Arc::clone(&server)).expect("configured");
            Some(rustls::StreamOwned::new(connection, accepted(&listener)?))
        })
    }

    pub fn unixgram((producers, each): (u64, u64), path: &Path) -> Counter {
        let socket = UnixDatagram::bind(path).expect("binds");
        socket.set_read_timeout(Some(SLICE)).expect("set");
        let address = format!("unixgram://{}", path.display());
        Counter::start(producers, each, address, move |tally, ended, _| {
            datagrams(tally, ended, |space| socket.recv(space).ok());
        })
    }

    /// Besides the receiver its port, by which the system says what it has dropped.
    pub fn udp((producers, each): (u64, u64)) -> (Counter, u16) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(SLICE)).expect("set");
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20).expect("set");
        let address = socket.local_addr().expect("bound");
        let counter = Counter::start(producers, each, format!("udp://{address}"), move |tally, ended, _| {
            datagrams(tally, ended, |space| socket.recv(space).ok());
        });
        (counter, address.port())
    }

    /// A file that the program writes, read when it has ended.
    pub fn file(size: (u64, u64), path: &Path) -> Tally {
        let tally = Arc::new(Mutex::new(Tally::new(size.0, size.1)));
        lines(BufReader::new(std::fs::File::open(path).expect("there")), false, &tally);
        Arc::into_inner(tally).expect("the only one").into_inner().expect("whole")
    }

    /// Connections whose threads have not ended.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Asks something of what has come so far.
    pub fn look<R>(&self, look: impl FnOnce(&Tally) -> R) -> R {
        look(&self.tally.lock().expect("no reader panicked"))
    }

    /// Reads every connection to its end, which must come.
    pub fn finish(mut self) -> Tally {
        self.ended.store(true, Ordering::Release);
        self.thread.take().expect("there").join().expect("no reader panicked");
        let tally = Arc::into_inner(self.tally).expect("all readers have ended");
        tally.into_inner().expect("no reader panicked")
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    let stream = listener.accept().ok()?.0;
    stream.set_nonblocking(false).expect("set");
    Some(stream)
}

fn datagrams(tally: &Mutex<Tally>, ended: &AtomicBool, mut receive: impl FnMut(&mut [u8]) -> Option<usize>) {
    let mut space = vec![0; 70_000];
    loop {
        // Looked at before: what was sent before the end is there by then.
        let is_last = ended.load(Ordering::Acquire);
        match receive(&mut space) {
            // Messages of one datagram's run may be filled up with blanks.
            Some(length) => {
                let line = std::str::from_utf8(&space[..length]).expect("UTF-8").trim_end_matches(' ');
                tally.lock().expect("whole").take(line);
            }
            None if is_last => return,
            None => {}
        }
    }
}

fn speak(stream: impl Read + Write, speech: Speech, tally: &Mutex<Tally>) {
    let stream = BufReader::with_capacity(256 * 1024, stream);
    match speech {
        Speech::Lines => lines(stream, false, tally),
        Speech::LinesOnce => lines(stream, true, tally),
        Speech::Http => while_some(stream, |stream| request(stream, tally)),
        Speech::HttpOnce => drop(request(&mut { stream }, tally)),
    }
}

fn while_some<S>(mut stream: S, mut step: impl FnMut(&mut S) -> Option<()>) {
    while step(&mut stream).is_some() {}
}

fn lines(mut stream: impl BufRead, once: bool, tally: &Mutex<Tally>) {
    let mut line = Vec::new();
    // A peer that ends without a goodbye, over TLS, is an error and an end.
    while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let mut tally = tally.lock().expect("whole");
        match line.strip_suffix(b"\n").map(std::str::from_utf8) {
            Some(Ok(line)) => tally.take(line),
            _ => drop(tally.wrong.get_or_insert_with(|| format!("no whole line: {line:?}"))),
        }
        line.clear();
        if once {
            return;
        }
    }
}

/// One request with a length, confirmed when all of it is ticked off.
fn request(stream: &mut BufReader<impl Read + Write>, tally: &Mutex<Tally>) -> Option<()> {
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        (stream.read_line(&mut line).ok()? > 0).then_some(())?;
        if line == "\r\n" {
            break;
        }
        if let Some(digits) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = digits.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let text = std::str::from_utf8(&body).expect("UTF-8");
    {
        let mut tally = tally.lock().expect("whole");
        text.lines().for_each(|line| tally.take(line));
    }
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()
}
