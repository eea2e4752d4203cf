//! Two real, small machines, run without I/O and on connections: what the contracts of
//! `Machine`, `Host` and `MachineReactor` must carry.

#[path = "../common/pure.rs"]
mod pure;
#[path = "../common/scripted.rs"]
mod scripted;

mod adapter;
mod frames;
mod hosts;
mod mux;
mod mux_connection;
mod mux_pure;
mod relay;
mod relay_tests;
mod toy;
