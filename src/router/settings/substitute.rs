//! `${NAME}` in a value. In: a text that was read from the file, and the environment. Out: the text with the variables'
//! values.
//!
//! It comes after the file was taken apart, so that whatever a variable holds, it is only ever part of one value.

use std::borrow::Cow;
use std::env::VarError;

/// Where variables come from.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// Puts the variables' values in: `${NAME}` is the variable, `$$` a dollar, and any other `$` itself.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn substitute<'t>(text: &'t str, variables: Variables<'_>) -> Result<Cow<'t, str>, String> {
    if !text.contains("${") && !text.contains("$$") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}').filter(|(name, _)| is_name(name)).ok_or(
                "`${` begins no variable: accepted is ${NAME}, with letters, digits and _, and $$ for a dollar",
            )?;
            out.push_str(&variables(name).map_err(|error| unusable(name, &error))?);
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn unusable(name: &str, error: &VarError) -> String {
    match error {
        VarError::NotPresent => format!("the environment variable {name} is not set"),
        // Not shown: it may be a secret.
        VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let variables = |name: &str| match name {
            "HOME" => Ok(String::from("/home/bob")),
            "ODD" => Ok(String::from("${HOME}$$\"\n[x]")),
            _ => Err(VarError::NotPresent),
        };
        substitute(text, &variables).map(Cow::into_owned)
    }

    #[test]
    fn a_variable_is_put_in_once_and_never_read_again() {
        for (text, expected) in [
            ("plain $5 /x$/", "plain $5 /x$/"),
            ("${HOME}/log", "/home/bob/log"),
            ("a${HOME}b${HOME}", "a/home/bobb/home/bob"),
            ("$${HOME} $$$$", "${HOME} $$"),
            ("${ODD}", "${HOME}$$\"\n[x]"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_missing_or_none_is_an_error_that_names_it() {
        assert_eq!(with("x${NOT_THERE}").unwrap_err(), "the environment variable NOT_THERE is not set");
        for text in ["${", "${}", "${A-B}", "${1A}", "${HOME"] {
            assert!(with(text).unwrap_err().contains("accepted is ${NAME}"), "{text}");
        }
    }
}
