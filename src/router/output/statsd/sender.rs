//! Lines into datagrams, on the thread of the output. In: metrics, each of one or two lines, framed by their length (2
//! bytes). Out: datagrams of whole metrics.
//!
//! Lost here: a datagram that cannot be sent, or of which word comes that nobody received it. The word is that of the
//! host that was sent to: from this machine it comes at once, from another later, and then costs the datagram sent last.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::router::output::{Batch, Context, Writer};

/// How long a line waits for others: far below the interval at which any statsd flushes.
const LINGER: Duration = Duration::from_millis(10);

/// How often a name is looked up when all is well.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// How often it is when it is not.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(1);

const LENGTH: usize = 2;

/// Appends a metric as [`Sender`] reads it.
pub(super) fn frame(metric: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let length =
        u16::try_from(metric.len()).map_err(|_| String::from("a metric of more than 65,535 bytes"))?;
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(metric.as_bytes());
    Ok(())
}

fn unframe(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(LENGTH)?;
    rest.split_at_checked(u16::from_ne_bytes([length[0], length[1]]).into())
}

/// Every address of a name.
pub(super) type Resolve = Box<dyn FnMut(&str) -> io::Result<Vec<SocketAddr>> + Send>;

/// See the module.
pub(super) struct Sender {
    address: String,
    limit: usize,
    resolve: Resolve,
    server: Option<Server>,
    /// Not before then is the name looked up again.
    next_look: Instant,
    datagram: Vec<u8>,
    count: u64,
    due: Option<Instant>,
}

/// A socket that is connected: only such a one is told of refusals.
struct Server {
    socket: UdpSocket,
    address: SocketAddr,
    /// It has refused a datagram.
    refused: bool,
}

impl Sender {
    pub(super) fn new(address: String, limit: usize, resolve: Resolve) -> Self {
        let (datagram, next_look) = (Vec::with_capacity(limit), Instant::now());
        Sender { address, limit, resolve, server: None, next_look, datagram, count: 0, due: None }
    }

    fn push(&mut self, metric: &[u8], context: &Context) {
        if !self.datagram.is_empty() && self.datagram.len() + 1 + metric.len() > self.limit {
            self.flush(context);
        }
        if !self.datagram.is_empty() {
            self.datagram.push(b'\n');
        }
        self.datagram.extend_from_slice(metric);
        self.count += 1;
        self.due.get_or_insert_with(|| Instant::now() + LINGER);
    }

    fn flush(&mut self, context: &Context) {
        self.due = None;
        if self.count > 0 {
            let sent = self.send(context);
            context.settle(self.count, sent.map_err(|error| self.named(&error)));
        }
        self.datagram.clear();
        self.count = 0;
    }

    fn send(&mut self, context: &Context) -> io::Result<()> {
        self.find_server(context)?;
        let Some(server) = &mut self.server else { return Err(io::Error::other("no address")) };
        let sent = match server.socket.send(&self.datagram) {
            // Word of an earlier one: this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                server.socket.send(&self.datagram)
            }
            sent => sent,
        };
        let refusal =
            sent.and_then(|_| server.socket.take_error().and_then(|error| error.map_or(Ok(()), Err)));
        server.refused = refusal.is_err();
        refusal
    }

    /// Looks up the name when it is time to, and connects to what it leads to now.
    fn find_server(&mut self, context: &Context) -> io::Result<()> {
        let now = Instant::now();
        let is_due = match &self.server {
            Some(server) if server.refused => now + LOOK_UP_EVERY >= self.next_look + LOOK_UP_AGAIN,
            _ => now >= self.next_look,
        };
        if !is_due {
            return Ok(());
        }
        self.next_look = now + if self.server.is_some() { LOOK_UP_EVERY } else { LOOK_UP_AGAIN };
        match (self.look_up(), &self.server) {
            (Ok(None), _) => {}
            (Ok(server), _) => {
                self.server = server;
                self.next_look = now + LOOK_UP_EVERY;
            }
            (Err(error), None) => return Err(error),
            // The server that was found before may be there still.
            (Err(error), Some(_)) => context.settle(0, Err(self.named(&error))),
        }
        Ok(())
    }

    /// Another server than the present one, if the name says so.
    fn look_up(&mut self) -> io::Result<Option<Server>> {
        let addresses = (self.resolve)(&self.address)?;
        let (present, refused) = match &self.server {
            Some(server) => (Some(server.address), server.refused),
            None => (None, false),
        };
        if !refused && present.is_some_and(|present| addresses.contains(&present)) {
            return Ok(None);
        }
        // Of several the next one: `localhost` is two, and a server often listens at one of them.
        let place = addresses.iter().position(|address| Some(*address) == present);
        let next = place.map_or(0, |place| (place + 1) % addresses.len());
        match addresses.get(next) {
            Some(address) if Some(*address) == present => Ok(None),
            Some(address) => Server::connect(*address).map(Some),
            None => Err(io::Error::other("the name has no address")),
        }
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.address))
    }
}

impl Server {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)?;
        socket.connect(address)?;
        Ok(Server { socket, address, refused: false })
    }
}

impl Writer for Sender {
    fn write(&mut self, batch: &Batch, context: &Context) {
        let mut rest = batch.lines.as_slice();
        while let Some((metric, behind)) = unframe(rest) {
            self.push(metric, context);
            rest = behind;
        }
        if batch.is_awaited() {
            self.flush(context);
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn tick(&mut self, context: &Context) {
        self.flush(context);
    }

    fn close(&mut self, context: &Context) {
        self.flush(context);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::router::counters::OutputState;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn context() -> (Arc<OutputState>, Context) {
        let state = Arc::new(OutputState::default());
        (Arc::clone(&state), Context::alone(state))
    }

    fn batch(metrics: &[&str]) -> Batch {
        let mut batch = Batch::default();
        batch.count = metrics.len() as u64;
        metrics.iter().for_each(|metric| frame(metric, &mut batch.lines).expect("short"));
        batch
    }

    fn server() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn received(server: &UdpSocket) -> String {
        let mut datagram = [0; 2_000];
        let length = server.recv(&mut datagram).expect("a datagram");
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    }

    fn sender(limit: usize, addresses: impl Into<VecDeque<Vec<SocketAddr>>>) -> Sender {
        let mut addresses = addresses.into();
        let resolve = move |_: &str| {
            let found = addresses.front().cloned().unwrap_or_default();
            if addresses.len() > 1 {
                addresses.pop_front();
            }
            Ok(found)
        };
        Sender::new(String::from("statsd.test:8125"), limit, Box::new(resolve))
    }

    #[test]
    fn datagrams_are_full_but_never_too_long_and_no_metric_is_cut() {
        let (server, address) = server();
        let (state, context) = context();
        let mut sender = sender(64, [vec![address]]);
        let gauge = "a.gauge:0|g\na.gauge:-5|g";
        let counters: Vec<String> = (0..50).map(|number| format!("counter{number}:1|c")).collect();
        let metrics: Vec<&str> = counters.iter().flat_map(|counter| [counter, gauge]).collect();
        // As they come: some alone, some together.
        metrics.chunks(3).for_each(|metrics| sender.write(&batch(metrics), &context));
        assert!(sender.due().is_some());
        sender.tick(&context);
        assert!(sender.due().is_none());
        assert_eq!(state.counters().delivered, 100);
        let mut lines = Vec::new();
        while lines.len() < 150 {
            let datagram = received(&server);
            assert!(datagram.len() <= 64 && (datagram.len() > 32 || lines.len() > 140), "{datagram}");
            assert_eq!(datagram.matches(":0|g").count(), datagram.matches(":-5|g").count(), "a gauge is cut");
            lines.extend(datagram.split('\n').map(str::to_owned));
        }
        assert_eq!(lines.join("\n"), metrics.join("\n"));
    }

    #[test]
    fn a_datagram_is_as_long_as_the_limit_and_not_a_byte_longer() {
        let (server, address) = server();
        let (_, context) = context();
        let mut sender = sender(64, [vec![address]]);
        let metric = |length: usize| format!("{}:1|c", "x".repeat(length - 4));
        for (second, expected) in [(31, 64), (32, 32)] {
            sender.write(&batch(&[&metric(32), &metric(second)]), &context);
            sender.tick(&context);
            assert_eq!(received(&server).len(), expected);
        }
    }

    #[test]
    fn what_a_server_that_is_not_there_refuses_is_counted_and_the_next_reaches_it_when_it_is() {
        let (gone, address) = server();
        drop(gone);
        let (state, context) = context();
        let mut sender = sender(64, [vec![address]]);
        for _ in 0..5 {
            sender.write(&batch(&["a:1|c", "b:1|c"]), &context);
            sender.tick(&context);
        }
        let counters = state.counters();
        assert_eq!((counters.delivered, counters.failed), (0, 10));
        let error = counters.last_error.expect("an error");
        assert!(error.starts_with("statsd.test:8125: Connection refused"), "{error}");
        let back = UdpSocket::bind(address).expect("binds again");
        back.set_read_timeout(Some(PATIENCE)).expect("set");
        sender.write(&batch(&["c:1|c"]), &context);
        sender.close(&context);
        assert_eq!(received(&back), "c:1|c");
        assert_eq!(state.counters().delivered, 1);
    }

    #[test]
    fn a_name_is_followed_to_another_address_when_it_changes_and_when_the_server_refuses() {
        let ((one, first), (two, second)) = (server(), server());
        let (state, context) = context();
        let mut sender = sender(64, [vec![first], vec![second], vec![first, second]]);
        let send = |sender: &mut Sender, metric: &str| {
            sender.write(&batch(&[metric]), &context);
            sender.tick(&context);
        };
        send(&mut sender, "a:1|c");
        send(&mut sender, "b:1|c");
        assert_eq!((received(&one), received(&one)), (String::from("a:1|c"), String::from("b:1|c")));
        // As after a minute.
        sender.next_look = Instant::now();
        send(&mut sender, "c:1|c");
        assert_eq!(received(&two), "c:1|c");
        drop(two);
        // Refused, then looked up again.
        send(&mut sender, "d:1|c");
        sender.next_look = Instant::now() + LOOK_UP_EVERY - LOOK_UP_AGAIN;
        send(&mut sender, "e:1|c");
        assert_eq!(received(&one), "e:1|c");
        let counters = state.counters();
        assert_eq!((counters.delivered, counters.failed), (4, 1));
    }

    #[test]
    fn a_name_that_leads_nowhere_costs_what_comes_meanwhile_and_is_not_asked_for_each() {
        let (state, context) = context();
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let resolve = move |_: &str| {
            *count.lock().expect("whole") += 1;
            Err(io::Error::other("no such name"))
        };
        let mut sender = Sender::new(String::from("statsd.test:8125"), 64, Box::new(resolve));
        let start = Instant::now();
        for _ in 0..100 {
            sender.write(&batch(&["a:1|c"]), &context);
            sender.tick(&context);
        }
        assert_eq!(state.counters().failed, 100);
        assert!(*asked.lock().expect("whole") <= 1 + start.elapsed().as_secs());
    }
}
