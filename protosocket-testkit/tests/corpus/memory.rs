//! F12: what a peer announces costs nothing; what it sends does.

use bytes::Bytes;
use protosocket::{Codec, LengthDelimitedCodec, Limits, LinesCodec, U32, Varint};
use protosocket_testkit::{INSTRUMENTED_SYSTEM, Inbound, Opened, Setup, alone, silent};

/// Gibibytes are allowed here, so that nothing but care keeps them from being reserved.
fn open<C: Codec + 'static>(codec: C) -> Opened<C>
where
    Inbound<C>: Clone,
{
    let limits = Limits::server().max_message_size(4 << 30);
    Setup::limits(limits).open(codec, silent())
}

/// What a connection allocates for these bytes, given back or not: what is reserved for a moment
/// has to be there for that moment.
fn allocated<C: Codec + 'static>(codec: impl Fn() -> C, bytes: &[u8]) -> usize
where
    Inbound<C>: Clone,
{
    let run = |bytes: &[u8]| {
        let mut server = open(codec());
        server.peer.send(bytes);
        let before = INSTRUMENTED_SYSTEM.stats();
        server.settle();
        assert!(!server.connection.is_ended(), "it waits for the rest");
        INSTRUMENTED_SYSTEM.stats().bytes_allocated - before.bytes_allocated
    };
    // The thread's own buffers are there from here on.
    run(&bytes[..1]);
    run(bytes)
}

#[test]
fn f12_memory_grows_with_what_came_and_not_with_what_was_announced() {
    let name = "memory::f12_memory_grows_with_what_came_and_not_with_what_was_announced";
    alone(name, || {
        let u32_prefix = LengthDelimitedCodec::<U32, Bytes>::new;
        let varint = LengthDelimitedCodec::<Varint, Bytes>::new;
        let lines = || LinesCodec::new().max_length(4 << 30);
        // Three gibibytes are announced, and ten bytes come.
        let few = [&[0xc0, 0, 0, 0][..], b"ten bytes."].concat();
        let held = allocated(u32_prefix, &few);
        assert!(held < 64 * 1024, "{held} bytes");
        let few = [&[0x80, 0x80, 0x80, 0x80, 0x0c][..], b"ten bytes."].concat();
        let held = allocated(varint, &few);
        assert!(held < 64 * 1024, "{held} bytes");
        // And a mebibyte of them: a buffer that doubles allocates twice what it comes to.
        let much = vec![b'x'; 1 << 20];
        let held = allocated(u32_prefix, &[&[0xc0, 0, 0, 0][..], &much].concat());
        assert!((1 << 19..8 << 20).contains(&held), "{held} bytes");
        let held = allocated(lines, &much);
        assert!((1 << 19..8 << 20).contains(&held), "{held} bytes");
    });
}
