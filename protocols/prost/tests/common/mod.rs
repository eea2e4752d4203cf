#![expect(
    unreachable_pub,
    reason = "each test program has it as a module of its own"
)]

pub mod messages;

use messages::{Call, Codec, Note};
use protosocket::SendBuffer;

/// A call with something in every field.
pub fn sample() -> Call {
    Call {
        id: 7,
        code: -2,
        body: "body".into(),
        name: "näme".into(),
        inner: Some(Box::new(Call {
            id: u64::MAX,
            ..Call::default()
        })),
        notes: vec![Note { number: 1 }, Note { number: 300 }, Note::default()],
        numbers: vec![0, 1, 1 << 40],
        counts: [("a".to_owned(), 1), ("b".to_owned(), 2)].into(),
        vec: vec![0xff; 3],
        fixed: 0x0403_0201,
        bodies: vec!["".into(), "first".into(), vec![7; 17].into()],
    }
}

/// The bytes of `calls` on the wire.
pub fn wire(calls: &[Call]) -> Vec<u8> {
    let mut output = SendBuffer::new();
    for call in calls {
        let encoded = output.encode(&mut Codec::default(), call.clone());
        encoded.expect("a call can be encoded");
    }
    output.contiguous().clone()
}
