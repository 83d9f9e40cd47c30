//! What a router is told: inputs and routes. In: builder calls, or text (`udp://127.0.0.1:5565`,
//! `timer,counter=file:/tmp/x.jsonl`). Out: a [`Config`] that [`Router::start`](super::Router::start) takes.
//! Nothing is opened here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(feature = "heka")]
use super::frames::HekaInput;
use super::limits::{waitable, Limits};
use super::matcher::Matcher;
use super::output::Output;
#[cfg(feature = "heka")]
use crate::HekaSigner;

/// The port of Metlog, and where a router listens when it is told nothing.
const DEFAULT_ADDRESS: &str = "127.0.0.1:5565";

/// The longest message on a stream. Room for any report with a backtrace; little enough for many connections.
const STREAM_MESSAGE_BYTES: usize = 1024 * 1024;

/// The longest datagram that UDP can carry.
const DATAGRAM_MESSAGE_BYTES: usize = 65_535;

/// How long a router waits at its end for clients that still send.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

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
    /// How long the end may take: what [`Router::shutdown`](super::Router::shutdown) should be given. Default: 5 seconds.
    pub drain_deadline: Duration,
    /// `HOST:PORT` where `/metrics` and `/healthz` are served (feature `http`). Default: nowhere.
    pub admin: Option<String>,
    /// How often the router sends its own counters through its own routes. Default: never.
    pub report_every: Option<Duration>,
    /// What the routes of a file say, for people.
    pub(super) outline: Vec<String>,
}

impl Config {
    /// No inputs, no routes.
    pub fn new() -> Self {
        Config {
            inputs: Vec::new(),
            routes: Vec::new(),
            drain_deadline: DRAIN_DEADLINE,
            admin: None,
            report_every: None,
            outline: Vec::new(),
        }
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

    /// How long the end may take: what [`Router::shutdown`](super::Router::shutdown) should be given. Default: 5 seconds.
    #[must_use]
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Serves `/metrics`, in the text format of Prometheus, and `/healthz` at `HOST:PORT`. Needs the feature `http`.
    #[must_use]
    pub fn admin(mut self, address: impl Into<String>) -> Self {
        self.admin = Some(address.into());
        self
    }

    /// Sends the router's own counters so often through its own routes, as messages of type `counter` and `gauge` with the
    /// logger `metlog-router`. Default: never.
    #[must_use]
    pub fn report_every(mut self, every: Duration) -> Self {
        self.report_every = Some(every);
        self
    }
}

/// What it would do, for people: where it listens, and what goes where.
impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for input in &self.inputs {
            writeln!(formatter, "input   {input}")?;
        }
        match self.outline.is_empty() {
            true => {
                self.routes.iter().try_for_each(|route| writeln!(formatter, "route   to {}", route.output))?
            }
            false => self.outline.iter().try_for_each(|route| writeln!(formatter, "route   {route}"))?,
        }
        if let Some(admin) = &self.admin {
            writeln!(formatter, "admin   http://{admin}/metrics and http://{admin}/healthz")?;
        }
        if let Some(every) = self.report_every {
            writeln!(formatter, "reports its own counters every {every:?}")?;
        }
        write!(formatter, "drains for up to {:?} at its end", self.drain_deadline)
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
/// With the feature `heka`, all but the HTTP ones take `framing=heka` (nothing but Heka's frames),
/// `signers=/PATH` (a file with `NAME VERSION KEY` in each line, whose signatures are taken) and
/// `require-signature=true`.
/// With the feature `zmq`, also `zmq+tcp://HOST:PORT` (or `zmq://`), with `?handshake=HOST:PORT` if there is one.
/// Port 0 is any free port; [`Router::addresses`](super::Router::addresses) tells which it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub(super) address: Address,
    #[cfg(feature = "http")]
    pub(super) max_body_bytes: usize,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ServerFiles>,
    #[cfg(feature = "heka")]
    pub(super) heka: HekaInput,
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
    /// Where SUB binds, and REP, if there is a handshake.
    #[cfg(feature = "zmq")]
    Zmq {
        messages: String,
        handshake: Option<String>,
    },
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
    /// What an input may look like, as every error says: what this program was built with.
    pub(super) fn accepted() -> &'static str {
        static ACCEPTED: OnceLock<String> = OnceLock::new();
        ACCEPTED.get_or_init(|| {
            let (http, tls) = (cfg!(feature = "http"), cfg!(feature = "tls"));
            let kinds = [
                ("udp://HOST:PORT", true),
                ("tcp://HOST:PORT", true),
                ("http://HOST:PORT", http),
                ("tls://HOST:PORT?cert=/PATH&key=/PATH", tls),
                ("https://HOST:PORT?cert=/PATH&key=/PATH", http && tls),
                ("zmq+tcp://HOST:PORT?handshake=HOST:PORT", cfg!(feature = "zmq")),
                ("unix:///PATH", true),
            ];
            let kinds = kinds.iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| *kind);
            let heka = match cfg!(feature = "heka") {
                true => ", with framing=heka, signers=/PATH and require-signature=true as options of udp, tcp, tls and unix",
                false => "",
            };
            format!("{} or unixgram:///PATH{heka}", kinds.collect::<Vec<_>>().join(", "))
        })
    }

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
    /// An answer 200 says that every output is done with its messages: they are written, or counted as `failed` there.
    /// Outputs to HTTP receivers and Sentry may be away for long, and are not waited for: they have the messages in their
    /// queues, or have counted them as `dropped`.
    #[cfg(feature = "http")]
    pub fn http(address: impl Into<String>) -> Self {
        let mut input = Input::new(Address::Http(address.into()), STREAM_MESSAGE_BYTES);
        input.idle_deadline = Some(HTTP_IDLE);
        input.max_connections = HTTP_CONNECTIONS;
        input
    }

    /// A ZeroMQ SUB socket that binds to `HOST:PORT`; each part of a message is one of ours.
    #[cfg(feature = "zmq")]
    #[cfg_attr(docsrs, doc(cfg(feature = "zmq")))]
    pub fn zmq(address: impl Into<String>) -> Self {
        Input::new(Address::Zmq { messages: address.into(), handshake: None }, STREAM_MESSAGE_BYTES)
    }

    /// Of a ZeroMQ input: binds a REP socket to `HOST:PORT` that answers the handshake of metlog-py's
    /// `ZmqHandshakePubSender`. Nothing for other inputs.
    #[cfg(feature = "zmq")]
    #[cfg_attr(docsrs, doc(cfg(feature = "zmq")))]
    #[must_use]
    pub fn handshake(mut self, address: impl Into<String>) -> Self {
        if let Address::Zmq { handshake, .. } = &mut self.address {
            *handshake = Some(address.into());
        }
        self
    }

    fn new(address: Address, max_message_bytes: usize) -> Self {
        Input {
            address,
            #[cfg(feature = "http")]
            max_body_bytes: HTTP_BODY_BYTES,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "heka")]
            heka: HekaInput::default(),
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

    /// Whether it has files that may be renewed under the same names.
    pub(super) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
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

/// Heka's frames: any input of datagrams or connections takes them, told by their first byte.
#[cfg(feature = "heka")]
#[cfg_attr(docsrs, doc(cfg(feature = "heka")))]
impl Input {
    /// Takes Heka's frames and nothing else: what comes before a frame is skipped and counted (`bad_header`), whatever it
    /// is. An HTTP or ZeroMQ input with this, a signer or a demand for signatures does not start.
    #[must_use]
    pub fn only_heka(mut self) -> Self {
        self.heka.is_only = true;
        self
    }

    /// Whether the protocol itself says where a message ends.
    pub(super) fn has_framing(&self) -> bool {
        match &self.address {
            #[cfg(feature = "http")]
            Address::Http(_) => true,
            #[cfg(feature = "zmq")]
            Address::Zmq { .. } => true,
            _ => false,
        }
    }

    /// Takes messages that this one has signed. One that says it is signed, by anybody who is not known here, is refused
    /// and counted (`bad_signature`). Repeatable: more names, and more versions of a key.
    #[must_use]
    pub fn signer(mut self, signer: HekaSigner) -> Self {
        self.heka.signers.known.push(signer);
        self
    }

    /// Whether messages must be signed by a [`signer`](Input::signer). Others are counted (`unsigned`), and what is not
    /// a Heka frame is not taken either. Default: no.
    #[must_use]
    pub fn require_signature(mut self, is_required: bool) -> Self {
        self.heka.signers.is_required = is_required;
        self
    }
}

/// Options of Heka's, taken off an input's text.
#[cfg(feature = "heka")]
mod heka_options {
    use super::{HekaSigner, Input};
    use crate::HmacHash;

    /// The text without them, and what they say; `None` if one is wrong.
    pub(super) fn take(text: &str) -> Option<(String, Options)> {
        let mut found = Options::default();
        let Some((address, options)) = text.split_once('?') else { return Some((text.to_owned(), found)) };
        let mut rest = Vec::new();
        for option in options.split('&') {
            match option.split_once('=') {
                Some(("framing", "heka")) => found.is_only = true,
                Some(("signers", path)) if path.starts_with('/') => found.files.push(path.to_owned()),
                Some(("require-signature", value)) => found.is_required = value.parse().ok()?,
                _ => rest.push(option),
            }
        }
        let text = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        Some((text, found))
    }

    #[derive(Default)]
    pub(super) struct Options {
        is_only: bool,
        is_required: bool,
        files: Vec<String>,
    }

    impl Options {
        pub(super) fn is_any(&self) -> bool {
            self.is_only || self.is_required || !self.files.is_empty()
        }

        /// The input with them.
        pub(super) fn apply(self, mut input: Input) -> Result<Input, String> {
            input.heka.is_only = self.is_only;
            input.heka.signers.is_required = self.is_required;
            for file in self.files {
                let text =
                    std::fs::read_to_string(&file).map_err(|error| format!("signers={file}: {error}"))?;
                let lines = text.lines().zip(1..).filter(|(line, _)| is_signer(line));
                for (line, number) in lines {
                    let signer = signer(line).ok_or_else(|| {
                        format!("signers={file}: line {number} is not a name, the version of a key and a key, with blanks between them")
                    })?;
                    input.heka.signers.known.push(signer);
                }
            }
            Ok(input)
        }
    }

    fn is_signer(line: &str) -> bool {
        !line.trim().is_empty() && !line.starts_with('#')
    }

    /// `NAME VERSION KEY`; the key is the rest of the line, blanks in it too.
    fn signer(line: &str) -> Option<HekaSigner> {
        let (name, rest) = line.split_once(' ')?;
        let (version, key) = rest.split_once(' ')?;
        let is_whole = !name.is_empty() && !key.is_empty();
        // Which function it is, each message says.
        is_whole.then_some(HekaSigner::new(name, version.parse().ok()?, HmacHash::Sha1, key))
    }
}

impl FromStr for Input {
    type Err = RouterError;

    #[cfg(feature = "heka")]
    fn from_str(text: &str) -> Result<Self, RouterError> {
        let error = || RouterError::Config { value: text.to_owned(), accepted: Input::accepted() };
        let (plain, options) = heka_options::take(text).ok_or_else(error)?;
        let input = Input::read(&plain).map_err(|_| error())?;
        match options.is_any() {
            true if input.has_framing() => Err(error()),
            false => Ok(input),
            true => options.apply(input).map_err(|problem| RouterError::Input {
                input: text.to_owned(),
                source: io::Error::new(io::ErrorKind::InvalidInput, problem),
            }),
        }
    }

    #[cfg(not(feature = "heka"))]
    fn from_str(text: &str) -> Result<Self, RouterError> {
        Input::read(text)
    }
}

impl Input {
    fn read(text: &str) -> Result<Self, RouterError> {
        let error = || RouterError::Config { value: text.to_owned(), accepted: Input::accepted() };
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
            #[cfg(feature = "zmq")]
            "zmq" | "zmq+tcp" => zmq(rest).ok_or_else(error),
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

/// `HOST:PORT` or `HOST:PORT?handshake=HOST:PORT`.
#[cfg(feature = "zmq")]
fn zmq(rest: &str) -> Option<Input> {
    match rest.split_once('?') {
        None => has_port(rest).then(|| Input::zmq(rest)),
        Some((messages, option)) => {
            let handshake = option.strip_prefix("handshake=")?;
            (has_port(messages) && has_port(handshake)).then(|| Input::zmq(messages).handshake(handshake))
        }
    }
}

pub(super) fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_address(formatter)?;
        self.write_heka(formatter)
    }
}

impl Input {
    fn write_address(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            #[cfg(feature = "zmq")]
            Address::Zmq { messages, handshake } => {
                write!(formatter, "zmq+tcp://{messages}")?;
                handshake.iter().try_for_each(|handshake| write!(formatter, "?handshake={handshake}"))
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

    /// Which keys are known is said nowhere, as no key is.
    fn write_heka(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "heka")]
        {
            #[cfg(feature = "tls")]
            let mut separator = if self.tls.is_some() { '&' } else { '?' };
            #[cfg(not(feature = "tls"))]
            let mut separator = '?';
            let options = [
                ("framing=heka", self.heka.is_only),
                ("require-signature=true", self.heka.signers.is_required),
            ];
            for (option, _) in options.iter().filter(|(_, is_set)| *is_set) {
                write!(formatter, "{separator}{option}")?;
                separator = '&';
            }
        }
        let _ = formatter;
        Ok(())
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

    #[cfg(feature = "zmq")]
    #[test]
    fn a_zeromq_input_is_written_as_it_is_read() {
        for text in ["zmq+tcp://127.0.0.1:0", "zmq+tcp://[::1]:5565?handshake=127.0.0.1:5180"] {
            assert_eq!(text.parse::<Input>().expect(text).to_string(), text);
        }
        assert_eq!("zmq://h:1".parse::<Input>().expect("an input"), Input::zmq("h:1"));
        for text in
            ["zmq://h", "zmq://h:1?handshake=h", "zmq://h:1?hwm=1", "zmq://h:1?handshake=h:1&framing=heka"]
        {
            text.parse::<Input>().expect_err(text);
        }
    }

    #[cfg(feature = "heka")]
    #[test]
    fn an_input_of_frames_is_written_as_it_is_read_and_names_a_file_that_is_wrong() {
        let text = "udp://127.0.0.1:0?framing=heka&require-signature=true";
        let input = Input::udp("127.0.0.1:0").only_heka().require_signature(true);
        assert_eq!(text.parse::<Input>().expect(text), input);
        assert_eq!(input.to_string(), text);
        for text in ["tcp://h:1?framing=lines", "tcp://h:1?require-signature=yes", "tcp://h:1?signers=keys"] {
            let error = text.parse::<Input>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?}: accepted is {}", Input::accepted()));
        }
        let error = "tcp://h:1?signers=/nowhere/keys".parse::<Input>().expect_err("no file").to_string();
        assert!(error.contains("signers=/nowhere/keys: "), "{error}");
        let file = std::env::temp_dir().join(format!("metlog-signers-{}", std::process::id()));
        std::fs::write(&file, "ops 1 s3cr3t\nops one hidden\n").expect("written");
        let error =
            format!("tcp://h:1?signers={}", file.display()).parse::<Input>().expect_err("line 2").to_string();
        assert!(error.contains("line 2 is not a name") && !error.contains("hidden"), "{error}");
        std::fs::remove_file(&file).expect("removed");
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
            assert_eq!(error, format!("{text:?}: accepted is {}", Input::accepted()));
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
