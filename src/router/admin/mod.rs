//! `/metrics` and `/healthz` over HTTP. In: requests of a monitor. Out: numbers and names, no message and no secret.
//!
//! It cannot hold up the router: it has threads of its own, no more than [`CONNECTIONS`], each for one request and
//! [`PATIENCE`]. Nothing can be lost here.

mod metrics;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::spawn;
use super::stop::Stop;

/// Requests at the same time; more connections are closed at once.
const CONNECTIONS: usize = 16;

/// How long one request may take, from the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest head of a request.
const HEAD_BYTES: usize = 8 * 1024;

/// After a failure that will not go away by trying again at once, such as no file descriptor left.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Whom it asks.
pub(super) trait Source: Send + Sync {
    /// What has been counted so far.
    fn counters(&self) -> Counters;

    /// Why the router is not well: it ends, or a part of it has ended; `None`: it is well.
    fn trouble(&self) -> Option<String>;
}

/// The running server.
pub(super) struct Admin {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Admin {
    /// Listens at `HOST:PORT`.
    pub(super) fn start(address: &str, source: Arc<dyn Source>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(Stop::new()?);
        let server = Server {
            stop: Arc::clone(&stop),
            shared: Arc::new(Shared { source, begun: Instant::now(), open: AtomicUsize::new(0) }),
        };
        let thread = spawn("metlog-admin", move || server.accept(&listener))?;
        Ok(Admin { stop, thread: Some(thread), address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Connections that are open end by themselves, soon.
impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.request(Instant::now());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Server {
    stop: Arc<Stop>,
    shared: Arc<Shared>,
}

/// What all requests have in common.
struct Shared {
    source: Arc<dyn Source>,
    begun: Instant,
    open: AtomicUsize,
}

impl Server {
    fn accept(&self, listener: &TcpListener) {
        while !self.stop.is_requested() {
            match listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stop.wait_readable(listener),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.stop.pause(ERROR_PAUSE),
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let Some(place) = Place::take(&self.shared) else { return };
        // Without a thread the connection is closed, and the monitor comes again.
        let _ = spawn("metlog-admin", move || {
            // Who does not take the answer does not get it.
            let _ = Exchange { stream, deadline: Instant::now() + PATIENCE }.run(&place.0);
        });
    }
}

/// One of the places for connections; given back however its thread ends.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let place = Place(Arc::clone(shared));
        (shared.open.fetch_add(1, Relaxed) < CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// One request and its answer.
struct Exchange {
    stream: TcpStream,
    deadline: Instant,
}

impl Exchange {
    fn run(mut self, shared: &Shared) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        let head = self.head()?;
        let answer = Answer::to(&head, shared);
        self.write(answer.text(head.starts_with(b"HEAD ")).as_bytes())?;
        self.stream.shutdown(std::net::Shutdown::Write)?;
        // To close while something is unread would take the answer from the client.
        while self.read(&mut [0; 1024])? > 0 {}
        Ok(())
    }

    /// Everything up to the blank line, or to the longest head.
    fn head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let mut space = [0; 1024];
        while head.len() < HEAD_BYTES && !is_complete(&head) {
            match self.read(&mut space)? {
                0 => break,
                count => head.extend_from_slice(&space[..count]),
            }
        }
        Ok(head)
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(space)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }
}

fn is_complete(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    // What cannot be read is complete too: its answer says so.
    !matches!(httparse::Request::new(&mut headers).parse(head), Ok(httparse::Status::Partial))
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn to(head: &[u8], shared: &Shared) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
            return Answer::plain("400 Bad Request", "not an HTTP request");
        }
        let path = request.path.unwrap_or_default();
        match (request.method, path.split('?').next()) {
            (Some("GET" | "HEAD"), Some("/metrics")) => Answer {
                status: "200 OK",
                content_type: metrics::CONTENT_TYPE,
                body: metrics::text(&shared.source.counters(), shared.begun.elapsed().as_secs()),
            },
            (Some("GET" | "HEAD"), Some("/healthz")) => match shared.source.trouble() {
                None => Answer::plain("200 OK", "ok"),
                Some(trouble) => Answer::plain("503 Service Unavailable", trouble),
            },
            (Some("GET" | "HEAD"), _) => Answer::plain("404 Not Found", "accepted is /metrics or /healthz"),
            _ => Answer::plain("405 Method Not Allowed\r\nAllow: GET, HEAD", "GET is accepted"),
        }
    }

    fn plain(status: &'static str, text: impl Into<String>) -> Self {
        Answer { status, content_type: "text/plain; charset=utf-8", body: text.into() + "\n" }
    }

    fn text(&self, is_head: bool) -> String {
        let Answer { status, content_type, body } = self;
        let length = body.len();
        let shown = if is_head { "" } else { body };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{shown}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Option<&'static str>);

    impl Source for Fake {
        fn counters(&self) -> Counters {
            Counters { received: 42, ..Counters::default() }
        }

        fn trouble(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }
    }

    fn ask(admin: &Admin, request: &str) -> String {
        let mut stream = TcpStream::connect(admin.address()).expect("connects");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    fn started(trouble: Option<&'static str>) -> Admin {
        Admin::start("127.0.0.1:0", Arc::new(Fake(trouble))).expect("starts")
    }

    #[test]
    fn each_request_gets_its_answer() {
        let admin = started(None);
        for (request, status, body) in [
            ("GET /healthz HTTP/1.1\r\n\r\n", "200", "\r\n\r\nok\n"),
            (
                "GET /metrics?x HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "metlog_router_received_messages_total 42\n",
            ),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "200", "Content-Length: 3\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "404", "/metrics or /healthz"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405", "Allow: GET, HEAD\r\n"),
            ("garbage\r\n\r\n", "400", "not an HTTP request"),
        ] {
            let answer = ask(&admin, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(answer.contains(body), "{request}: {answer}");
        }
        assert!(ask(&admin, "HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"), "no body");
    }

    #[test]
    fn trouble_is_503_and_says_what_it_is() {
        let answer = ask(&started(Some("draining")), "GET /healthz HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
    }

    #[test]
    fn connections_that_say_nothing_are_few_and_a_head_without_end_is_refused() {
        let admin = started(None);
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES));
        assert!(ask(&admin, &long).starts_with("HTTP/1.1 400 "));
        let silent: Vec<_> =
            (0..CONNECTIONS * 3).map(|_| TcpStream::connect(admin.address()).expect("connects")).collect();
        // Those beyond the limit are closed at once: reading finds the end.
        let closed = silent.iter().rev().take(CONNECTIONS).filter(|stream| {
            stream.set_read_timeout(Some(PATIENCE / 2)).expect("set");
            matches!((&mut &**stream).read(&mut [0; 1]), Ok(0) | Err(_))
        });
        assert_eq!(closed.count(), CONNECTIONS);
        drop(silent);
        // And when they have gone, there is room again.
        let begun = Instant::now();
        while !ask_or_nothing(&admin).starts_with("HTTP/1.1 200 ") {
            assert!(begun.elapsed() < PATIENCE * 4, "no room");
        }
    }

    fn ask_or_nothing(admin: &Admin) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(admin.address()) {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }
}
