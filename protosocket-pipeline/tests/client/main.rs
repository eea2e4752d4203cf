//! Clients whose server is played by hand: driver and callers are polled when, and only when, they
//! were woken, over scripted streams, on a clock that stands still.

mod bounds;
mod common;
mod ends;
mod lost;
mod order;
mod panics;
mod preamble;
mod reserve;
