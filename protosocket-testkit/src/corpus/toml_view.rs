//! A TOML table whose every key must be asked for, so that a misspelt one is an error.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use toml::de::{DeTable, DeValue};

/// A value.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(&'a DeValue<'a>);

/// A table.
pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(table: &'a DeTable<'a>) -> Self {
        Self {
            table,
            asked: RefCell::default(),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key).map(|value| Value(value.get_ref()))
    }

    /// The value of a key, or a word about its absence.
    pub(super) fn need(&self, key: &'static str) -> Result<Value<'a>, String> {
        self.get(key).ok_or_else(|| format!("`{key}` is missing"))
    }

    /// What a key says, if it is there.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let value = self.get(key);
        let read = value.map(read).transpose();
        read.map_err(|error| format!("`{key}`: {error}"))
    }

    /// Refuse keys that nobody has asked for.
    pub(super) fn finish(&self) -> Result<(), String> {
        let asked = self.asked.borrow();
        let mut keys = self.table.keys().map(|key| key.get_ref().as_ref());
        match keys.find(|key| !asked.contains(*key)) {
            Some(key) => Err(format!(
                "unknown key `{key}`, expected one of {}",
                asked.iter().copied().collect::<Vec<_>>().join(", ")
            )),
            None => Ok(()),
        }
    }

    /// All keys and their values, in the order of the alphabet.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let entries = self.table.iter();
        entries.map(|(key, value)| (key.get_ref().as_ref(), Value(value.get_ref())))
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(self) -> Result<&'a str, String> {
        self.0.as_str().ok_or_else(|| self.expected("a string"))
    }

    pub(super) fn table(self) -> Result<Table<'a>, String> {
        let table = self.0.as_table();
        table
            .map(Table::new)
            .ok_or_else(|| self.expected("a table"))
    }

    pub(super) fn list(self) -> Result<Vec<Value<'a>>, String> {
        let list = self.0.as_array().ok_or_else(|| self.expected("an array"))?;
        Ok(list.iter().map(|value| Value(value.get_ref())).collect())
    }

    /// A list, or one thing that stands for a list of one.
    pub(super) fn one_or_more(self) -> Vec<Value<'a>> {
        self.list().unwrap_or_else(|_| vec![self])
    }

    pub(super) fn is_text(self) -> bool {
        self.0.is_str()
    }

    pub(super) fn is_list(self) -> bool {
        self.0.is_array()
    }

    pub(super) fn count(self) -> Result<u64, String> {
        let integer = self.0.as_integer();
        let count = integer.and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok());
        count.ok_or_else(|| self.expected("a number of zero or more"))
    }

    pub(super) fn size(self) -> Result<usize, String> {
        usize::try_from(self.count()?).map_err(|_| self.expected("a size"))
    }

    /// `"20 ms"` or `"2 s"`.
    pub(super) fn duration(self) -> Result<Duration, String> {
        let wrong = || self.expected("a time such as \"20 ms\" or \"2 s\"");
        let (number, unit) = self.text()?.split_once(' ').ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        match unit {
            "ms" => Ok(Duration::from_millis(number)),
            "s" => Ok(Duration::from_secs(number)),
            _ => Err(wrong()),
        }
    }

    fn expected(self, what: &str) -> String {
        match self.0.as_str() {
            Some(text) => format!("expected {what}, found {text:?}"),
            None => format!("expected {what}, found a {}", self.0.type_str()),
        }
    }
}
