//! What must hold of the codecs for all bytes: fuzzed in `fuzz/`, and replayed by `cargo test`.
#![expect(
    unreachable_pub,
    reason = "each test program has it as a module of its own"
)]

use protosocket::{DecodeError, Decoded, Decoder, EncodeError, Encoder, Input, SendBuffer};
use protosocket_memcached::{
    Refused, Request, RequestDecoder, RequestEncoder, ResponseDecoder, ResponseEncoder,
};
use protosocket_testkit::operations::codec;

/// Decode `bytes` as requests or as responses, in every way, and encode what was decoded.
pub fn memcached(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    match first % 3 {
        0 => codec(bytes, || Requests(RequestDecoder::new())),
        1 => codec(bytes, || {
            Requests(RequestDecoder::new().max_value(20).max_skipped(200))
        }),
        _ => codec(bytes, || (ResponseEncoder, ResponseDecoder::new())),
    }
}

/// Requests both ways. Of one that was refused, what is left is whether it wanted a reply.
struct Requests(RequestDecoder);

impl Decoder for Requests {
    type Message = Result<Request, bool>;

    fn decode(&mut self, input: &mut Input<'_>) -> Result<Decoded<Self::Message>, DecodeError> {
        Ok(match self.0.decode(input)? {
            Decoded::Message(message) => Decoded::Message(without_reason(message)),
            Decoded::Need(bytes) => Decoded::Need(bytes),
            Decoded::Skip(bytes) => Decoded::Skip(bytes),
        })
    }

    fn is_inside(&self) -> bool {
        self.0.is_inside()
    }

    fn decode_end(&mut self, input: &mut Input<'_>) -> Result<Option<Self::Message>, DecodeError> {
        Ok(self.0.decode_end(input)?.map(without_reason))
    }
}

fn without_reason(message: Result<Request, Refused>) -> Result<Request, bool> {
    message.map_err(|refused| refused.noreply)
}

impl Encoder for Requests {
    type Message = Result<Request, bool>;

    fn encode(
        &mut self,
        message: Self::Message,
        output: &mut SendBuffer,
    ) -> Result<(), EncodeError> {
        match message {
            Ok(request) => RequestEncoder.encode(request, output),
            Err(noreply) => {
                output.put_slice(if noreply {
                    b"incr noreply\r\n"
                } else {
                    b"incr\r\n"
                });
                Ok(())
            }
        }
    }
}
