//! Cases, and the files that they stand in.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use protosocket::{Limits, SendLimits};
use toml::de::DeTable;

use super::{
    bytes::bytes,
    expect::ENDS,
    expect::{Expect, Messages},
    script::{Cut, Step},
    toml_view::{Table, Value},
};

/// What a case is run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A decoder in a connection over a scripted stream, with its bytes cut in every way.
    Decoder,
    /// A server on a real socket, with a canary beside.
    Server,
    /// A client on a real socket, whose server is hostile, with a canary on another connection.
    Client,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Decoder, Self::Server, Self::Client];

    /// Its name in corpus files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decoder => "decoder",
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A bad input, and what must come of it.
#[derive(Debug, Clone)]
pub struct Case {
    pub(super) id: String,
    pub(super) rules: Vec<String>,
    pub(super) setting: String,
    pub(super) limits: Vec<Limit>,
    pub(super) script: Vec<Step>,
    pub(super) cut: Option<Cut>,
    pub(super) receive_buffer: Option<usize>,
    pub(super) expect: Expect,
    /// Levels at which it makes no sense, and why.
    pub(super) without: BTreeMap<Level, String>,
}

impl Case {
    /// Its name: that of its file, and its own, such as `lines/too_long`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it breaks: rows of the rule index, sections of an RFC, CVEs.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str)
    }

    /// The variant of the codec, server or client that it is meant for; empty if it does not
    /// matter. What it means is between the file and the test that runs it.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// `base`, with the limits that the case asks for.
    pub fn limits(&self, base: Limits) -> Limits {
        self.limits
            .iter()
            .fold(base, |limits, limit| limit.set(limits))
    }

    /// Whether it is run at this level.
    pub fn is_for(&self, level: Level) -> bool {
        !self.without.contains_key(&level)
    }

    /// What its peer does: one script, or one for each byte after which it is cut off.
    pub(super) fn scripts(&self) -> Vec<(String, Vec<Step>)> {
        let Some(cut) = self.cut else {
            return vec![(self.id.clone(), self.script.clone())];
        };
        let bytes = self.bytes();
        let end = match cut {
            Cut::Reset => Step::Reset,
            Cut::ShutDown => Step::ShutDown,
        };
        let prefixes = 0..=bytes.len();
        let script = |length| vec![Step::Send(bytes.slice(..length)), end.clone()];
        prefixes
            .map(|length| {
                (
                    format!("{}, cut after {length} bytes", self.id),
                    script(length),
                )
            })
            .collect()
    }

    /// All bytes that it sends.
    pub(super) fn bytes(&self) -> Bytes {
        let sent = self.script.iter().filter_map(|step| match step {
            Step::Send(bytes) | Step::Dribble(bytes, _) => Some(&bytes[..]),
            _ => None,
        });
        sent.collect::<Vec<_>>().concat().into()
    }
}

/// Cases, in the order of their files.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub(super) cases: Vec<Case>,
    pub(super) patience: Duration,
    pub(super) longest_wait: Duration,
}

/// A corpus that cannot be used, by its file and case.
#[derive(Debug)]
pub struct CorpusError {
    file: PathBuf,
    problem: String,
}

impl fmt::Display for CorpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for CorpusError {}

impl CorpusError {
    pub(super) fn new(file: &Path, problem: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }
}

impl Corpus {
    /// Read one file.
    ///
    /// # Errors
    /// Its author is to blame: it is no TOML, has a key that means nothing, a case that cannot be
    /// run, or two of the same id. The error names file and case.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, CorpusError> {
        let file = file.as_ref();
        let text = fs::read_to_string(file).map_err(|error| CorpusError::new(file, error))?;
        Self::parse(file, &text)
    }

    /// Read these files of a folder, by their names without `.toml`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_all(folder: impl AsRef<Path>, names: &[&str]) -> Result<Self, CorpusError> {
        let mut all = Self::of(Vec::new());
        for name in names {
            let file = folder.as_ref().join(name).with_extension("toml");
            all.cases.extend(Self::load(file)?.cases);
        }
        Ok(all)
    }

    /// As [`load`](Self::load), of a text that `file` is said to hold.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(file: impl AsRef<Path>, text: &str) -> Result<Self, CorpusError> {
        let file = file.as_ref();
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let cases = cases(&stem, text).map_err(|problem| CorpusError::new(file, problem))?;
        Ok(Self::of(cases))
    }

    fn of(cases: Vec<Case>) -> Self {
        Self {
            cases,
            patience: Duration::from_secs(20),
            longest_wait: Duration::from_secs(1),
        }
    }

    /// Wait so long for what must happen, before a case has failed. 20 seconds by default, which no
    /// case takes on a busy machine either. A case that keeps its thread busy, so that nothing can
    /// be waited for, has failed after six times as long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Let the canary beside a case wait so long for an answer, and not longer, or the case has
    /// failed. One second by default: a poll takes milliseconds, also in a build for tests on a
    /// machine that does much else, and who blocks a thread blocks it for seconds.
    ///
    /// What the machine took is not counted: the time for which the thread was ready and others ran,
    /// as far as the system tells, or else by how much a thread comes late that only wakes up.
    #[must_use]
    pub fn longest_wait(mut self, longest_wait: Duration) -> Self {
        self.longest_wait = longest_wait;
        self
    }

    /// The cases.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter()
    }

    /// The cases of one level.
    pub fn at(&self, level: Level) -> impl Iterator<Item = &Case> {
        self.cases().filter(move |case| case.is_for(level))
    }

    /// Those whose id fits, such as the cases of one setting.
    #[must_use]
    pub fn only(mut self, is: impl Fn(&Case) -> bool) -> Self {
        self.cases.retain(is);
        self
    }
}

impl From<CorpusError> for io::Error {
    fn from(error: CorpusError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

fn cases(stem: &str, text: &str) -> Result<Vec<Case>, String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string())?;
    let table = Table::new(document.get_ref());
    let defaults = Defaults {
        setting: text_of(&table, "setting")?.unwrap_or_default(),
        limits: table.read("limits", limits)?.unwrap_or_default(),
        without: table.read("without", without)?.unwrap_or_default(),
    };
    let mut cases: Vec<Case> = Vec::new();
    for (index, value) in table.need("case")?.list()?.into_iter().enumerate() {
        let name = value.table()?.read("id", Value::text);
        let name = name.ok().flatten().map(|id| format!("case {id:?}"));
        let name = name.unwrap_or_else(|| format!("case number {}", index + 1));
        let case = value
            .table()
            .and_then(|table| case(stem, &table, &defaults));
        let case = case.map_err(|error| format!("{name}: {error}"))?;
        if cases.iter().any(|other| other.id == case.id) {
            return Err(format!("{name}: there are two cases of this id"));
        }
        cases.push(case);
    }
    table.finish()?;
    Ok(cases)
}

/// What holds for all cases of a file that say nothing else.
struct Defaults {
    setting: String,
    limits: Vec<Limit>,
    without: BTreeMap<Level, String>,
}

fn case(stem: &str, table: &Table<'_>, defaults: &Defaults) -> Result<Case, String> {
    let id = table.need("id")?.text()?;
    let texts = |value: Value<'_>| -> Result<Vec<String>, String> {
        let texts = value.one_or_more().into_iter();
        texts.map(|text| text.text().map(str::to_owned)).collect()
    };
    let rules = texts(table.need("rules")?)?;
    // Why the case is there is for those who read the file.
    table.read("why", Value::text)?;
    let input = table.read("input", bytes)?;
    let steps = table.read("script", |value| {
        let steps = value.list()?.into_iter();
        steps.map(Step::parse).collect::<Result<Vec<_>, _>>()
    })?;
    let script = match (input, steps) {
        (Some(bytes), None) => vec![Step::Send(bytes), Step::ShutDown],
        (None, Some(steps)) => steps,
        _ => return Err("it needs either `input` or `script`".to_owned()),
    };
    let cut = table.read("cut", |value| match value.text()? {
        "reset" => Ok(Cut::Reset),
        "shut_down" => Ok(Cut::ShutDown),
        other => Err(format!("expected reset or shut_down, found {other:?}")),
    })?;
    let receive_buffer = table.read("receive_buffer", Value::size)?;
    let messages = table.need("messages").and_then(messages);
    let messages = messages.map_err(|error| format!("`messages`: {error}"))?;
    let ends = texts(table.need("end")?)?;
    if let Some(unknown) = ends.iter().find(|end| !ENDS.contains(&end.as_str())) {
        let known = ENDS.join(", ");
        return Err(format!("unknown end {unknown:?}, expected one of {known}"));
    }
    let says = text_of(table, "says")?;
    let setting = text_of(table, "setting")?.unwrap_or_else(|| defaults.setting.clone());
    let mut all_limits = defaults.limits.clone();
    all_limits.extend(table.read("limits", limits)?.unwrap_or_default());
    let mut all_without = defaults.without.clone();
    all_without.extend(table.read("without", without)?.unwrap_or_default());
    table.finish()?;
    let case = Case {
        id: format!("{stem}/{id}"),
        rules,
        setting,
        limits: all_limits,
        script,
        cut,
        receive_buffer,
        expect: Expect {
            messages,
            ends,
            says,
        },
        without: all_without,
    };
    check(&case)?;
    Ok(case)
}

/// A case that can be parsed may still make no sense.
fn check(case: &Case) -> Result<(), String> {
    let is_plain = match &case.script[..] {
        [sends @ .., Step::ShutDown] => sends.iter().all(|step| matches!(step, Step::Send(_))),
        _ => false,
    };
    if case.cut.is_some() && !is_plain {
        return Err("`cut` goes with `input`".to_owned());
    }
    let fits_decoder = is_plain && case.cut != Some(Cut::Reset);
    if case.is_for(Level::Decoder) && !fits_decoder {
        return Err(
            "a decoder knows bytes and their end only: give `input`, or say `without.decoder`"
                .to_owned(),
        );
    }
    if case.without.len() == Level::ALL.len() {
        return Err("it is run at no level".to_owned());
    }
    if case.rules.is_empty() {
        return Err("`rules` names no rule".to_owned());
    }
    Ok(())
}

fn text_of(table: &Table<'_>, key: &'static str) -> Result<Option<String>, String> {
    table.read(key, |value| value.text().map(str::to_owned))
}

fn messages(value: Value<'_>) -> Result<Messages, String> {
    if value.is_list() {
        let messages = value.list()?.into_iter().map(bytes);
        return Ok(Messages::These(messages.collect::<Result<_, _>>()?));
    }
    match value.text() {
        Ok("any") => Ok(Messages::Any),
        Ok(_) => Err("expected a list of messages, their number, or \"any\"".to_owned()),
        Err(_) => Ok(Messages::Count(value.count()?)),
    }
}

fn without(value: Value<'_>) -> Result<BTreeMap<Level, String>, String> {
    let table = value.table()?;
    let mut without = BTreeMap::new();
    for level in Level::ALL {
        if let Some(reason) = text_of(&table, level.name())? {
            if reason.trim().is_empty() {
                return Err(format!("`{level}`: a level is left out for a reason"));
            }
            without.insert(level, reason);
        }
    }
    table.finish()?;
    Ok(without)
}

/// One limit that a case asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    HandshakeTimeout(Duration),
    FirstMessageTimeout(Duration),
    MessageTimeout(Duration),
    IdleTimeout(Duration),
    WriteTimeout(Duration),
    LingerTimeout(Duration),
    MinReceiveRate(u32),
    MinWriteProgress(usize),
    MaxMessageSize(usize),
    BulkBytes(usize),
}

fn limits(value: Value<'_>) -> Result<Vec<Limit>, String> {
    let table = value.table()?;
    let rate = |value: Value<'_>| {
        let rate = value.count()?;
        u32::try_from(rate).map_err(|_| format!("expected a rate, found {rate}"))
    };
    let limits = [
        (table.read("handshake_timeout", Value::duration)?).map(Limit::HandshakeTimeout),
        (table.read("first_message_timeout", Value::duration)?).map(Limit::FirstMessageTimeout),
        (table.read("message_timeout", Value::duration)?).map(Limit::MessageTimeout),
        (table.read("idle_timeout", Value::duration)?).map(Limit::IdleTimeout),
        (table.read("write_timeout", Value::duration)?).map(Limit::WriteTimeout),
        (table.read("linger_timeout", Value::duration)?).map(Limit::LingerTimeout),
        (table.read("min_receive_rate", rate)?).map(Limit::MinReceiveRate),
        (table.read("min_write_progress", Value::size)?).map(Limit::MinWriteProgress),
        (table.read("max_message_size", Value::size)?).map(Limit::MaxMessageSize),
        (table.read("bulk_bytes", Value::size)?).map(Limit::BulkBytes),
    ];
    table.finish()?;
    Ok(limits.into_iter().flatten().collect())
}

impl Limit {
    fn set(self, limits: Limits) -> Limits {
        match self {
            Self::HandshakeTimeout(time) => limits.handshake_timeout(time),
            Self::FirstMessageTimeout(time) => limits.first_message_timeout(time),
            Self::MessageTimeout(time) => limits.message_timeout(time),
            Self::IdleTimeout(time) => limits.idle_timeout(time),
            Self::WriteTimeout(time) => limits.write_timeout(time),
            Self::LingerTimeout(time) => limits.linger_timeout(time),
            Self::MinReceiveRate(rate) => limits.min_receive_rate(rate),
            Self::MinWriteProgress(bytes) => limits.min_write_progress(bytes),
            Self::MaxMessageSize(bytes) => limits.max_message_size(bytes),
            Self::BulkBytes(bytes) => limits.send_limits(SendLimits {
                bulk_bytes: bytes,
                ..SendLimits::DEFAULT
            }),
        }
    }
}
