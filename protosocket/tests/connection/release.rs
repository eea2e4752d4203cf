//! What outlives a connection does not keep what belonged to it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use protosocket::{
    CloseReason, Connection, ConnectionConfig, ConnectionHandle, Limits, LinesCodec, ManualClock,
    Sender, channel,
};
use protosocket_testkit::{Probe, ScriptedStream, StreamPeer, echo, scripted_stream};

/// A task, as far as its waker is concerned: whoever holds one of its wakers holds its memory.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

struct Waiting {
    connection: Connection<ScriptedStream, Probe<LinesCodec>>,
    task: Arc<Task>,
    peer: StreamPeer,
    handle: ConnectionHandle,
    sender: Sender<String>,
}

impl Waiting {
    /// A connection that waits for its peer, its channel and its handle.
    fn new() -> Self {
        let (stream, peer) = scripted_stream();
        let (probe, _) = Probe::new(echo());
        let (sender, receiver) = channel(4);
        let config = ConnectionConfig::server(Limits::server())
            .expect("the defaults are valid")
            .with_clock(Arc::new(ManualClock::new()));
        let mut connection = Connection::over(stream, LinesCodec::new(), probe, receiver, &config);
        let mut waiting = Self {
            handle: connection.handle(),
            connection,
            task: Arc::new(Task),
            peer,
            sender,
        };
        assert!(waiting.poll().is_none());
        assert!(Arc::strong_count(&waiting.task) > 2);
        waiting
    }

    fn poll(&mut self) -> Option<CloseReason> {
        let waker = Waker::from(self.task.clone());
        match Pin::new(&mut self.connection).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(end) => Some(end.reason),
            Poll::Pending => None,
        }
    }

    /// Drop the connection, keep its handle and a sender.
    #[track_caller]
    fn expect_that_nobody_holds_the_task(self) {
        let Self {
            connection,
            task,
            peer,
            handle,
            sender,
        } = self;
        drop((connection, peer));
        assert_eq!(Arc::strong_count(&task), 1, "somebody keeps a waker");
        assert!(handle.is_ended());
        assert!(sender.try_send("too late".into()).is_err());
    }
}

#[test]
fn handles_and_senders_of_an_ended_connection_do_not_hold_its_task() {
    let mut waiting = Waiting::new();
    waiting.peer.fail_read(io::ErrorKind::ConnectionReset);
    let reason = waiting.poll();
    assert!(matches!(reason, Some(CloseReason::Io { .. })), "{reason:?}");
    waiting.expect_that_nobody_holds_the_task();
}

#[test]
fn handles_and_senders_of_a_dropped_connection_do_not_hold_its_task() {
    Waiting::new().expect_that_nobody_holds_the_task();
}
