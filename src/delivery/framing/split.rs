//! A stream taken apart into messages again. In: the bytes of one stream, in any chunks. Out: the messages, and what
//! was broken.
//!
//! Lost here, each reported, and the stream goes on: a message longer than the limit; one whose octet count is
//! wrong, with what stands before the next plausible count; one that the end of the stream cuts.

/// Why a stretch of a stream is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Longer than the limit; skipped up to its end.
    TooLong,
    /// Where an octet count belongs stands something else; skipped up to the next plausible count.
    BadCount,
    /// The stream ended inside an octet-counted message, or inside a Heka frame.
    Truncated,
    /// Where a Heka frame should begin stands something else, which is skipped up to the next record separator; or no ZMTP
    /// is spoken on a ZeroMQ connection, which ends.
    #[cfg(any(feature = "heka", feature = "zmq"))]
    BadHeader,
    /// A whole Heka frame whose message is none.
    #[cfg(feature = "heka")]
    InvalidProtobuf,
    /// A Heka frame signed by nobody who is known, with another key, or changed on its way.
    #[cfg(feature = "heka")]
    BadSignature,
    /// A Heka frame without the signature that is asked for.
    #[cfg(feature = "heka")]
    Unsigned,
}

/// Takes a stream apart again, whatever its chunks: the reverse of [`Framing::write`](crate::Framing::write). No I/O.
///
/// The first byte of the stream tells which framing it has: a digit means octet counting, all else newlines
/// (a message starts with `{`). It is not asked again at later frames, so that a line of garbage that starts
/// with a digit costs that line and not the messages behind it.
///
/// Holds at most one incomplete message, so never more than the limit.
#[derive(Debug)]
pub(crate) struct Splitter {
    max_message_bytes: usize,
    state: State,
    /// The start of a message whose end has not come yet.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing has come yet.
    Start,
    Line,
    SkipLine,
    Count(Count),
    /// So many bytes of the message are still to come.
    Counted(usize),
    SkipCounted(usize),
    /// After a bad count: looking for digits, a blank and `{`, which only the start of a frame is likely to be.
    Resync(Count),
}

/// An octet count as far as it has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    value: usize,
    digits: u8,
    blank: bool,
}

impl Count {
    /// Ten digits are beyond any limit that is sensible, and nine never overflow.
    const MAX_DIGITS: u8 = 9;

    /// A run of more digits than a count can have is no count, whatever its last digits are.
    const NONE: Count = Count { value: 0, digits: Self::MAX_DIGITS, blank: false };

    fn push(&mut self, digit: u8) {
        if self.blank {
            *self = Count::default();
        }
        if self.digits == Self::MAX_DIGITS {
            *self = Self::NONE;
        } else {
            self.value = self.value * 10 + usize::from(digit - b'0');
            self.digits += 1;
        }
    }
}

/// What a [`Splitter`] finds.
pub(crate) type Frame<'a> = Result<&'a [u8], FrameError>;

impl Splitter {
    /// What a connection's memory shrinks back to after a long message.
    const KEPT_BYTES: usize = 16 * 1024;

    /// A splitter at the start of a stream.
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Splitter { max_message_bytes, state: State::Start, partial: Vec::new() }
    }

    /// Takes the next bytes of the stream and hands every frame that ends in them to `each`. A frame that lies
    /// in `bytes` as a whole is not copied.
    pub(crate) fn push(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        while let Some(&first) = bytes.first() {
            let taken = match self.state {
                State::Start => self.detect(first),
                State::Line => self.line(bytes, each),
                State::SkipLine => self.skip_line(bytes),
                State::Count(count) => self.count(count, first, each),
                State::Counted(missing) => self.counted(missing, bytes, each),
                State::SkipCounted(missing) => self.skip_counted(missing, bytes),
                State::Resync(count) => self.resync(count, first, each),
            };
            bytes = &bytes[taken..];
        }
    }

    /// The stream has ended. A last line without its newline is a message too.
    pub(crate) fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        match self.state {
            State::Line => self.complete(&[], each),
            State::Count(Count { digits: 1.., .. }) | State::Counted(_) => each(Err(FrameError::Truncated)),
            _ => {}
        }
        self.partial.clear();
        self.state = State::Start;
    }

    /// Whether no message has begun that did not end.
    pub(crate) fn is_between(&self) -> bool {
        match self.state {
            State::Start | State::Count(Count { digits: 0, .. }) => true,
            State::Line => self.partial.is_empty(),
            _ => false,
        }
    }

    /// How much of the message that has not ended is held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    fn detect(&mut self, first: u8) -> usize {
        self.state = match first {
            b'0'..=b'9' => State::Count(Count::default()),
            _ => State::Line,
        };
        0
    }

    fn line(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> usize {
        if let Some(end) = newline(bytes) {
            self.complete(&bytes[..end], each);
            return end + 1;
        }
        if self.partial.len() + bytes.len() > self.max_message_bytes {
            self.release();
            self.state = State::SkipLine;
            each(Err(FrameError::TooLong));
        } else {
            self.partial.extend_from_slice(bytes);
        }
        bytes.len()
    }

    fn skip_line(&mut self, bytes: &[u8]) -> usize {
        match newline(bytes) {
            Some(end) => {
                self.state = State::Line;
                end + 1
            }
            None => bytes.len(),
        }
    }

    fn count(&mut self, mut count: Count, byte: u8, each: &mut impl FnMut(Frame<'_>)) -> usize {
        match byte {
            b'0'..=b'9' if count.digits < Count::MAX_DIGITS => {
                count.push(byte);
                self.state = State::Count(count);
            }
            b' ' if count.value > 0 => self.begin_counted(count.value, each),
            // Senders that end their messages with a newline and do not count it.
            b'\n' | b'\r' if count.digits == 0 => {}
            _ => {
                self.state =
                    State::Resync(if byte.is_ascii_digit() { Count::NONE } else { Count::default() });
                each(Err(FrameError::BadCount));
            }
        }
        1
    }

    fn begin_counted(&mut self, length: usize, each: &mut impl FnMut(Frame<'_>)) {
        if length > self.max_message_bytes {
            self.state = State::SkipCounted(length);
            each(Err(FrameError::TooLong));
        } else {
            self.state = State::Counted(length);
        }
    }

    fn counted(&mut self, missing: usize, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> usize {
        if bytes.len() < missing {
            self.partial.extend_from_slice(bytes);
            self.state = State::Counted(missing - bytes.len());
            return bytes.len();
        }
        self.complete(&bytes[..missing], each);
        self.state = State::Count(Count::default());
        missing
    }

    fn skip_counted(&mut self, missing: usize, bytes: &[u8]) -> usize {
        let taken = missing.min(bytes.len());
        self.state = match missing - taken {
            0 => State::Count(Count::default()),
            left => State::SkipCounted(left),
        };
        taken
    }

    fn resync(&mut self, mut count: Count, byte: u8, each: &mut impl FnMut(Frame<'_>)) -> usize {
        match byte {
            b'0'..=b'9' => count.push(byte),
            b' ' if count.value > 0 => count.blank = true,
            b'{' if count.blank => {
                self.begin_counted(count.value, each);
                // The brace belongs to the message: it is read again as its first byte.
                return 0;
            }
            _ => count = Count::default(),
        }
        self.state = State::Resync(count);
        1
    }

    /// The end of a message has come: what was held and `rest` are it. Blank lines are no messages.
    fn complete(&mut self, rest: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        if self.partial.len() + rest.len() > self.max_message_bytes {
            each(Err(FrameError::TooLong));
        } else if self.partial.is_empty() {
            emit(rest, each);
        } else {
            self.partial.extend_from_slice(rest);
            emit(&self.partial, each);
        }
        self.release();
    }

    fn release(&mut self) {
        self.partial.clear();
        self.partial.shrink_to(Self::KEPT_BYTES);
    }
}

fn emit(message: &[u8], each: &mut impl FnMut(Frame<'_>)) {
    if !message.trim_ascii().is_empty() {
        each(Ok(message));
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Framing;

    type Owned = Result<Vec<u8>, FrameError>;

    fn split(chunks: &[&[u8]], max_message_bytes: usize) -> Vec<Owned> {
        let mut splitter = Splitter::new(max_message_bytes);
        let mut frames = Vec::new();
        let mut each = |frame: Frame<'_>| frames.push(frame.map(<[u8]>::to_vec));
        for chunk in chunks {
            splitter.push(chunk, &mut each);
            assert!(splitter.partial.len() <= max_message_bytes, "holds more than the limit");
        }
        splitter.finish(&mut each);
        frames
    }

    fn message(bytes: &[u8]) -> Owned {
        Ok(bytes.to_vec())
    }

    #[test]
    fn a_last_line_without_newline_is_a_message() {
        assert_eq!(split(&[b"{1}\n\r\n{2}"], 10), [message(b"{1}"), message(b"{2}")]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_reported_once_and_the_stream_goes_on() {
        let long = [b'x'; 30];
        let expected = [Err(FrameError::TooLong), message(b"{2}")];
        assert_eq!(split(&[&long, &long, b"\n{2}\n"], 10), expected);
        assert_eq!(split(&[&[&long[..], b"\n{2}\n"].concat()], 10), expected);
    }

    #[test]
    fn a_counted_message_beyond_the_limit_is_skipped_up_to_its_end() {
        assert_eq!(
            split(&[b"20 {012345678901234567}3 {2}"], 10),
            [Err(FrameError::TooLong), message(b"{2}")]
        );
    }

    #[test]
    fn after_a_bad_count_the_next_plausible_one_is_found() {
        for bad in ["3x {1}", "0 {1}", "123456789012345 {}", "2 {1}", "x9 ", "7x7 7"] {
            let frames = split(&[b"2 {}", bad.as_bytes(), b"x3 {2}"], 1_000_000);
            assert!(frames.contains(&Err(FrameError::BadCount)), "{bad}: {frames:?}");
            assert_eq!(frames.last(), Some(&message(b"{2}")), "{bad}");
        }
    }

    #[test]
    fn an_octet_counted_message_cut_by_the_end_is_reported() {
        assert_eq!(split(&[b"3 {1}3 {"], 10), [message(b"{1}"), Err(FrameError::Truncated)]);
        assert_eq!(split(&[b"3 {1}3"], 10), [message(b"{1}"), Err(FrameError::Truncated)]);
    }

    #[test]
    fn a_line_of_garbage_that_looks_like_a_count_costs_only_itself() {
        assert_eq!(split(&[b"{1}\n99 x\n{2}\n"], 10), [message(b"{1}"), message(b"99 x"), message(b"{2}")]);
    }

    /// Bytes that lead into every corner of the splitter far more often than random ones.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"{}\n".to_vec()),
            Just(b"3 {1}".to_vec()),
            Just(b"9 ".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"99999999999 ".to_vec()),
            vec(any::<u8>(), 0..20),
            vec(prop_oneof![Just(b'{'), Just(b' '), Just(b'1'), Just(b'0'), Just(b'\n')], 0..6),
        ];
        vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    fn chunks<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            bytes in stream(),
            cuts in vec(any::<prop::sample::Index>(), 0..12),
            limit in 1usize..40,
        ) {
            prop_assert_eq!(split(&chunks(&bytes, &cuts), limit), split(&[&bytes], limit));
        }

        #[test]
        fn what_is_written_is_split_back(
            bodies in vec("[^\n]{0,40}", 1..8),
            octet_count in any::<bool>(),
            cuts in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let framing = if octet_count { Framing::OctetCount } else { Framing::Newline };
            let messages: Vec<Vec<u8>> = bodies.iter().map(|body| format!("{{{body}}}").into_bytes()).collect();
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| framing.write(message, &mut bytes));
            let expected: Vec<Owned> = messages.into_iter().map(Ok).collect();
            prop_assert_eq!(split(&chunks(&bytes, &cuts), 1024), expected);
        }

        #[test]
        fn garbage_in_lines_never_swallows_the_next_message(garbage in "[^0-9\n].{0,60}") {
            let frames = split(&[garbage.as_bytes(), b"\n{good}\n"], 30);
            prop_assert_eq!(frames.last(), Some(&message(b"{good}")));
        }
    }
}
