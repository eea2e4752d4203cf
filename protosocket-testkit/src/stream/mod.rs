//! Streams whose every step is in a test's hand.

mod scripted;
pub use scripted::{ScriptedStream, StreamEvent, StreamPeer, scripted_stream};
