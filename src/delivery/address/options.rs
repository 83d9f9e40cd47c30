//! The options of an address: what stands after `?`.
//!
//! In: `name=value&name=value`. Out: each value under its name, or what is wrong. Nothing can be lost here: an option
//! that nobody asks for is an error, so that a slip of the finger never goes unnoticed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{decoded, text_escaped, Parsed};
use crate::delivery::framing::Framing;

/// What a TLS connection needs from files; see [`Address`](crate::Address). Files are read when the pipeline is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsFiles {
    /// `ca`: the certificates, as PEM, that a receiver's certificate must lead to. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// `cert`: this program's own certificate and those that lead to its issuer, as PEM. Default: none is shown.
    pub cert: Option<PathBuf>,
    /// `key`: the private key of `cert`, as PEM. Stands with `cert` or not at all.
    pub key: Option<PathBuf>,
}

/// What a Heka message is signed with. Both are what hekad knows, and neither is a secret's best protection today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HmacHash {
    /// HMAC-MD5, hekad's own default.
    Md5,
    /// HMAC-SHA1.
    #[default]
    Sha1,
}

/// Who signs Heka messages; see [`Address`](crate::Address). Nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HekaOptions {
    /// `signer`: the signer, `None` if nobody signs.
    pub signer: Option<HekaKey>,
}

/// A signer whose key is read when the pipeline is built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HekaKey {
    /// `signer`: the name that the receiver finds the key by.
    pub name: String,
    /// `key-version`: which of the signer's keys it is. Default: 1.
    pub version: u32,
    /// `hmac`: the hash function. Default: SHA-1.
    pub hash: HmacHash,
    /// Where the key is.
    pub place: KeyPlace,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyPlace {
    /// `key-file`: in a file; a newline at its end is not part of the key.
    File(PathBuf),
    /// `key-env`: in an environment variable.
    Variable(String),
}

/// How requests are made; see [`Address`](crate::Address).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HttpOptions {
    /// `gzip`: whether bodies are compressed. Default: no.
    pub gzip: bool,
    /// `content-type`: whether bodies are called `application/json` and not `application/x-ndjson`, which they are.
    /// Default: no.
    pub json: bool,
    /// `batch`: how many bytes of messages a request carries at most, before compression. A longer message goes
    /// alone. Default: 1,048,576.
    pub batch_bytes: usize,
    /// `timeout`: how long a request may take, from connecting to the answer. Default: 30 seconds.
    pub timeout: Duration,
    /// `header-file`: a file whose lines are headers of every request, read anew for each. Default: none.
    pub header_file: Option<PathBuf>,
    /// `header-env`: an environment variable that holds such lines. Default: none.
    pub header_variable: Option<String>,
    /// Of `https`: see [`TlsFiles`].
    pub tls: TlsFiles,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            gzip: false,
            json: false,
            batch_bytes: 1024 * 1024,
            timeout: Duration::from_secs(30),
            header_file: None,
            header_variable: None,
            tls: TlsFiles::default(),
        }
    }
}

/// How a ZeroMQ receiver is spoken to; see [`Address`](crate::Address).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ZmqOptions {
    /// `handshake`: host and port of a REP socket that must answer before anything is sent. Default: none.
    pub handshake: Option<(String, u16)>,
    /// `handshake-timeout`: how long it may take to answer. Default: 200 ms.
    pub handshake_timeout: Duration,
    /// `livecheck`: how often it is asked again. Default: 10 s.
    pub livecheck: Duration,
    /// `spill`: whether what cannot be sent now is written to stderr instead, and lost. Default: it waits.
    pub spill: bool,
    /// `hwm`: how many messages may be written that the receiver has not acknowledged. Default: as many as 4 MiB hold.
    pub hwm: Option<usize>,
}

impl Default for ZmqOptions {
    /// What metlog-py's `ZmqHandshakePubSender` takes, without its handshake.
    fn default() -> Self {
        ZmqOptions {
            handshake: None,
            handshake_timeout: Duration::from_millis(200),
            livecheck: Duration::from_secs(10),
            spill: false,
            hwm: None,
        }
    }
}

/// Options that are still to be asked for.
pub(super) struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    /// Every option, each once.
    pub(super) fn read(text: Option<&'a str>) -> Parsed<Self> {
        let mut options: Vec<(&str, &str)> = Vec::new();
        for option in text.into_iter().flat_map(|text| text.split('&')) {
            let (name, value) =
                option.split_once('=').ok_or_else(|| format!("option {option:?} is not name=value"))?;
            if options.iter().any(|(known, _)| *known == name) {
                return Err(format!("option {name:?} stands there twice"));
            }
            options.push((name, value));
        }
        Ok(Options(options))
    }

    /// Nothing is left that nobody knows.
    pub(super) fn finish(self, known: &str) -> Parsed<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("option {name:?}, where {known} are known")),
        }
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    pub(super) fn framing(&mut self) -> Parsed<Framing> {
        match self.take("framing").map(str::parse) {
            None => Ok(Framing::Newline),
            Some(Ok(framing @ (Framing::Newline | Framing::OctetCount))) => Ok(framing),
            Some(_) => Err(String::from("of framing, newline and octet-count are known")),
        }
    }

    pub(super) fn tls(&mut self) -> Parsed<TlsFiles> {
        let tls = TlsFiles { ca: self.file("ca")?, cert: self.file("cert")?, key: self.file("key")? };
        match tls.cert.is_some() == tls.key.is_some() {
            true => Ok(tls),
            false => Err(String::from("of the options cert and key, one stands there without the other")),
        }
    }

    pub(super) fn http(&mut self, secure: bool) -> Parsed<HttpOptions> {
        let default = HttpOptions::default();
        Ok(HttpOptions {
            gzip: self.yes_or_no("gzip")?.unwrap_or(default.gzip),
            json: self.content_type()?.unwrap_or(default.json),
            batch_bytes: self
                .number("batch", 1..=1 << 30)?
                .map_or(default.batch_bytes, |bytes| bytes as usize),
            timeout: self.number("timeout", 1..=3600)?.map_or(default.timeout, Duration::from_secs),
            header_file: self.file("header-file")?,
            header_variable: self.variable("header-env")?,
            tls: if secure { self.tls()? } else { TlsFiles::default() },
        })
    }

    /// Those of Heka; others stay.
    pub(super) fn heka(&mut self) -> Parsed<HekaOptions> {
        self.take("framing");
        let (name, version) = (self.take("signer"), self.number("key-version", 0..=u64::from(u32::MAX))?);
        let hash = match self.take("hmac") {
            None => None,
            Some("sha1") => Some(HmacHash::Sha1),
            Some("md5") => Some(HmacHash::Md5),
            Some(other) => return Err(format!("hmac={other:?}, where sha1 and md5 are accepted")),
        };
        let places = (self.file("key-file")?, self.variable("key-env")?);
        let place = match places {
            (Some(file), None) => Some(KeyPlace::File(file)),
            (None, Some(variable)) => Some(KeyPlace::Variable(variable)),
            (None, None) => None,
            _ => return Err(String::from("of the options key-file and key-env, both stand there")),
        };
        let signer = match (name, place) {
            (None, None) if version.is_none() && hash.is_none() => None,
            (Some(name), Some(place)) => Some(HekaKey {
                name: signer_name(name)?,
                version: version.map_or(1, |version| version as u32),
                hash: hash.unwrap_or_default(),
                place,
            }),
            _ => return Err(String::from("signer and its key-file or key-env stand together or not at all")),
        };
        Ok(HekaOptions { signer })
    }

    /// What was not asked for, as text again.
    pub(super) fn rest(&self) -> Option<String> {
        let options: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!options.is_empty()).then(|| options.join("&"))
    }

    pub(super) fn zmq(&mut self) -> Parsed<ZmqOptions> {
        let default = ZmqOptions::default();
        let handshake = self.take("handshake").map(|place| super::authority_of(place, 0)).transpose()?;
        if handshake.as_ref().is_some_and(|(_, port)| *port == 0) {
            return Err(String::from("handshake: the port is missing"));
        }
        let (timeout, livecheck) =
            (self.number("handshake-timeout", 1..=60_000)?, self.number("livecheck", 1..=3600)?);
        if handshake.is_none() && (timeout.is_some() || livecheck.is_some()) {
            return Err(String::from("handshake-timeout and livecheck stand with handshake only"));
        }
        Ok(ZmqOptions {
            handshake,
            handshake_timeout: timeout.map_or(default.handshake_timeout, Duration::from_millis),
            livecheck: livecheck.map_or(default.livecheck, Duration::from_secs),
            spill: match self.take("spill") {
                None => default.spill,
                Some("stderr") => true,
                Some(other) => return Err(format!("spill={other:?}, where stderr is accepted")),
            },
            hwm: self.number("hwm", 1..=1 << 30)?.map(|messages| messages as usize),
        })
    }

    fn yes_or_no(&mut self, name: &str) -> Parsed<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(format!("{name}={other:?}, where true and false are accepted")),
        }
    }

    /// Fluent Bit reads bodies of lines, and refuses them by that name.
    fn content_type(&mut self) -> Parsed<Option<bool>> {
        match self.take("content-type") {
            None => Ok(None),
            Some("ndjson") => Ok(Some(false)),
            Some("json") => Ok(Some(true)),
            Some(other) => Err(format!("content-type={other:?}, where ndjson and json are accepted")),
        }
    }

    fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Parsed<Option<u64>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if all_digits && range.contains(&number) => Ok(Some(number)),
            _ => Err(format!(
                "{name}={text:?}, where a number from {} to {} is accepted",
                range.start(),
                range.end()
            )),
        }
    }

    /// An absolute path: the directory that a service is started in is nothing to rely on.
    fn file(&mut self, name: &str) -> Parsed<Option<PathBuf>> {
        match self.take(name) {
            None => Ok(None),
            Some(path) if path.starts_with('/') && path.len() > 1 => decoded(path).map(Some),
            Some(path) => Err(format!("{name}={path:?}, where an absolute path is accepted")),
        }
    }

    fn variable(&mut self, name: &str) -> Parsed<Option<String>> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match self.take(name) {
            None => Ok(None),
            Some(variable) if !variable.is_empty() && variable.bytes().all(fits) => {
                Ok(Some(variable.to_owned()))
            }
            Some(other) => Err(format!("{name}={other:?}, where the name of a variable is accepted")),
        }
    }
}

/// A name that needs no escapes and fits into a header.
fn signer_name(name: &str) -> Parsed<String> {
    const MOST: usize = 200;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match !name.is_empty() && name.len() <= MOST && name.bytes().all(fits) {
        true => Ok(name.to_owned()),
        false => {
            Err(format!("signer={name:?}, where up to {MOST} letters, digits, '_', '-' and '.' are accepted"))
        }
    }
}

/// Writes options so that [`Options::read`] reads them: `?`, and `&` between them.
pub(super) struct Written<'a, 'b> {
    formatter: &'a mut fmt::Formatter<'b>,
    separator: char,
}

impl<'a, 'b> Written<'a, 'b> {
    pub(super) fn to(formatter: &'a mut fmt::Formatter<'b>) -> Self {
        Written { formatter, separator: '?' }
    }

    /// The same where others have been written.
    pub(super) fn behind_others(formatter: &'a mut fmt::Formatter<'b>) -> Self {
        Written { formatter, separator: '&' }
    }

    /// Where the key is, never the key.
    pub(super) fn heka(&mut self, options: &HekaOptions) -> fmt::Result {
        self.option("framing", "heka")?;
        let Some(key) = &options.signer else { return Ok(()) };
        self.option("signer", &key.name)?;
        if key.version != 1 {
            self.option("key-version", key.version)?;
        }
        if key.hash != HmacHash::default() {
            self.option("hmac", "md5")?;
        }
        match &key.place {
            KeyPlace::File(path) => self.file("key-file", Some(path)),
            KeyPlace::Variable(name) => self.option("key-env", name),
        }
    }

    fn option(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        write!(self.formatter, "{}{name}={value}", self.separator)?;
        self.separator = '&';
        Ok(())
    }

    fn file(&mut self, name: &str, path: Option<&PathBuf>) -> fmt::Result {
        match path {
            None => Ok(()),
            Some(path) => self.option(name, text_escaped(path.as_os_str().as_encoded_bytes())),
        }
    }

    pub(super) fn framing(&mut self, framing: Framing) -> fmt::Result {
        match framing {
            Framing::Newline => Ok(()),
            other => self.option("framing", other),
        }
    }

    pub(super) fn tls(&mut self, tls: &TlsFiles) -> fmt::Result {
        self.file("ca", tls.ca.as_ref())?;
        self.file("cert", tls.cert.as_ref())?;
        self.file("key", tls.key.as_ref())
    }

    /// What is not the default.
    pub(super) fn zmq(&mut self, options: &ZmqOptions) -> fmt::Result {
        let default = ZmqOptions::default();
        if let Some((host, port)) = &options.handshake {
            match host.contains(':') {
                true => self.option("handshake", format_args!("[{host}]:{port}"))?,
                false => self.option("handshake", format_args!("{host}:{port}"))?,
            }
        }
        if options.handshake_timeout != default.handshake_timeout {
            self.option("handshake-timeout", options.handshake_timeout.as_millis())?;
        }
        if options.livecheck != default.livecheck {
            self.option("livecheck", options.livecheck.as_secs())?;
        }
        if options.spill {
            self.option("spill", "stderr")?;
        }
        options.hwm.map_or(Ok(()), |messages| self.option("hwm", messages))
    }

    /// What is not the default. A header is never written, only where it comes from.
    pub(super) fn http(&mut self, options: &HttpOptions) -> fmt::Result {
        let default = HttpOptions::default();
        if options.gzip != default.gzip {
            self.option("gzip", options.gzip)?;
        }
        if options.json != default.json {
            self.option("content-type", "json")?;
        }
        if options.batch_bytes != default.batch_bytes {
            self.option("batch", options.batch_bytes)?;
        }
        if options.timeout != default.timeout {
            self.option("timeout", options.timeout.as_secs())?;
        }
        self.file("header-file", options.header_file.as_ref())?;
        if let Some(variable) = &options.header_variable {
            self.option("header-env", variable)?;
        }
        self.tls(&options.tls)
    }
}
