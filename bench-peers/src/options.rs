//! The command line of a measurement: `--write`, and counts that have a default.

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// The figures go into the documents too.
    pub write: bool,
    counts: Vec<(&'static str, u64)>,
}

impl Options {
    /// Reads `--write` and, for each of `defaults`, `--NAME COUNT`.
    ///
    /// # Errors
    ///
    /// Says which argument is wrong, and what there is.
    pub fn parse(arguments: &[&str], defaults: &[(&'static str, u64)]) -> Result<Options, String> {
        let mut options = Options { write: false, counts: defaults.to_vec() };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            if argument == "--write" {
                options.write = true;
                continue;
            }
            let name = argument.strip_prefix("--");
            let known = options.counts.iter_mut().find(|(known, _)| Some(*known) == name);
            let Some((name, count)) = known else { return Err(usage(argument, defaults)) };
            let value = arguments.next().copied().unwrap_or_default();
            *count = match value.parse() {
                Ok(value) if value > 0 => value,
                _ => return Err(format!("--{name} takes a whole number from 1, not `{value}`")),
            };
        }
        Ok(options)
    }

    /// The count of this name.
    ///
    /// # Panics
    ///
    /// If `parse` was not told of it.
    pub fn count(&self, name: &str) -> u64 {
        let found = self.counts.iter().find(|(known, _)| *known == name);
        found.expect("a count that was declared").1
    }
}

fn usage(argument: &str, defaults: &[(&'static str, u64)]) -> String {
    let counts: Vec<_> = defaults.iter().map(|(name, count)| format!("--{name} {count}")).collect();
    format!("`{argument}` is not known; there are --write and (with their defaults) {}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &[(&str, u64)] = &[("rounds", 5), ("seconds", 1)];

    #[test]
    fn a_count_that_is_given_replaces_its_default_and_no_other() {
        let options = Options::parse(&["--rounds", "7", "--write"], DEFAULTS).unwrap();
        assert_eq!((true, 7, 1), (options.write, options.count("rounds"), options.count("seconds")));
    }

    #[test]
    fn a_wrong_argument_is_named_with_what_is_accepted() {
        let unknown = Options::parse(&["--round", "7"], DEFAULTS).unwrap_err();
        assert!(unknown.contains("`--round`") && unknown.contains("--rounds 5"), "{unknown}");
        let zero = Options::parse(&["--rounds", "0"], DEFAULTS).unwrap_err();
        assert!(zero.contains("--rounds") && zero.contains("`0`"), "{zero}");
        assert!(Options::parse(&["--rounds"], DEFAULTS).is_err());
    }
}
