//! What the tests of connections share.

pub(crate) mod codecs;
pub(crate) mod drive;
pub(crate) mod observer;
pub(crate) mod probe;
pub(crate) mod random;
pub(crate) mod stream;

pub(crate) use codecs::{ByHand, Framed, Raw, always, echo, frame, framed, silent};
pub(crate) use drive::{Opened, Setup};
pub(crate) use stream::Event;
