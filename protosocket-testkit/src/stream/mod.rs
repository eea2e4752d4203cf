//! Streams whose every step is in a test's hand.

mod fault;
pub use fault::{EstablishWithFaults, FaultListener, FaultStream, Faults};

mod scripted;
pub use scripted::{ScriptedStream, StreamEvent, StreamPeer, scripted_stream};
