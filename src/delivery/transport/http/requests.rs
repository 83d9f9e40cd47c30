//! A thread that makes requests, one at a time, and lets others wait for the answers as long as they like.
//!
//! In: bodies. Out: an answer to each, or why there is none. Nothing is lost here: a body without an answer stays with
//! whoever asked. The connection is kept between requests.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{bounded, Receiver, Sender};
use flate2::write::GzEncoder;
use flate2::Compression;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::super::socket;
use super::form::Form;
use super::headers::{self, Header, Headers};
use crate::capture;

/// What is read of an answer's body. A longer one costs its connection and nothing else.
const MOST_BODY_BYTES: u64 = 64 * 1024;
/// The same of an answer that says something of each message.
const MOST_READ_BYTES: u64 = 32 << 20;
/// How long an answer's body may take once its status is there: the status has said everything.
const BODY_TIME: Duration = Duration::from_secs(2);
/// What is told of an answer's body.
const TOLD_CHARACTERS: usize = 200;

/// How and where requests are made.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) agent: Agent,
    pub(super) headers: Headers,
    pub(super) gzip: bool,
    pub(super) form: Arc<dyn Form>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the receiver asks to be left alone.
    pub(super) pause: Option<Duration>,
    /// Of an answer that says yes, for a form that reads it.
    pub(super) body: Vec<u8>,
    /// The status in words, and how the body begins.
    pub(super) text: String,
}

/// A request that is being made.
#[derive(Debug)]
pub(super) struct Request {
    body: Arc<Vec<u8>>,
    answer: Sender<io::Result<Answer>>,
}

/// The thread; it ends when this is dropped and its last request is over.
#[derive(Debug)]
pub(super) struct Requests(Sender<Request>);

impl Requests {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread could be had.
    pub(super) fn start(target: Arc<Target>) -> io::Result<Self> {
        // One is being made, and one may wait for a request that nobody waits for any more.
        let (requests, waiting) = bounded::<Request>(1);
        let started = std::thread::Builder::new().name(String::from("metlog-http")).spawn(move || {
            capture::thread::mark_as_own();
            for Request { body, answer } in waiting {
                target.make(&body, &answer);
            }
        });
        started.map_err(socket::no_thread)?;
        Ok(Requests(requests))
    }

    /// Begins a request with `body`; the answer will be in the receiver. `None`: not now.
    pub(super) fn begin(&self, body: Arc<Vec<u8>>) -> Option<Receiver<io::Result<Answer>>> {
        let (answer, answered) = bounded(1);
        self.0.try_send(Request { body, answer }).ok().map(|()| answered)
    }
}

impl Target {
    /// Makes a request and gives its answer as soon as it is known, before its body is read.
    fn make(&self, body: &[u8], answer: &Sender<io::Result<Answer>>) {
        // Nobody listens any more when the transport is gone.
        let tell = |outcome| drop(answer.send(outcome));
        let headers = match self.headers.read() {
            Ok(headers) => headers,
            Err(error) => return tell(Err(error)),
        };
        let mut response = match self.post(body, &headers) {
            Ok(response) => response,
            Err(error) => return tell(Err(down(error))),
        };
        let status = response.status();
        let pause = self.form.pause(status, response.headers());
        let mut known = Answer { status: status.as_u16(), pause, text: in_words(status), body: Vec::new() };
        if status.is_success() && self.form.reads_answer() {
            let read = response.body_mut().with_config().limit(MOST_READ_BYTES).read_to_vec();
            return tell(read.map(|body| Answer { body, ..known }).map_err(down));
        }
        if status.is_success() {
            tell(Ok(known));
            // Read so that the connection can be used again.
            let _ = body_text(&mut response);
            return;
        }
        let told = body_text(&mut response);
        if !told.is_empty() && !headers::are_in(&headers, &told) && !self.form.hides(&told) {
            known.text = format!("{} ({told})", known.text);
        }
        tell(Ok(known));
    }

    fn post(&self, body: &[u8], headers: &[Header]) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.post(&self.url).header("content-type", self.form.content_type());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match self.gzip {
            false => request.send(body),
            true => request.header("content-encoding", "gzip").send(compressed(body)?),
        }
    }
}

/// The fastest level: the usual one saves another quarter of the bytes that are left, and takes four times as long.
fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn in_words(status: StatusCode) -> String {
    match status.is_redirection() {
        true => format!("{status}, and redirects are not followed"),
        false => status.to_string(),
    }
}

/// How the body begins, on one line and without characters that a terminal would obey.
fn body_text(response: &mut Response<Body>) -> String {
    let read = response.body_mut().with_config().limit(MOST_BODY_BYTES).read_to_vec().unwrap_or_default();
    let text = String::from_utf8_lossy(&read);
    text.trim().chars().take(TOLD_CHARACTERS).flat_map(char::escape_default).collect()
}

/// Why there is no answer, as an error that is never taken for a deadline of ours.
fn down(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => io::Error::other(error),
        ureq::Error::Io(error) => socket::as_down(error),
        ureq::Error::Timeout(of) => {
            io::Error::new(io::ErrorKind::NotConnected, format!("no answer in time ({of})"))
        }
        ureq::Error::HostNotFound => io::Error::new(io::ErrorKind::NotFound, "the host has no address"),
        other => io::Error::other(other.to_string()),
    }
}

/// What makes requests: one connection at a time, no redirects, no proxy, a deadline for each step.
pub(super) fn agent(
    timeout: Duration,
    reads_answers: bool,
    #[cfg(feature = "tls")] tls: Option<ureq::tls::TlsConfig>,
) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // A variable that is meant for a browser must not send log messages somewhere else.
        .proxy(None)
        .user_agent(concat!("tracing-metlog/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .timeout_global(Some(timeout))
        .timeout_recv_body(Some(if reads_answers { timeout } else { BODY_TIME }));
    #[cfg(feature = "tls")]
    let config = match tls {
        Some(tls) => config.tls_config(tls),
        None => config,
    };
    config.build().new_agent()
}
