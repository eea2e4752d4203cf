//! Streams whose every step is in a test's hand.

mod failing;
pub use failing::{FailingStream, Failure, StreamOperation, fail_each_operation};

mod fault;
pub use fault::{EstablishWithFaults, FaultListener, FaultStream, Faults};

mod repeating;
pub use repeating::{Repeater, RepeatingStream, repeating_stream};

mod scripted;
pub use scripted::{ScriptedStream, StreamEvent, StreamPeer, scripted_stream};
