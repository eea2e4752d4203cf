//! Messages whose drop is noticed, and their codec.

use std::{cell::Cell, convert::Infallible, panic::resume_unwind};

use protosocket::{
    DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer, channel,
};
use protosocket_rpc::{
    Message, ProtosocketControlCode,
    client::{Configuration, RpcClient, RpcCompletionReactor},
};
use protosocket_testkit::{Driven, Setup};

use crate::text::*;

/// What a message says whose drop panics.
pub(crate) const BRITTLE: &str = "brittle";

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
pub(crate) struct Brittle(Text);

impl Brittle {
    fn new(text: Text) -> Self {
        LIVE.set(LIVE.get() + 1);
        Self(text)
    }

    pub(crate) fn request(text: &str) -> Self {
        Self::new(Text::new(0, NORMAL, text))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// How many of them this thread has.
    pub(crate) fn live() -> usize {
        LIVE.get()
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
        if self.0.text == BRITTLE {
            resume_unwind(Box::new("the drop of a message"));
        }
    }
}

impl Message for Brittle {
    fn message_id(&self) -> u64 {
        self.0.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        self.0.control_code()
    }

    fn set_message_id(&mut self, message_id: u64) {
        self.0.id = message_id;
    }

    fn cancelled(message_id: u64) -> Self {
        Self::new(Text::cancelled(message_id))
    }

    fn ended(message_id: u64) -> Self {
        Self::new(Text::ended(message_id))
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct BrittleCodec {
    /// It has no word for a cancel.
    pub(crate) never_cancels: bool,
}

impl Decoder for BrittleCodec {
    type Message = Brittle;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Brittle>, DecodeError> {
        Ok(match TextCodec.decode(input)? {
            Decoded::Message(message) => Decoded::Message(Brittle::new(message)),
            Decoded::Need(bytes) => Decoded::Need(bytes),
            other => panic!("it decodes no {other:?}"),
        })
    }
}

impl Encoder for BrittleCodec {
    type Message = Brittle;

    fn encode(&mut self, message: Brittle, output: &mut SendBuffer) -> Result<(), EncodeError> {
        if self.never_cancels && message.control_code() == ProtosocketControlCode::Cancel {
            return Err(EncodeError::invalid("there is no word for a cancel"));
        }
        TextCodec.encode(message.0.clone(), output)
    }
}

type Connection = Driven<RpcCompletionReactor<BrittleCodec>>;

/// A client, and its connection to a server that is played by hand.
pub(crate) fn connection(setup: Setup) -> (RpcClient<Brittle, Brittle>, Connection) {
    connection_with(setup, BrittleCodec::default())
}

/// The same, with a codec that may lack a word.
pub(crate) fn connection_with(
    setup: Setup,
    codec: BrittleCodec,
) -> (RpcClient<Brittle, Brittle>, Connection) {
    let (client, reactor) = RpcCompletionReactor::new(&Configuration::new());
    let (_, receiver) = channel::<Infallible>(1);
    (client, setup.drive(codec, reactor, receiver))
}
