//! Where in the file a place in a text is. In: a TOML string as it is written, and a place in what it says. Out: the place
//! in what is written, so that a caret can point there.

/// The byte of `raw` that the byte `place` of its value comes from; `None` if that cannot be told.
pub(super) fn in_file(raw: &str, place: usize) -> Option<usize> {
    let is_basic = raw.starts_with('"');
    let quotes = raw.bytes().take(3).take_while(|&byte| byte == b'"' || byte == b'\'').count();
    // Two quotes are an empty string.
    let quotes = if quotes == 3 { 3 } else { 1 };
    let mut rest = raw.get(quotes..)?;
    if quotes == 3 {
        // A newline at once after the quotes is none of the text's.
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
    }
    let mut passed = 0;
    while passed < place {
        let (written, meant) = if is_basic { step(rest)? } else { verbatim(rest)? };
        rest = rest.get(written..)?;
        passed += meant;
    }
    Some(raw.len() - rest.len())
}

fn verbatim(rest: &str) -> Option<(usize, usize)> {
    let length = rest.chars().next()?.len_utf8();
    Some((length, length))
}

/// How long the next character is as it is written, and in the text.
fn step(rest: &str) -> Option<(usize, usize)> {
    let Some(escape) = rest.strip_prefix('\\') else { return verbatim(rest) };
    let digits = match escape.chars().next()? {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        // The end of the line and all white space after it are none of the text's.
        ' ' | '\t' | '\r' | '\n' => return Some((rest.len() - escape.trim_start().len(), 0)),
        other => return Some((1 + other.len_utf8(), 1)),
    };
    let code = u32::from_str_radix(escape.get(1..1 + digits)?, 16).ok()?;
    Some((2 + digits, char::from_u32(code)?.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_text_is_found_in_what_is_written() {
        for raw in [
            r#""Type == \"timer\" && X""#,
            "'Type == \"timer\" && X'",
            "\"\"\"\nType == \\\n    \"timer\" && X\"\"\"",
            "'''Type == \"timer\" && X'''",
            r#""\u0054ype == \x22timer\" && \U00000058""#,
        ] {
            let text = "Type == \"timer\" && X";
            let parsed = toml::de::DeValue::parse(raw).expect(raw);
            assert_eq!(parsed.get_ref().as_str(), Some(text), "{raw}");
            for name in ["ype", "imer", "&&"] {
                let place = in_file(raw, text.find(name).expect("there")).expect(raw);
                assert!(raw[place..].starts_with(name), "{name} in {raw}");
            }
        }
    }

    #[test]
    fn what_is_no_string_has_no_places_beyond_its_end() {
        for raw in ["", "\"", "\"\\", "\"\\u12", "''", "x", "\"ä\""] {
            assert_eq!(in_file(raw, 90), None, "{raw}");
        }
    }
}
