//! What data that is stepped over costs: nothing. In a program of its own, because the allocator
//! counts for all threads.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::SystemTime,
};

use bytes::BytesMut;
use protosocket::{Connection, ConnectionConfig, Limits, ManualClock, channel};
use protosocket_memcached::{RequestDecoder, ResponseEncoder, server::Server};
use protosocket_testkit::{CountingAllocator, INSTRUMENTED_SYSTEM, alone, repeating_stream};

#[path = "../examples/server/memory.rs"]
mod cache;

#[global_allocator]
static ALLOCATOR: &CountingAllocator = &INSTRUMENTED_SYSTEM;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn c2_a_gibibyte_that_is_announced_and_comes_in_part_costs_no_memory() {
    let name = "c2_a_gibibyte_that_is_announced_and_comes_in_part_costs_no_memory";
    alone(name, || {
        const BLOCK: usize = 64 * 1024;
        const BLOCKS: usize = 256;
        let (stream, peer) = repeating_stream(&[b'y'; BLOCK]);
        let (_sender, outbound) = channel::<Infallible>(1);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let decoder = RequestDecoder::new().max_skipped(2 << 30);
        let server = Server::new(cache::Memory::new(1 << 20, SystemTime::now));
        let codec = (ResponseEncoder, decoder);
        let mut connection = Connection::new(stream, codec, server, outbound, &config)
            .with_unread(BytesMut::from("set a 0 0 1073741824\r\n"));
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        let mut settle = || {
            let mut cx = Context::from_waker(&waker);
            while flag.0.swap(false, Ordering::Relaxed) {
                assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
            }
            connection.stats().bytes_in
        };
        let before = ALLOCATOR.stats();
        peer.send(BLOCKS);
        let read = settle();
        let allocated = (ALLOCATOR.stats() - before).bytes_allocated;
        assert!(read >= (BLOCKS * BLOCK) as u64, "all of it was read");
        // What a connection reads into.
        assert!(allocated < 8 * BLOCK, "{allocated} bytes for {read}");
        // It is neither over nor answered.
        assert_eq!(peer.written(), 0);
    });
}
