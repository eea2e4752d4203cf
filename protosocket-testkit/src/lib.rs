//! The kit that protosocket is tested with, for whoever builds on it: protocols, reactors, servers.
//!
//! | the question | the tool |
//! |---|---|
//! | Is a decoder independent of how the network cuts its input? | [`Torture`] |
//! | Does a reactor on its connection do the right thing, and is nobody left asleep? | [`Setup`], [`Driven`], [`Probe`]: a stream that never wakes by itself, a clock that stands still, a connection that is polled only when it was woken |
//! | Does a machine do the right thing, without any connection? | [`MachineSide`] |
//! | What does a peer see that plays by the rules, message by message? | [`ScriptedPeer`] |
//! | What if the stream is slow, cut to pieces, reset, half-closed, or rude? | [`FaultStream`], [`FaultListener`] |
//! | What if any one operation fails? | [`fail_each_operation`] |
//! | What if everything goes wrong at any time, in any order, and then the network is whole again? | [`simulation`]: connections, servers and clients on a virtual clock |
//! | What do two machines make of a stream or a network of datagrams that loses, repeats and reorders? | [`simulation::MachinePair`], [`simulation::DatagramNetwork`] |
//! | How did connections end, and what had they done? | [`Recorder`]: an observer that can be waited for |
//! | Do others notice a bad peer? | [`Canary`] |
//! | Does a server of any protocol, in any language, stand peers that mean harm? | [`hostile`], and the program of that name |
//! | Does what must not get away with it come to the end that it should, everywhere? | `corpus` (a feature): bad inputs as data files, for decoders, live servers and clients |
//! | What does a fuzzer find? | [`operations`]: runs that are made from bytes, for any codec, and the means for more |
//! | Is anything left over? | [`Resources`]: tasks, file descriptors, live allocations |
//! | What does a message cost a connection, in time or in allocations? | [`RepeatingStream`], which costs nothing of its own |
//!
//! Everything is deterministic where it can be. What is random comes from [`Random`], in
//! [`for_each_seed`] or [`for_each_seed_in_a_thread`] with a seed that is named when something fails
//! and can be replayed.
//!
//! ```
//! use bytes::Bytes;
//! use protosocket_testkit::{Setup, Torture, TraceEnd, echo, frame, framed};
//!
//! // A server that echoes frames is sent half a frame: nothing can come of it.
//! let mut server = Setup::default().open(framed(), echo());
//! let request = frame(b"hello");
//! server.peer.send(&request[..6]);
//! server.settle();
//! assert_eq!(server.peer.written_len(), 0);
//!
//! // The rest wakes it, or it would sleep on here.
//! server.peer.send(&request[6..]);
//! server.settle();
//! assert_eq!(server.peer.written(), request);
//!
//! // Its peer finishes, and so does the connection, once nobody can send through it any more.
//! server.drop_sender();
//! server.peer.end();
//! assert_eq!(server.reason(), "end_of_input");
//!
//! // The decoder makes the same of these bytes, whichever way they are cut.
//! let trace = Torture::new().run(&request[..8], framed);
//! assert_eq!((trace.messages, trace.end), (Vec::<Bytes>::new(), TraceEnd::Failed("truncated")));
//! ```

mod canary;
pub use canary::{Canary, CanaryConfig, CanaryReport, Exchange, FramedEcho, LineEcho};

mod codecs;
pub use codecs::{ByHand, Framed, Raw, always, echo, frame, framed, silent};

#[cfg(feature = "corpus")]
pub mod corpus;

mod driven;
pub use driven::{Driven, Opened, Setup};

pub mod hostile;

mod leaks;
pub use leaks::{
    Allowance, CountingAllocator, INSTRUMENTED_SYSTEM, Leak, Resources, alone, resident_memory,
};

pub mod operations;

mod peer;
pub use peer::{ScriptedPeer, within};

mod probe;
pub use probe::{Answer, Inbound, Knobs, Outbound, Probe, ProbeState};

mod random;
pub use random::{Random, for_each_seed, for_each_seed_in_a_thread};

mod recorder;
pub use recorder::{Ending, Recorder, end_name};

mod side;
pub use side::{MachineSide, encoded};

pub mod simulation;

mod stream;
pub use stream::{
    EstablishWithFaults, FailingStream, Failure, FaultListener, FaultStream, Faults, Repeater,
    RepeatingStream, ScriptedStream, StreamEvent, StreamOperation, StreamPeer, fail_each_operation,
    repeating_stream, scripted_stream,
};

mod torture;
pub use torture::{Torture, Trace, TraceEnd, trace};

/// The examples of the README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
