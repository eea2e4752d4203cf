//! The server's side of calls, on streams that never wake by themselves and a clock that stands still.

#[path = "../text/log.rs"]
mod log;
#[path = "../text/mod.rs"]
mod text;

mod common;

mod bad_input;
mod budget;
mod cancellation;
mod ends;
mod fairness;
mod ids;
mod limits;
mod logs;
mod panics;
mod room;
mod server;
mod spawned;
mod streaming;
mod unary;
mod wakes;
