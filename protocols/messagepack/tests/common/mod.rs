#![expect(
    unreachable_pub,
    reason = "each test program has it as a module of its own"
)]

pub mod messages;

use messages::{Call, Codec, Note, Tree};
use protosocket::SendBuffer;

/// A call with something in every field.
pub fn sample() -> Call {
    let leaf = || Box::new(Tree::Leaf);
    let named = Tree::Named {
        name: "tree".into(),
    };
    Call {
        id: 1 << 40,
        code: -200,
        body: "body".into(),
        name: "näme".into(),
        tree: Tree::Pair(Box::new(Tree::Node(leaf())), Box::new(named)),
        notes: vec![Note(Some(1)), Note(None), Note(Some(70_000))],
        numbers: vec![0, 127, 128, 255],
        counts: [("a".to_owned(), 1), ("b".to_owned(), 300)].into(),
        inner: Some(Box::default()),
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
