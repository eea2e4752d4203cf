//! Hostile peers against servers that stand them, and against servers that do not.

mod bad_servers;
mod good_server;
mod program;
mod servers;
