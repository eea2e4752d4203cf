//! Connections of messages that lose nothing.
//!
//! Implement a [`MessageReactor`], pick a [`Codec`], and get a [`Connection`] to spawn: a future
//! that encodes outbound messages from a [`Sender`], batches them into `writev`, reads, decodes,
//! and calls the reactor with `&mut self`, with no lock and no layer between.
//!
//! ```text
//!   your application sends outbound messages here
//!     │
//!     │        ┌──────── Connection ────────┐
//!     ▼        │                            │
//!   Sender ────┼──▶  encode  ──▶  writev  ──┼──▶ remote
//!  (channel)   │                            │
//!   Reactor ◀──┼───  decode  ◀──  read   ◀──┼─── remote
//!  (callback)  │                            │
//!              └────────────────────────────┘
//! ```
//!
//! What is *accepted*, a message handed to the reactor or a send that returned `Ok`, is never
//! lost silently: it is delivered, or it is counted in the connection's [`ConnectionStats`]. Every
//! wait has a deadline ([`Limits`]), every end has a reason ([`CloseReason`]), and one bad peer
//! hurts nobody else.
//!
//! # Features
//! `tokio` (default): connections, channel, listeners and connectors. Without it, this crate is
//! the contracts alone: codecs, [`MessageReactor`] and [`Machine`].

pub mod codec;
#[cfg(feature = "tokio")]
pub use codec::TokioCodec;
pub use codec::{
    BufEncoder, Codec, DecodeError, Decoded, Decoder, EncodeError, Encoder, Input,
    LengthDelimitedCodec, LinesCodec, LocalBytes, Payload, PooledBuffer, PooledEncoder, SendBuffer,
    Serialize, ToBuf, U32, Varint,
};

mod end;
pub use end::{Blame, CloseReason, ConnectionStats, Deadline, Operation};

mod escaped;

mod machine;
pub use machine::{ActionId, Host, HostContext, Machine, MachineReactor, Output, Rejected};

mod reactor;
pub use reactor::{
    InputPolicy, MessageReactor, ReactorContext, ReactorStatus, Room, SendError, SendLimits,
};

#[cfg(feature = "tokio")]
mod channel;
#[cfg(feature = "tokio")]
pub use channel::{Closed, Receiver, SendFuture, Sender, TrySendError, WeakSender, channel};

#[cfg(feature = "tokio")]
mod clock;
#[cfg(feature = "tokio")]
pub use clock::{Alarm, Clock, ManualClock, TokioClock};

#[cfg(feature = "tokio")]
mod connection;
#[cfg(feature = "tokio")]
pub use connection::{
    Connection, ConnectionConfig, ConnectionEnd, ConnectionHandle, Establish, EstablishError,
    Handover, Lingering,
};

#[cfg(feature = "tokio")]
mod gather;
#[cfg(feature = "tokio")]
pub use gather::Gather;

#[cfg(feature = "tokio")]
mod jitter;

#[cfg(feature = "tokio")]
mod limits;
#[cfg(feature = "tokio")]
pub use limits::{ConfigError, Limits};

#[cfg(feature = "tokio")]
mod observer;
#[cfg(feature = "tokio")]
pub use observer::{ConnectionObserver, Refusal};

#[cfg(feature = "tokio")]
pub mod proxy;

#[cfg(feature = "tokio")]
mod transport;
#[cfg(feature = "tokio")]
pub use transport::{
    Accepted, Backoff, ConnectError, Establisher, Keepalive, Layered, LayeredEstablish,
    MemoryConnector, MemoryListener, PeerAddress, Plain, Prefixed, Reconnect, ReconnectError,
    SocketConnector, SocketListener, StreamWithAddress, TcpConnector, TcpOptions,
    TcpSocketListener, Transport, memory_listener,
};
#[cfg(all(feature = "tokio", unix))]
pub use transport::{UnixConnector, UnixSocketListener};
