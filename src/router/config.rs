//! What a router is told: inputs and routes. In: builder calls, or text (`udp://127.0.0.1:5565`,
//! `timer,counter=file:/tmp/x.jsonl`). Out: a [`Config`] that [`Router::start`](super::Router::start) takes.
//! Nothing is opened here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::limits::{waitable, Limits};
use super::matcher::Matcher;
use super::output::Output;

/// The port of Metlog, and where a router listens when it is told nothing.
const DEFAULT_ADDRESS: &str = "127.0.0.1:5565";

/// The longest message on a stream. Room for any report with a backtrace; little enough for many connections.
const STREAM_MESSAGE_BYTES: usize = 1024 * 1024;

/// The longest datagram that UDP can carry.
const DATAGRAM_MESSAGE_BYTES: usize = 65_535;

/// Connections of one input: each costs a thread.
const CONNECTIONS: usize = 1024;

/// The longest body of a request: more than a client of ours sends at once.
#[cfg(feature = "http")]
const HTTP_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Bodies of one HTTP input that are worked on at the same time, unpacked. Decoded, they take many times as much memory:
/// more of them would not fit a small machine, and fewer would let a client of ours wait that sends at full speed.
#[cfg(feature = "http")]
const HTTP_BODIES_BYTES: usize = 16 * 1024 * 1024;

/// Connections of one HTTP input: each may hold a body, as it came.
#[cfg(feature = "http")]
const HTTP_CONNECTIONS: usize = 256;

/// How long an HTTP connection may wait for its next request: longer than clients keep one.
#[cfg(feature = "http")]
const HTTP_IDLE: Duration = Duration::from_secs(60);

/// Why a router cannot start.
#[derive(Debug)]
#[non_exhaustive]
pub enum RouterError {
    /// Text in a configuration cannot be read.
    Config {
        /// The text.
        value: String,
        /// What is accepted in its place.
        accepted: &'static str,
    },
    /// An input cannot be opened.
    Input {
        /// The input's address.
        input: String,
        /// Why not.
        source: io::Error,
    },
    /// An output cannot be opened.
    Output {
        /// The output's name.
        output: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no input at all.
    NoInput,
    /// The system gives no thread or no socket.
    System(io::Error),
}

impl fmt::Display for RouterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouterError::Config { value, accepted } => write!(formatter, "{value:?}: accepted is {accepted}"),
            RouterError::Input { input, source } => write!(formatter, "cannot listen on {input}: {source}"),
            RouterError::Output { output, source } => write!(formatter, "cannot open {output}: {source}"),
            RouterError::NoInput => formatter.write_str("no input: a router needs at least one"),
            RouterError::System(source) => write!(formatter, "cannot start a thread: {source}"),
        }
    }
}

impl std::error::Error for RouterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RouterError::Input { source, .. }
            | RouterError::Output { source, .. }
            | RouterError::System(source) => Some(source),
            _ => None,
        }
    }
}

/// Inputs and routes of a [`Router`](super::Router).
///
/// The default is what `metlog-router` does without arguments: UDP and TCP on 127.0.0.1:5565, everything to the
/// console. [`Config::new`] is empty.
///
/// ```
/// use tracing_metlog::router::{Config, Input, Matcher, Output, Route};
///
/// let config = Config::new()
///     .input(Input::udp("127.0.0.1:5565"))
///     .input(Input::tcp("127.0.0.1:5565").max_connections(100))
///     .route(Route::new(Matcher::types(["timer", "counter"]), Output::file("/var/log/metrics.jsonl")))
///     .route("oldstyle=console".parse()?);
/// # Ok::<(), tracing_metlog::router::RouterError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where messages come from.
    pub inputs: Vec<Input>,
    /// Where they go. A message goes to every route that matches, and once to each output.
    pub routes: Vec<Route>,
}

impl Config {
    /// No inputs, no routes.
    pub fn new() -> Self {
        Config { inputs: Vec::new(), routes: Vec::new() }
    }

    /// Adds an input.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.inputs.push(input);
        self
    }

    /// Adds a route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
            .input(Input::udp(DEFAULT_ADDRESS))
            .input(Input::tcp(DEFAULT_ADDRESS))
            .route(Route::new(Matcher::any(), Output::console(Default::default())))
    }
}

/// A socket that messages arrive at, and its limits.
///
/// As text: `udp://HOST:PORT`, `tcp://HOST:PORT`, `unix:///PATH`, `unixgram:///PATH`, with the feature `http` also
/// `http://HOST:PORT`, with `tls` also `tls://HOST:PORT?cert=/PATH&key=/PATH`, with both also
/// `https://HOST:PORT?cert=/PATH&key=/PATH`, the last two with `&client-ca=/PATH` if clients must show certificates.
/// Port 0 is any free port; [`Router::addresses`](super::Router::addresses) tells which it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub(super) address: Address,
    #[cfg(feature = "http")]
    pub(super) max_body_bytes: usize,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ServerFiles>,
    pub(super) max_message_bytes: usize,
    pub(super) max_connections: usize,
    pub(super) idle_deadline: Option<Duration>,
    pub(super) limits: Limits,
}

/// Where an input listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Udp(String),
    Tcp(String),
    #[cfg(feature = "http")]
    Http(String),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// Who a TLS input is, and whom it trusts; the files hold PEM.
#[cfg(feature = "tls")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerFiles {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

impl Input {
    #[cfg(not(any(feature = "http", feature = "tls")))]
    const ACCEPTED: &'static str = "udp://HOST:PORT, tcp://HOST:PORT, unix:///PATH or unixgram:///PATH";
    #[cfg(all(feature = "http", not(feature = "tls")))]
    const ACCEPTED: &'static str =
        "udp://HOST:PORT, tcp://HOST:PORT, http://HOST:PORT, unix:///PATH or unixgram:///PATH";
    #[cfg(all(feature = "tls", not(feature = "http")))]
    const ACCEPTED: &'static str = "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT?cert=/PATH&key=/PATH, \
                                    unix:///PATH or unixgram:///PATH";
    #[cfg(all(feature = "http", feature = "tls"))]
    const ACCEPTED: &'static str = "udp://HOST:PORT, tcp://HOST:PORT, http://HOST:PORT, \
                                    tls://HOST:PORT?cert=/PATH&key=/PATH, https://HOST:PORT?cert=/PATH&key=/PATH, \
                                    unix:///PATH or unixgram:///PATH";

    /// Datagrams at `HOST:PORT`, one message each.
    pub fn udp(address: impl Into<String>) -> Self {
        Input::new(Address::Udp(address.into()), DATAGRAM_MESSAGE_BYTES)
    }

    /// Connections to `HOST:PORT`; messages in lines or octet-counted, as the first byte says.
    pub fn tcp(address: impl Into<String>) -> Self {
        Input::new(Address::Tcp(address.into()), STREAM_MESSAGE_BYTES)
    }

    /// Connections to a Unix socket, made at `path`; framing as for TCP. Unix only.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Input::new(Address::Unix(path.into()), STREAM_MESSAGE_BYTES)
    }

    /// Datagrams at a Unix socket, made at `path`, one message each. Unix only.
    pub fn unixgram(path: impl Into<PathBuf>) -> Self {
        Input::new(Address::Unixgram(path.into()), STREAM_MESSAGE_BYTES)
    }

    /// Requests to `HOST:PORT`, whatever their path: a POST whose body is messages in lines, packed with gzip or not.
    /// An answer 200 says that every output has written its messages.
    #[cfg(feature = "http")]
    pub fn http(address: impl Into<String>) -> Self {
        let mut input = Input::new(Address::Http(address.into()), STREAM_MESSAGE_BYTES);
        input.idle_deadline = Some(HTTP_IDLE);
        input.max_connections = HTTP_CONNECTIONS;
        input
    }

    fn new(address: Address, max_message_bytes: usize) -> Self {
        Input {
            address,
            #[cfg(feature = "http")]
            max_body_bytes: HTTP_BODY_BYTES,
            #[cfg(feature = "tls")]
            tls: None,
            max_message_bytes,
            max_connections: CONNECTIONS,
            idle_deadline: None,
            limits: Limits::default(),
        }
    }

    /// The longest body of an HTTP request, unpacked; a longer one is answered 413. Default: 4 MiB.
    ///
    /// All connections together have room for 16 MiB of bodies, unpacked, from the moment a body has arrived until its
    /// messages are written, or for one of the longest body if that is more. A request that finds no room is answered
    /// 503 with `Retry-After` and counted as `busy`. Bodies that are still arriving do not count there, so that a slow client
    /// takes no room from the others; they have [`max_unfinished_bytes`](Input::max_unfinished_bytes).
    #[cfg(feature = "http")]
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes.max(1);
        self
    }

    /// Encrypts a TCP or HTTP input. `cert` holds this router's certificates, its own first, and `key` the private key,
    /// both as PEM. They are read when the router starts. Nothing for other inputs.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let client_ca = self.tls.and_then(|tls| tls.client_ca);
        self.tls = self.address.is_connected().then(|| ServerFiles {
            cert: cert.into(),
            key: key.into(),
            client_ca,
        });
        self
    }

    /// Of an input with [`tls`](Input::tls): only clients that show a certificate which leads to one of these, PEM too,
    /// are served.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_ca(mut self, client_ca: impl Into<PathBuf>) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.client_ca = Some(client_ca.into());
        }
        self
    }

    /// What the bodies of all connections may take together; one of any length that is accepted fits.
    #[cfg(feature = "http")]
    pub(super) fn bodies_bytes(&self) -> usize {
        self.max_body_bytes.max(HTTP_BODIES_BYTES)
    }

    /// The longest message taken; a longer one is skipped and counted. Default: 1 MiB, for UDP 65,535 bytes,
    /// which is all that UDP can carry.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes.max(1);
        self
    }

    /// Connections at the same time. Default: 1024, for HTTP 256; each costs a thread.
    ///
    /// When all places are taken, a newcomer gets that of the oldest connection that has sent no whole message in
    /// 250 ms or more ([`RefusedReason::GaveWay`](super::RefusedReason::GaveWay)): who connects and says nothing shuts nobody out. If all
    /// have sent one, the newcomer is closed at once, after an answer 503 with `Retry-After` if it is an HTTP input
    /// ([`RefusedReason::TooManyConnections`](super::RefusedReason::TooManyConnections)). Who has sent a message keeps its
    /// place however long it is silent, up to [`idle_deadline`](Input::idle_deadline).
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long a connection may say nothing before it is closed, and counted as `idle`. Default: for ever, for HTTP a
    /// minute. Not for datagrams.
    #[must_use]
    pub fn idle_deadline(mut self, deadline: Duration) -> Self {
        self.idle_deadline = Some(waitable(deadline));
        self
    }
}

impl FromStr for Input {
    type Err = RouterError;

    fn from_str(text: &str) -> Result<Self, RouterError> {
        let error = || RouterError::Config { value: text.to_owned(), accepted: Input::ACCEPTED };
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        match scheme {
            "udp" if has_port(rest) => Ok(Input::udp(rest)),
            "tcp" if has_port(rest) => Ok(Input::tcp(rest)),
            #[cfg(feature = "http")]
            "http" if has_port(rest) => Ok(Input::http(rest)),
            #[cfg(feature = "tls")]
            "tls" => encrypted(rest, Input::tcp).ok_or_else(error),
            #[cfg(all(feature = "http", feature = "tls"))]
            "https" => encrypted(rest, Input::http).ok_or_else(error),
            "unix" if rest.starts_with('/') => Ok(Input::unix(rest)),
            "unixgram" if rest.starts_with('/') => Ok(Input::unixgram(rest)),
            _ => Err(error()),
        }
    }
}

#[cfg(feature = "tls")]
impl Address {
    fn is_connected(&self) -> bool {
        match self {
            Address::Tcp(_) => true,
            #[cfg(feature = "http")]
            Address::Http(_) => true,
            _ => false,
        }
    }
}

/// An input with its certificate: `HOST:PORT?cert=/PATH&key=/PATH&client-ca=/PATH`, the last if there is one.
#[cfg(feature = "tls")]
fn encrypted(rest: &str, input: impl FnOnce(String) -> Input) -> Option<Input> {
    let (address, options) = rest.split_once('?').filter(|(address, _)| has_port(address))?;
    let mut files = [("cert", None), ("key", None), ("client-ca", None)];
    for option in options.split('&') {
        let (name, path) = option.split_once('=').filter(|(_, path)| path.starts_with('/'))?;
        let (_, file) = files.iter_mut().find(|(known, file)| *known == name && file.is_none())?;
        *file = Some(path);
    }
    let [(_, cert), (_, key), (_, client_ca)] = files;
    let input = input(address.to_owned()).tls(cert?, key?);
    Some(match client_ca {
        Some(client_ca) => input.client_ca(client_ca),
        None => input,
    })
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Udp(address) => write!(formatter, "udp://{address}"),
            Address::Tcp(address) => {
                write!(formatter, "{}://{address}", self.scheme("tcp", "tls"))?;
                self.write_files(formatter)
            }
            #[cfg(feature = "http")]
            Address::Http(address) => {
                write!(formatter, "{}://{address}", self.scheme("http", "https"))?;
                self.write_files(formatter)
            }
            Address::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Address::Unixgram(path) => write!(formatter, "unixgram://{}", path.display()),
        }
    }
}

impl Input {
    /// `encrypted` if it is, else `plain`.
    pub(super) fn scheme(&self, plain: &'static str, encrypted: &'static str) -> &'static str {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return encrypted;
        }
        let _ = encrypted;
        plain
    }

    fn write_files(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            write!(formatter, "?cert={}&key={}", tls.cert.display(), tls.key.display())?;
            if let Some(client_ca) = &tls.client_ca {
                write!(formatter, "&client-ca={}", client_ca.display())?;
            }
        }
        let _ = formatter;
        Ok(())
    }
}

/// Messages that match go to the output.
///
/// As text: `TYPES=OUTPUT`, where `TYPES` is `*` or types with commas between them, and `OUTPUT` is `console`,
/// `null` or `file:PATH`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Route {
    /// Which messages.
    pub matcher: Matcher,
    /// Where to.
    pub output: Output,
}

impl Route {
    const ACCEPTED: &'static str =
        "TYPES=OUTPUT, with * or type,type as TYPES and console, null or file:PATH as OUTPUT";

    /// Messages that match go to the output.
    pub fn new(matcher: Matcher, output: Output) -> Self {
        Route { matcher, output }
    }
}

impl FromStr for Route {
    type Err = RouterError;

    fn from_str(text: &str) -> Result<Self, RouterError> {
        let error = || RouterError::Config { value: text.to_owned(), accepted: Route::ACCEPTED };
        let (types, output) = text.split_once('=').ok_or_else(error)?;
        let types: Vec<&str> = types.split(',').map(str::trim).collect();
        let matcher = match types[..] {
            ["*"] => Matcher::any(),
            // A type may hold a star, but who writes one here means a pattern, and gets no silence.
            _ if types.iter().any(|name| name.is_empty() || name.contains('*')) => return Err(error()),
            _ => Matcher::types(types),
        };
        Ok(Route::new(matcher, output.trim().parse().map_err(|_| error())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_written_as_it_is_read() {
        for text in
            ["udp://127.0.0.1:0", "tcp://[::1]:5565", "tcp://localhost:1", "unix:///run/x", "unixgram:///a"]
        {
            assert_eq!(text.parse::<Input>().expect(text).to_string(), text);
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn an_http_input_is_written_as_it_is_read() {
        let text = "http://127.0.0.1:0";
        assert_eq!(text.parse::<Input>().expect(text), Input::http("127.0.0.1:0"));
        assert_eq!(Input::http("127.0.0.1:0").to_string(), text);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_encrypted_input_is_written_as_it_is_read_and_needs_its_certificate() {
        let text = "tls://127.0.0.1:0?cert=/c&key=/k&client-ca=/ca";
        let input = Input::tcp("127.0.0.1:0").tls("/c", "/k").client_ca("/ca");
        assert_eq!(text.parse::<Input>().expect(text), input);
        assert_eq!(input.to_string(), text);
        for text in [
            "tls://h:1",
            "tls://h:1?cert=/c",
            "tls://h:1?cert=c&key=/k",
            "tls://h:1?cert=/c&key=/k&cert=/c",
            "tls://h:1?cert=/c&key=/k&other=/x",
            "tls://h?cert=/c&key=/k",
        ] {
            text.parse::<Input>().expect_err(text);
        }
        assert_eq!(Input::udp("h:1").tls("/c", "/k"), Input::udp("h:1"));
    }

    #[test]
    fn an_error_names_the_value_and_what_is_accepted() {
        for text in
            ["", "udp", "udp://", "udp://host", "udp://:5", "udp://h:70000", "unix://x", "gopher://h:1"]
        {
            let error = text.parse::<Input>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?}: accepted is {}", Input::ACCEPTED));
        }
        for text in ["", "console", "=console", "a,=console", "a*=console", "a=elsewhere", "a=file:"] {
            let error = text.parse::<Route>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?}: accepted is {}", Route::ACCEPTED));
        }
    }

    #[test]
    fn a_route_is_read_from_types_and_output() {
        let route: Route = "timer, counter=file:///tmp/a=b.jsonl".parse().expect("a route");
        assert_eq!(route.matcher, Matcher::types(["timer", "counter"]));
        assert_eq!(route.output.to_string(), "file:/tmp/a=b.jsonl");
        let route: Route = "*=null".parse().expect("a route");
        assert_eq!((route.matcher, route.output.to_string().as_str()), (Matcher::any(), "null"));
    }
}
