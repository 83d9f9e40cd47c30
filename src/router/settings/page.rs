//! What the definitions say, as text: a complete configuration file with comments, and the reference page.

use super::definition::{Default, Section};
use super::{inputs, outputs, tables};

/// A section, ready to be written down.
pub(super) struct Page {
    title: &'static str,
    kind: Option<&'static str>,
    about: &'static str,
    options: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    accepted: String,
    default: Default,
    about: &'static str,
    is_secret: bool,
}

impl Page {
    pub(super) fn of<T>(section: &Section<T>) -> Self {
        let options = section.options.iter().map(|option| Entry {
            name: option.name,
            accepted: option.accepted(),
            default: option.default,
            about: option.about,
            is_secret: option.is_secret,
        });
        Page { title: section.title, kind: section.kind, about: section.about, options: options.collect() }
    }
}

/// Every section, in the order in which people read them.
fn pages() -> Vec<Page> {
    let mut pages = vec![Page::of(&tables::ROUTER), Page::of(&inputs::INPUT)];
    pages.extend(outputs::KINDS.iter().map(|kind| (kind.page)()));
    pages.push(Page::of(&tables::ROUTE));
    pages
}

const HEAD: &str = "\
# The configuration of metlog-router. As it stands it does what the program does without one: UDP and TCP on
# 127.0.0.1:5565, everything readable on the console. A line that begins with # and no blank is an option that is
# not given, with its default or an example: take the # away.
#
# ${NAME} in a value is the environment variable NAME, $$ a dollar.
# `metlog-router --config FILE --check` says what is wrong with a file, or what it would do.
# SIGHUP has it read again; a file with errors changes nothing.
";

/// A complete configuration file with comments; it means what no file means.
pub(super) fn default_toml() -> String {
    let mut out = String::from(HEAD);
    let [router, input] = [Page::of(&tables::ROUTER), Page::of(&inputs::INPUT)];
    write_table(&mut out, &router, "[router]", "", &[]);
    write_table(&mut out, &input, "[[input]]", "", &[("url", "\"udp://127.0.0.1:5565\"")]);
    out.push_str("\n[[input]]\nurl = \"tcp://127.0.0.1:5565\"\n");
    for kind in outputs::KINDS {
        // The console is the one that is on.
        let off = if kind.name == "console" { "" } else { "#" };
        let title = format!("[output.{}]", kind.name);
        write_table(&mut out, &(kind.page)(), &title, off, &[]);
    }
    write_table(&mut out, &Page::of(&tables::ROUTE), "[[route]]", "", &[("to", "\"console\"")]);
    out
}

fn write_table(out: &mut String, page: &Page, title: &str, off: &str, given: &[(&str, &str)]) {
    out.push('\n');
    write_comment(out, page.about);
    out.push_str(&format!("{off}{title}\n"));
    if let Some(kind) = page.kind {
        out.push_str(&format!("{off}type = \"{kind}\"\n"));
    }
    for option in &page.options {
        let Entry { name, default, about, .. } = option;
        let (value, note) = match *default {
            Default::Needed(value) | Default::OneOf(value) | Default::Is(value) => (value, String::new()),
            Default::Says(says, value) => (value, format!(" Default: {says}.")),
        };
        write_comment(out, &format!("{about}{note}"));
        match given.iter().find(|(given, _)| given == name) {
            Some((_, value)) => out.push_str(&format!("{name} = {value}\n")),
            None => out.push_str(&format!("#{name} = {value}\n")),
        }
    }
}

/// Lines of no more than 110 columns.
fn write_comment(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column == 0 || column + 1 + word.len() > 110 {
            out.push_str(if column == 0 { "# " } else { "\n# " });
            out.push_str(word);
            column = 2 + word.len();
        } else {
            out.push(' ');
            out.push_str(word);
            column += 1 + word.len();
        }
    }
    out.push('\n');
}

const REFERENCE_HEAD: &str = "\
# The configuration of metlog-router

One TOML file: `metlog-router --config FILE`. `--check` reads it, says what it would do or what is wrong with it, and opens
nothing. `--print-default` prints a complete file with comments. SIGHUP has the running router read the file again; a file
with errors changes nothing and is named on standard error.

- An empty file means what no file means: UDP and TCP on 127.0.0.1:5565, everything readable on the console.
- Durations are texts with a unit (`\"250ms\"`, `\"5s\"`, `\"10m\"`, `\"1h\"`, `\"7d\"`); sizes are numbers of bytes or texts
  (`\"64KiB\"`, `\"100MiB\"`).
- `${NAME}` in a value is the environment variable `NAME`; one that is not set is an error. `$$` is a dollar. Variables are
  put in after the file has been taken apart: whatever one holds is part of that value. For a number, a size or a flag write
  the variable in quotes: `max_connections = \"${CONNECTIONS}\"`.
- A key that nobody knows is an error, and so is an output that no route leads to.
- Values marked *secret* are never shown in errors, by `--check` or elsewhere.

This page is written by `metlog-router --print-reference`, from the definitions that the file is read with.
";

/// The reference page, in Markdown.
pub(super) fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    for page in pages() {
        let kind = page.kind.map(|kind| format!(", `type = \"{kind}\"`")).unwrap_or_default();
        out.push_str(&format!("\n## `{}`{kind}\n\n{}\n", page.title, page.about));
        if page.options.is_empty() {
            continue;
        }
        out.push_str("\n| option | accepted | default | what it means |\n|---|---|---|---|\n");
        for option in &page.options {
            let Entry { name, accepted, about, is_secret, .. } = option;
            let default = match option.default {
                Default::Needed(_) => String::from("must be given"),
                Default::OneOf(_) => String::from("one of these must be given"),
                Default::Is(value) => format!("`{value}`"),
                Default::Says(says, _) => says.to_owned(),
            };
            let secret = if *is_secret { " *Secret.*" } else { "" };
            out.push_str(&format!(
                "| `{name}` | {} | {default} | {}{secret} |\n",
                accepted.replace('|', "\\|"),
                about.replace('|', "\\|")
            ));
        }
    }
    out
}

#[cfg(test)]
impl Page {
    /// The options that must be given.
    pub(super) fn needed(&self) -> Vec<&'static str> {
        let needed = |option: &&Entry| matches!(option.default, Default::Needed(_) | Default::OneOf(_));
        // Of several that exclude each other the first.
        let mut options: Vec<_> = self.options.iter().filter(needed).collect();
        options.dedup_by_key(|option| matches!(option.default, Default::OneOf(_)));
        options.into_iter().map(|option| option.name).collect()
    }
}

/// The names of options whose values are never shown.
#[cfg(test)]
pub(super) fn secrets() -> Vec<&'static str> {
    let options = pages().into_iter().flat_map(|page| page.options);
    options.filter(|option| option.is_secret).map(|option| option.name).collect()
}

/// The options of a section whose default the definitions know, and that default.
#[cfg(test)]
pub(super) fn defaults(title: &str) -> Vec<(&'static str, &'static str)> {
    let page = pages().into_iter().find(|page| page.title == title);
    let options = page.into_iter().flat_map(|page| page.options);
    options
        .filter_map(|option| match option.default {
            Default::Is(value) => Some((option.name, value)),
            _ => None,
        })
        .collect()
}
