//! Our client and our server on one connection.

#[path = "../text/mod.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod text;

mod service;

mod simulated;
mod threads;
