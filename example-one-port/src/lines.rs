//! Lines, as `telnet` sends them: each is answered with itself.

use std::{convert::Infallible, marker::PhantomData};

use protosocket::{
    LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender, SocketListener,
};
use protosocket_server::{ServerConnection, ServerConnector};

/// Makes reactors for connections through any listener.
pub(crate) struct Lines<L>(PhantomData<fn() -> L>);

impl<L> Lines<L> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<L> ServerConnector for Lines<L>
where
    L: SocketListener<Stream: Send, Establish: Send>,
{
    type Codec = LinesCodec;
    type Reactor = Echo;
    type SocketListener = L;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn new_reactor(&self, _: Sender<Infallible>, _: &L::Stream) -> Echo {
        Echo
    }

    fn spawn_connection(&self, connection: ServerConnection<Self>) {
        tokio::spawn(connection);
    }
}

pub(crate) struct Echo;

impl MessageReactor for Echo {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = Infallible;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        line: String,
    ) -> ReactorStatus {
        match line.as_str() {
            "quit" => ReactorStatus::Disconnect,
            _ => context.reply(line),
        }
    }

    fn on_outbound_message(
        &mut self,
        _context: &mut ReactorContext<'_, LinesCodec>,
        message: Infallible,
    ) -> Result<(), SendError<String>> {
        match message {}
    }
}
