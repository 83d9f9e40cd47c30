//! Tables in `docs/performance.md`: each between two marks that carry its name.

use std::fmt::Display;
use std::fs;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");

/// Puts a table between the marks of this name.
pub fn write(name: &str, table: &str) -> Result<(), String> {
    let failed = |problem: &dyn Display| format!("{DOCUMENT}: {problem}");
    let (begin_mark, end_mark) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let text = fs::read_to_string(DOCUMENT).map_err(|error| failed(&error))?;
    let marks = text.find(&begin_mark).zip(text.find(&end_mark)).filter(|(begin, end)| begin < end);
    let (begin, end) =
        marks.ok_or_else(|| failed(&format!("no `{begin_mark}` with a later `{end_mark}`")))?;
    let text = format!("{}\n{table}{}", &text[..begin + begin_mark.len()], &text[end..]);
    fs::write(DOCUMENT, text).map_err(|error| failed(&error))
}
