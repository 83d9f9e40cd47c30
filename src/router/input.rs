//! The sockets. In: bytes from clients, friendly or not. Out: frames.
//!
//! One thread for each socket and one for each connection. Lost here: datagrams that the kernel has no room for
//! (it counts them, this does not yet), connections beyond the limit (`refused`), and at shutdown what clients
//! have not sent by the deadline.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::config::{Address, Input};
use super::connection::{Listener, Plain, Stream};
use super::counters::{add, InputState};
use super::dispatch::{Dispatch, Intake};
use super::frames::{self, Frames};
#[cfg(feature = "http")]
use super::http;
use super::stop::Stop;
#[cfg(feature = "tls")]
use super::tls;
#[cfg(feature = "zmq")]
use super::zmq;
use super::{lock, spawn, RouterError};

/// What one read of a connection takes at most.
const READ_BYTES: usize = 64 * 1024;

/// What the kernel is asked to hold for a datagram socket while its thread is busy. Best effort: the system's
/// limit (`net.core.rmem_max`) may be lower.
#[cfg(unix)]
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// After a failure that will not go away by trying again at once, such as no file descriptor left.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// An open socket that nobody reads yet.
pub(super) struct Bound {
    socket: Socket,
    input: Input,
    #[cfg(feature = "tls")]
    tls: Option<tls::Identity>,
    pub(super) state: Arc<InputState>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpListener),
    #[cfg(feature = "http")]
    Http(TcpListener),
    #[cfg(feature = "zmq")]
    Zmq(TcpListener, Option<TcpListener>),
    #[cfg(unix)]
    Unix(UnixListener, SocketFile),
    #[cfg(unix)]
    Unixgram(UnixDatagram, SocketFile),
}

/// Opens the input's socket; the error names the input.
pub(super) fn bind(input: Input) -> Result<Bound, RouterError> {
    let failed = |source| RouterError::Input { input: input.to_string(), source };
    #[cfg(feature = "tls")]
    let tls = input
        .tls
        .as_ref()
        .map(|files| tls::Identity::read(files, input.idle_deadline))
        .transpose()
        .map_err(failed)?;
    let (socket, address) = open(&input).map_err(failed)?;
    Ok(Bound {
        socket,
        input,
        #[cfg(feature = "tls")]
        tls,
        state: Arc::new(InputState::new(address)),
    })
}

/// The socket, and its address as a client's URL.
fn open(input: &Input) -> io::Result<(Socket, String)> {
    match &input.address {
        Address::Udp(address) => {
            let socket = UdpSocket::bind(address.as_str())?;
            socket.set_nonblocking(true)?;
            #[cfg(unix)]
            widen(&socket);
            let url = format!("udp://{}", socket.local_addr()?);
            Ok((Socket::Udp(socket), url))
        }
        Address::Tcp(address) => {
            let (listener, address) = listen(address)?;
            Ok((Socket::Tcp(listener), format!("{}://{address}", input.scheme("tcp", "tls"))))
        }
        #[cfg(feature = "http")]
        Address::Http(address) => {
            let (listener, address) = listen(address)?;
            Ok((Socket::Http(listener), format!("{}://{address}", input.scheme("http", "https"))))
        }
        #[cfg(feature = "zmq")]
        Address::Zmq { messages, handshake } => {
            let (listener, address) = listen(messages)?;
            let url = format!("zmq+tcp://{address}");
            let Some(handshake) = handshake else { return Ok((Socket::Zmq(listener, None), url)) };
            let (handshakes, address) = listen(handshake)?;
            Ok((Socket::Zmq(listener, Some(handshakes)), format!("{url}?handshake={address}")))
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let file = SocketFile::claim(path, |path| UnixStream::connect(path).map(drop))?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok((Socket::Unix(listener, file.bound()), format!("unix://{}", path.display())))
        }
        #[cfg(unix)]
        Address::Unixgram(path) => {
            let file = SocketFile::claim(path, |path| UnixDatagram::unbound()?.connect(path))?;
            let socket = UnixDatagram::bind(path)?;
            socket.set_nonblocking(true)?;
            widen(&socket);
            Ok((Socket::Unixgram(socket, file.bound()), format!("unixgram://{}", path.display())))
        }
        #[cfg(not(unix))]
        Address::Unix(_) | Address::Unixgram(_) => {
            Err(io::Error::new(ErrorKind::Unsupported, "Unix sockets are not available here"))
        }
    }
}

fn listen(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(unix)]
fn widen(socket: &impl AsFd) {
    use rustix::net::sockopt;
    // A router that may (CAP_NET_ADMIN) goes beyond the system's limit.
    #[cfg(target_os = "linux")]
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_ok() {
        return;
    }
    let _ = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES);
}

/// The file of a Unix socket, removed at the end.
#[cfg(unix)]
struct SocketFile {
    path: PathBuf,
    bound: bool,
}

#[cfg(unix)]
impl SocketFile {
    /// Makes way: removes the socket of a router that is gone. Anything else that is there is left alone, and the
    /// bind that follows says that the address is in use.
    fn claim(path: &Path, connect: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let is_dead = || connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if is_socket && is_dead() {
            std::fs::remove_file(path)?;
        }
        Ok(SocketFile { path: path.to_owned(), bound: false })
    }

    /// From here on the file is ours to remove.
    fn bound(mut self) -> Self {
        self.bound = true;
        self
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.bound {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// Starts reading, on a thread of its own that ends when `stop` says so.
    pub(super) fn start(
        self,
        dispatch: &Arc<Dispatch>,
        connections: &Arc<Connections>,
        stop: &Arc<Stop>,
    ) -> io::Result<JoinHandle<()>> {
        let Bound { socket, input, state, .. } = self;
        let intake = Intake::new(Arc::clone(dispatch), state);
        let stop = Arc::clone(stop);
        let server = Server {
            connections: Arc::clone(connections),
            stop: Arc::clone(&stop),
            input: input.clone(),
            #[cfg(feature = "zmq")]
            side: zmq::Side::Messages,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        match socket {
            Socket::Udp(socket) => {
                spawn("metlog-udp", move || read_datagrams(&socket, intake, &stop, &input))
            }
            Socket::Tcp(listener) => spawn("metlog-tcp", move || server.accept(&listener, &intake)),
            #[cfg(feature = "http")]
            Socket::Http(listener) => spawn("metlog-http", move || server.accept(&listener, &intake)),
            #[cfg(feature = "zmq")]
            Socket::Zmq(listener, None) => spawn("metlog-zmq", move || server.accept(&listener, &intake)),
            #[cfg(feature = "zmq")]
            Socket::Zmq(listener, Some(handshakes)) => {
                let answering = server.for_handshakes();
                let questions = intake.another();
                let answers = spawn("metlog-zmq-hs", move || answering.accept(&handshakes, &questions))?;
                spawn("metlog-zmq", move || {
                    server.accept(&listener, &intake);
                    let _ = answers.join();
                })
            }
            #[cfg(unix)]
            Socket::Unix(listener, file) => spawn("metlog-unix", move || {
                let _remove_at_end = file;
                server.accept(&listener, &intake);
            }),
            #[cfg(unix)]
            Socket::Unixgram(socket, file) => spawn("metlog-unixgram", move || {
                let _remove_at_end = file;
                read_datagrams(&socket, intake, &stop, &input);
            }),
        }
    }
}

/// A datagram socket, whatever its family.
trait Datagrams: super::stop::Waitable {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Datagrams for UdpSocket {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer)
    }
}

#[cfg(unix)]
impl Datagrams for UnixDatagram {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer)
    }
}

/// Reads until it is told to stop, and then what the socket still holds.
fn read_datagrams(socket: &impl Datagrams, mut intake: Intake, stop: &Stop, input: &Input) {
    let mut frames = frames::Datagrams::new(input);
    // One byte more than may be: a longer datagram is cut by the kernel, and shows by filling it.
    let mut buffer = vec![0; input.max_message_bytes.saturating_add(1)];
    while !stop.is_overdue() {
        // Asked before reading: what was sent before the stop is then sure to be read.
        let stopping = stop.is_requested();
        match socket.receive(&mut buffer) {
            Ok(length) => {
                intake.read(length);
                frames.take(&buffer[..length], &mut |frame| intake.frame(frame));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && stopping => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                intake.hand_over();
                stop.wait_readable(socket);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                intake.hand_over();
                add(&intake.input.errors, 1);
                stop.pause(ERROR_PAUSE);
            }
        }
    }
}

/// What a listener's thread needs.
struct Server {
    connections: Arc<Connections>,
    stop: Arc<Stop>,
    input: Input,
    #[cfg(feature = "zmq")]
    side: zmq::Side,
    #[cfg(feature = "tls")]
    tls: Option<tls::Identity>,
}

impl Server {
    /// The same for the other socket of a ZeroMQ input.
    #[cfg(feature = "zmq")]
    fn for_handshakes(&self) -> Server {
        Server {
            connections: Arc::clone(&self.connections),
            stop: Arc::clone(&self.stop),
            input: self.input.clone(),
            side: zmq::Side::Handshake,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Accepts until it is told to stop, and then who is still waiting to be accepted.
    fn accept(&self, listener: &impl Listener, intake: &Intake) {
        while !self.stop.is_overdue() {
            let stopping = self.stop.is_requested();
            match listener.accept_one() {
                Ok(stream) => self.admit(stream, intake),
                Err(error) if error.kind() == ErrorKind::WouldBlock && stopping => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stop.wait_readable(listener),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    add(&intake.input.errors, 1);
                    self.stop.pause(ERROR_PAUSE);
                }
            }
        }
    }

    fn admit(&self, stream: Arc<dyn Stream>, intake: &Intake) {
        add(&intake.input.connections, 1);
        let full = intake.input.open.load(Relaxed) >= self.input.max_connections as u64;
        if full {
            self.turn_away(&*stream);
        }
        if full || self.serve(stream, intake.another()).is_err() {
            // The stream is dropped, that is closed: the client learns of it at once.
            add(&intake.input.refused, 1);
        }
    }

    /// Tells a client that nobody has time for it, if there is a way to.
    fn turn_away(&self, stream: &dyn Stream) {
        #[cfg(feature = "http")]
        if matches!(self.input.address, Address::Http(_)) && self.input.scheme("http", "https") == "http" {
            // A fresh connection has room for so little, and who has gone needs no answer.
            let _ = stream.write_some(http::NO_ROOM);
        }
        let _ = stream;
    }

    fn serve(&self, stream: Arc<dyn Stream>, intake: Intake) -> io::Result<()> {
        stream.prepare(self.input.idle_deadline)?;
        let entry = self.connections.enter(Arc::clone(&stream), Arc::clone(&intake.input));
        let (stop, input) = (Arc::clone(&self.stop), self.input.clone());
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        #[cfg(feature = "zmq")]
        let side = self.side;
        spawn("metlog-client", move || {
            // Dropped after the reading has ended and everything was handed over.
            let _leave_at_end = entry;
            let mut plain = Plain::over(stream);
            #[cfg(feature = "zmq")]
            if matches!(input.address, Address::Zmq { .. }) {
                return zmq::serve(&mut plain, intake, &stop, side, input.max_message_bytes);
            }
            #[cfg(feature = "tls")]
            if let Some(tls) = tls {
                return match tls.accept(plain) {
                    Ok(mut encrypted) => {
                        talk(&mut encrypted, intake, &stop, &input);
                        // A client that has ended first may have gone already.
                        encrypted.conn.send_close_notify();
                        let _ = io::Write::flush(&mut encrypted);
                    }
                    Err(_) => add(&intake.input.errors, 1),
                };
            }
            talk(&mut plain, intake, &stop, &input);
        })
        .map(drop)
    }
}

/// What a client may be talked to with.
#[cfg(feature = "http")]
use http::Conversation;
#[cfg(not(feature = "http"))]
use Read as Conversation;

/// Serves one connection in the way of its input.
fn talk(stream: &mut impl Conversation, intake: Intake, stop: &Stop, input: &Input) {
    #[cfg(feature = "http")]
    if matches!(input.address, Address::Http(_)) {
        let limits = http::Limits {
            body_bytes: input.max_body_bytes,
            bodies_bytes: input.bodies_bytes(),
            message_bytes: input.max_message_bytes,
            idle: input.idle_deadline.unwrap_or(Duration::from_secs(86_400)),
        };
        return http::serve(stream, intake, stop, limits);
    }
    read_stream(stream, intake, stop, input);
}

/// Reads one connection to its end, or to the deadline of a shutdown.
fn read_stream(stream: &mut impl Read, mut intake: Intake, stop: &Stop, input: &Input) {
    let mut frames = Frames::new(input);
    let mut buffer = vec![0; READ_BYTES];
    while !stop.is_overdue() {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                intake.read(length);
                frames.push(&buffer[..length], &mut |frame| intake.frame(frame));
                intake.hand_over();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => {
                add(&intake.input.errors, 1);
                break;
            }
        }
    }
    frames.finish(&mut |frame| intake.frame(frame));
}

/// Every open connection of a router.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<dyn Stream>>>,
    left: Condvar,
    next: AtomicU64,
}

impl Connections {
    fn enter(self: &Arc<Self>, stream: Arc<dyn Stream>, input: Arc<InputState>) -> Entry {
        let number = self.next.fetch_add(1, Relaxed);
        add(&input.open, 1);
        lock(&self.open).insert(number, stream);
        Entry { connections: Arc::clone(self), input, number }
    }

    /// Waits until the last connection is closed, but not beyond `deadline`.
    pub(super) fn wait_closed(&self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let _ = self.left.wait_timeout_while(lock(&self.open), patience, |open| !open.is_empty());
    }

    /// Ends the reading of every connection.
    pub(super) fn close(&self) {
        lock(&self.open).values().for_each(|stream| stream.close());
    }
}

/// One connection's place among the open ones; given up when its thread ends, however it ends.
struct Entry {
    connections: Arc<Connections>,
    input: Arc<InputState>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.input.open.fetch_sub(1, Relaxed);
        lock(&self.connections.open).remove(&self.number);
        self.connections.left.notify_all();
    }
}
