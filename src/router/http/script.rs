//! A conversation without a network. In: what a client sends, in pieces of any length. Out: what it is answered.
//! For tests and the fuzzer; nothing is lost here.

use std::io::{self, Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use super::Limits;
use crate::router::connection::Conversation;
use crate::router::counters::InputState;
use crate::router::dispatch::Intake;
use crate::router::stop::Stop;
use crate::router::{Config, Input, Matcher, Output, Route, Router};

/// Short enough for a fuzzer to reach.
const LIMITS: Limits = Limits {
    body_bytes: 2_000,
    message_bytes: 500,
    message: Duration::from_secs(10),
    idle: Duration::from_secs(10),
};

struct Script<'a> {
    pieces: std::slice::Chunks<'a, u8>,
    piece: &'a [u8],
    answers: Vec<u8>,
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.pieces.next().unwrap_or_default();
        }
        self.piece.read(buffer)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Conversation for Script<'_> {
    fn set_patience(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn has_heard(&self) -> bool {
        false
    }
}

/// A router that nobody can reach but by conversations.
pub(crate) struct Listener(Router, Stop);

impl Listener {
    pub(crate) fn start() -> io::Result<Self> {
        let config = Config::new().input(Input::tcp("127.0.0.1:0"));
        let router = Router::start(config.route(Route::new(Matcher::any(), Output::null())));
        Ok(Listener(router.map_err(io::Error::other)?, Stop::new()?))
    }

    /// The answers to `stream`, which comes in pieces of `length` bytes, and how many messages were taken.
    pub(crate) fn answers(&self, stream: &[u8], length: usize) -> (Vec<u8>, u64) {
        let pieces = stream.chunks(length.max(1));
        let mut script = Script { pieces, piece: Default::default(), answers: Vec::new() };
        let input = Arc::new(InputState::of(String::new(), &Input::http("127.0.0.1:0")));
        let intake = Intake::new(Arc::clone(&self.0.dispatch), Arc::clone(&input));
        super::serve(&mut script, intake, &self.1, LIMITS, &AtomicBool::default());
        (script.answers, input.counters().received)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Requests, and what is nearly one.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let parts = [
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "Content-Length: 14\r\n",
            "Content-Length: 3000\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Encoding: gzip\r\n",
            "Expect: 100-continue\r\n",
            "Connection: close\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"type\":\"xyz\"}",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n",
            "\r\n",
            "\n",
            "{\"type\":\"xyz\"}",
            "e\r\n",
            "e;x=y\r\n",
            "0\r\n\r\n",
            "0",
            "\0",
            "\x1f",
        ];
        proptest::collection::vec(proptest::sample::select(parts.to_vec()), 0..25)
            .prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn the_answers_to_a_stream_do_not_depend_on_the_pieces_in_which_it_comes(
            stream in streams(),
            length in 1_usize..40,
        ) {
            thread_local!(static LISTENER: Listener = Listener::start().expect("starts"));
            LISTENER.with(|listener| {
                prop_assert_eq!(listener.answers(&stream, length), listener.answers(&stream, usize::MAX));
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_conversation_is_answered_and_its_messages_are_counted() {
        let listener = Listener::start().expect("starts");
        let request = "POST / HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"type\":\"xyz\"}\
            POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"type\":\"xyz\"}\r\n0\r\n\r\n";
        for length in [1, 7, usize::MAX] {
            let (answers, taken) = listener.answers(request.as_bytes(), length);
            let answers = String::from_utf8(answers).expect("text");
            let count = answers.matches("HTTP/1.1 200 OK\r\n").count();
            assert_eq!((count, taken), (2, 2), "{length}: {answers}");
        }
        let line =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nf;{}\r\n", "x".repeat(1_100));
        for length in [1, usize::MAX] {
            let (answers, _) = listener.answers(line.as_bytes(), length);
            assert!(answers.starts_with(b"HTTP/1.1 400 "), "{length}");
        }
    }
}
