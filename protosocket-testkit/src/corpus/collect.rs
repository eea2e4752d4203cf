//! A reactor that keeps what it is given, and says nothing.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use protosocket::{
    Codec, Decoder, Encoder, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender,
};

/// How messages are compared with what a file says.
pub(super) type Describe<C> = Arc<dyn Fn(&<C as Decoder>::Message) -> Bytes + Send + Sync>;

/// What was received.
pub(super) type Received = Arc<Mutex<Vec<Bytes>>>;

pub(super) struct Collect<C: Codec> {
    pub(super) describe: Describe<C>,
    pub(super) received: Received,
    /// Keeps the connection open until the peer has finished.
    pub(super) open: Option<Sender<<C as Encoder>::Message>>,
}

impl<C: Codec + 'static> MessageReactor for Collect<C> {
    type Codec = C;
    type Inbound = <C as Decoder>::Message;
    type Outbound = <C as Encoder>::Message;
    type LogicalOutbound = <C as Encoder>::Message;

    fn on_inbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, C>,
        message: Self::Inbound,
    ) -> ReactorStatus {
        let message = (self.describe)(&message);
        let mut received = self
            .received
            .lock()
            .expect("no code that panics runs under it");
        received.push(message);
        ReactorStatus::Continue
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, C>,
        message: Self::Outbound,
    ) -> Result<(), SendError<Self::Outbound>> {
        context.send(message)
    }

    fn on_end_of_input(&mut self, _context: &mut ReactorContext<'_, C>) -> ReactorStatus {
        self.open = None;
        ReactorStatus::Continue
    }
}
