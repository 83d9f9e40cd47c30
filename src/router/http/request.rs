//! The head of a request. In: bytes. Out: what the request asks for, or the status that refuses it.
//! Nothing can be lost here.

/// The longest head that is read.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most headers of one head.
const MAX_HEADERS: usize = 64;

/// A request that is turned down: its status, why, and whether the connection can go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: &'static str,
    pub(super) text: String,
    pub(super) closes: bool,
}

impl Refusal {
    /// A refusal after which nobody knows where the next request begins.
    pub(super) fn last(status: &'static str, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), closes: true }
    }

    /// A refusal of a request that is read to its end.
    pub(super) fn of(status: &'static str, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), closes: false }
    }
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(u64),
    Chunked,
}

/// What a head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) post: bool,
    pub(super) length: Length,
    pub(super) gzip: bool,
    /// `Expect: 100-continue`: the client waits for a word before it sends the body.
    pub(super) waits: bool,
    /// Nothing follows this request on its connection.
    pub(super) last: bool,
}

/// The head at the beginning of `bytes` and its length; `None`: it is not complete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > MAX_HEAD_BYTES => Err(too_long()),
        Ok(httparse::Status::Complete(length)) => Ok(Some((head(&request)?, length))),
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD_BYTES => Err(too_long()),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(too_long()),
        Err(error) => Err(Refusal::last("400 Bad Request", format!("not an HTTP request: {error}"))),
    }
}

fn too_long() -> Refusal {
    let most = format!("a head of up to {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers is accepted");
    Refusal::last("431 Request Header Fields Too Large", most)
}

fn head(request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
    let is = |text: &[u8], word: &str| text.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
    let mut head = Head {
        post: request.method == Some("POST"),
        length: Length::Bytes(0),
        gzip: false,
        waits: false,
        last: request.version == Some(0),
    };
    let mut lengths = 0;
    for header in request.headers.iter() {
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                lengths += 1;
                head.length = Length::Bytes(number(header.value)?);
            }
            "transfer-encoding" => {
                lengths += 1;
                if !is(header.value, "chunked") {
                    let text = "Transfer-Encoding: chunked is accepted, and nothing else";
                    return Err(Refusal::last("501 Not Implemented", text));
                }
                head.length = Length::Chunked;
            }
            // The older name of the same thing (RFC 9110, 8.4.1.3).
            "content-encoding" if is(header.value, "gzip") || is(header.value, "x-gzip") => head.gzip = true,
            "content-encoding" if is(header.value, "identity") => {}
            "content-encoding" => {
                let text = "Content-Encoding: gzip is accepted, or none";
                return Err(Refusal::last("415 Unsupported Media Type", text));
            }
            "expect" if is(header.value, "100-continue") => head.waits = true,
            "expect" => {
                let text = "Expect: 100-continue is accepted, or none";
                return Err(Refusal::last("417 Expectation Failed", text));
            }
            "connection" => {
                head.last |= header.value.split(|&byte| byte == b',').any(|word| is(word, "close"))
            }
            _ => {}
        }
    }
    match lengths {
        0 if head.post => {
            Err(Refusal::last("411 Length Required", "a body with Content-Length or chunked is accepted"))
        }
        0 | 1 => Ok(head),
        // Two readers may find the end of such a request in two places, and one of them smuggles another in.
        _ => Err(Refusal::last("400 Bad Request", "the length of the body stands there more than once")),
    }
}

fn number(value: &[u8]) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(Refusal::last("400 Bad Request", "Content-Length is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Head, usize)>, &'static str> {
        parse(text.as_bytes()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = "POST /any HTTP/1.1\r\nContent-Length: 12\r\ncontent-encoding: GZIP\r\nExpect: 100-continue\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parsed(&text[..end]), Ok(None), "{end}");
        }
        let head = Head { post: true, length: Length::Bytes(12), gzip: true, waits: true, last: false };
        assert_eq!(parsed(text), Ok(Some((head, text.len()))));
        let text = "GET / HTTP/1.0\r\n\r\nmore";
        let head = Head { post: false, length: Length::Bytes(0), gzip: false, waits: false, last: true };
        assert_eq!(parsed(text), Ok(Some((head, text.len() - 4))));
    }

    #[test]
    fn a_head_that_cannot_be_trusted_is_refused() {
        let long = format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD_BYTES));
        let whole = format!("{long}\r\nContent-Length: 0\r\n\r\n");
        let many = format!("POST / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        for (text, status) in [
            ("garbage\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\n\r\n", "411"),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Encoding: br\r\n\r\n", "415"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Encoding: gzip, gzip\r\n\r\n", "415"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: money\r\n\r\n", "417"),
            (&whole, "431"),
            (&long, "431"),
            (&many, "431"),
        ] {
            let refused = parsed(text).unwrap_err();
            assert!(refused.starts_with(status), "{text:.60}: {refused}");
        }
    }
}
