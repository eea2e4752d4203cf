use std::fmt::Debug;

/// A message of an RPC protocol: a request, a response, or word about a call.
///
/// Implement it for what your codec decodes and encodes, or have [`messages!`](crate::messages) do so. Of
/// the message only the id and the control code matter to a call, and they travel in fields of yours:
/// nothing is added on the wire.
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

/// Implement [`Message`] for structs that have a field for the id, a `u64`, and one for the control code,
/// any integer that holds a `u8`.
///
/// What says that a call is over has nothing but these two, so that the structs implement `Default`. A
/// code that does not fit into a `u8` is as [`Unknown`](ProtosocketControlCode::Unknown) as one that
/// nobody knows.
///
/// ```
/// use protosocket_rpc::{Message, ProtosocketControlCode, messages};
///
/// #[derive(Debug, Default)]
/// struct Question {
///     id: u64,
///     code: u32,
///     text: String,
/// }
///
/// #[derive(Debug, Default)]
/// struct Answer {
///     number: u64,
///     what: u8,
/// }
///
/// messages! {
///     Question { id, code }
///     Answer { number, what }
/// }
///
/// assert_eq!(Question::cancelled(7).id, 7);
/// assert_eq!(Answer::ended(7).control_code(), ProtosocketControlCode::End);
/// ```
#[macro_export]
macro_rules! messages {
    ($($message:ty { $id:ident, $code:ident $(,)? })*) => {$(
        impl $crate::Message for $message {
            fn message_id(&self) -> u64 {
                self.$id
            }

            fn control_code(&self) -> $crate::ProtosocketControlCode {
                let code = ::core::convert::TryInto::try_into(self.$code);
                $crate::ProtosocketControlCode::from_u8(code.unwrap_or(u8::MAX))
            }

            fn set_message_id(&mut self, message_id: u64) {
                self.$id = message_id;
            }

            fn cancelled(message_id: u64) -> Self {
                let mut message = <Self as ::core::default::Default>::default();
                message.$id = message_id;
                message.$code = $crate::ProtosocketControlCode::Cancel.as_u8().into();
                message
            }

            fn ended(message_id: u64) -> Self {
                let mut message = <Self as ::core::default::Default>::default();
                message.$id = message_id;
                message.$code = $crate::ProtosocketControlCode::End.as_u8().into();
                message
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::{
        Message,
        ProtosocketControlCode::{self, Cancel, End, Normal, Unknown},
    };

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

    #[derive(Debug, Default, PartialEq)]
    struct Narrow {
        id: u64,
        code: u8,
        text: &'static str,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Wide {
        number: u64,
        what: i32,
    }

    crate::messages! {
        Narrow { id, code }
        Wide { number, what }
    }

    #[test]
    fn messages_are_made_of_any_two_fields() {
        let mut narrow = Narrow {
            id: 1,
            code: 9,
            text: "kept",
        };
        narrow.set_message_id(2);
        assert_eq!(
            (narrow.message_id(), narrow.control_code()),
            (2, Unknown(9))
        );
        assert_eq!(narrow.text, "kept");
        for (code, is) in [(0, Normal), (1, Cancel), (2, End), (255, Unknown(255))] {
            let wide = Wide {
                number: 7,
                what: code,
            };
            assert_eq!((wide.message_id(), wide.control_code()), (7, is));
        }
        // What does not fit is nothing that is known.
        for what in [256, 257, -1, i32::MAX] {
            assert_eq!(Wide { number: 7, what }.control_code(), Unknown(255));
        }
        let cancelled = Narrow {
            id: 3,
            code: 1,
            text: "",
        };
        assert_eq!(Narrow::cancelled(3), cancelled);
        assert_eq!(Wide::ended(3), Wide { number: 3, what: 2 });
    }
}
