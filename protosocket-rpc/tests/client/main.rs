//! The client's side of calls, on streams that never wake by themselves and a clock that stands still.

#[path = "../text/log.rs"]
mod log;
#[path = "../text/mod.rs"]
mod text;

mod brittle;
mod common;

mod cancel;
mod cut;
mod deadlines;
mod ends;
mod ids;
mod limits;
mod logs;
mod lost;
mod panics;
mod slow;
