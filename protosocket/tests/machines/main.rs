//! Two real, small machines, run without I/O and on connections: what the contracts of
//! `Machine`, `Host` and `MachineReactor` must carry.


mod adapter;
mod toy;
