//! The sockets. In: bytes from clients, friendly or not. Out: frames.
//!
//! One thread for each socket and one for each connection. Lost here: datagrams that the kernel has no room for
//! (`kernel_dropped`), connections and datagrams that are not allowed, too many or too slow (`refused`), and at shutdown what
//! clients have not sent by the deadline.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::budget::Share;
use super::config::{Address, Input};
use super::connection::{Client, Conversation, Listener, Plain, Stream};
use super::connections::Connections;
use super::counters::{add, InputState};
use super::deadlines::{Deadlines, Over};
use super::dispatch::{Dispatch, Intake};
use super::frames::{self, Frames};
#[cfg(feature = "http")]
use super::http;
use super::kernel_drops::KernelDrops;
use super::peers::Network;
use super::refused::RefusedReason;
use super::stop::Stop;
#[cfg(feature = "tls")]
use super::tls;
#[cfg(feature = "zmq")]
use super::zmq;
use super::{spawn, RouterError};

/// What one read of a connection takes at first: most say little, and there may be a thousand.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// What it takes once it has filled that, and that again.
const READ_BYTES: usize = 64 * 1024;

/// The same while more than so many connections are open, so that their buffers do not add up.
const CROWDED_READ_BYTES: usize = 16 * 1024;
const CROWD: u64 = 64;

/// What each connection may hold of an unfinished message without asking for room: more than nearly all messages are long.
const OWN_BYTES: usize = 16 * 1024;

/// Clients that may wait to be accepted.
#[cfg(unix)]
const BACKLOG: i32 = 4096;

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
    Unix(UnixListener, Arc<SocketFile>),
    #[cfg(unix)]
    Unixgram(UnixDatagram, Arc<SocketFile>),
}

impl Socket {
    /// Its address as a client's URL.
    fn url(&self, input: &Input) -> io::Result<String> {
        Ok(match self {
            Socket::Udp(socket) => format!("udp://{}", socket.local_addr()?),
            Socket::Tcp(listener) => format!("{}://{}", input.scheme("tcp", "tls"), listener.local_addr()?),
            #[cfg(feature = "http")]
            Socket::Http(listener) => {
                format!("{}://{}", input.scheme("http", "https"), listener.local_addr()?)
            }
            #[cfg(feature = "zmq")]
            Socket::Zmq(listener, None) => format!("zmq+tcp://{}", listener.local_addr()?),
            #[cfg(feature = "zmq")]
            Socket::Zmq(listener, Some(handshakes)) => {
                format!("zmq+tcp://{}?handshake={}", listener.local_addr()?, handshakes.local_addr()?)
            }
            #[cfg(unix)]
            Socket::Unix(_, file) => format!("unix://{}", file.path.display()),
            #[cfg(unix)]
            Socket::Unixgram(_, file) => format!("unixgram://{}", file.path.display()),
        })
    }

    /// Gives a datagram socket the receive buffer that its new input asks for.
    fn widen(&self, input: &Input) {
        match self {
            #[cfg(unix)]
            Socket::Udp(socket) => widen(socket, input.buffer_bytes()),
            #[cfg(unix)]
            Socket::Unixgram(socket, _) => widen(socket, input.buffer_bytes()),
            _ => {}
        }
    }

    /// The same socket once more.
    fn another(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Udp(socket) => Socket::Udp(socket.try_clone()?),
            Socket::Tcp(listener) => Socket::Tcp(listener.try_clone()?),
            #[cfg(feature = "http")]
            Socket::Http(listener) => Socket::Http(listener.try_clone()?),
            #[cfg(feature = "zmq")]
            Socket::Zmq(listener, handshakes) => {
                let handshakes = handshakes.as_ref().map(TcpListener::try_clone).transpose()?;
                Socket::Zmq(listener.try_clone()?, handshakes)
            }
            #[cfg(unix)]
            Socket::Unix(listener, file) => Socket::Unix(listener.try_clone()?, Arc::clone(file)),
            #[cfg(unix)]
            Socket::Unixgram(socket, file) => Socket::Unixgram(socket.try_clone()?, Arc::clone(file)),
        })
    }
}

/// A socket that is kept for a successor: an input of the same address that is told something else.
pub(super) struct Kept(Socket);

/// Opens the input's socket, or takes that of its predecessor; the error names the input.
pub(super) fn bind(input: Input, predecessor: Option<&Kept>) -> Result<Bound, RouterError> {
    let failed = |source| RouterError::Input { input: input.to_string(), source };
    #[cfg(feature = "tls")]
    let tls = input
        .tls
        .as_ref()
        .map(|files| tls::Identity::read(files, input.message_time()))
        .transpose()
        .map_err(failed)?;
    input.check().map_err(failed)?;
    let socket = match predecessor {
        Some(Kept(socket)) => socket.another().inspect(|socket| socket.widen(&input)),
        None => open(&input),
    }
    .map_err(failed)?;
    let address = socket.url(&input).map_err(failed)?;
    let mut state = InputState::of(address, &input);
    socket.describe(&mut state);
    Ok(Bound {
        socket,
        input,
        #[cfg(feature = "tls")]
        tls,
        state: Arc::new(state),
    })
}

fn open(input: &Input) -> io::Result<Socket> {
    Ok(match &input.address {
        Address::Udp(address) => {
            let socket = UdpSocket::bind(address.as_str())?;
            socket.set_nonblocking(true)?;
            #[cfg(unix)]
            widen(&socket, input.buffer_bytes());
            Socket::Udp(socket)
        }
        Address::Tcp(address) => Socket::Tcp(listen(address)?),
        #[cfg(feature = "http")]
        Address::Http(address) => Socket::Http(listen(address)?),
        #[cfg(feature = "zmq")]
        Address::Zmq { messages, handshake } => {
            let handshakes = handshake.as_deref().map(listen).transpose()?;
            Socket::Zmq(listen(messages)?, handshakes)
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let file = SocketFile::claim(path, |path| UnixStream::connect(path).map(drop))?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            lengthen_backlog(&listener);
            Socket::Unix(listener, Arc::new(file.bound()))
        }
        #[cfg(unix)]
        Address::Unixgram(path) => {
            let file = SocketFile::claim(path, |path| UnixDatagram::unbound()?.connect(path))?;
            let socket = UnixDatagram::bind(path)?;
            socket.set_nonblocking(true)?;
            widen(&socket, input.buffer_bytes());
            Socket::Unixgram(socket, Arc::new(file.bound()))
        }
        #[cfg(not(unix))]
        Address::Unix(_) | Address::Unixgram(_) => {
            return Err(io::Error::new(ErrorKind::Unsupported, "Unix sockets are not available here"));
        }
    })
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    #[cfg(unix)]
    lengthen_backlog(&listener);
    Ok(listener)
}

/// Lets more clients wait to be accepted than the 128 of the standard library: when a thousand come at once, Linux forgets
/// those beyond, and they wait for an answer that never comes.
#[cfg(unix)]
fn lengthen_backlog(listener: &impl AsFd) {
    // What the system does not allow (`net.core.somaxconn`), it cuts; a failure leaves what there was.
    let _ = rustix::net::listen(listener, BACKLOG);
}

#[cfg(unix)]
fn widen(socket: &impl AsFd, bytes: usize) {
    use rustix::net::sockopt;
    // Linux reads the number as one of 32 bits with a sign, and doubles it.
    let bytes = bytes.min(i32::MAX as usize / 2);
    // A router that may (CAP_NET_ADMIN) goes beyond the system's limit.
    #[cfg(target_os = "linux")]
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_ok() {
        return;
    }
    let _ = sockopt::set_socket_recv_buffer_size(socket, bytes);
}

/// What it became, in the measure in which it is asked for: Linux tells twice as much.
#[cfg(unix)]
fn width(socket: &impl AsFd) -> usize {
    let told = rustix::net::sockopt::socket_recv_buffer_size(socket).unwrap_or(0);
    told / if cfg!(target_os = "linux") { 2 } else { 1 }
}

impl Socket {
    /// Notes what the counters tell of the socket itself.
    #[cfg(unix)]
    fn describe(&self, state: &mut InputState) {
        match self {
            Socket::Udp(socket) => {
                state.kernel_drops = KernelDrops::of(socket);
                state.receive_buffer_bytes = width(socket);
            }
            Socket::Unixgram(socket, _) => state.receive_buffer_bytes = width(socket),
            _ => {}
        }
    }

    #[cfg(not(unix))]
    fn describe(&self, _: &mut InputState) {}
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
    /// Its socket, for a successor.
    pub(super) fn keep(&self) -> io::Result<Kept> {
        self.socket.another().map(Kept)
    }

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
    /// The next one's length, and whether its sender is one of `allow`, or everybody if that is empty.
    fn receive(&self, buffer: &mut [u8], allow: &[Network]) -> io::Result<(usize, bool)>;
}

impl Datagrams for UdpSocket {
    fn receive(&self, buffer: &mut [u8], allow: &[Network]) -> io::Result<(usize, bool)> {
        if allow.is_empty() {
            return Ok((self.recv(buffer)?, true));
        }
        let (length, peer) = self.recv_from(buffer)?;
        Ok((length, is_allowed(Some(peer.ip()), allow)))
    }
}

#[cfg(unix)]
impl Datagrams for UnixDatagram {
    fn receive(&self, buffer: &mut [u8], _: &[Network]) -> io::Result<(usize, bool)> {
        Ok((self.recv(buffer)?, true))
    }
}

fn is_allowed(peer: Option<IpAddr>, allow: &[Network]) -> bool {
    allow.is_empty() || peer.is_some_and(|peer| allow.iter().any(|network| network.contains(peer)))
}

/// Reads until it is told to stop, and then what the socket still holds.
fn read_datagrams(socket: &impl Datagrams, intake: Intake, stop: &Stop, input: &Input) {
    let state = Arc::clone(&intake.input);
    read_until_stopped(socket, intake, stop, input);
    // The last look while the socket is still there to be looked at.
    state.kernel_drops.as_ref().map(KernelDrops::count);
}

fn read_until_stopped(socket: &impl Datagrams, mut intake: Intake, stop: &Stop, input: &Input) {
    let (mut frames, allow) = (frames::Datagrams::new(input), &input.limits.allow);
    // One byte more than may be: a longer datagram is cut by the kernel, and shows by filling it.
    let mut buffer = vec![0; input.max_message_bytes.saturating_add(1)];
    // Under a flood a socket is never empty: what is left in it, a successor reads.
    while !stop.is_overdue() && !stop.is_superseded() {
        // Asked before reading: what was sent before the stop is then sure to be read.
        let stopping = stop.is_requested();
        match socket.receive(&mut buffer, allow) {
            Ok((_, false)) => {
                intake.input.refused.count(RefusedReason::NotAllowed);
                intake.passed();
            }
            Ok((length, true)) => {
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

    /// What the connections of this input are taken apart by.
    fn frames(&self) -> Frames {
        #[cfg(feature = "zmq")]
        if matches!(self.input.address, Address::Zmq { .. }) {
            return Frames::Zmq(Box::new(zmq::Peer::new(self.side, self.input.max_message_bytes)));
        }
        Frames::new(&self.input)
    }

    /// Accepts until it is told to stop, and then who is still waiting to be accepted.
    fn accept(&self, listener: &impl Listener, intake: &Intake) {
        // Who is still waiting, a successor accepts: perhaps with a newer certificate.
        while !self.stop.is_overdue() && !self.stop.is_superseded() {
            let stopping = self.stop.is_requested();
            match listener.accept_one() {
                Ok(client) => self.admit(client, intake),
                Err(error) if error.kind() == ErrorKind::WouldBlock && stopping => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stop.wait_readable(listener),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    add(&intake.input.errors, 1);
                    if is_out_of_descriptors(&error) {
                        self.connections.make_room(&intake.input);
                    }
                    self.stop.pause(ERROR_PAUSE);
                }
            }
        }
    }

    fn admit(&self, client: Client, intake: &Intake) {
        add(&intake.input.connections, 1);
        let stream = Arc::clone(&client.0);
        if let Err(reason) = self.serve(client, intake) {
            intake.input.refused.count(reason);
            // Then the stream is dropped, that is closed: the client learns of it at once.
            self.turn_away(&*stream, reason);
        }
    }

    /// Tells a client that there is no place for it, if there is a way to. Who is not allowed is told nothing.
    fn turn_away(&self, stream: &dyn Stream, reason: RefusedReason) {
        #[cfg(feature = "http")]
        if matches!(self.input.address, Address::Http(_)) && self.input.scheme("http", "https") == "http" {
            if let Some(answer) = http::turned_away(reason) {
                // A fresh connection has room for so little, and who has gone needs no answer.
                let _ = stream.write_some(answer);
            }
        }
        let _ = (stream, reason);
    }

    fn serve(&self, client: Client, intake: &Intake) -> Result<(), RefusedReason> {
        let (stream, peer) = client;
        if !is_allowed(peer, &self.input.limits.allow) {
            return Err(RefusedReason::NotAllowed);
        }
        let entry = self.connections.enter(&self.input, &intake.input, (&stream, peer))?;
        let (stop, input, intake) = (Arc::clone(&self.stop), self.input.clone(), intake.another());
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        let frames = self.frames();
        let run = move || {
            // Dropped after the reading has ended and everything was handed over.
            let entry = entry;
            if stream.prepare().is_err() {
                return add(&intake.input.errors, 1);
            }
            let mut plain = Plain::over(stream);
            #[cfg(feature = "tls")]
            if let Some(tls) = tls {
                return match tls.accept(plain) {
                    Ok(mut encrypted) => {
                        talk(&mut encrypted, frames, intake, &stop, &input, &entry.has_spoken);
                        // A client that has ended first may have gone already.
                        encrypted.conn.send_close_notify();
                        let _ = io::Write::flush(&mut encrypted);
                    }
                    Err(error) if is_timeout(&error) => intake.input.refused.count(RefusedReason::TooSlow),
                    Err(_) => add(&intake.input.errors, 1),
                };
            }
            talk(&mut plain, frames, intake, &stop, &input, &entry.has_spoken);
        };
        spawn("metlog-client", run).map(drop).map_err(|_| RefusedReason::NoThread)
    }
}

/// Whether the process, or the system, has all the files open that it may.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Serves one connection in the way of its input. `has_spoken` is set when a whole message has come.
fn talk(
    stream: &mut impl Conversation,
    frames: Frames,
    intake: Intake,
    stop: &Stop,
    input: &Input,
    has_spoken: &AtomicBool,
) {
    #[cfg(feature = "http")]
    if matches!(input.address, Address::Http(_)) {
        let limits = http::Limits {
            body_bytes: input.max_body_bytes,
            message_bytes: input.max_message_bytes,
            message: input.message_time(),
            idle: input.idle_deadline.unwrap_or(Duration::from_secs(86_400)),
        };
        return http::serve(stream, intake, stop, limits, has_spoken);
    }
    read_stream(stream, frames, intake, stop, input, has_spoken);
}

/// Reads one connection to its end, to the end of its time, or to the deadline of a shutdown.
fn read_stream(
    stream: &mut impl Conversation,
    mut frames: Frames,
    mut intake: Intake,
    stop: &Stop,
    input: &Input,
    has_spoken: &AtomicBool,
) {
    let mut share = Share::beyond(OWN_BYTES, &intake.input.unfinished);
    let mut buffer = vec![0; FIRST_READ_BYTES];
    let mut clock = Deadlines::new(input.idle_deadline, input.message_time(), Instant::now());
    while !stop.is_overdue() {
        let now = Instant::now();
        let patience = match clock.left(now) {
            Ok(patience) => patience,
            Err(Over::Idle) => {
                add(&intake.input.idle, 1);
                break;
            }
            Err(Over::Slow) => {
                intake.input.refused.count(RefusedReason::TooSlow);
                break;
            }
        };
        let asked = frames.answer(stream).and_then(|()| stream.set_patience(patience));
        match asked.and_then(|()| stream.read(&mut buffer)) {
            Ok(0) => break,
            Ok(length) => {
                intake.read(length);
                let (mut has_ended, mut is_message) = (false, false);
                frames.push(&buffer[..length], &mut |frame| {
                    (has_ended, is_message) = (true, is_message | frame.is_ok());
                    intake.frame(frame);
                });
                // First of all: who sees a message at an output may come back at once, and find it keeps its place.
                if is_message && !has_spoken.load(Relaxed) {
                    has_spoken.store(true, Relaxed);
                }
                intake.hand_over();
                if frames.is_over() {
                    break;
                }
                clock.heard(Instant::now(), has_ended, frames.is_between());
                if !share.hold(frames.held_bytes()) {
                    intake.input.refused.count(RefusedReason::NoRoom);
                    break;
                }
                if length == buffer.len() {
                    let is_crowded = intake.input.open.load(Relaxed) > CROWD;
                    let most = if is_crowded { CROWDED_READ_BYTES } else { READ_BYTES };
                    buffer.resize((length * 4).min(most).max(length), 0);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => clock.waited(now, stream.has_heard()),
            Err(_) => {
                add(&intake.input.errors, 1);
                break;
            }
        }
    }
    frames.finish(&mut |frame| intake.frame(frame));
}
