//! Receivers of raw bytes, with nothing of this crate in them.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
#[cfg(unix)]
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::LONG;

/// How frames are told apart.
#[derive(Clone, Copy)]
enum Frames {
    Lines,
    Counted,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
    ended: AtomicBool,
    /// The peers have ended: what they sent is read to its end.
    finishing: AtomicBool,
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no reader panicked")
    }

    fn add(&self, lines: Vec<String>) {
        self.locked().extend(lines);
        self.grown.notify_all();
    }
}

/// Somebody who listens and keeps what comes, on a thread of its own.
pub struct Receiver {
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn tcp() -> Receiver {
        Receiver::on_tcp(TcpListener::bind("127.0.0.1:0").expect("binds"))
    }

    /// Listens again where another one listened before.
    pub fn tcp_at(port: u16) -> Receiver {
        let begun = Instant::now();
        loop {
            match TcpListener::bind(("127.0.0.1", port)) {
                Ok(listener) => return Receiver::on_tcp(listener),
                Err(error) => assert!(begun.elapsed() < LONG, "port {port}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn on_tcp(listener: TcpListener) -> Receiver {
        let address = format!("tcp://{}", listener.local_addr().expect("bound"));
        listener.set_nonblocking(true).expect("set");
        Receiver::streams(address, Frames::Lines, move || {
            let stream = listener.accept().ok()?.0;
            stream.set_nonblocking(false).expect("set");
            stream.set_read_timeout(Some(SLICE)).expect("set");
            Some(stream)
        })
    }

    /// Frames with their length before them.
    pub fn tcp_counted() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = format!("tcp://{}?framing=octet-count", listener.local_addr().expect("bound"));
        listener.set_nonblocking(true).expect("set");
        Receiver::streams(address, Frames::Counted, move || {
            let stream = listener.accept().ok()?.0;
            stream.set_nonblocking(false).expect("set");
            stream.set_read_timeout(Some(SLICE)).expect("set");
            Some(stream)
        })
    }

    #[cfg(unix)]
    pub fn unix(path: &Path) -> Receiver {
        let listener = UnixListener::bind(path).expect("binds");
        listener.set_nonblocking(true).expect("set");
        Receiver::streams(format!("unix://{}", path.display()), Frames::Lines, move || {
            let stream = listener.accept().ok()?.0;
            stream.set_nonblocking(false).expect("set");
            stream.set_read_timeout(Some(SLICE)).expect("set");
            Some(stream)
        })
    }

    #[cfg(unix)]
    pub fn unixgram(path: &Path) -> Receiver {
        let socket = UnixDatagram::bind(path).expect("binds");
        socket.set_read_timeout(Some(SLICE)).expect("set");
        Receiver::datagrams(format!("unixgram://{}", path.display()), move |space| socket.recv(space).ok())
    }

    pub fn udp() -> Receiver {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(SLICE)).expect("set");
        #[cfg(unix)]
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20);
        let address = format!("udp://{}", socket.local_addr().expect("bound"));
        Receiver::datagrams(address, move |space| socket.recv(space).ok())
    }

    fn datagrams(
        address: String,
        mut receive: impl FnMut(&mut [u8]) -> Option<usize> + Send + 'static,
    ) -> Receiver {
        Receiver::start(address, move |shared| {
            let mut space = vec![0; 70_000];
            while !shared.ended.load(Ordering::Acquire) {
                if let Some(length) = receive(&mut space) {
                    let text = std::str::from_utf8(&space[..length]).expect("UTF-8").to_owned();
                    assert!(!text.contains('\n'), "a datagram holds one message and no newline: {text:?}");
                    shared.add(vec![text]);
                }
            }
        })
    }

    /// Reads every connection on a thread of its own, each to its end or until this receiver is closed.
    fn streams<S: Read + Send + 'static>(
        address: String,
        frames: Frames,
        mut accept: impl FnMut() -> Option<S> + Send + 'static,
    ) -> Receiver {
        Receiver::start(address, move |shared| {
            let mut readers = Vec::new();
            loop {
                // Looked at before: a connection made before the end is accepted.
                let ended = shared.ended.load(Ordering::Acquire);
                match accept() {
                    Some(stream) => {
                        let shared = Arc::clone(shared);
                        readers.push(std::thread::spawn(move || read(stream, frames, &shared)));
                    }
                    None if ended => break,
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            readers.into_iter().for_each(|reader| reader.join().expect("whole frames"));
        })
    }

    fn start(address: String, run: impl FnOnce(&Arc<Shared>) + Send + 'static) -> Receiver {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        Receiver { address, shared, thread: Some(std::thread::spawn(move || run(&theirs))) }
    }

    /// What has come so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared.locked().clone()
    }

    /// Waits until `count` have come, or until nothing more comes within the limit; gives what has come.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        let lines = self.shared.locked();
        let waited = self.shared.grown.wait_timeout_while(lines, LONG, |lines| lines.len() < count);
        waited.expect("no reader panicked").0.clone()
    }

    pub fn port(&self) -> u16 {
        let digits = self.address.rsplit(':').next().expect("a port");
        digits.split('?').next().expect("a port").parse().expect("a port")
    }

    /// Reads every connection there is to its end, which must come, and gives what came.
    pub fn close_at_end(self) -> Vec<String> {
        self.shared.finishing.store(true, Ordering::Release);
        self.close()
    }

    /// Ends: listener and connections are closed. Fails if a reader has seen half a frame from a peer that ended.
    pub fn close(mut self) -> Vec<String> {
        self.end();
        self.lines()
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the receiver failed");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

/// How often a reader looks whether it should end.
const SLICE: Duration = Duration::from_millis(20);

fn read(mut stream: impl Read, frames: Frames, shared: &Shared) {
    let (mut bytes, mut space) = (Vec::new(), vec![0; 256 * 1024]);
    let begun = Instant::now();
    while !shared.ended.load(Ordering::Acquire) || shared.finishing.load(Ordering::Acquire) {
        assert!(begun.elapsed() < LONG * 2, "the peer does not end");
        match stream.read(&mut space) {
            Ok(0) => {
                assert!(bytes.is_empty(), "the peer ended in the middle of a frame: {} bytes", bytes.len());
                return;
            }
            Ok(count) => {
                bytes.extend_from_slice(&space[..count]);
                shared.add(split(&mut bytes, frames));
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Takes the whole frames off the front.
fn split(bytes: &mut Vec<u8>, frames: Frames) -> Vec<String> {
    let (mut lines, mut start) = (Vec::new(), 0);
    while let Some((from, to, next)) = next_frame(&bytes[start..], frames) {
        let frame = &bytes[start + from..start + to];
        lines.push(std::str::from_utf8(frame).expect("UTF-8").to_owned());
        start += next;
    }
    bytes.drain(..start);
    lines
}

/// Where the first whole frame begins and ends, and where the next one begins.
fn next_frame(bytes: &[u8], frames: Frames) -> Option<(usize, usize, usize)> {
    match frames {
        Frames::Lines => {
            let end = bytes.iter().position(|&byte| byte == b'\n')?;
            Some((0, end, end + 1))
        }
        Frames::Counted => {
            let blank = bytes.iter().position(|&byte| byte == b' ')?;
            let digits = std::str::from_utf8(&bytes[..blank]).expect("digits");
            let end = blank + 1 + digits.parse::<usize>().expect("a length");
            (bytes.len() >= end).then_some((blank + 1, end, end))
        }
    }
}
