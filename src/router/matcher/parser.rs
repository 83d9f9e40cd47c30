//! From an expression to a condition. In: the text. Out: the condition, or the place of the first mistake and what was
//! expected there.
//!
//! Neither a long expression nor a deeply nested one costs more than it is long: both are bounded. Of several
//! expressions in a row the last one counts, as in Heka; the others must be sound.

use super::condition::{Comparison, Condition, FieldName, FieldTest, TextTest};
use super::error::{MatcherError, Problem};
use super::lexer::{Lexer, Word, VARIABLES};
use super::pattern::{Compiled, Pattern};
use super::{NumberVariable, TextVariable, LONGEST_EXPRESSION, MOST_NESTED, MOST_REGULAR};

pub(super) fn parse(expression: &str) -> Result<Condition, MatcherError> {
    if expression.len() > LONGEST_EXPRESSION {
        return Err(too_long(expression));
    }
    Parser::begin(expression)
        .and_then(|mut parser| parser.last_expression())
        .map_err(|problem| MatcherError::new(expression, problem))
}

#[cold]
fn too_long(expression: &str) -> MatcherError {
    let end = (0..=LONGEST_EXPRESSION).rev().find(|&end| expression.is_char_boundary(end)).unwrap_or(0);
    let problem = format!(
        "an expression has at most {LONGEST_EXPRESSION} bytes; this one has {} and goes on here",
        expression.len()
    );
    MatcherError::new(&expression[..end], Problem::new(end, problem))
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The word that is read next, and its place.
    word: Word,
    start: usize,
    /// Open parentheses.
    depth: usize,
    /// Regular expressions that needed an engine.
    regular: usize,
}

impl<'a> Parser<'a> {
    fn begin(expression: &'a str) -> Result<Self, Problem> {
        let mut lexer = Lexer::new(expression);
        let (word, start) = lexer.next()?;
        Ok(Parser { lexer, word, start, depth: 0, regular: 0 })
    }

    /// The word, and the one after it in its place.
    fn take(&mut self) -> Result<Word, Problem> {
        let (next, start) = self.lexer.next()?;
        self.start = start;
        Ok(std::mem::replace(&mut self.word, next))
    }

    fn take_if(&mut self, word: &Word) -> Result<bool, Problem> {
        let found = self.word == *word;
        if found {
            self.take()?;
        }
        Ok(found)
    }

    #[cold]
    fn expected(&self, what: &str) -> Problem {
        let found = match self.word {
            Word::End => String::from("the end (a newline ends an expression)"),
            _ => format!("`{}`", self.lexer.shown(self.start)),
        };
        Problem::new(self.start, format!("expected {what}, found {found}"))
    }

    fn last_expression(&mut self) -> Result<Condition, Problem> {
        let mut last = self.alternatives()?;
        while self.word != Word::End {
            if !self.begins_test() {
                return Err(self.expected("`&&`, `||` or the end"));
            }
            last = self.alternatives()?;
        }
        Ok(last)
    }

    fn begins_test(&self) -> bool {
        use Word::{Constant, Field, NumberVariable, Open, TextVariable};
        matches!(self.word, Open | Constant(_) | TextVariable(_) | NumberVariable(_) | Field(_))
    }

    fn alternatives(&mut self) -> Result<Condition, Problem> {
        let mut alternatives = vec![self.conjunction()?];
        while self.take_if(&Word::Or)? {
            alternatives.push(self.conjunction()?);
        }
        Ok(Condition::any(alternatives))
    }

    fn conjunction(&mut self) -> Result<Condition, Problem> {
        let mut conditions = vec![self.test()?];
        while self.take_if(&Word::And)? {
            conditions.push(self.test()?);
        }
        Ok(Condition::all(conditions))
    }

    fn test(&mut self) -> Result<Condition, Problem> {
        if !self.begins_test() {
            return Err(self.expected(&format!("a test of {VARIABLES}, or TRUE, FALSE, `(`")));
        }
        let start = self.start;
        match self.take()? {
            Word::Open => self.group(start),
            Word::TextVariable(variable) => self.text_test(variable),
            Word::NumberVariable(variable) => self.number_test(variable),
            Word::Field(name) => self.field_test(name),
            other => Ok(Condition::Constant(other == Word::Constant(true))),
        }
    }

    /// What is behind a parenthesis, and the other one.
    fn group(&mut self, start: usize) -> Result<Condition, Problem> {
        if self.depth == MOST_NESTED {
            return Err(Problem::new(start, format!("at most {MOST_NESTED} parentheses are open at a time")));
        }
        self.depth += 1;
        let condition = self.alternatives()?;
        self.depth -= 1;
        match self.take_if(&Word::Close)? {
            true => Ok(condition),
            false => Err(self.expected("`&&`, `||` or `)`")),
        }
    }

    fn text_test(&mut self, variable: TextVariable) -> Result<Condition, Problem> {
        let test = match self.operator()? {
            Operator::Compare(comparison) => match self.take_text()? {
                Some(text) => TextTest::Compare(comparison, text),
                None => return Err(self.expected(&format!("a text in quotes after {}", variable.name()))),
            },
            Operator::Match { negated } => self.pattern(negated)?,
        };
        Ok(Condition::Text(variable, test))
    }

    fn number_test(&mut self, variable: NumberVariable) -> Result<Condition, Problem> {
        let Word::Compare(comparison) = self.word else {
            let name = variable.name();
            return Err(self.expected(&format!("one of ==, !=, <, <=, >, >= ({name} is a number)")));
        };
        self.take()?;
        let Word::Number(number) = self.word else {
            return Err(self.expected(&format!("a number after {}", variable.name())));
        };
        self.take()?;
        Ok(Condition::Number(variable, comparison, number))
    }

    fn field_test(&mut self, name: FieldName) -> Result<Condition, Problem> {
        let test = match self.operator()? {
            Operator::Compare(comparison) => self.field_comparison(comparison)?,
            Operator::Match { negated } => FieldTest::Text(self.pattern(negated)?),
        };
        Ok(Condition::Field(name, test))
    }

    fn field_comparison(&mut self, comparison: Comparison) -> Result<FieldTest, Problem> {
        let test = match (comparison, &mut self.word) {
            (_, Word::Text(text)) => FieldTest::Text(TextTest::Compare(comparison, std::mem::take(text))),
            (_, Word::Number(number)) => FieldTest::Number(comparison, *number),
            (Comparison::Equal, Word::Constant(value)) => FieldTest::Is(*value),
            (Comparison::Equal, Word::Nil) => FieldTest::Missing { negated: false },
            (Comparison::NotEqual, Word::Nil) => FieldTest::Missing { negated: true },
            (Comparison::Equal, _) => {
                return Err(self.expected("a text in quotes, a number, TRUE, FALSE or NIL"))
            }
            (Comparison::NotEqual, Word::Constant(_)) => {
                return Err(self.expected("a text in quotes, a number or NIL (== alone takes TRUE and FALSE)"))
            }
            (Comparison::NotEqual, _) => return Err(self.expected("a text in quotes, a number or NIL")),
            _ => return Err(self.expected("a text in quotes or a number")),
        };
        self.take()?;
        Ok(test)
    }

    fn operator(&mut self) -> Result<Operator, Problem> {
        let operator = match self.word {
            Word::Compare(comparison) => Operator::Compare(comparison),
            Word::Match { negated } => Operator::Match { negated },
            _ => return Err(self.expected("one of ==, !=, <, <=, >, >=, =~, !~")),
        };
        self.take()?;
        Ok(operator)
    }

    fn take_text(&mut self) -> Result<Option<String>, Problem> {
        let Word::Text(text) = &mut self.word else {
            return Ok(None);
        };
        let text = std::mem::take(text);
        self.take()?;
        Ok(Some(text))
    }

    fn pattern(&mut self, negated: bool) -> Result<TextTest, Problem> {
        let Word::Regular(source) = &self.word else {
            return Err(self.expected("a regular expression between slashes, as in /^a/"));
        };
        let compiled = Pattern::compile(source).map_err(|mistake| {
            // Each slash of it has a backslash in the expression.
            let slashes = source[..mistake.offset].matches('/').count();
            Problem::new(self.start + 1 + mistake.offset + slashes, mistake.text)
        })?;
        let test = match compiled {
            Compiled::Exactly(text) if negated => TextTest::Compare(Comparison::NotEqual, text),
            Compiled::Exactly(text) => TextTest::Compare(Comparison::Equal, text),
            Compiled::Pattern(pattern) => {
                self.regular += usize::from(pattern.needs_engine());
                TextTest::Pattern { negated, pattern }
            }
        };
        if self.regular > MOST_REGULAR {
            let most = format!("an expression has at most {MOST_REGULAR} regular expressions");
            return Err(Problem::new(self.start, most));
        }
        self.take()?;
        Ok(test)
    }
}

enum Operator {
    Compare(Comparison),
    Match { negated: bool },
}
