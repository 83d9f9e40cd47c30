//! Blocks in the documents: each between two marks that carry its name, so that a command can make it anew.

use std::fmt::Display;
use std::fs;

/// `docs/performance.md`: all tables.
pub const PERFORMANCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");

/// `README.md`: the short table.
pub const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

/// The folder of the pictures.
pub const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/axes");

/// Puts `block` between the marks of this name.
///
/// # Errors
///
/// If the document cannot be read or written, or has no such marks.
pub fn write(document: &str, name: &str, block: &str) -> Result<(), String> {
    let failed = |problem: &dyn Display| format!("{document}: {problem}");
    let text = fs::read_to_string(document).map_err(|error| failed(&error))?;
    let text = replaced(&text, name, block).map_err(|problem| failed(&problem))?;
    fs::write(document, text).map_err(|error| failed(&error))
}

fn replaced(text: &str, name: &str, block: &str) -> Result<String, String> {
    let (begin_mark, end_mark) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let marks = text.find(&begin_mark).zip(text.find(&end_mark)).filter(|(begin, end)| begin < end);
    let (begin, end) = marks.ok_or_else(|| format!("no `{begin_mark}` with a later `{end_mark}`"))?;
    Ok(format!("{}\n{block}{}", &text[..begin + begin_mark.len()], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_replaces_what_is_between_its_marks_and_nothing_else() {
        let text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->";
        let expected = "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->";
        assert_eq!(replaced(text, "x", "new\n").unwrap(), expected);
        assert!(replaced(text, "z", "new\n").unwrap_err().contains("z:begin"));
    }
}
