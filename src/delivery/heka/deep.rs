//! Fields that are nested deeper than a reader that recurses may follow: as texts.
//!
//! In: a message's JSON. Out: the same, in which each such field is a text, its JSON. Nothing is lost.

/// Levels of one field, below the 128 that serde_json reads of a whole message.
const MOST_LEVELS: usize = 100;

/// A message that can be read, and the texts in it that are JSON.
pub(super) struct Shallow {
    pub(super) json: Vec<u8>,
    pub(super) texts: Vec<String>,
}

/// `None` if nothing is too deep, or it is no JSON.
#[cold]
pub(super) fn shallow(json: &[u8]) -> Option<Shallow> {
    /// A field's value is in the message and in its `fields`.
    const AROUND: usize = 2;
    let mut shallow = Shallow { json: Vec::with_capacity(json.len()), texts: Vec::new() };
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = json.get(at) {
        let end = match byte {
            b'{' | b'[' if depth == AROUND => {
                let (end, levels) = nested(json, at)?;
                if levels > MOST_LEVELS {
                    let text = std::str::from_utf8(&json[at..end]).ok()?;
                    serde_json::to_writer(&mut shallow.json, text).ok()?;
                    shallow.texts.push(text.to_owned());
                    at = end;
                    continue;
                }
                end
            }
            _ => {
                depth = depth_after(byte, depth)?;
                token_end(json, at)?
            }
        };
        shallow.json.extend_from_slice(&json[at..end]);
        at = end;
    }
    (!shallow.texts.is_empty()).then_some(shallow)
}

/// Where the object or array at `at` ends, and how many levels it has.
fn nested(json: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut depth, mut deepest) = (0, 0);
    loop {
        depth = depth_after(*json.get(at)?, depth)?;
        deepest = deepest.max(depth);
        at = token_end(json, at)?;
        if depth == 0 {
            return Some((at, deepest));
        }
    }
}

fn depth_after(byte: u8, depth: usize) -> Option<usize> {
    match byte {
        b'{' | b'[' => Some(depth + 1),
        b'}' | b']' => depth.checked_sub(1),
        _ => Some(depth),
    }
}

/// Texts are stepped over as a whole: brackets in them are none.
fn token_end(json: &[u8], at: usize) -> Option<usize> {
    if json[at] != b'"' {
        return Some(at + 1);
    }
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
