//! What fuzzers and tests do with the decoders: the first byte says which.

use protosocket::{EncodeError, Encoder, SendBuffer};
use protosocket_resp::{ClientCodec, RequestDecoder, ValueDecoder};

/// Says nothing: a decoder alone.
struct Mute;

impl Encoder for Mute {
    type Message = ();

    fn encode(&mut self, (): (), _: &mut SendBuffer) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// Decode what `bytes` say, however they are cut.
///
/// # Panics
/// As [`protosocket_testkit::operations::decoder`].
pub(crate) fn resp(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 3 {
        0 => {
            let decoder = || ValueDecoder::new().max_values(4096).max_length(65_536);
            protosocket_testkit::operations::decoder(bytes, || ClientCodec::new(decoder()));
        }
        1 => protosocket_testkit::operations::decoder(bytes, || (Mute, RequestDecoder::new())),
        _ => protosocket_testkit::operations::decoder(bytes, || {
            (Mute, RequestDecoder::new().require_authentication())
        }),
    }
}
