//! What the fuzz targets reach that nobody else needs to.

use crate::delivery::framing::Splitter;

/// The messages of a stream that comes in chunks of `chunk` bytes; `None` stands for a stretch that is none.
pub fn frames(stream: &[u8], chunk: usize) -> Vec<Option<Vec<u8>>> {
    const LONGEST: usize = 1024;
    let mut frames = Vec::new();
    let mut splitter = Splitter::new(LONGEST);
    let mut each = |frame: Result<&[u8], _>| frames.push(frame.ok().map(<[u8]>::to_vec));
    stream.chunks(chunk.max(1)).for_each(|bytes| splitter.push(bytes, &mut each));
    splitter.finish(&mut each);
    frames
}

/// What the router's HTTP input answers to a stream that comes in chunks of `chunk` bytes, and how many messages it takes.
#[cfg(feature = "http")]
pub fn http_answers(stream: &[u8], chunk: usize) -> (Vec<u8>, u64) {
    use crate::router::http_script::Listener;
    static LISTENER: std::sync::OnceLock<Option<Listener>> = std::sync::OnceLock::new();
    let listener = LISTENER.get_or_init(|| Listener::start().ok());
    listener.as_ref().map(|listener| listener.answers(stream, chunk)).unwrap_or_default()
}

/// The messages in a stream of Heka's frames that comes in chunks of `chunk` bytes, as JSON; `None` stands for what is
/// none. Some are signed, by a signer that is known.
#[cfg(feature = "heka")]
pub fn heka_frames(stream: &[u8], chunk: usize) -> Vec<Option<Vec<u8>>> {
    use crate::delivery::heka::split::{HekaSplitter, Signers};
    const LONGEST: usize = 1024;
    let known = vec![crate::HekaSigner::new("ops", 1, crate::HmacHash::Md5, "s3cr3t")];
    let mut splitter = HekaSplitter::new(Signers { known, is_required: false }, LONGEST);
    let mut frames = Vec::new();
    let mut each = |frame: Result<&[u8], _>| frames.push(frame.ok().map(<[u8]>::to_vec));
    stream.chunks(chunk.max(1)).for_each(|bytes| splitter.push(bytes, &mut each));
    splitter.finish(&mut each);
    frames
}

/// A message of a client, which is JSON, as one of Heka's frames.
#[cfg(feature = "heka")]
pub fn heka_frame(message: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let mut writer = crate::delivery::heka::Writer::new(crate::Heka::unsigned(), usize::MAX);
    writer.write(message, None, &mut frame).ok().map(|_| frame)
}

/// What the statsd output makes of a message; `None` if it refuses it.
pub fn statsd_lines(message: &crate::Message) -> Option<String> {
    const LONGEST: usize = 1_432;
    crate::router::statsd_lines("prefix", message, LONGEST).ok()
}

/// One message as a record of the spool.
#[cfg(feature = "spool")]
pub fn spool_record(sequence: u64, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::delivery::spool::record::write(sequence, message, &mut bytes);
    bytes
}

/// The messages of a segment of the spool, each with its number.
#[cfg(feature = "spool")]
pub fn segment(bytes: &[u8], first: u64, bound: u64) -> Vec<(u64, Vec<u8>)> {
    use crate::delivery::spool::{record, store};
    let (mut at, mut lowest, mut found) = (record::after_head(bytes, first).0, first, Vec::new());
    while let Some(read) = record::next(bytes, at, lowest, bound) {
        found.push((read.sequence, read.message.to_vec()));
        (at, lowest) = (read.end, read.sequence + 1);
    }
    store::end_of_last(bytes, first);
    found
}

/// What is made of any bytes as a crash ring: its messages, and how many records were damaged; `None` if it is none.
#[cfg(feature = "ring")]
pub fn crash_ring(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, u64)> {
    use crate::delivery::crash::RingReader;
    use crate::queue::ring::dead::Image;

    let mut image = Image::read(&bytes).ok()?;
    let (mut messages, mut damaged) = (Vec::new(), u64::from(image.is_damaged));
    let mut reader = RingReader::new(&image);
    while let Some((_, records)) = image.next(&bytes) {
        let found = reader.read(&image, &records, |message| messages.push(message.to_vec()));
        damaged += found.damaged;
    }
    Some((messages, damaged))
}

/// Where the only slot of [`small_crash_ring`] is, and how long it is.
#[cfg(feature = "ring")]
const SLOT: std::ops::Range<usize> = 512..2048;

/// A ring of one slot and one callsite, an event with the fields `message`, `count` and `counter.hits`.
#[cfg(feature = "ring")]
pub fn small_crash_ring() -> Vec<u8> {
    use crate::capture::callsite::Description;
    use crate::delivery::encode::Style;
    use crate::queue::ring::layout::{self, Details, Layout};

    let style = Style {
        logger: String::from("fuzz"),
        hostname: String::from("here"),
        process_id: 1,
        origin: Default::default(),
        span_context: Default::default(),
        span_keys: None,
        non_finite: Default::default(),
        whole_milliseconds: false,
        message_ids: false,
    };
    let description = Description {
        name: "event".into(),
        target: "fuzz".into(),
        module: None,
        file: Some("fuzz.rs".into()),
        line: Some(1),
        level: 2,
        is_event: true,
        fields: vec!["message".into(), "count".into(), "counter.hits".into()],
    };
    let layout = Layout {
        slots: 1,
        slot_bytes: SLOT.len() as u32,
        slots_at: SLOT.start as u64,
        dictionary_at: SLOT.end as u64,
    };
    let mut ring = layout::header(layout, 1, &Details { style, clock: 1 }.to_json());
    ring.resize(SLOT.end, 0);
    ring.extend_from_slice(&layout::callsite(1, &description));
    ring
}

/// Puts these bytes into the slot of a [`small_crash_ring`], as far as they fit.
#[cfg(feature = "ring")]
pub fn put_records(ring: &mut [u8], records: &[u8]) {
    const HEAD: usize = crate::queue::map::SLOT_HEAD;
    let length = records.len().min(SLOT.len() - HEAD);
    ring[SLOT.start..SLOT.start + 4].copy_from_slice(&(length as u32).to_ne_bytes());
    let records_at = SLOT.start + HEAD;
    ring[records_at..records_at + length].copy_from_slice(&records[..length]);
}

/// A sound record of a ring, for a fuzzer to begin with.
#[cfg(feature = "ring")]
pub fn ring_record() -> Vec<u8> {
    use crate::capture::bytes::Bytes;
    use crate::capture::record::{self, Entries, Header, Kind, Name, HEADER};

    let mut bytes = Bytes::default();
    bytes.push([0; HEADER]);
    let mut entries = Entries::new(&mut bytes);
    entries.text(Name::Field(0), "said");
    entries.u64(Name::Field(1), 7);
    entries.u64(Name::Field(2), 1);
    entries.f64(Name::Inline(b"ratio"), 0.5);
    let (kind, severity, messages, line, truncated) = (Kind::Event, 6, 2, true, false);
    record::finish(
        &mut bytes,
        Header { kind, severity, messages, line, truncated, time: 1, callsite: 1 },
        0,
        0,
    );
    bytes.to_vec()
}

/// What a router knows of a message without reading it, for comparison with what is read.
#[cfg(feature = "router")]
#[derive(Debug)]
pub struct Looked {
    /// Its type.
    pub message_type: String,
    /// The text of its field `metlog_id`.
    pub id: Option<String>,
    /// What it says.
    pub payload: String,
    /// The line that is written to a file.
    pub line: Vec<u8>,
    /// What it is when it is read after all.
    pub message: crate::Message,
}

/// The quick way of [`decode`](crate::router::decode()).
///
/// # Errors
/// Those of `decode`.
#[cfg(feature = "router")]
pub fn looked(bytes: &[u8]) -> Result<Looked, crate::router::DecodeError> {
    let received = crate::router::received::Received::decode(bytes)?;
    let mut line = Vec::new();
    received.write_json(&mut line);
    Ok(Looked {
        message_type: received.r#type().to_owned(),
        id: received.id().map(str::to_owned),
        payload: received.payload().into_owned(),
        line,
        message: received.message().clone(),
    })
}
