//! Simulated time, networks and peers: everything that a connection meets, from a seed.

mod connections;
pub use connections::{ConnectionPair, Endpoint, RunningConnection};

mod datagrams;
pub use datagrams::{Datagram, DatagramConditions, DatagramCounts, DatagramNetwork};

mod executor;
pub use executor::{Simulation, SimulationHandle, Sleep, Task};

mod machines;
pub use machines::MachinePair;

mod network;
pub use network::{Network, SimConnector, SimEstablish, SimListener};

mod pipe;
pub use pipe::StreamConditions;

mod stream;
pub use stream::{LinkHandle, ResetCause, Side, SimStream};

mod stuck;
pub use stuck::Stuck;
