use std::fmt::Debug;

/// A message of an RPC protocol: a request, a response, or word about a call.
///
/// Implement it for what your codec decodes and encodes. Of the message only the id and the control
/// code matter to a call, and they travel in fields of yours: nothing is added on the wire.
pub trait Message: Debug + Send + 'static {
    /// The call that this message belongs to. A response has the id of its request.
    ///
    /// An id may be used again when its call has ended, and not before.
    fn message_id(&self) -> u64;

    /// What this message says about its call.
    fn control_code(&self) -> ProtosocketControlCode;

    /// Make it a message of the call `message_id`.
    ///
    /// Servers set the id of each response, and clients that of each request that has none (0).
    fn set_message_id(&mut self, message_id: u64);

    /// A message that ends the call `message_id` before its time: from a client, which no longer
    /// wants it, or from a server, which does not carry it out. Its code is
    /// [`Cancel`](ProtosocketControlCode::Cancel).
    fn cancelled(message_id: u64) -> Self;

    /// A message that says that the stream of responses to the call `message_id` is complete. Its
    /// code is [`End`](ProtosocketControlCode::End).
    fn ended(message_id: u64) -> Self;
}

/// What a message says about its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProtosocketControlCode {
    /// It is a request or a response: 0.
    #[default]
    Normal,
    /// The call has been given up by whoever sends this: 1.
    Cancel,
    /// The responses of a streaming call are complete: 2.
    End,
    /// Something that this version does not know. It survives a round trip and is not taken for
    /// anything else. Servers of this crate do not send it: a call whose response has it has failed.
    ///
    /// [`from_u8`](Self::from_u8) makes it of 3 and above. Whoever makes one of less gets what that
    /// number stands for on the wire: nobody there can tell `Unknown(1)` from `Cancel`.
    Unknown(u8),
}

impl ProtosocketControlCode {
    /// The code that `value` stands for on the wire.
    pub fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Normal,
            1 => Self::Cancel,
            2 => Self::End,
            unknown => Self::Unknown(unknown),
        }
    }

    /// What stands for it on the wire.
    pub fn as_u8(&self) -> u8 {
        match *self {
            Self::Normal => 0,
            Self::Cancel => 1,
            Self::End => 2,
            Self::Unknown(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProtosocketControlCode::{self, Cancel, End, Normal, Unknown};

    #[test]
    fn d28_every_code_survives_a_round_trip() {
        for value in 0..=u8::MAX {
            assert_eq!(ProtosocketControlCode::from_u8(value).as_u8(), value);
        }
    }

    #[test]
    fn d28_what_is_unknown_is_taken_for_nothing_else() {
        assert_eq!(
            [0, 1, 2].map(ProtosocketControlCode::from_u8),
            [Normal, Cancel, End]
        );
        for value in 3..=u8::MAX {
            assert_eq!(ProtosocketControlCode::from_u8(value), Unknown(value));
        }
    }
}
