//! Two real, small machines, run without I/O and on connections: what the contracts of
//! `Machine`, `Host` and `MachineReactor` must carry.

mod adapter;
mod frames;
mod hosts;
mod mux;
mod mux_connection;
mod mux_pure;
mod relay;
mod relay_tests;
mod toy;
