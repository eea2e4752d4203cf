//! What connections hold while they are idle, and while their peers do not read.
//!
//! Memory is measured as the kernel counts it, so each test runs in a process of its own.

use protosocket::LinesCodec;
use protosocket_testkit::{Opened, Setup, alone, echo, frame, framed, resident_memory};

/// What this process holds, in bytes.
fn resident() -> usize {
    resident_memory(std::process::id()).expect("Linux tells")
}

#[test]
fn d11_an_idle_connection_holds_no_buffer() {
    alone("memory::d11_an_idle_connection_holds_no_buffer", || {
        let used = || {
            let mut server = Setup::default().open(framed(), echo());
            for size in [10, 100_000, 10] {
                server.peer.send(frame(&vec![1; size]));
                server.settle();
                assert_eq!(
                    server.knobs.lock().received.pop().map(|m| m.len()),
                    Some(size)
                );
            }
            server.peer.send(frame(&[1; 100]).repeat(300));
            server.settle();
            server.peer.forget_written();
            server.knobs.lock().received = Vec::new();
            server
        };
        // The thread's own buffers are there from here on.
        drop((0..10).map(|_| used()).collect::<Vec<_>>());
        let before = resident();
        let idle: Vec<Opened<_>> = (0..1_000).map(|_| used()).collect();
        let each = resident().saturating_sub(before) / idle.len();
        // The connection, its channel, and what the test itself keeps.
        assert!(each < 6 * 1024, "{each} bytes for each");
    });
}

#[test]
fn d10_memory_is_flat_while_peers_do_not_read() {
    alone("memory::d10_memory_is_flat_while_peers_do_not_read", || {
        let flooded = |requests: usize| {
            let mut server = Setup::bulk(64 * 1024).open(LinesCodec::new(), echo());
            server.peer.set_window(0);
            server.settle();
            for _ in 0..requests {
                server.peer.send([b'x'; 999]);
                server.peer.send("\n");
                server.settle();
                server.peer.forget_unread(64 * 1024);
            }
            server
        };
        drop(flooded(1_000));
        let before = resident();
        let server = flooded(200_000);
        let grown = resident().saturating_sub(before);
        assert!(grown < 1024 * 1024, "{grown} bytes of 200 MB");
        assert!(server.connection.connection().stats().bytes_in < 256 * 1024);
    });
}
