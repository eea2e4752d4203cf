//! What a connection promises, over a stream whose every readiness is scripted, on a clock that
//! stands still; and over sockets where the kernel has a say.

mod closing;
mod deadlines;
mod failures;
mod faults;
mod input;
mod lingering;
#[cfg(target_os = "linux")]
mod local_bytes;
mod memory;
mod output;
mod receive;
mod release;
mod transports;
