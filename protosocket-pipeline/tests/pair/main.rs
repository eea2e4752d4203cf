//! Clients and servers together: on several threads, and through a network that fails.

mod echoes;
mod simulated;
mod threads;
