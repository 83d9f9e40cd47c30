//! Many matchers asked at once. In: matchers, then one message after another. Out: which of them match.
//!
//! A matcher that can only match when a variable or a field has one of some texts is looked at only when it has: one
//! look-up by hash stands for all matchers that want other texts. The rest is asked one by one. Nothing can be lost
//! here: that the answers are the same is what the tests are about.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::condition::{Comparison, Condition, FieldName, FieldTest, TextTest};
use super::{Matcher, Subject, TextVariable};

/// Matchers, arranged so that one message can be shown to all of them.
///
/// Those that need a certain text in all cases (`Type == 'a'`, `Logger == 'b' || Logger == 'c'`,
/// `Fields[name] == 'd' && Severity < 4`) cost next to nothing when the message has another.
///
/// ```
/// use tracing_metlog::router::{Matcher, MatcherSet, Matches};
/// use tracing_metlog::Message;
///
/// let matchers = ["Type == 'timer'", "Severity <= 6", "Type == 'counter'"];
/// let set: MatcherSet = matchers.into_iter().map(Matcher::parse).collect::<Result<_, _>>()?;
/// let mut matches = Matches::default();
/// set.judge(&Message::new("counter", "1"), &mut matches);
/// assert_eq!(matches.iter().collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), tracing_metlog::router::MatcherError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MatcherSet {
    conditions: Vec<Condition>,
    tables: Vec<Table>,
    /// The matchers that no table knows.
    others: Vec<usize>,
}

/// Which matchers of a [`MatcherSet`] match. To be used again for the next message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    words: Vec<u64>,
}

/// What a text is looked for in.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Variable(TextVariable),
    Field(FieldName),
}

/// The matchers that need one of some texts in one place.
#[derive(Clone, Debug)]
struct Table {
    place: Place,
    by_text: HashMap<String, Vec<Candidate>>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: usize,
    /// It asks for nothing else.
    is_all: bool,
}

/// One of the texts that must be in a place, for a matcher to match.
#[derive(Clone, Debug)]
struct Need {
    place: Place,
    texts: BTreeSet<String>,
    is_all: bool,
}

impl MatcherSet {
    /// The matchers, to be named by their position from 0.
    pub fn new(matchers: impl IntoIterator<Item = Matcher>) -> Self {
        let conditions = matchers.into_iter().map(|matcher| matcher.0).collect();
        let mut set = MatcherSet { conditions, ..MatcherSet::default() };
        let needs: Vec<Vec<Need>> = set.conditions.iter().map(needs).collect();
        let wanted = Wanted::of(needs.iter().flatten());
        for (index, needs) in needs.into_iter().enumerate() {
            match needs.into_iter().min_by_key(|need| wanted.rank(need)) {
                Some(need) => set.enter(index, need),
                None => set.others.push(index),
            }
        }
        set
    }

    /// How many matchers it has.
    pub fn len(&self) -> usize {
        self.conditions.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Finds out which of them match. What `matches` said before is forgotten.
    pub fn judge<S: Subject + ?Sized>(&self, subject: &S, matches: &mut Matches) {
        matches.clear(self.conditions.len());
        for table in &self.tables {
            table.judge(self, subject, matches);
        }
        for &index in &self.others {
            self.judge_one(index, subject, matches);
        }
    }

    fn judge_one<S: Subject + ?Sized>(&self, index: usize, subject: &S, matches: &mut Matches) {
        if self.conditions[index].holds(subject) {
            matches.insert(index);
        }
    }

    fn enter(&mut self, index: usize, need: Need) {
        let position = self.tables.iter().position(|table| table.place == need.place);
        let position = position.unwrap_or_else(|| {
            self.tables.push(Table { place: need.place, by_text: HashMap::new() });
            self.tables.len() - 1
        });
        for text in need.texts {
            let candidate = Candidate { index, is_all: need.is_all };
            self.tables[position].by_text.entry(text).or_default().push(candidate);
        }
    }
}

impl FromIterator<Matcher> for MatcherSet {
    fn from_iter<I: IntoIterator<Item = Matcher>>(matchers: I) -> Self {
        MatcherSet::new(matchers)
    }
}

impl Matches {
    /// Whether the matcher at this position matches.
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// The positions of those that match, in their order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(position, &word)| {
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            let rest = rest.take_while(|&word| word != 0);
            rest.map(move |word| position * 64 + word.trailing_zeros() as usize)
        })
    }

    /// Whether none matches.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    fn clear(&mut self, length: usize) {
        self.words.clear();
        self.words.resize(length.div_ceil(64), 0);
    }

    fn insert(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
    }
}

impl Table {
    fn judge<S: Subject + ?Sized>(&self, set: &MatcherSet, subject: &S, matches: &mut Matches) {
        match &self.place {
            Place::Variable(variable) => {
                let text = subject.text(*variable);
                self.look_up(text.as_deref().unwrap_or_default(), set, subject, matches);
            }
            Place::Field(name) => name.look_at(subject, |value| match value {
                Some(Value::String(text)) => self.look_up(text, set, subject, matches),
                // It equals every text, see `FieldTest::holds`.
                Some(Value::Bool(false)) => {
                    self.by_text
                        .values()
                        .flatten()
                        .for_each(|one| set.judge_one(one.index, subject, matches));
                }
                _ => {}
            }),
        }
    }

    fn look_up<S: Subject + ?Sized>(&self, text: &str, set: &MatcherSet, subject: &S, matches: &mut Matches) {
        for candidate in self.by_text.get(text).into_iter().flatten() {
            if candidate.is_all {
                matches.insert(candidate.index);
            } else {
                set.judge_one(candidate.index, subject, matches);
            }
        }
    }
}

/// Everything that must be so in all cases, for `condition` to hold, and that a table can tell.
fn needs(condition: &Condition) -> Vec<Need> {
    let equal = |place, text: &String| Need { place, texts: BTreeSet::from([text.clone()]), is_all: true };
    match condition {
        Condition::Text(variable, TextTest::Compare(Comparison::Equal, text)) => {
            vec![equal(Place::Variable(*variable), text)]
        }
        Condition::Field(name, FieldTest::Text(TextTest::Compare(Comparison::Equal, text))) => {
            vec![equal(Place::Field(name.clone()), text)]
        }
        Condition::All(conditions) => {
            conditions.iter().flat_map(needs).map(|need| Need { is_all: false, ..need }).collect()
        }
        Condition::Any(conditions) => conditions.iter().map(needs).reduce(either).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// What is needed when one of two things is: a text of either, where both need one in the same place.
fn either(one: Vec<Need>, other: Vec<Need>) -> Vec<Need> {
    let both = |mut need: Need| {
        let same = other.iter().find(|other| other.place == need.place)?;
        need.texts.extend(same.texts.iter().cloned());
        need.is_all &= same.is_all;
        Some(need)
    };
    one.into_iter().filter_map(both).collect()
}

/// How many matchers want each text: the best place to look for a matcher is where few others are.
struct Wanted(Vec<(Place, HashMap<String, usize>)>);

impl Wanted {
    fn of<'a>(needs: impl Iterator<Item = &'a Need>) -> Self {
        let mut wanted = Wanted(Vec::new());
        for need in needs {
            if wanted.by_text(&need.place).is_none() {
                wanted.0.push((need.place.clone(), HashMap::new()));
            }
            let place = wanted.0.iter_mut().find(|(place, _)| *place == need.place);
            if let Some((_, by_text)) = place {
                need.texts.iter().for_each(|text| *by_text.entry(text.clone()).or_default() += 1);
            }
        }
        wanted
    }

    fn by_text(&self, place: &Place) -> Option<&HashMap<String, usize>> {
        self.0.iter().find(|(other, _)| other == place).map(|(_, by_text)| by_text)
    }

    /// The lower the better: how often one of the texts is wanted, and then how dear it is to look there.
    fn rank(&self, need: &Need) -> (usize, u8) {
        let by_text = self.by_text(&need.place);
        let crowd = need.texts.iter().filter_map(|text| by_text?.get(text)).sum();
        let dear = match need.place {
            Place::Variable(TextVariable::Payload) => 2,
            Place::Variable(_) => 0,
            Place::Field(_) => 1,
        };
        (crowd, dear)
    }
}
