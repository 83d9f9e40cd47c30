//! From an expression to its words. In: the text of one expression. Out: words, each with its place; or the place
//! where none begins.
//!
//! What is behind the first newline is no part of the expression, as in Heka.

use super::condition::{Comparison, FieldName, Number};
use super::error::{printable, Problem};
use super::{NumberVariable, TextVariable};

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Open,
    Close,
    And,
    Or,
    Compare(Comparison),
    /// `=~`, and negated `!~`.
    Match {
        negated: bool,
    },
    TextVariable(TextVariable),
    NumberVariable(NumberVariable),
    Field(FieldName),
    /// What stood in quotes.
    Text(String),
    Number(Number),
    /// What stood between slashes, with `/` for `\/`.
    Regular(String),
    Constant(bool),
    Nil,
    End,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Lexer { text, at: 0 }
    }

    /// The next word, and where it begins.
    pub(super) fn next(&mut self) -> Result<(Word, usize), Problem> {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.take();
        }
        let start = self.at;
        let word = match self.peek() {
            None => Word::End,
            Some('A'..='Z') => self.name()?,
            Some('0'..='9' | '.') => self.number(),
            Some(quote @ ('\'' | '"')) => Word::Text(self.delimited(quote, "text")?),
            Some('/') => Word::Regular(self.delimited('/', "regular expression")?),
            Some(_) => self.symbol()?,
        };
        Ok((word, start))
    }

    /// What stands between `start` and the end of the word read last, for an error: at most so many characters that
    /// it stays one line.
    pub(super) fn shown(&self, start: usize) -> String {
        const LONGEST: usize = 30;
        let word = self.text.get(start..self.at).unwrap_or_default().trim_end_matches([' ', '\t']);
        let mut shown: String = word.chars().take(LONGEST).map(printable).collect();
        if word.chars().nth(LONGEST).is_some() {
            shown.push_str("...");
        }
        shown
    }

    /// The next character; `None` at the end, which a newline and a zero are too.
    fn peek(&self) -> Option<char> {
        self.raw().filter(|character| !matches!(character, '\n' | '\0'))
    }

    fn raw(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    /// What `accepts` takes, up to the first character that it does not.
    fn run(&mut self, accepts: fn(char) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(accepts) {
            self.take();
        }
        &self.text[start..self.at]
    }

    fn symbol(&mut self) -> Result<Word, Problem> {
        const SYMBOLS: [(&str, Word); 12] = [
            ("==", Word::Compare(Comparison::Equal)),
            ("=~", Word::Match { negated: false }),
            ("!=", Word::Compare(Comparison::NotEqual)),
            ("!~", Word::Match { negated: true }),
            ("<=", Word::Compare(Comparison::LessOrEqual)),
            ("<", Word::Compare(Comparison::Less)),
            (">=", Word::Compare(Comparison::GreaterOrEqual)),
            (">", Word::Compare(Comparison::Greater)),
            ("||", Word::Or),
            ("&&", Word::And),
            ("(", Word::Open),
            (")", Word::Close),
        ];
        let rest = &self.text[self.at..];
        match SYMBOLS.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            Some((symbol, word)) => {
                self.at += symbol.len();
                Ok(word)
            }
            None => Err(self.no_symbol()),
        }
    }

    #[cold]
    fn no_symbol(&self) -> Problem {
        let text = match self.peek() {
            Some('!') => String::from("there is no `!` here: use != or !~, or compare with FALSE"),
            Some('=') => String::from("expected one of ==, !=, <, <=, >, >=, =~, !~, found `=`"),
            Some('&') => String::from("expected `&&`, found `&`"),
            Some('|') => String::from("expected `||`, found `|`"),
            Some('-') => String::from("a number cannot have a sign: it begins with a digit or a dot"),
            Some('a'..='z') => {
                String::from("expected a variable, TRUE, FALSE or NIL: they begin with a capital letter")
            }
            other => {
                let other = other.map(printable).unwrap_or_default();
                format!("`{other}` begins nothing that an expression knows")
            }
        };
        Problem::new(self.at, text)
    }

    fn name(&mut self) -> Result<Word, Problem> {
        let start = self.at;
        let name = self.run(|character| character.is_ascii_alphabetic());
        if let Some(variable) = TextVariable::of_name(name) {
            return Ok(Word::TextVariable(variable));
        }
        if let Some(variable) = NumberVariable::of_name(name) {
            return Ok(Word::NumberVariable(variable));
        }
        match name {
            "TRUE" => Ok(Word::Constant(true)),
            "FALSE" => Ok(Word::Constant(false)),
            "NIL" => Ok(Word::Nil),
            "Fields" => self.field().map(Word::Field),
            _ => Err(Problem::new(
                start,
                format!(
                    "`{}` is no variable; there are {VARIABLES}, and the constants TRUE, FALSE and NIL",
                    self.shown(start)
                ),
            )),
        }
    }

    fn field(&mut self) -> Result<FieldName, Problem> {
        if self.peek() != Some('[') {
            return Err(Problem::new(self.at, "expected `[` and the name of a field, as in Fields[name]"));
        }
        self.take();
        let start = self.at;
        let name = self.run(|character| character != ']').to_owned();
        if name.is_empty() {
            return Err(Problem::new(start, "expected the name of a field, as in Fields[name]"));
        }
        self.close("`]` after the name of a field")?;
        let field = self.index()?.unwrap_or(0);
        let element = self.index()?.unwrap_or(0);
        Ok(FieldName { name, field, element })
    }

    /// `[7]`, if there is one.
    fn index(&mut self) -> Result<Option<u64>, Problem> {
        if self.peek() != Some('[') {
            return Ok(None);
        }
        self.take();
        let start = self.at;
        let digits = self.run(|character| character.is_ascii_digit());
        let number = digits.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        let Some(number) = number else {
            return Err(Problem::new(start, "expected an index, a number from 0 to 9223372036854775807"));
        };
        self.close("`]` after an index")?;
        Ok(Some(number))
    }

    fn close(&mut self, expected: &str) -> Result<(), Problem> {
        match self.peek() {
            Some(']') => {
                self.take();
                Ok(())
            }
            _ => Err(Problem::new(self.at, format!("expected {expected}"))),
        }
    }

    /// What is no number counts as 0, and so does what is too large for one.
    fn number(&mut self) -> Word {
        let digits = self.run(|character| matches!(character, '0'..='9' | '.' | 'e' | '+' | '-'));
        let number = digits.parse().ok().filter(|number: &f64| number.is_finite());
        Word::Number(Number(number.unwrap_or(0.0)))
    }

    /// What stands between two `delimiter`s. A backslash stands for itself, except before the delimiter.
    fn delimited(&mut self, delimiter: char, what: &str) -> Result<String, Problem> {
        let start = self.at;
        self.take();
        let mut content = String::new();
        loop {
            match self.take() {
                None => {
                    return Err(Problem::new(
                        start,
                        format!(
                            "this {what} does not end: expected `{delimiter}` before the end of the line"
                        ),
                    ))
                }
                Some('\\') => match self.take() {
                    Some(character) if character == delimiter => content.push(delimiter),
                    Some(character) => content.extend(['\\', character]),
                    None => self.escaped_end(&mut content),
                },
                Some(character) if character == delimiter => return Ok(content),
                Some(character) => content.push(character),
            }
        }
    }

    /// A newline or a zero after a backslash does not end the line for Heka, and is a zero.
    fn escaped_end(&mut self, content: &mut String) {
        if let Some(character) = self.raw() {
            self.at += character.len_utf8();
            content.push_str("\\\0");
        }
    }
}

/// For errors.
pub(super) const VARIABLES: &str =
    "Uuid, Type, Logger, Payload, EnvVersion, Hostname, Timestamp, Severity, Pid, Fields[name]";
