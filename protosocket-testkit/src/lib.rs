//! What makes a lifecycle trustworthy: the kit that protosocket is tested with, for whoever builds
//! on it.
//!
//! Everything here is deterministic where it can be: a stream that never wakes by itself, a clock
//! that stands still, randomness from a seed that is printed when something fails.

mod canary;
pub use canary::{Canary, CanaryConfig, CanaryReport, Exchange, FramedEcho, LineEcho};

mod codecs;
pub use codecs::{ByHand, Framed, Raw, always, echo, frame, framed, silent};

mod driven;
pub use driven::{Driven, Opened, Setup};

mod leaks;
pub use leaks::{
    Allowance, CountingAllocator, INSTRUMENTED_SYSTEM, Leak, Resources, alone, resident_memory,
};

mod peer;
pub use peer::{ScriptedPeer, within};

mod probe;
pub use probe::{Answer, Inbound, Knobs, Outbound, Probe, ProbeState};

mod random;
pub use random::{Random, for_each_seed};

mod recorder;
pub use recorder::Recorder;

mod side;
pub use side::{MachineSide, encoded};

mod stream;
pub use stream::{
    EstablishWithFaults, FailingStream, Failure, FaultListener, FaultStream, Faults,
    ScriptedStream, StreamEvent, StreamOperation, StreamPeer, fail_each_operation, scripted_stream,
};

mod torture;
pub use torture::{Torture, Trace, TraceEnd, trace};
