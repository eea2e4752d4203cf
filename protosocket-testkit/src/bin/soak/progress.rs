//! One line that tells a person how far it is.

use std::fmt;
use std::io::{self, IsTerminal, Write};

/// A line on the standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_seen: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_seen: io::stderr().is_terminal(),
        }
    }

    /// Replaces the line.
    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        self.write(format_args!("\r\x1b[K{what}"));
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        self.write(format_args!("\r\x1b[K"));
    }

    fn write(&self, what: fmt::Arguments<'_>) {
        if self.is_seen {
            let mut stderr = io::stderr().lock();
            // A progress line that cannot be written is not missed.
            let _: io::Result<()> = stderr.write_fmt(what).and_then(|()| stderr.flush());
        }
    }
}
