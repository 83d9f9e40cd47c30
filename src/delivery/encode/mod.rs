//! From captured records to the bytes of messages.
//!
//! In: a record. Out: as many messages as its header says, each complete. A message that is too long for its
//! destination loses the end of its payload, then of its largest field, and says so; nothing else is lost here.

pub(crate) mod ids;
pub(crate) mod json;
pub(crate) mod limit;
pub(crate) mod names;
pub(crate) mod text;

/// The form of one message's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Metlog's JSON envelope, version 0.8, on one line. What every Metlog router reads.
    #[default]
    Metlog,
    /// Heka's protobuf message in Heka's frames, perhaps signed. Holds for every address, which must be `udp`, `tcp`,
    /// `tls`, `unix` or `unixgram`; for a single one, `?framing=heka` in the [`Address`](crate::Address) says the same.
    /// A [`Transport`](crate::Transport) of your own gets frames if its framing is
    /// [`Framing::Heka`](crate::Framing::Heka). `docs/dialects.md` has what becomes of what.
    #[cfg(feature = "heka")]
    #[cfg_attr(docsrs, doc(cfg(feature = "heka")))]
    Heka(crate::Heka),
}

/// How the fields of the enclosing spans stand in a message's `fields`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanContext {
    /// Each under its own name, beside the event's own: the inner span's value wins, the event's own over both.
    #[default]
    Flat,
    /// In one object, `context`; the inner span's value wins.
    Nested,
    /// In an array, `context`, of one `{"name": .., "fields": {..}}` a span, the outermost first.
    List,
    /// Not at all.
    None,
}

/// What NaN and the infinities become; JSON has no number for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NonFinite {
    /// The strings `"NaN"`, `"Infinity"` and `"-Infinity"`.
    #[default]
    Text,
    /// `null`.
    Null,
}

/// Which of the fields that say where a message comes from are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) target: bool,
    pub(crate) module: bool,
    pub(crate) file: bool,
    pub(crate) line: bool,
    pub(crate) thread: bool,
    pub(crate) span: bool,
    pub(crate) spans: bool,
}

impl Default for Origin {
    fn default() -> Self {
        Origin { target: true, module: true, file: true, line: true, thread: true, span: true, spans: true }
    }
}

/// Everything that decides what a message looks like.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) logger: String,
    pub(crate) hostname: String,
    pub(crate) process_id: u32,
    pub(crate) origin: Origin,
    pub(crate) span_context: SpanContext,
    /// Keys of span fields that are written; `None` means all.
    pub(crate) span_keys: Option<Vec<String>>,
    pub(crate) non_finite: NonFinite,
    pub(crate) whole_milliseconds: bool,
    /// Whether each message has an id.
    pub(crate) message_ids: bool,
}
