use protosocket::{
    Codec, ConnectError, Connection, Decoder, Encoder, SocketConnector, Transport, channel,
};

use super::{Configuration, RpcClient, RpcCompletionReactor};
use crate::Message;

/// Open a connection and give a client of it, and the connection: a future to be spawned, which
/// carries out the calls and tells how it ended.
///
/// Nothing is sent before the connection is polled. It ends when the last [`RpcClient`] has been
/// dropped and no call is in flight.
///
/// # Errors
/// The connector could not connect: nobody answered, or refused, or was too slow.
pub async fn connect<C, S>(
    connector: &S,
    codec: C,
    configuration: &Configuration,
) -> Result<
    (
        RpcClient<<C as Encoder>::Message, <C as Decoder>::Message>,
        Connection<S::Stream, RpcCompletionReactor<C>>,
    ),
    ConnectError,
>
where
    C: Codec + 'static,
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
    S: SocketConnector,
{
    let stream = connector.connect().await?;
    Ok(over(stream, codec, configuration))
}

/// A client over a stream that is open already, and its connection: see [`connect`].
#[expect(
    clippy::type_complexity,
    reason = "an alias would hide the two things that a caller does with it"
)]
pub fn over<C, S>(
    stream: S,
    codec: C,
    configuration: &Configuration,
) -> (
    RpcClient<<C as Encoder>::Message, <C as Decoder>::Message>,
    Connection<S, RpcCompletionReactor<C>>,
)
where
    C: Codec + 'static,
    <C as Encoder>::Message: Message,
    <C as Decoder>::Message: Message,
    S: Transport,
{
    let (client, reactor) = RpcCompletionReactor::new(configuration);
    // Calls come through the table: the channel is closed from the beginning.
    let (_, outbound) = channel(1);
    let connection = Connection::over(stream, codec, reactor, outbound, &configuration.connection);
    (client, connection)
}
