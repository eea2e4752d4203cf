//! Why a simulation does not come to what it is waited for.

use std::{fmt, time::Duration};

/// Why what a simulation is run for will never happen, after how much virtual time, and who has
/// not ended.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stuck {
    /// Nobody is woken and no alarm is set: somebody waits without having registered for what it
    /// waits for, or for something that never comes.
    Stalled(Duration, Vec<String>),
    /// The time stands still, because there is always something to do: somebody wakes itself, or
    /// two wake each other, for ever.
    Spins(Duration, Vec<String>),
    /// The horizon has come.
    Late(Duration, Vec<String>),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at, unfinished) = match self {
            Self::Stalled(at, unfinished) => ("nobody will ever be woken", at, unfinished),
            Self::Spins(at, unfinished) => ("it spins", at, unfinished),
            Self::Late(at, unfinished) => ("it takes longer than its horizon", at, unfinished),
        };
        write!(f, "the simulation is stuck at {at:?}: {what}; unfinished: ")?;
        match unfinished.is_empty() {
            true => f.write_str("nobody, but the condition does not hold"),
            false => f.write_str(&unfinished.join(", ")),
        }
    }
}

// What a test prints that unwraps one.
impl fmt::Debug for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Stuck {}
