//! Names of fields as small numbers, so that a message can tell in one step whether it has a name already.
//!
//! In: names. Out: numbers, the same for the same name. Names come from the program and could be endless; past a
//! limit all are forgotten and begin anew.

use std::collections::HashMap;

/// More different names than this, and the table is begun anew.
const MOST_NAMES: usize = 16 * 1024;

/// Names this crate writes itself; their numbers are their places in here.
pub(crate) const OWN: [&str; 15] = [
    "target",
    "module",
    "file",
    "line",
    "thread",
    "span",
    "spans",
    "context",
    "name",
    "rate",
    "busy_ms",
    "idle_ms",
    "truncated",
    super::ids::FIELD,
    "message",
];

/// The number of one of [`OWN`].
pub(crate) mod own {
    pub(crate) const TARGET: u32 = 0;
    pub(crate) const MODULE: u32 = 1;
    pub(crate) const FILE: u32 = 2;
    pub(crate) const LINE: u32 = 3;
    pub(crate) const THREAD: u32 = 4;
    pub(crate) const SPAN: u32 = 5;
    pub(crate) const SPANS: u32 = 6;
    pub(crate) const CONTEXT: u32 = 7;
    pub(crate) const NAME: u32 = 8;
    pub(crate) const RATE: u32 = 9;
    pub(crate) const BUSY: u32 = 10;
    pub(crate) const IDLE: u32 = 11;
    pub(crate) const TRUNCATED: u32 = 12;
    pub(crate) const METLOG_ID: u32 = 13;
}

/// The table of names.
#[derive(Debug)]
pub(crate) struct Names {
    numbers: HashMap<Box<[u8]>, u32>,
}

impl Names {
    pub(crate) fn new() -> Names {
        let numbers = OWN.iter().zip(0..).map(|(name, number)| (name.as_bytes().into(), number)).collect();
        Names { numbers }
    }

    /// The number of a name.
    pub(crate) fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(name.into(), number);
        number
    }

    /// Whether it is time to begin anew.
    pub(crate) fn is_full(&self) -> bool {
        self.numbers.len() > MOST_NAMES
    }
}

/// Which names an object has already.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// By name: the object that had it last.
    objects: Vec<u32>,
    object: u32,
}

impl Taken {
    /// Begins a new object, which has no names.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.object = self.object.wrapping_add(1);
        if self.object == 0 {
            self.objects.clear();
            self.object = 1;
        }
    }

    /// Takes a name; `false` when the object has it already.
    #[inline]
    pub(crate) fn take(&mut self, name: u32) -> bool {
        let index = name as usize;
        if index >= self.objects.len() {
            self.objects.resize(index + 1, 0);
        }
        let is_new = self.objects[index] != self.object;
        self.objects[index] = self.object;
        is_new
    }

    /// Whether the object has a name.
    #[inline]
    pub(crate) fn has(&self, name: u32) -> bool {
        self.objects.get(name as usize) == Some(&self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_have_the_numbers_they_are_called_by() {
        let mut names = Names::new();
        let numbers = [
            (own::TARGET, "target"),
            (own::MODULE, "module"),
            (own::FILE, "file"),
            (own::LINE, "line"),
            (own::THREAD, "thread"),
            (own::SPAN, "span"),
            (own::SPANS, "spans"),
            (own::CONTEXT, "context"),
            (own::NAME, "name"),
            (own::RATE, "rate"),
            (own::BUSY, "busy_ms"),
            (own::IDLE, "idle_ms"),
            (own::TRUNCATED, "truncated"),
            (own::METLOG_ID, "metlog_id"),
        ];
        for (number, name) in numbers {
            assert_eq!(names.number(name.as_bytes()), number);
        }
    }

    #[test]
    fn an_object_has_each_name_once_and_the_next_one_has_none() {
        let mut taken = Taken { object: u32::MAX - 1, ..Taken::default() };
        for _ in 0..3 {
            taken.begin();
            assert!(!taken.has(3));
            assert!(taken.take(3));
            assert!(!taken.take(3));
            assert!(taken.has(3));
        }
    }
}
