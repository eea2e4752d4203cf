use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};

use super::{Reply, RequestDecoder, ValueDecoder};
use crate::{Command, Protocol, Request, Value};

/// What a client's connection speaks: commands out, values in.
#[derive(Debug, Clone, Default)]
pub struct ClientCodec(ValueDecoder);

impl ClientCodec {
    /// A codec that reads with `decoder`, whose limits may differ from the default.
    pub fn new(decoder: ValueDecoder) -> Self {
        Self(decoder)
    }
}

impl Encoder for ClientCodec {
    type Message = Command;

    fn encode(&mut self, command: Command, output: &mut SendBuffer) -> Result<(), EncodeError> {
        command.write_to(output);
        Ok(())
    }
}

impl Decoder for ClientCodec {
    type Message = Value;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Value>, DecodeError> {
        self.0.decode(input)
    }

    fn is_inside(&self) -> bool {
        self.0.is_inside()
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Value>, DecodeError> {
        self.0.decode_end(input)
    }
}

/// What a server's connection speaks: commands in, values out, in the version that was agreed on.
#[derive(Debug, Clone, Default)]
pub struct ServerCodec {
    pub(crate) decoder: RequestDecoder,
    pub(crate) protocol: Protocol,
}

impl ServerCodec {
    /// A codec that reads with `decoder`, whose limits may differ from the default, and writes RESP2
    /// until HELLO asks for more.
    pub fn new(decoder: RequestDecoder) -> Self {
        Self {
            decoder,
            protocol: Protocol::Resp2,
        }
    }
}

impl Encoder for ServerCodec {
    type Message = Value;

    fn encode(&mut self, value: Value, output: &mut SendBuffer) -> Result<(), EncodeError> {
        Reply::new(output, self.protocol).value(&value);
        Ok(())
    }
}

impl Decoder for ServerCodec {
    type Message = Request;

    #[inline]
    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Request>, DecodeError> {
        self.decoder.decode(input)
    }

    fn is_inside(&self) -> bool {
        self.decoder.is_inside()
    }
}
