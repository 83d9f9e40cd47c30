//! Where a router is: addresses as text, and what is wrong with one.
//!
//! In: `tcp://host:port` and the like, from code, environment or a command line. Out: an [`Address`], or an
//! error that says what is accepted. Nothing can be lost here.

use std::error::Error;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::framing::Framing;

mod options;

pub use options::{HekaKey, HekaOptions, HmacHash, HttpOptions, KeyPlace, TlsFiles, ZmqOptions};
use options::{Options, Written};

/// What an address may look like, as every error says.
const ACCEPTED: &str = "udp://host:port, tcp://host:port, tls://host:port, http://host:port/path, \
                        https://host:port/path, zmq+tcp://host:port, unix:///path, unixgram:///path, file:///path, \
                        stdout:, stderr: and off";

/// Schemes that need features of this crate, the features, and whether they are there.
const FEATURES: [(&str, &str, bool); 5] = [
    ("zmq", "`zmq`", cfg!(feature = "zmq")),
    ("zmq+tcp", "`zmq`", cfg!(feature = "zmq")),
    ("tls", "`tls`", cfg!(feature = "tls")),
    ("http", "`http`", cfg!(feature = "http")),
    ("https", "`http` and `tls`", cfg!(all(feature = "http", feature = "tls"))),
];

/// Where messages go.
///
/// | text | what it is |
/// |---|---|
/// | `udp://host:port` | one datagram a message; Metlog's default |
/// | `tcp://host:port` | one message a line over a connection |
/// | `tls://host:port` | the same, encrypted (feature `tls`) |
/// | `http://host:port/path` | many messages, one a line, in the body of a POST request (feature `http`) |
/// | `https://host:port/path` | the same, encrypted (features `http` and `tls`) |
/// | `zmq+tcp://host:port`, `zmq://host:port` | one message a part, from a ZeroMQ PUB socket to a SUB socket that binds (feature `zmq`) |
/// | `unix:///path` | as `tcp`, over a Unix stream socket |
/// | `unixgram:///path` | one datagram a message to a Unix datagram socket |
/// | `file:///path` | one message a line, appended |
/// | `stdout:`, `stderr:` | one message a line |
/// | `off` | nowhere |
///
/// Without `:port` it is [5565](Address::DEFAULT_PORT), and for `http` and `https` 80 and 443, as everywhere. An IPv6
/// address stands in brackets. In a path, `%20` is a blank, and `%`, `?` and `#` must be written so.
///
/// Options stand after a `?`, with `&` between them. Paths in them are absolute.
///
/// | option | of | what it is | default |
/// |---|---|---|---|
/// | `framing=octet-count` | `tcp`, `tls`, `unix` | each message's length before it instead of a newline after it | `newline` |
/// | `framing=heka` | `udp`, `tcp`, `tls`, `unix`, `unixgram` | Heka's frames, protobuf in them (feature `heka`) | |
/// | `signer=NAME` | the same with `framing=heka` | who signs; needs `key-file` or `key-env` | nobody |
/// | `key-version=NUMBER` | the same | which of the signer's keys it is | `1` |
/// | `hmac=md5` | the same | HMAC-MD5 instead of HMAC-SHA1 | `sha1` |
/// | `key-file=/PATH` | the same | a file with the key, read once; a newline at its end is not part of it | |
/// | `key-env=NAME` | the same | an environment variable with the key, read once | |
/// | `handshake=HOST:PORT` | `zmq+tcp` | a REP socket of the receiver that must answer before anything is sent | none |
/// | `handshake-timeout=MILLISECONDS` | the same with `handshake` | how long it may take to answer | `200` |
/// | `livecheck=SECONDS` | the same | how often it is asked again | `10` |
/// | `spill=stderr` | `zmq+tcp` | what cannot be sent now is written to stderr instead, as metlog-py does, and lost (`spilled`) | it waits |
/// | `hwm=MESSAGES` | `zmq+tcp` | how many messages may be written that the receiver has not acknowledged | as many as 4 MiB hold |
/// | `gzip=true` | `http`, `https` | compressed bodies | `false` |
/// | `content-type=json` | `http`, `https` | for receivers that know lines of JSON by that name only | `ndjson` |
/// | `batch=BYTES` | `http`, `https` | bytes of messages in a request, before compression | `1048576` |
/// | `timeout=SECONDS` | `http`, `https` | how long a request may take | `30` |
/// | `header-file=/PATH` | `http`, `https` | a file with headers, one `Name: value` a line, read anew for each request | |
/// | `header-env=NAME` | `http`, `https` | the same lines in an environment variable, read once, when the pipeline is built | |
/// | `ca=/PATH` | `tls`, `https` | PEM certificates that are trusted instead of the system's | |
/// | `cert=/PATH`, `key=/PATH` | `tls`, `https` | this program's own certificate and its key, as PEM | |
///
/// A secret never stands in an address, because addresses are printed: it belongs into the file or the variable.
///
/// ```
/// use tracing_metlog::Address;
///
/// let address: Address = "tcp://router.example?framing=octet-count".parse()?;
/// assert_eq!(address.to_string(), "tcp://router.example:5565?framing=octet-count");
/// assert_eq!(Address::default().to_string(), "udp://127.0.0.1:5565");
///
/// let error = "gopher://router.example".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("unknown scheme"));
/// # Ok::<(), tracing_metlog::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `udp://host:port`
    #[non_exhaustive]
    Udp {
        /// A name, or an IP address without brackets.
        host: String,
        /// From 1 up.
        port: u16,
    },
    /// `tcp://host:port`
    #[non_exhaustive]
    Tcp {
        /// A name, or an IP address without brackets.
        host: String,
        /// From 1 up.
        port: u16,
        /// [`Framing::Newline`] or [`Framing::OctetCount`].
        framing: Framing,
    },
    /// `tls://host:port`
    #[non_exhaustive]
    Tls {
        /// A name, or an IP address without brackets. The receiver's certificate must be made out to it.
        host: String,
        /// From 1 up.
        port: u16,
        /// [`Framing::Newline`] or [`Framing::OctetCount`].
        framing: Framing,
        /// Whom to trust, and who to be.
        tls: TlsFiles,
    },
    /// `http://host:port/path` or `https://host:port/path`
    #[non_exhaustive]
    Http {
        /// Whether it is `https`.
        secure: bool,
        /// A name, or an IP address without brackets.
        host: String,
        /// From 1 up.
        port: u16,
        /// The path as it is sent: from `/` on, with `%20` and the like as they were written.
        path: String,
        /// Everything else.
        options: HttpOptions,
    },
    /// `zmq+tcp://host:port`
    #[non_exhaustive]
    Zmq {
        /// A name, or an IP address without brackets.
        host: String,
        /// From 1 up.
        port: u16,
        /// Everything else.
        options: ZmqOptions,
    },
    /// `unix:///path`: a stream socket in the file system.
    #[non_exhaustive]
    Unix {
        /// The socket's absolute path.
        path: PathBuf,
        /// [`Framing::Newline`] or [`Framing::OctetCount`].
        framing: Framing,
    },
    /// `unixgram:///path`: a datagram socket in the file system.
    #[non_exhaustive]
    UnixDatagram {
        /// The socket's absolute path.
        path: PathBuf,
    },
    /// `udp`, `tcp`, `tls`, `unix` or `unixgram` with `framing=heka`.
    #[non_exhaustive]
    Heka {
        /// One of those, without it.
        over: Box<Address>,
        /// Who signs.
        options: HekaOptions,
    },
    /// `stdout:`
    Stdout,
    /// `stderr:`
    Stderr,
    /// `file:///path`
    #[non_exhaustive]
    File {
        /// The file's absolute path.
        path: PathBuf,
    },
    /// `off`: messages are not sent anywhere.
    Off,
}

impl Address {
    /// Where a Metlog router listens, over UDP and over TCP.
    pub const DEFAULT_PORT: u16 = 5565;
}

impl Address {
    /// Whether its text has options already.
    fn has_options(&self) -> bool {
        matches!(self, Address::Tls { tls, .. } if *tls != TlsFiles::default())
    }

    /// The same receiver, as one of Heka's frames; `None` for one that takes none.
    #[cfg(feature = "heka")]
    pub(crate) fn speaking_heka(self) -> Option<Address> {
        match self {
            Address::Heka { .. } | Address::Off => Some(self),
            Address::Udp { .. }
            | Address::Tcp { .. }
            | Address::Tls { .. }
            | Address::Unix { .. }
            | Address::UnixDatagram { .. } => {
                Some(Address::Heka { over: Box::new(self), options: HekaOptions::default() })
            }
            _ => None,
        }
    }
}

impl Default for Address {
    /// `udp://127.0.0.1:5565`
    fn default() -> Self {
        Address::Udp { host: String::from("127.0.0.1"), port: Address::DEFAULT_PORT }
    }
}

/// Why a text is no [`Address`]: the text, what is wrong with it, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    value: String,
    problem: String,
    accepted: &'static str,
}

impl AddressError {
    /// An address that can be read, and cannot be used: something it names is not what it should be.
    #[cfg(any(feature = "http", feature = "tls", feature = "heka"))]
    pub(crate) fn unusable(address: &Address, problem: String, accepted: &'static str) -> Self {
        AddressError { value: address.to_string(), problem, accepted }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "router address {:?}: {}; accepted: {}", self.value, self.problem, self.accepted)
    }
}

impl Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(value: &str) -> Result<Self, AddressError> {
        parse(value).map_err(|problem| AddressError {
            value: without_password(value),
            problem,
            accepted: ACCEPTED,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Udp { host, port } => write_host(formatter, "udp", host, *port),
            Address::Tcp { host, port, framing } => {
                write_host(formatter, "tcp", host, *port)?;
                write_framing(formatter, *framing)
            }
            Address::Tls { host, port, framing, tls } => {
                write_host(formatter, "tls", host, *port)?;
                let mut options = Written::to(formatter);
                options.framing(*framing)?;
                options.tls(tls)
            }
            Address::Http { secure, host, port, path, options } => {
                write_host(formatter, if *secure { "https" } else { "http" }, host, *port)?;
                formatter.write_str(path)?;
                Written::to(formatter).http(options)
            }
            Address::Zmq { host, port, options } => {
                write_host(formatter, "zmq+tcp", host, *port)?;
                Written::to(formatter).zmq(options)
            }
            Address::Unix { path, framing } => {
                write_path(formatter, "unix", path)?;
                write_framing(formatter, *framing)
            }
            Address::UnixDatagram { path } => write_path(formatter, "unixgram", path),
            Address::Heka { over, options } => {
                over.fmt(formatter)?;
                let mut written = match over.has_options() {
                    true => Written::behind_others(formatter),
                    false => Written::to(formatter),
                };
                written.heka(options)
            }
            Address::Stdout => formatter.write_str("stdout:"),
            Address::Stderr => formatter.write_str("stderr:"),
            Address::File { path } => write_path(formatter, "file", path),
            Address::Off => formatter.write_str("off"),
        }
    }
}

fn write_host(formatter: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    match host.contains(':') {
        true => write!(formatter, "{scheme}://[{host}]:{port}"),
        false => write!(formatter, "{scheme}://{host}:{port}"),
    }
}

fn write_framing(formatter: &mut fmt::Formatter<'_>, framing: Framing) -> fmt::Result {
    Written::to(formatter).framing(framing)
}

fn write_path(formatter: &mut fmt::Formatter<'_>, scheme: &str, path: &Path) -> fmt::Result {
    write!(formatter, "{scheme}://{}", text_escaped(path.as_os_str().as_encoded_bytes()))
}

/// The bytes of a path as they may stand in an address; [`decoded`] reads them.
fn text_escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                text.push(byte as char);
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The text as an error may show it: somebody may have written `user:password@` before the host.
fn without_password(value: &str) -> String {
    let start = value.find("//").map_or(0, |slashes| slashes + 2);
    let end = value[start..].find(['/', '?']).map_or(value.len(), |length| start + length);
    match value[start..end].rfind('@') {
        Some(at) if value[start..start + at].contains(':') => {
            format!("{}***{}", &value[..start], &value[start + at..])
        }
        _ => value.to_owned(),
    }
}

/// What is wrong, in a few words.
type Parsed<T> = Result<T, String>;

fn parse(value: &str) -> Parsed<Address> {
    if value == "off" {
        return Ok(Address::Off);
    }
    let (scheme, rest) = value.split_once(':').ok_or("no scheme (the part before ':')")?;
    let (place, options) = match rest.split_once('?') {
        Some((place, options)) => (place, Some(options)),
        None => (rest, None),
    };
    let scheme = scheme.to_ascii_lowercase();
    if options.is_some_and(|options| options.split('&').any(|option| option == FRAMING_HEKA)) {
        return heka(&scheme, place, options);
    }
    if let Some((_, features, false)) = FEATURES.iter().find(|(name, ..)| *name == scheme) {
        return Err(format!(
            "{scheme:?} needs what this program was built without, the crate's feature {features}"
        ));
    }
    match scheme.as_str() {
        "udp" => {
            no_options(options).and(host_and_port(place)).map(|(host, port)| Address::Udp { host, port })
        }
        "tcp" => {
            let (framing, (host, port)) = (framing(options)?, host_and_port(place)?);
            Ok(Address::Tcp { host, port, framing })
        }
        "tls" => tls(place, options),
        "http" => http(false, place, options),
        "https" => http(true, place, options),
        "zmq" | "zmq+tcp" => zmq(place, options),
        "unix" => Ok(Address::Unix { framing: framing(options)?, path: socket_path(place)? }),
        "unixgram" => no_options(options).and(socket_path(place)).map(|path| Address::UnixDatagram { path }),
        "file" => no_options(options).and(path(place)).map(|path| Address::File { path }),
        "stdout" => no_options(options).and(nothing(place)).map(|()| Address::Stdout),
        "stderr" => no_options(options).and(nothing(place)).map(|()| Address::Stderr),
        _ if !rest.starts_with("//") => Err(String::from("no scheme (udp://, tcp://, ...)")),
        _ => Err(format!("unknown scheme {scheme:?}")),
    }
}

fn no_options(options: Option<&str>) -> Parsed<()> {
    match options {
        None => Ok(()),
        Some(options) => Err(format!("no option is known here, not {options:?}")),
    }
}

fn nothing(place: &str) -> Parsed<()> {
    match place {
        "" | "//" => Ok(()),
        more => Err(format!("{more:?} after the scheme, where nothing belongs")),
    }
}

fn framing(options: Option<&str>) -> Parsed<Framing> {
    let Some(option) = options else { return Ok(Framing::Newline) };
    match option.strip_prefix("framing=").map(str::parse) {
        Some(Ok(framing @ (Framing::Newline | Framing::OctetCount))) => Ok(framing),
        _ => Err(format!("option {option:?}, where framing=newline and framing=octet-count are known")),
    }
}

/// What an address of a receiver of Heka's frames says.
const FRAMING_HEKA: &str = "framing=heka";

/// An address of another kind, with some options more.
fn heka(scheme: &str, place: &str, options: Option<&str>) -> Parsed<Address> {
    if !cfg!(feature = "heka") {
        return Err(String::from(
            "framing=heka needs what this program was built without, the crate's feature `heka`",
        ));
    }
    if !["udp", "tcp", "tls", "unix", "unixgram"].contains(&scheme) {
        return Err(format!(
            "framing=heka, which udp, tcp, tls, unix and unixgram know, and {scheme:?} does not"
        ));
    }
    let mut options = Options::read(options)?;
    let heka = options.heka()?;
    let over = match options.rest() {
        None => parse(&format!("{scheme}:{place}"))?,
        Some(rest) => parse(&format!("{scheme}:{place}?{rest}"))?,
    };
    Ok(Address::Heka { over: Box::new(over), options: heka })
}

fn tls(place: &str, options: Option<&str>) -> Parsed<Address> {
    let (host, port) = host_and_port(place)?;
    let mut options = Options::read(options)?;
    let (framing, tls) = (options.framing()?, options.tls()?);
    options.finish("framing, ca, cert and key")?;
    Ok(Address::Tls { host, port, framing, tls })
}

fn zmq(place: &str, options: Option<&str>) -> Parsed<Address> {
    let (host, port) = host_and_port(place)?;
    let mut read = Options::read(options)?;
    let options = read.zmq()?;
    read.finish("handshake, handshake-timeout, livecheck, spill and hwm")?;
    Ok(Address::Zmq { host, port, options })
}

fn http(secure: bool, place: &str, options: Option<&str>) -> Parsed<Address> {
    let place = place.strip_prefix("//").ok_or("'//' is missing after the scheme")?;
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    if authority.contains('@') {
        return Err(String::from("a user stands there: credentials belong into header-file or header-env"));
    }
    let (host, port) = authority_of(authority, if secure { 443 } else { 80 })?;
    let path = url_path(if path.is_empty() { "/" } else { path })?;
    let mut read = Options::read(options)?;
    let options = read.http(secure)?;
    let known = "gzip, content-type, batch, timeout, header-file and header-env";
    read.finish(if secure {
        "gzip, content-type, batch, timeout, header-file, header-env, ca, cert and key"
    } else {
        known
    })?;
    Ok(Address::Http { secure, host, port, path, options })
}

/// A path as RFC 3986 writes it; it is sent as it stands.
fn url_path(path: &str) -> Parsed<String> {
    let fits =
        |character: char| character.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(character);
    if let Some(character) = path.chars().find(|&character| !fits(character)) {
        return Err(format!("{character:?} in the path"));
    }
    match path.split('%').skip(1).all(|part| escaped(part).is_some()) {
        true => Ok(path.to_owned()),
        false => Err(String::from("'%' in a path must be followed by two hexadecimal digits")),
    }
}

fn host_and_port(place: &str) -> Parsed<(String, u16)> {
    let authority = place.strip_prefix("//").ok_or("'//' is missing after the scheme")?;
    authority_of(authority.strip_suffix('/').unwrap_or(authority), Address::DEFAULT_PORT)
}

fn authority_of(authority: &str, default_port: u16) -> Parsed<(String, u16)> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return ipv6_and_port(bracketed, default_port);
    }
    match authority.split_once(':') {
        None => Ok((host(authority)?, default_port)),
        Some((_, rest)) if rest.contains(':') => {
            Err(String::from("an IPv6 address must stand in brackets, as in udp://[::1]:5565"))
        }
        Some((name, text)) => Ok((host(name)?, port(text)?)),
    }
}

/// What follows the opening bracket.
fn ipv6_and_port(bracketed: &str, default_port: u16) -> Parsed<(String, u16)> {
    let (host, rest) = bracketed.split_once(']').ok_or("']' is missing")?;
    let host: Ipv6Addr = host.parse().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => default_port,
        None => return Err(format!("{rest:?} after ']', where only :port belongs")),
        Some(text) => port(text)?,
    };
    Ok((host.to_string(), port))
}

fn host(name: &str) -> Parsed<String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    match name.chars().find(|&character| !fits(character)) {
        _ if name.is_empty() => Err(String::from("the host is missing")),
        Some(character) => Err(format!("{character:?} in the host")),
        None => Ok(name.to_owned()),
    }
}

fn port(text: &str) -> Parsed<u16> {
    match text.parse() {
        _ if text.is_empty() => Err(String::from("the port is missing after ':'")),
        Ok(port @ 1..) if text.starts_with(|first: char| first.is_ascii_digit()) => Ok(port),
        _ => Err(format!("port {text:?} is not a number from 1 to 65535")),
    }
}

fn path(place: &str) -> Parsed<PathBuf> {
    let path = match place.strip_prefix("//") {
        Some(path) => path.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(path),
        None => return Err(String::from("'//' is missing after the scheme")),
    };
    match path {
        "" | "/" => Err(String::from("the path is missing")),
        path if !path.starts_with('/') => Err(String::from(
            "the path must be absolute, with three slashes before it in all: scheme:///path",
        )),
        path if path.contains('#') => Err(String::from("'#' in a path must be written %23")),
        path => decoded(path),
    }
}

/// A path that the kernel takes as a socket's: there is little room for one.
#[cfg(unix)]
fn socket_path(place: &str) -> Parsed<PathBuf> {
    let path = path(place)?;
    std::os::unix::net::SocketAddr::from_pathname(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

#[cfg(not(unix))]
fn socket_path(_: &str) -> Parsed<PathBuf> {
    Err(String::from("Unix sockets are not supported on this system"))
}

/// `%20` and the like undone.
fn decoded(text: &str) -> Parsed<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        bytes.push(escaped(part).ok_or("'%' in a path must be followed by two hexadecimal digits")?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    if bytes.contains(&0) {
        return Err(String::from("a zero byte in the path"));
    }
    path_of(bytes)
}

/// The byte that the first two digits of `part` stand for.
fn escaped(part: &str) -> Option<u8> {
    let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Parsed<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Parsed<PathBuf> {
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| String::from("the path is not UTF-8"))
}

#[cfg(test)]
mod tests;
