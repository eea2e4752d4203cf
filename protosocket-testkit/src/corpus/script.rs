//! What a hostile peer does, step by step.

use std::time::Duration;

use bytes::Bytes;

use super::{bytes::bytes, toml_view::Value};

/// One step of a script. A script ends by waiting for the end of the connection.
///
/// A peer reads what comes, in passing, unless it was told to [`NeverRead`](Self::NeverRead).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Send these bytes. If the other end resets the connection meanwhile, that is its end for the
    /// steps that read.
    Send(Bytes),
    /// Send these bytes one by one, with so much time between two of them.
    Dribble(Bytes, Duration),
    /// Do nothing for so long.
    Pause(Duration),
    /// Finish sending, and go on reading.
    ShutDown,
    /// Reset the connection.
    Reset,
    /// Read nothing from here on but what steps ask for.
    NeverRead,
    /// Read so many bytes at a time, with so much time between two reads, until the end.
    SlowRead(usize, Duration),
    /// Wait until so many bytes more have come.
    Read(u64),
    /// Wait until the other end has finished sending, in order and without a byte more.
    ReadEnd,
}

/// How the bytes of a case are cut off after each of them in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Reset,
    ShutDown,
}

impl Step {
    pub(super) fn parse(value: Value<'_>) -> Result<Self, String> {
        if value.is_text() {
            return match value.text()? {
                "shut_down" => Ok(Self::ShutDown),
                "reset" => Ok(Self::Reset),
                "never_read" => Ok(Self::NeverRead),
                "read_end" => Ok(Self::ReadEnd),
                other => Err(format!(
                    "unknown step {other:?}, expected shut_down, reset, never_read or read_end"
                )),
            };
        }
        let table = value.table()?;
        let send = table.read("send", bytes)?.map(Self::Send);
        let every = table.read("every", Value::duration)?;
        let timed = || every.ok_or("`every` is missing, such as \"5 ms\"");
        let dribble = match table.read("dribble", bytes)? {
            Some(bytes) => Some(Self::Dribble(bytes, timed()?)),
            None => None,
        };
        let slow_read = match table.read("slow_read", Value::size)? {
            Some(count) => Some(Self::SlowRead(count.max(1), timed()?)),
            None => None,
        };
        let pause = table.read("pause", Value::duration)?.map(Self::Pause);
        let read = table.read("read", Value::count)?.map(Self::Read);
        table.finish()?;
        let mut steps = [send, dribble, slow_read, pause, read]
            .into_iter()
            .flatten();
        match (steps.next(), steps.next()) {
            (Some(step), None) => Ok(step),
            _ => Err(
                "a step is one of { send }, { dribble, every }, { slow_read, every }, { pause } \
                 and { read }, or a word"
                    .to_owned(),
            ),
        }
    }
}
