use std::error::Error;

use protosocket::{Decoder, EncodeError, SendBuffer};

/// A protocol whose replies come in the order of the requests, as a client speaks it.
///
/// One value serves all connections of a client, one after the other; what it knows of a connection
/// begins anew with each [`decoder`](Self::decoder).
pub trait Protocol: Sized + Send + 'static {
    /// What callers ask.
    type Request: Send + 'static;
    /// What they are answered.
    type Reply: Send + 'static;
    /// What is to be known of a request when its reply comes: how it is framed, or its parts that
    /// have come already. `()` where a reply is one message that needs no explanation.
    type Expected: Send + 'static;
    /// Makes messages of what the server sends.
    type Decoder: Decoder + 'static;

    /// A connection has been opened: the decoder for it.
    fn decoder(&mut self) -> Self::Decoder;

    /// What is to be said on the connection before all requests of callers: called with `None` when
    /// it was opened, and then with the reply to what was said last. `Ok(None)` when all is said.
    ///
    /// # Errors
    /// The server refused, or said something else than it should: all requests that wait are told,
    /// the connection is ended, and the next one is opened after the usual delay.
    fn preamble(
        &mut self,
        _reply: Option<Self::Reply>,
    ) -> Result<Option<Self::Request>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }

    /// Append `request` to `output`: at least one byte.
    ///
    /// Called again, for another connection, if nothing of it has left before this one was lost.
    ///
    /// # Errors
    /// The caller is to blame: this request cannot be represented. No byte of it is kept.
    fn encode(
        &mut self,
        request: &Self::Request,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError>;

    /// What the server will answer to `request`.
    fn expect(&mut self, request: &Self::Request) -> Expect<Self>;

    /// A message has come. `expected` is that of the request that has waited longest, if there is one.
    fn receive(
        &mut self,
        expected: Option<&mut Self::Expected>,
        message: <Self::Decoder as Decoder>::Message,
    ) -> Received<Self::Reply>;
}

/// What the server will answer to a request.
pub enum Expect<P: Protocol> {
    /// A reply, of one or several messages.
    Reply(P::Expected),
    /// Nothing: the caller is told this when the request has been written, whether or not that
    /// delivers it. One that was not written before its connection was lost goes to the next.
    Nothing(P::Reply),
}

/// What a message is to the request that has waited longest.
pub enum Received<Reply> {
    /// Its reply, or the last part of it.
    Reply(Reply),
    /// A part of its reply, which has been put into what is expected. There must be a request.
    Part,
    /// No business of any request: a push, which the protocol has put where it belongs. What it
    /// keeps there is bounded by the protocol.
    Aside,
    /// Nothing that may come here. The connection is ended: behind it, no reply could be told from
    /// another.
    Unexpected(Box<dyn Error + Send + Sync>),
}
