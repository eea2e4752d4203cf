use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::names::{Name, Table};
use crate::{ConfigError, Identity, Provider};

/// The certificates of a server, which can be replaced while it runs. Cheap to clone.
///
/// Connections that are established keep what they have. What cannot be used never replaces what
/// can: all of it is read and checked before any of it is used.
#[derive(Clone)]
pub struct Certificates(Arc<Shared>);

struct Shared {
    provider: Provider,
    /// What handshakes look at.
    table: RwLock<Arc<Table>>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    /// How often the table has been replaced.
    generation: u64,
    /// The failure that was logged, so that one that lasts is not logged each time.
    warned: Option<String>,
}

#[derive(Clone)]
struct Entry {
    /// No names are those of everybody else.
    names: Vec<Name>,
    identity: Identity,
    /// What it was made of when it was last read.
    loaded: Option<Identity>,
}

impl Certificates {
    /// Load all of them: each with the names that it is for, of which none are those of everybody
    /// else.
    pub(super) fn load(
        provider: Provider,
        identities: Vec<(Vec<String>, Identity)>,
    ) -> Result<Self, ConfigError> {
        let mut list = Vec::new();
        for (names, identity) in identities {
            list.push(Entry::new(&names, identity)?);
        }
        let table = read(&mut list, &provider)?;
        Ok(Self(Arc::new(Shared {
            provider,
            table: RwLock::new(Arc::new(table)),
            entries: Mutex::new(Entries {
                list,
                ..Entries::default()
            }),
        })))
    }

    /// Read all files again. Whether anything has changed.
    ///
    /// Reads files, and blocks meanwhile: in a task, have it done by
    /// [`watch`](Self::watch) or `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it was, and the log has a warning.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        let mut entries = self.entries();
        let mut list = entries.list.clone();
        let changed = match self.reread(&mut list) {
            Ok(None) => false,
            Ok(Some(table)) => {
                self.replace_table(&mut entries, list, table);
                true
            }
            Err(error) => {
                let text = error.to_string();
                if entries.warned.as_ref() != Some(&text) {
                    tracing::warn!(%error, "new certificates cannot be used, the old ones stay");
                    entries.warned = Some(text);
                }
                return Err(error);
            }
        };
        entries.warned = None;
        Ok(changed)
    }

    /// Look for changed files at this interval, for ever. Spawn it, and end it by aborting the task.
    ///
    /// Files are compared by what is in them. While one of them is written, certificate and key do
    /// not belong together: the old ones stay until they do.
    pub async fn watch(self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let certificates = self.clone();
            // What fails is in the log, and tried again.
            let _ = tokio::task::spawn_blocking(move || certificates.reload()).await;
        }
    }

    /// Use `identity` for everybody without a certificate of his own.
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it was.
    pub fn replace(&self, identity: Identity) -> Result<(), ConfigError> {
        self.replace_entry(Entry::new(&[], identity)?)
    }

    /// Use `identity` for exactly these names: each the name of a host, or `*.` and a domain. The
    /// same names, in any order, are replaced; others must not have one of them.
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it was.
    pub fn replace_for<I>(&self, names: I, identity: Identity) -> Result<(), ConfigError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return Err(ConfigError::Zero("the number of names"));
        }
        self.replace_entry(Entry::new(&names, identity)?)
    }

    /// How often certificates have been replaced since the server was configured.
    pub fn generation(&self) -> u64 {
        self.entries().generation
    }

    fn replace_entry(&self, entry: Entry) -> Result<(), ConfigError> {
        let mut entries = self.entries();
        let mut list = entries.list.clone();
        list.retain(|old| !old.has_names_of(&entry));
        list.push(entry);
        let table = read(&mut list, &self.0.provider)?;
        self.replace_table(&mut entries, list, table);
        Ok(())
    }

    /// A new table, if there is anything new.
    fn reread(&self, list: &mut [Entry]) -> Result<Option<Table>, ConfigError> {
        let mut same = true;
        for entry in &*list {
            let bytes = entry.identity.bytes()?;
            same &= entry.loaded.as_ref() == Some(&bytes);
        }
        match same {
            true => Ok(None),
            false => read(list, &self.0.provider).map(Some),
        }
    }

    fn replace_table(&self, entries: &mut Entries, list: Vec<Entry>, table: Table) {
        entries.list = list;
        entries.generation += 1;
        let mut current = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(table);
        tracing::info!(
            generation = entries.generation,
            "certificates were replaced"
        );
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // INVARIANT: what is behind it is changed as a whole or not at all.
        (self.0.entries.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> Arc<Table> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    /// Whether there is a certificate for what a client asks for.
    pub(super) fn knows(&self, name: Option<&str>) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let table = self.table();
        match name {
            Some(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                table.find(Some(&name.to_ascii_lowercase())).cloned()
            }
            name => table.find(name).cloned(),
        }
    }
}

impl Entry {
    fn new(names: &[String], identity: Identity) -> Result<Self, ConfigError> {
        let parsed = names.iter().map(|name| Name::parse(name));
        Ok(Self {
            names: parsed.collect::<Result<_, _>>()?,
            identity,
            loaded: None,
        })
    }

    fn has_names_of(&self, other: &Self) -> bool {
        let has_all = |one: &Self, all: &Self| all.names.iter().all(|it| one.names.contains(it));
        has_all(self, other) && has_all(other, self)
    }
}

/// Read and check everything.
fn read(list: &mut [Entry], provider: &Provider) -> Result<Table, ConfigError> {
    let mut table = Table::default();
    let mut seen = Vec::new();
    for entry in list {
        let place = entry.identity.place();
        let bytes = entry.identity.bytes()?;
        let key = bytes.load(&place, provider)?;
        entry.loaded = Some(bytes);
        if entry.names.is_empty() && table.default.replace(key.clone()).is_some() {
            return Err(ConfigError::NameTwice("everybody else".to_owned()));
        }
        for name in &entry.names {
            if seen.contains(&name) {
                return Err(ConfigError::NameTwice(format!("{name:?}")));
            }
            seen.push(name);
            name.check(&key, &place)?;
            table.insert(name, &key);
        }
    }
    Ok(table)
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries();
        let identities: Vec<_> = entries.list.iter().map(|entry| &entry.identity).collect();
        f.debug_struct("Certificates")
            .field("identities", &identities)
            .field("generation", &entries.generation)
            .finish()
    }
}
