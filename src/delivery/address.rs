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

/// What an address may look like, as every error says.
const ACCEPTED: &str = "udp://host:port, tcp://host:port, unix:///path, unixgram:///path, file:///path, \
                        stdout:, stderr: and off";

/// What other Metlog clients and later versions know.
const NOT_YET: [&str; 5] = ["tls", "http", "https", "zmq", "zmq+tcp"];

/// Where messages go.
///
/// | text | what it is |
/// |---|---|
/// | `udp://host:port` | one datagram a message; Metlog's default |
/// | `tcp://host:port` | one message a line over a connection |
/// | `unix:///path` | the same over a Unix stream socket |
/// | `unixgram:///path` | one datagram a message to a Unix datagram socket |
/// | `file:///path` | one message a line, appended |
/// | `stdout:`, `stderr:` | one message a line |
/// | `off` | nowhere |
///
/// Without `:port` it is [5565](Address::DEFAULT_PORT). An IPv6 address stands in brackets. `?framing=octet-count`
/// after a `tcp` or `unix` address sends each message's length instead of ending its line. In a path, `%20` is a
/// blank, and `%`, `?` and `#` must be written so.
///
/// ```
/// use tracing_metlog::Address;
///
/// let address: Address = "tcp://router.example?framing=octet-count".parse()?;
/// assert_eq!(address.to_string(), "tcp://router.example:5565?framing=octet-count");
/// assert_eq!(Address::default().to_string(), "udp://127.0.0.1:5565");
///
/// let error = "https://router.example".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("not supported by this version"));
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
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "router address {:?}: {}; accepted: {ACCEPTED}", self.value, self.problem)
    }
}

impl Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(value: &str) -> Result<Self, AddressError> {
        parse(value).map_err(|problem| AddressError { value: value.to_owned(), problem })
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
            Address::Unix { path, framing } => {
                write_path(formatter, "unix", path)?;
                write_framing(formatter, *framing)
            }
            Address::UnixDatagram { path } => write_path(formatter, "unixgram", path),
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
    match framing {
        Framing::Newline => Ok(()),
        other => write!(formatter, "?framing={other}"),
    }
}

fn write_path(formatter: &mut fmt::Formatter<'_>, scheme: &str, path: &Path) -> fmt::Result {
    write!(formatter, "{scheme}://")?;
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                write!(formatter, "{}", byte as char)?;
            }
            _ => write!(formatter, "%{byte:02X}")?,
        }
    }
    Ok(())
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
    match scheme.as_str() {
        "udp" => {
            no_options(options).and(host_and_port(place)).map(|(host, port)| Address::Udp { host, port })
        }
        "tcp" => {
            let (framing, (host, port)) = (framing(options)?, host_and_port(place)?);
            Ok(Address::Tcp { host, port, framing })
        }
        "unix" => Ok(Address::Unix { framing: framing(options)?, path: socket_path(place)? }),
        "unixgram" => no_options(options).and(socket_path(place)).map(|path| Address::UnixDatagram { path }),
        "file" => no_options(options).and(path(place)).map(|path| Address::File { path }),
        "stdout" => no_options(options).and(nothing(place)).map(|()| Address::Stdout),
        "stderr" => no_options(options).and(nothing(place)).map(|()| Address::Stderr),
        known if NOT_YET.contains(&known) => Err(format!("{known:?} is not supported by this version")),
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

fn host_and_port(place: &str) -> Parsed<(String, u16)> {
    let authority = place.strip_prefix("//").ok_or("'//' is missing after the scheme")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if let Some(bracketed) = authority.strip_prefix('[') {
        return ipv6_and_port(bracketed);
    }
    match authority.split_once(':') {
        None => Ok((host(authority)?, Address::DEFAULT_PORT)),
        Some((_, rest)) if rest.contains(':') => {
            Err(String::from("an IPv6 address must stand in brackets, as in udp://[::1]:5565"))
        }
        Some((name, text)) => Ok((host(name)?, port(text)?)),
    }
}

/// What follows the opening bracket.
fn ipv6_and_port(bracketed: &str) -> Parsed<(String, u16)> {
    let (host, rest) = bracketed.split_once(']').ok_or("']' is missing")?;
    let host: Ipv6Addr = host.parse().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => Address::DEFAULT_PORT,
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_address_is_read() {
        let host = |host: &str| host.to_owned();
        let path = PathBuf::from("/run/metlog router.sock");
        let expected = [
            ("udp://router", Address::Udp { host: host("router"), port: 5565 }),
            ("UDP://router:1/", Address::Udp { host: host("router"), port: 1 }),
            ("udp://[::1]:65535", Address::Udp { host: host("::1"), port: 65535 }),
            ("tcp://[::1]", Address::Tcp { host: host("::1"), port: 5565, framing: Framing::Newline }),
            (
                "tcp://10.0.0.1:514?framing=octet-count",
                Address::Tcp { host: host("10.0.0.1"), port: 514, framing: Framing::OctetCount },
            ),
            #[cfg(unix)]
            (
                "unix:///run/metlog%20router.sock?framing=newline",
                Address::Unix { path: path.clone(), framing: Framing::Newline },
            ),
            #[cfg(unix)]
            ("unixgram:///run/metlog%20router.sock", Address::UnixDatagram { path: path.clone() }),
            ("file:///run/metlog router.sock", Address::File { path }),
            ("stdout:", Address::Stdout),
            ("stderr://", Address::Stderr),
            ("off", Address::Off),
        ];
        for (text, address) in expected {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn a_bad_address_says_what_is_wrong_with_it() {
        let expected = [
            ("", "no scheme"),
            ("router", "no scheme"),
            ("stdout", "no scheme"),
            ("router.example:5565", "no scheme"),
            ("127.0.0.1:5565", "no scheme"),
            ("upd://router:5565", "unknown scheme \"upd\""),
            ("https://router", "\"https\" is not supported by this version"),
            ("zmq+tcp://router:5565", "\"zmq+tcp\" is not supported by this version"),
            ("tls://router:5565", "\"tls\" is not supported by this version"),
            ("udp:router:5565", "'//' is missing"),
            ("udp://", "the host is missing"),
            ("udp://:5565", "the host is missing"),
            ("udp://router:", "the port is missing"),
            ("tcp://router:0", "port \"0\" is not a number from 1 to 65535"),
            ("tcp://router:65536", "port \"65536\" is not a number from 1 to 65535"),
            ("tcp://router:+1", "port \"+1\" is not"),
            ("tcp://router:x", "port \"x\" is not"),
            ("udp://::1:5565", "must stand in brackets"),
            ("udp://[::1:5565", "']' is missing"),
            ("udp://[router]:5565", "\"router\" is not an IPv6 address"),
            ("udp://[::1]5565", "\"5565\" after ']'"),
            ("udp://user@router", "'@' in the host"),
            ("udp://router/path", "'/' in the host"),
            ("udp://router :5565", "' ' in the host"),
            ("udp://router:5565\n", "port \"5565\\n\" is not"),
            ("udp://router?framing=newline", "no option is known here, not \"framing=newline\""),
            ("tcp://router?framing=datagram", "framing=newline and framing=octet-count are known"),
            ("tcp://router?framing=newline&framing=newline", "option \"framing=newline&framing=newline\""),
            #[cfg(unix)]
            ("unix://", "the path is missing"),
            #[cfg(unix)]
            ("unix://run/socket", "must be absolute"),
            ("file:/var/log/x", "'//' is missing"),
            ("file:///var/log/x?append", "no option is known here"),
            ("file:///var/log/a#b", "'#' in a path must be written %23"),
            ("file:///var/log/100%", "two hexadecimal digits"),
            ("file:///var/log/%+1", "two hexadecimal digits"),
            ("file:///var/log/%é", "two hexadecimal digits"),
            ("file:///var/log/%00", "a zero byte in the path"),
            ("stdout:x", "\"x\" after the scheme"),
        ];
        for (text, problem) in expected {
            let message = text.parse::<Address>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("router address {text:?}: ")), "{message}");
            assert!(message.contains(problem), "{text:?}: {message:?} does not say {problem:?}");
            assert!(message.ends_with("stdout:, stderr: and off"), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_too_long_for_a_socket_is_refused_where_it_is_read() {
        let long = format!("unix:///{}", "x".repeat(200));
        assert!(long.parse::<Address>().is_err());
    }

    #[cfg(unix)]
    fn any_path() -> impl Strategy<Value = PathBuf> {
        prop::collection::vec(1u8.., 1..80)
            .prop_map(|bytes| path_of([b"/x".as_slice(), &bytes].concat()).unwrap())
    }

    #[cfg(unix)]
    fn any_host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z0-9_.-]{1,30}",
            any::<[u16; 8]>().prop_map(|parts| Ipv6Addr::from(parts).to_string()),
            any::<[u8; 4]>().prop_map(|parts| std::net::Ipv4Addr::from(parts).to_string()),
        ]
    }

    #[cfg(unix)]
    fn any_address() -> impl Strategy<Value = Address> {
        let framing = || prop_oneof![Just(Framing::Newline), Just(Framing::OctetCount)];
        prop_oneof![
            (any_host(), 1u16..).prop_map(|(host, port)| Address::Udp { host, port }),
            (any_host(), 1u16.., framing()).prop_map(|(host, port, framing)| Address::Tcp {
                host,
                port,
                framing
            }),
            (any_path(), framing()).prop_map(|(path, framing)| Address::Unix { path, framing }),
            any_path().prop_map(|path| Address::UnixDatagram { path }),
            any_path().prop_map(|path| Address::File { path }),
            Just(Address::Stdout),
            Just(Address::Stderr),
            Just(Address::Off),
        ]
    }

    proptest! {
        #[cfg(unix)]
        #[test]
        fn an_address_written_is_the_address_read(address in any_address()) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(udp|tcp|unix|file)?:?/{0,3}\\PC{0,20}") {
            let _ = text.parse::<Address>();
        }
    }
}
