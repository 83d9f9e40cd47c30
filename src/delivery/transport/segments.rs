//! Many datagrams in one call: the kernel cuts a long one into segments of equal length (UDP_SEGMENT, udp(7)).
//!
//! In: the datagrams of a batch, in order. Out: a run of them handed to the kernel, or word that they have to go another
//! way. Nothing is lost here.
//!
//! Segments are of one length, and messages are not: a shorter one is filled up with blanks, which JSON allows behind a
//! text. No more than a fifth of what is sent may be blanks, and what is no JSON object is never filled up.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::super::batch::Batch;
use super::socket;

/// Segments the kernel takes in one call: `UDP_MAX_SEGMENTS` of the first kernels that had them.
const MOST_SEGMENTS: usize = 64;
/// The longest datagram before it is cut.
const MOST_BYTES: usize = 65_000;
/// A run that is shorter than this is not worth the copy.
const FEWEST_SEGMENTS: usize = 4;

/// How one socket sends datagrams in bulk.
#[derive(Debug)]
pub(super) struct Segments {
    /// The length of a segment the socket is set to; 0 when it sends datagrams as they are.
    set_to: usize,
    /// The longest segment to be tried. What the network or its card cannot do is found by trying; 0 when they can do
    /// nothing of the kind.
    longest: usize,
    space: Vec<u8>,
}

/// The next few datagrams of a batch that go well together.
#[derive(Debug, PartialEq)]
struct Run {
    count: usize,
    longest: usize,
}

impl Run {
    /// As many as can go as one, none of them longer than `limit`; `None` when they are too few.
    fn next(batch: &Batch, limit: usize) -> Option<Run> {
        let mut run = Run { count: 0, longest: 0 };
        let (mut bytes, mut is_json) = (0, true);
        for frame in batch.unwritten_frames().take(MOST_SEGMENTS) {
            let longest = run.longest.max(frame.len());
            bytes += frame.len();
            let padded = (run.count + 1) * longest;
            is_json &= frame.first() == Some(&b'{');
            let may_be_padded = padded == bytes || is_json;
            if frame.is_empty()
                || longest > limit
                || padded > MOST_BYTES
                || padded - bytes > padded / 5
                || !may_be_padded
            {
                break;
            }
            run = Run { count: run.count + 1, longest };
        }
        (run.count >= FEWEST_SEGMENTS).then_some(run)
    }
}

impl Segments {
    pub(super) fn new() -> Self {
        Segments { set_to: 0, longest: MOST_BYTES / FEWEST_SEGMENTS, space: Vec::new() }
    }

    /// Sends the next few datagrams as one, and says how many they were. `None` when they have to go another way; then
    /// the socket is ready for that.
    pub(super) fn send(
        &mut self,
        socket: &impl AsFd,
        batch: &Batch,
        at_once: usize,
    ) -> Option<io::Result<usize>> {
        let socket = socket.as_fd();
        let run = Run::next(batch, self.longest).filter(|run| run.count <= at_once);
        let sent = run.and_then(|run| self.send_run(socket, batch, run));
        if sent.is_none() {
            self.set(socket, 0);
        }
        sent
    }

    fn send_run(&mut self, socket: BorrowedFd<'_>, batch: &Batch, run: Run) -> Option<io::Result<usize>> {
        let Run { count, longest } = run;
        if !self.set(socket, longest) {
            self.longest = 0;
            return None;
        }
        self.space.clear();
        for (index, frame) in batch.unwritten_frames().take(count).enumerate() {
            self.space.resize(index * longest, b' ');
            self.space.extend_from_slice(frame);
        }
        match rustix::net::send(socket, &self.space, socket::without_signal()) {
            Ok(_) => Some(Ok(count)),
            // Too long for the network between here and there.
            Err(Errno::INVAL | Errno::MSGSIZE) => {
                self.longest = longest - 1;
                None
            }
            // The network card cannot do it.
            Err(Errno::IO | Errno::NOTSUP) => {
                self.longest = 0;
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Has the socket cut what it sends into segments of `length` bytes, or not at all with 0. Whether it will.
    fn set(&mut self, socket: BorrowedFd<'_>, length: usize) -> bool {
        if self.set_to != length {
            let Ok(number) = c_int::try_from(length) else { return false };
            if set_segment_length(socket, number).is_err() {
                return false;
            }
            self.set_to = length;
        }
        true
    }
}

#[allow(unsafe_code)]
fn set_segment_length(socket: BorrowedFd<'_>, length: c_int) -> io::Result<()> {
    /// `linux/udp.h`, the same on every architecture.
    const SOL_UDP: c_int = 17;
    const UDP_SEGMENT: c_int = 103;
    extern "C" {
        fn setsockopt(
            socket: c_int,
            level: c_int,
            name: c_int,
            value: *const c_void,
            length: c_uint,
        ) -> c_int;
    }
    let value = std::ptr::from_ref(&length).cast();
    // SAFETY: the declaration is POSIX's, with Linux's `socklen_t`. `value` points at a `c_int` that lives as long as
    // the call, its length is given, and the kernel only reads it.
    match unsafe { setsockopt(socket.as_raw_fd(), SOL_UDP, UDP_SEGMENT, value, size_of::<c_int>() as c_uint) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::super::framing::Framing;
    use super::super::support::batch_of;
    use super::*;

    fn sockets() -> (UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        (sender, receiver)
    }

    fn received(receiver: &UdpSocket) -> String {
        let mut space = vec![0; 70_000];
        let length = receiver.recv(&mut space).unwrap();
        String::from_utf8_lossy(&space[..length]).into_owned()
    }

    #[test]
    fn messages_of_different_lengths_arrive_one_by_one_and_only_blanks_are_added() {
        let (sender, receiver) = sockets();
        let messages: Vec<_> =
            (0..64).map(|number| format!("{{\"n\":{}}}", 10_u64.pow(number % 4))).collect();
        let batch = batch_of(Framing::Datagram, &messages);
        assert_eq!(Segments::new().send(&sender, &batch, 64).unwrap().unwrap(), 64);
        for message in &messages {
            let came = received(&receiver);
            assert_eq!(came.trim_end_matches(' '), message);
            assert!(came.len() <= "{\"n\":1000}".len(), "{came:?}");
        }
    }

    #[test]
    fn what_does_not_go_well_together_is_left_to_others_who_find_the_socket_as_it_was() {
        let (sender, receiver) = sockets();
        let mut segments = Segments::new();
        let alike = batch_of(Framing::Datagram, &["{\"a\":1}"; 8]);
        assert_eq!(segments.send(&sender, &alike, 64).unwrap().unwrap(), 8);
        (0..8).for_each(|_| assert_eq!(received(&receiver), "{\"a\":1}"));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(5_000));
        let unlike = batch_of(Framing::Datagram, &["{\"a\":1}", &long, "{\"a\":1}", &long]);
        assert!(segments.send(&sender, &unlike, 64).is_none());
        sender.send(long.as_bytes()).unwrap();
        assert_eq!(received(&receiver), long);
    }

    #[test]
    fn a_network_that_takes_no_such_length_is_not_asked_again() {
        let (sender, _receiver) = sockets();
        let mut segments = Segments::new();
        // Longer than the loopback's packets, which are the longest there are.
        segments.longest = MOST_BYTES;
        segments.longest = segments.longest.min(20_000);
        let batch = batch_of(Framing::Datagram, &["{}"; 4]);
        assert_eq!(Run::next(&batch, 1), None, "none is short enough");
        segments.longest = 1;
        assert!(segments.send(&sender, &batch, 64).is_none());
    }

    proptest! {
        #[test]
        fn a_run_keeps_every_limit(lengths in proptest::collection::vec(800usize..1000, 0..100), limit in 0usize..4000, text_at in 0usize..100) {
            // One of them is no JSON.
            let frame = |(index, length): (usize, &usize)| match *length {
                0 => String::new(),
                length if index == text_at => "x".repeat(length),
                length => "{".to_owned() + &"y".repeat(length - 1),
            };
            let frames: Vec<_> = lengths.iter().enumerate().map(frame).collect();
            let batch = batch_of(Framing::Datagram, &frames);
            if let Some(Run { count, longest }) = Run::next(&batch, limit) {
                let taken = &lengths[..count];
                prop_assert!((FEWEST_SEGMENTS..=MOST_SEGMENTS).contains(&count));
                prop_assert_eq!(taken.iter().max(), Some(&longest));
                prop_assert!(longest <= limit && count * longest <= MOST_BYTES && !taken.contains(&0));
                let blanks: usize = taken.iter().map(|length| longest - length).sum();
                prop_assert!(blanks * 5 <= count * longest && (text_at >= count || blanks == 0));
            }
        }
    }
}
