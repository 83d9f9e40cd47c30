//! `zmq+tcp://host:port`: ZeroMQ, as metlog-py speaks it. A PUB socket that connects; one message is one part, its JSON.
//!
//! In: batches. Out: parts on a connection whose other end is a SUB socket that has subscribed. ZeroMQ's own rule is that
//! a PUB drops what nobody has subscribed to yet, and what is queued for a slow subscriber beyond its high-water mark; here
//! nothing is written before there is a subscription, and what is written stays in the batch until the receiver's kernel
//! has it, as over TCP: see [`stream`](super::stream) for what can be lost. With `spill=stderr`, what cannot be sent now
//! is written there, and lost (`spilled`).
//!
//! The protocol (ZMTP 3.1) is `omq-proto`'s; the sockets are ours, so that their deadlines and their account are too.

use std::fmt;
use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use omq_proto::proto::connection::{Connection, ConnectionConfig, Event, Role};
use omq_proto::proto::Command;
use omq_proto::{Message, SocketType};

use super::super::address::ZmqOptions;
use super::super::batch::Batch;
use super::super::framing::Framing;
use super::socket::{self, Ready};
use super::stdio::Stdio;
use super::stream::{Connect, Stream};
use super::tcp::Connector;
use super::Transport;
use crate::stats::LossReason;

/// How long the other end has to speak ZMTP and to subscribe, before the connection is begun anew.
const SUBSCRIPTION_TIME: Duration = Duration::from_secs(10);

/// How long a handshake that failed is taken to fail again: a receiver that starts is found soon.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Bytes of one read: the other end has little to say.
const READ_BYTES: usize = 4096;

/// Messages to a SUB socket.
pub(super) struct Zmq {
    stream: Stream<ZmqConnector>,
    check: Option<Check>,
    spill: Option<Spill>,
}

impl Zmq {
    pub(super) fn to(host: &str, port: u16, options: &ZmqOptions) -> Self {
        let connector = ZmqConnector { tcp: Connector::to(host, port), begun: None };
        let window = options.hwm.unwrap_or(usize::MAX);
        Zmq {
            stream: Stream::new(connector, Framing::Zmtp).with_window(window),
            check: options.handshake.as_ref().map(|(host, port)| Check {
                receiver: Connector::to(host, *port),
                timeout: options.handshake_timeout,
                every: options.livecheck,
                last: None,
                asked: None,
            }),
            spill: options.spill.then(Spill::default),
        }
    }
}

impl Transport for Zmq {
    fn framing(&self) -> Framing {
        Framing::Zmtp
    }

    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let before = (batch.len(), batch.unconfirmed_bytes());
        let checked = match &mut self.check {
            // What is written is with the receiver's kernel or on its way: whether somebody answers changes nothing.
            Some(check) if batch.has_unwritten() => check.is_answered(deadline),
            _ => Ok(()),
        };
        let outcome = match checked {
            Ok(()) => self.stream.send(batch, deadline),
            // What has arrived must not be spilled, nor be sent again.
            Err(error) => {
                self.stream.settle(batch);
                Err(error)
            }
        };
        let Some(spill) = &mut self.spill else { return outcome };
        if (batch.len(), batch.unconfirmed_bytes()) != before {
            spill.forget();
        }
        match outcome {
            // Slow is not gone.
            Err(error) if !socket::is_deadline(&error) => {
                batch.rewind();
                spill.write(batch, deadline)
            }
            outcome => outcome,
        }
    }

    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        self.stream.close(deadline)
    }
}

/// Lines on stderr in place of messages to a receiver that is not there.
///
/// A stderr that stalls leaves some of the lines here, for as long as nothing else becomes of their messages.
struct Spill {
    lines: Batch,
    /// It knows how much of a line is out: kept, so that the line goes on and is not begun again.
    stderr: Stdio,
}

impl Default for Spill {
    fn default() -> Self {
        Spill { lines: Batch::default(), stderr: Stdio::error() }
    }
}

impl Spill {
    /// Some of the messages went another way: lines that are left are none of those that will have to be spilled.
    fn forget(&mut self) {
        *self = Spill::default();
    }

    fn write(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        // The worker may have given up the batch that the lines are of.
        if self.lines.is_empty() || !self.is_of(batch) {
            self.forget();
            for frame in batch.frames() {
                self.lines.push(|out| Framing::Newline.write(Framing::Zmtp.message(frame), out));
            }
        }
        let before = self.lines.len();
        let outcome = self.stderr.send(&mut self.lines, deadline);
        (self.lines.len()..before).for_each(|_| batch.lost(LossReason::Spilled));
        outcome
    }

    /// Whether the lines are those of the first messages: more may have come behind them.
    fn is_of(&self, batch: &Batch) -> bool {
        let messages = batch.frames().map(|frame| Framing::Zmtp.message(frame));
        self.lines.len() <= batch.len()
            && self
                .lines
                .frames()
                .map(|line| Framing::Newline.message(line))
                .eq(messages.take(self.lines.len()))
    }
}

/// The handshake of metlog-py's `ZmqHandshakePubSender`: a REQ socket sends an empty message to a REP socket of the
/// receiver, and any answer says that somebody is there.
struct Check {
    receiver: Connector,
    timeout: Duration,
    every: Duration,
    /// When it was last asked, and why there was no answer, if there was none.
    last: Option<(Instant, Result<(), String>)>,
    /// A question that a deadline came before the answer of.
    asked: Option<Asked>,
}

/// A question on its way.
struct Asked {
    peer: Peer,
    at: Instant,
    /// When somebody last listened for the answer.
    heard: Instant,
    /// Whether it is said, and only the answer is missing.
    is_said: bool,
}

impl Check {
    fn is_answered(&mut self, deadline: Instant) -> io::Result<()> {
        match &self.last {
            Some((at, Ok(()))) if at.elapsed() < self.every => return Ok(()),
            Some((at, Err(problem))) if at.elapsed() < FAILED_FOR.min(self.every) => {
                return Err(no_answer(problem));
            }
            _ => {}
        }
        let answer = self.ask(deadline);
        // Not said yet, and there is time.
        if answer.as_ref().is_err_and(socket::is_deadline) {
            return answer;
        }
        let answer = answer.map_err(|error| error.to_string());
        self.last = Some((Instant::now(), answer.clone()));
        answer.map_err(no_answer)
    }

    fn ask(&mut self, deadline: Instant) -> io::Result<()> {
        let begun = Instant::now();
        // If nobody listened for as long as an answer may take, that there is none says nothing. The question's own age
        // does not tell: a deadline just before its end must not have it asked again for ever.
        let fresh = self.asked.take().filter(|asked| asked.heard.elapsed() < self.timeout);
        let mut asked = match fresh {
            Some(asked) => asked,
            None => {
                let tcp = self.receiver.connect(deadline.min(begun + self.timeout))?;
                Asked { peer: Peer::over(tcp, SocketType::Req), at: begun, heard: begun, is_said: false }
            }
        };
        match asked.go_on(deadline.min(asked.at + self.timeout)) {
            Err(error) if socket::is_deadline(&error) && asked.at.elapsed() < self.timeout => {
                asked.heard = Instant::now();
                self.asked = Some(asked);
                Err(error)
            }
            Err(error) if socket::is_deadline(&error) => {
                let problem = format!("none within {} ms", self.timeout.as_millis());
                Err(io::Error::new(io::ErrorKind::NotConnected, problem))
            }
            outcome => outcome,
        }
    }
}

impl Asked {
    fn go_on(&mut self, until: Instant) -> io::Result<()> {
        if !self.is_said {
            self.peer.until(until, |event| matches!(event, Event::HandshakeSucceeded { .. }))?;
            // The empty part in front is what a REQ socket puts before every request.
            let question = Message::multipart([Bytes::new(), Bytes::new()]);
            self.peer.codec.send_message(&question).map_err(broken)?;
            self.is_said = true;
        }
        self.peer.until(until, |event| matches!(event, Event::Message(_)))
    }
}

/// Never [`socket::timed_out`]: a receiver that does not answer is down.
fn no_answer(problem: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("no answer to the ZeroMQ handshake: {problem}"))
}

fn broken(problem: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("ZeroMQ: {problem}"))
}

/// Connects, and waits for a subscription.
pub(super) struct ZmqConnector {
    tcp: Connector,
    /// A connection that a deadline came before.
    begun: Option<(Peer, Instant)>,
}

impl fmt::Debug for ZmqConnector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ZmqConnector").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Connect for ZmqConnector {
    type Socket = TcpStream;

    fn connect(&mut self, deadline: Instant) -> io::Result<TcpStream> {
        let (mut peer, at) = match self.begun.take() {
            Some(begun) => begun,
            None => (Peer::over(self.tcp.connect(deadline)?, SocketType::Pub), Instant::now()),
        };
        match peer.until(deadline, is_subscription) {
            Ok(()) => Ok(peer.tcp),
            Err(error) if !socket::is_deadline(&error) => Err(error),
            Err(_) if at.elapsed() >= SUBSCRIPTION_TIME => {
                let problem = format!("no subscription within {} s", SUBSCRIPTION_TIME.as_secs());
                Err(io::Error::new(io::ErrorKind::NotConnected, problem))
            }
            Err(error) => {
                self.begun = Some((peer, at));
                Err(error)
            }
        }
    }
}

/// A command, or from a peer of ZMTP 3.0 a message. To what it subscribes is the subscriber's to sort out: it does.
fn is_subscription(event: &Event) -> bool {
    match event {
        Event::Command(command) => matches!(command, Command::Subscribe(_)),
        Event::Message(message) => message.get(0).is_some_and(|part| part.first() == Some(&1)),
        Event::HandshakeSucceeded { .. } => false,
    }
}

/// A connection while ZMTP is spoken on it in both directions.
struct Peer {
    tcp: TcpStream,
    codec: Connection,
}

impl Peer {
    /// More than any command is long, and little enough for whoever is there.
    const MOST_BYTES: usize = 64 * 1024;

    fn over(tcp: TcpStream, socket_type: SocketType) -> Self {
        let config = ConnectionConfig::new(Role::Client, socket_type).max_message_size(Self::MOST_BYTES);
        Peer { tcp, codec: Connection::new(config) }
    }

    /// Talks until `is_it` says so of something that the other end has said, and everything of ours is sent.
    fn until(&mut self, deadline: Instant, is_it: impl Fn(&Event) -> bool) -> io::Result<()> {
        loop {
            self.push(deadline)?;
            while let Some(event) = self.heard() {
                if is_it(&event) {
                    return self.push(deadline);
                }
            }
            self.pull(deadline)?;
        }
    }

    /// Messages have a queue of their own.
    fn heard(&mut self) -> Option<Event> {
        self.codec.poll_event().or_else(|| self.codec.poll_message().map(Event::Message))
    }

    fn push(&mut self, deadline: Instant) -> io::Result<()> {
        while self.codec.has_pending_transmit() {
            let bytes = self.codec.poll_transmit();
            match socket::send(&self.tcp, &bytes) {
                Ok(count) => self.codec.advance_transmit(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket::wait(&self.tcp, Ready::Write, deadline)?;
                }
                Err(error) => return Err(socket::as_down(error)),
            }
        }
        Ok(())
    }

    fn pull(&mut self, deadline: Instant) -> io::Result<()> {
        let mut space = [0; READ_BYTES];
        match self.tcp.read(&mut space) {
            Ok(0) => {
                let problem = "the receiver closed the connection during the ZeroMQ handshake";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem))
            }
            Ok(count) => self.codec.handle_input(Bytes::copy_from_slice(&space[..count])).map_err(broken),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket::wait(&self.tcp, Ready::Read, deadline)
            }
            Err(error) => Err(socket::as_down(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::support::{batch_of, soon};
    use super::*;

    #[test]
    fn lines_that_are_left_of_messages_that_went_another_way_are_not_those_of_the_next_ones() {
        let first = batch_of(Framing::Zmtp, &["one", "two", "three"]);
        let mut spill = Spill { lines: batch_of(Framing::Newline, &["one", "two"]), ..Spill::default() };
        assert!(spill.is_of(&first), "more have come behind them");
        assert!(!spill.is_of(&batch_of(Framing::Zmtp, &["four", "five", "six"])));
        assert!(!spill.is_of(&batch_of(Framing::Zmtp, &["one"])));
        spill.forget();
        assert!(spill.lines.is_empty());
    }

    #[test]
    fn a_question_that_nobody_listened_to_is_asked_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut check = Check {
            receiver: Connector::to("127.0.0.1", listener.local_addr().unwrap().port()),
            timeout: Duration::from_secs(2),
            every: Duration::from_secs(1),
            last: None,
            asked: None,
        };
        let moment = || Instant::now() + Duration::from_millis(20);
        while check.asked.is_none() {
            assert!(socket::is_deadline(&check.is_answered(moment()).unwrap_err()));
        }
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        check.asked.iter_mut().for_each(|asked| (asked.at, asked.heard) = (long_ago, long_ago));
        assert!(socket::is_deadline(&check.is_answered(moment()).unwrap_err()));
        // One that somebody listened to until a moment ago has had its time.
        check.asked.iter_mut().for_each(|asked| asked.at = long_ago);
        let error = check.is_answered(soon()).unwrap_err();
        assert!(error.to_string().contains("none within 2000 ms"), "{error}");
    }

    #[test]
    fn nobody_is_asked_about_what_is_only_to_be_confirmed() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, options) = (String::from("127.0.0.1"), ZmqOptions::default());
        let options = ZmqOptions { handshake: Some((host, nobody)), ..options };
        let mut zmq = Zmq::to("127.0.0.1", nobody, &options);
        let mut batch = batch_of(Framing::Zmtp, &["one"]);
        batch.wrote(batch.unwritten().len());
        let _ = zmq.send(&mut batch, soon());
        assert!(zmq.check.as_ref().unwrap().last.is_none());
        // Nobody holds it: it is to be written, and somebody must be there.
        assert!(batch.has_unwritten());
        zmq.send(&mut batch, soon()).unwrap_err();
        assert!(zmq.check.as_ref().unwrap().last.is_some());
    }
}
