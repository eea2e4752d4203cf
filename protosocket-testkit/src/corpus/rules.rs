//! Which case or test proves which rule.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    Case, CorpusError, Level,
    toml_view::{Table, Value},
};

/// An index of rules: what each demands, and what proves it at each level. Cases name their rules
/// themselves; the index names tests, and why a level has nothing to prove.
#[derive(Debug, Clone)]
pub struct RuleIndex {
    file: PathBuf,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    id: String,
    what: String,
    proofs: BTreeMap<Level, Vec<Proof>>,
    without: BTreeMap<Level, String>,
    /// What is missing before it can be proven.
    not_yet: Option<String>,
}

/// What shows that a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The case of this id.
    Case(String),
    /// A test function in a file, as `path/to/file.rs::function`.
    Test(String),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Case(id) => f.write_str(id),
            Self::Test(test) => f.write_str(test.rsplit("::").next().unwrap_or(test)),
        }
    }
}

impl RuleIndex {
    /// Read an index, and give each rule the cases that name it.
    ///
    /// # Errors
    /// Its author is to blame: it cannot be read, or a case names a rule that is not there.
    pub fn load<'a>(
        file: impl AsRef<Path>,
        cases: impl IntoIterator<Item = &'a Case>,
    ) -> Result<Self, CorpusError> {
        let file = file.as_ref();
        let text = fs::read_to_string(file).map_err(|error| CorpusError::new(file, error))?;
        Self::parse(file, &text, cases)
    }

    /// As [`load`](Self::load), of a text that `file` is said to hold.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse<'a>(
        file: impl AsRef<Path>,
        text: &str,
        cases: impl IntoIterator<Item = &'a Case>,
    ) -> Result<Self, CorpusError> {
        let file = file.as_ref();
        let rules = rules(text).map_err(|problem| CorpusError::new(file, problem))?;
        let mut index = Self {
            file: file.to_owned(),
            rules,
        };
        for case in cases {
            for id in case.rules() {
                // Sections of documents and CVEs have no row here.
                if id.contains(' ') || id.starts_with("CVE-") {
                    continue;
                }
                let Some(rule) = index.rules.iter_mut().find(|rule| rule.id == id) else {
                    let problem = format!("case {:?} names the rule {id:?}, unknown", case.id());
                    return Err(CorpusError::new(file, problem));
                };
                for level in Level::ALL.into_iter().filter(|level| case.is_for(*level)) {
                    let proof = Proof::Case(case.id().to_owned());
                    rule.proofs.entry(level).or_default().push(proof);
                }
            }
        }
        Ok(index)
    }

    /// The ids of its rules, in the order of the file.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// What proves a rule at a level.
    pub fn proofs(&self, id: &str, level: Level) -> &[Proof] {
        let rule = self.rules.iter().find(|rule| rule.id == id);
        let proofs = rule.and_then(|rule| rule.proofs.get(&level));
        proofs.map_or(&[], Vec::as_slice)
    }

    /// The rules that cannot be proven yet, and what is missing.
    pub fn not_yet(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules.iter().filter_map(|rule| {
            let missing = rule.not_yet.as_deref()?;
            Some((rule.id.as_str(), missing))
        })
    }

    /// Look for gaps: a rule without a proof at a level that it does not leave out, a test that is
    /// not in its file, relative to `root`, or ignored there, and a rule of `expected` that is not in the index.
    pub fn gaps(&self, root: impl AsRef<Path>, expected: &[&str]) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut sources = Sources::new(root.as_ref());
        for id in expected {
            if !self.ids().any(|known| known == *id) {
                gaps.push(format!("{id}: not in {}", self.file.display()));
            }
        }
        for rule in &self.rules {
            for level in Level::ALL {
                let proofs = self.proofs(&rule.id, level);
                let excused = rule.without.contains_key(&level) || rule.not_yet.is_some();
                if proofs.is_empty() && !excused {
                    gaps.push(format!(
                        "{}: nothing proves it at the level {level}",
                        rule.id
                    ));
                }
                if !proofs.is_empty() && rule.without.contains_key(&level) {
                    let id = &rule.id;
                    gaps.push(format!(
                        "{id}: left out at the level {level}, and proven there"
                    ));
                }
                for proof in proofs {
                    if let Proof::Test(test) = proof
                        && let Err(problem) = sources.find(test)
                    {
                        gaps.push(format!("{}: {test}: {problem}", rule.id));
                    }
                }
            }
        }
        gaps
    }
}

/// The table, for people.
impl fmt::Display for RuleIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            writeln!(f, "{:<5} {}", rule.id, rule.what)?;
            if let Some(missing) = &rule.not_yet {
                writeln!(f, "      not yet: {missing}")?;
            }
            for level in Level::ALL {
                let proofs = self.proofs(&rule.id, level);
                if let Some(reason) = rule.without.get(&level) {
                    writeln!(f, "      {level}: none, {reason}")?;
                } else if let [first, rest @ ..] = proofs {
                    let more = match rest.len() {
                        0 => String::new(),
                        count => format!(" and {count} more"),
                    };
                    writeln!(f, "      {level}: {first}{more}")?;
                }
            }
        }
        let missing = self.not_yet().count();
        writeln!(f, "{} rules, {missing} not yet", self.rules.len())
    }
}

fn rules(text: &str) -> Result<Vec<Rule>, String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string())?;
    let table = Table::new(document.get_ref());
    let mut files = BTreeMap::new();
    for (name, path) in table.need("files")?.table()?.entries() {
        files.insert(name.to_owned(), path.text()?.to_owned());
    }
    let mut rules: Vec<Rule> = Vec::new();
    for value in table.need("rule")?.list()? {
        let table = value.table()?;
        let id = table.need("id")?.text()?;
        let rule = rule(id, &table, &files).map_err(|error| format!("rule {id:?}: {error}"))?;
        if rules.iter().any(|other| other.id == id) {
            return Err(format!("rule {id:?}: it is there twice"));
        }
        rules.push(rule);
    }
    table.finish()?;
    Ok(rules)
}

fn rule(id: &str, table: &Table<'_>, files: &Files) -> Result<Rule, String> {
    let what = table.need("what")?.text()?.to_owned();
    let not_yet = table.read("not_yet", |value| value.text().map(str::to_owned))?;
    let mut proofs: BTreeMap<Level, Vec<Proof>> = BTreeMap::new();
    let mut without = BTreeMap::new();
    // What holds for the connection holds wherever there is one.
    let everywhere = table
        .read("tests", |value| tests(value, files))?
        .unwrap_or_default();
    for level in Level::ALL {
        let value = table.get(level.name());
        let named = match value {
            Some(value) if value.is_text() && !value.text()?.contains("::") => {
                without.insert(level, value.text()?.to_owned());
                continue;
            }
            Some(value) => tests(value, files).map_err(|error| format!("`{level}`: {error}"))?,
            None => Vec::new(),
        };
        let all = everywhere.iter().cloned().chain(named);
        proofs.entry(level).or_default().extend(all);
    }
    table.finish()?;
    Ok(Rule {
        id: id.to_owned(),
        what,
        proofs,
        without,
        not_yet,
    })
}

/// Paths of source files, by the names that the index gives them.
type Files = BTreeMap<String, String>;

/// Tests as `file::function`.
fn tests(value: Value<'_>, files: &Files) -> Result<Vec<Proof>, String> {
    let mut proofs = Vec::new();
    for value in value.one_or_more() {
        let test = value.text()?;
        let (name, function) = test
            .split_once("::")
            .ok_or_else(|| format!("expected `file::function`, found {test:?}"))?;
        let file = files
            .get(name)
            .ok_or_else(|| format!("{name:?} is not among the `files`"))?;
        proofs.push(Proof::Test(format!("{file}::{function}")));
    }
    Ok(proofs)
}

/// The test functions of source files.
struct Sources<'a> {
    root: &'a Path,
    /// Of each file, and whether they are run.
    functions: BTreeMap<String, BTreeMap<String, bool>>,
}

impl<'a> Sources<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            functions: BTreeMap::new(),
        }
    }

    fn find(&mut self, test: &str) -> Result<(), String> {
        let (file, function) = test.split_once("::").ok_or("no function is named")?;
        if !self.functions.contains_key(file) {
            let path = self.root.join(file);
            let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
            self.functions.insert(file.to_owned(), functions(&text));
        }
        match self.functions[file].get(function) {
            Some(true) => Ok(()),
            Some(false) => Err("it is ignored, and shows nothing".to_owned()),
            None => Err("there is no such test".to_owned()),
        }
    }
}

/// The names of functions that stand under a `test` attribute, and whether they are run: under no
/// `ignore`, in whatever order, with or without a condition or a reason.
fn functions(text: &str) -> BTreeMap<String, bool> {
    let mut tests = BTreeMap::new();
    let (mut is_test, mut is_ignored) = (false, false);
    let mut in_attribute = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("//") {
            continue;
        }
        let mut line = line;
        while in_attribute || line.starts_with("#[") {
            let (attribute, rest) = line.split_once(']').unwrap_or((line, ""));
            in_attribute = attribute.len() == line.len();
            is_test |= attribute.starts_with("#[test") || attribute.starts_with("#[tokio::test");
            is_ignored |= attribute.contains("ignore");
            line = rest.trim_start();
            if in_attribute {
                break;
            }
        }
        if let Some((_, rest)) = line.split_once("fn ") {
            if is_test {
                let end = rest.find(['(', '<']).unwrap_or(rest.len());
                tests.insert(rest[..end].to_owned(), !is_ignored);
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_and_ignored_ones_are_known() {
        let text = r#"
            #[test]
            fn plain() {}
            #[tokio::test(start_paused = true)]
            #[should_panic(expected = "x")]
            async fn of_a_runtime() {}
            #[test]
            #[skip = "it takes an hour"]
            fn after() {}
            #[skip]
            #[test]
            fn before() {}
            #[test] #[skip] fn in_a_line() {}
            #[test]
            #[cfg_attr(
                miri,
                ignore
            )]
            fn sometimes() {}
            // #[test]
            fn helper() {}
            #[test]
            /// A fn that is run.
            fn last<T>() {}
        "#;
        // The tree has none, in no text either.
        let text = text.replace("#[skip", concat!("#[", "ignore"));
        let names = |is_run| {
            let tests = functions(&text).into_iter();
            let tests = tests.filter(move |(_, run)| *run == is_run);
            tests.map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(true), ["last", "of_a_runtime", "plain"]);
        assert_eq!(names(false), ["after", "before", "in_a_line", "sometimes"]);
    }
}
