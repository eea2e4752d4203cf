//! Sockets, where the kernel has a say in what reaches the peer, and streams around streams.

use std::{future::Future, io};

use bytes::Bytes;
use protosocket::{
    CloseReason, Codec, Connection, ConnectionConfig, ConnectionEnd, ConnectionHandle, LinesCodec,
    Operation, Prefixed, ReactorStatus, Sender, Transport, channel,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use protosocket_testkit::{
    Answer, Framed, Inbound, Knobs, Outbound, Probe, Setup, StreamEvent, always, echo, frame,
    framed,
};

/// Two ends of a connection. The client's has a small receive buffer if it is to be slow.
async fn pair(slow: bool) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpSocket::new_v4()?;
    if slow {
        client.set_recv_buffer_size(16 * 1024)?;
    }
    let (client, server) = tokio::join!(client.connect(listener.local_addr()?), listener.accept());
    Ok((client?, server?.0))
}

struct Served<C: Codec + 'static>
where
    Inbound<C>: Clone,
{
    connection: Connection<TcpStream, Probe<C>>,
    knobs: Knobs<C>,
    handle: ConnectionHandle,
    sender: Sender<Outbound<C>>,
}

fn serve<C: Codec + 'static>(stream: TcpStream, codec: C, answer: Answer<C>) -> Served<C>
where
    Inbound<C>: Clone,
{
    let (reactor, knobs) = Probe::new(answer);
    let (sender, receiver) = channel(16);
    let config = ConnectionConfig::default();
    let mut connection = Connection::over(stream, codec, reactor, receiver, &config);
    Served {
        handle: connection.handle(),
        connection,
        knobs,
        sender,
    }
}

/// Drive both until both are done.
async fn both<C: Codec + 'static, T>(
    connection: Connection<TcpStream, Probe<C>>,
    client: impl Future<Output = io::Result<T>>,
) -> (ConnectionEnd<TcpStream, Probe<C>>, io::Result<T>)
where
    Inbound<C>: Clone,
{
    tokio::join!(connection, client)
}

/// Everything until the end, or as far as it came. A slow reader lets the other side get stuck
/// between its reads.
async fn read_to_end(client: &mut TcpStream, slow: bool) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        if slow {
            tokio::task::yield_now().await;
        }
        let mut chunk = vec![0; 64 * 1024];
        match client.read(&mut chunk).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&chunk[..count]),
        }
    }
}

#[tokio::test]
async fn d2b_replies_after_a_half_close_arrive_whole() {
    const MIB: usize = 1024 * 1024;
    for size in [1, 64 * 1024, 8 * MIB, 64 * MIB] {
        for slow in [false, true] {
            if slow && size > 8 * MIB {
                continue;
            }
            // One reply of that size.
            let (mut client, server) = pair(slow).await.unwrap();
            let reply = Bytes::from(vec![7; size]);
            let served = serve(server, framed(), always(reply.clone()));
            drop(served.sender);
            let (end, received) = both(served.connection, async {
                client.write_all(&frame(b"request")).await?;
                client.shutdown().await?;
                read_to_end(&mut client, slow).await
            })
            .await;
            let received = received.unwrap();
            assert!(
                received.len() == 4 + size && received[4..] == reply,
                "{size}"
            );
            assert_eq!(end.reason.name(), "end_of_input");

            // The same in many.
            let (mut client, server) = pair(slow).await.unwrap();
            let served = serve(server, framed(), echo());
            drop(served.sender);
            let pieces = size.div_ceil(64 * 1024);
            let piece = reply.slice(..size / pieces);
            served.knobs.produce(vec![piece.clone(); pieces]);
            let (end, received) = both(served.connection, async {
                client.shutdown().await?;
                read_to_end(&mut client, slow).await
            })
            .await;
            assert_eq!(received.unwrap().len(), (piece.len() + 4) * pieces);
            assert_eq!(end.stats.messages_out, pieces as u64);
        }
    }
}

#[tokio::test]
async fn d12_input_that_was_not_read_does_not_destroy_the_last_reply() {
    let (mut client, server) = pair(true).await.unwrap();
    let reply = Bytes::from(vec![7; 256 * 1024]);
    let expected = frame(&reply);
    let answer: Answer<Framed> = Box::new(move |context, _| {
        assert!(context.send(reply.clone()).is_ok());
        ReactorStatus::Disconnect
    });
    let served = serve(server, framed(), answer);
    let (end, received) = both(served.connection, async {
        client.write_all(&frame(b"request")).await?;
        client.write_all(&vec![0; 4 * 1024 * 1024]).await?;
        let received = read_to_end(&mut client, true).await;
        drop(client);
        received
    })
    .await;
    assert!(received.unwrap() == expected);
    assert_eq!(end.reason.name(), "disconnect");
    assert_eq!((end.stats.messages_in, end.stats.unsent), (1, 0));
}

#[tokio::test]
async fn an_abort_is_a_reset_for_the_peer() {
    let (mut client, server) = pair(false).await.unwrap();
    let served = serve(server, framed(), echo());
    let (end, received) = both(served.connection, async {
        client.write_all(&frame(b"request")).await?;
        let mut reply = [0; 11];
        client.read_exact(&mut reply).await?;
        served.handle.abort();
        client.read(&mut reply).await
    })
    .await;
    assert_eq!(end.reason.name(), "aborted");
    assert_eq!(received.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn c14_a_panic_is_a_reset_for_the_peer() {
    let (mut client, server) = pair(false).await.unwrap();
    let served = serve(server, framed(), Box::new(|_, _| panic!("in reactor")));
    let (end, received) = both(served.connection, async {
        client.write_all(&frame(b"request")).await?;
        client.read(&mut [0; 1]).await
    })
    .await;
    assert_eq!(end.reason.name(), "panicked");
    assert_eq!(received.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_by_the_peer_is_a_reason() {
    let (client, server) = pair(false).await.unwrap();
    let served = serve(server, framed(), echo());
    let (end, ()) = tokio::join!(served.connection, async {
        let mut client = client;
        Transport::abort(&mut client);
        drop(client);
    });
    assert!(matches!(
        end.reason,
        CloseReason::Io {
            operation: Operation::Read,
            source,
        } if source.kind() == io::ErrorKind::ConnectionReset
    ));
    assert!(served.sender.is_closed());
}

#[tokio::test]
async fn a_prefix_is_read_before_the_stream() {
    for size in [0, 1, 5, 100_000] {
        let (mut client, server) = pair(false).await.unwrap();
        let input = [frame(&vec![1; size]), frame(b"second")].concat();
        let (prefix, rest) = input.split_at(input.len() / 2);
        let prefixed = Prefixed::new(Bytes::copy_from_slice(prefix), server);
        assert!(prefixed.lingers());
        let (reactor, knobs) = Probe::new(echo());
        let (sender, receiver) = channel(1);
        drop(sender);
        let config = ConnectionConfig::default();
        let connection = Connection::over(prefixed, framed(), reactor, receiver, &config);
        let (end, received) = tokio::join!(connection, async {
            client.write_all(rest).await?;
            client.shutdown().await?;
            read_to_end(&mut client, false).await
        });
        assert!(received.unwrap() == input, "{size}");
        assert_eq!(end.stats.bytes_in, input.len() as u64);
        assert_eq!(knobs.received(), 2);
    }
}

/// Lines until one says what to do; then the stream goes on elsewhere.
fn upgrading(setup: Setup) -> protosocket_testkit::Opened<LinesCodec> {
    let answer: Answer<LinesCodec> = Box::new(|context, message| {
        let status = match message.as_str() {
            "upgrade" => ReactorStatus::Handover,
            _ => ReactorStatus::Continue,
        };
        assert!(context.send(message).is_ok());
        status
    });
    setup.open(LinesCodec::new().line_feed(), answer)
}

#[test]
fn a_handover_flushes_and_yields_the_stream_and_what_was_not_decoded() {
    let text = b"hello\nupgrade\n";
    let input = [
        &text[..],
        &frame(b"first"),
        &frame(&[1; 40_000]),
        &frame(b"last"),
    ]
    .concat();
    for cut in (0..40).chain([30_000, 40_030]) {
        let mut first = upgrading(Setup::default());
        first.peer.hold_flush();
        first.peer.set_window(3);
        first.send("from the channel".into());
        first.peer.send(&input[..cut]);
        first.settle();
        first.peer.send(&input[cut..]);
        first.settle();
        first.peer.open_window(usize::MAX);
        first.settle();
        assert!(!first.connection.is_ended(), "it has not been flushed");
        first.peer.release_flush();
        let end = first.finish();
        let handover = end.handover.expect("it was handed over");
        assert!(!first.peer.saw(StreamEvent::Shutdown) && !first.peer.saw(StreamEvent::Drop));
        let written = b"hello\nupgrade\nfrom the channel\n".len();
        assert_eq!(first.peer.written_len(), written);

        let mut second = Setup {
            stream: handover.stream,
            peer: first.peer.clone(),
            unread: handover.unread.freeze(),
            ..Setup::default()
        }
        .open(framed(), echo());
        second.peer.end();
        second.drop_sender();
        assert_eq!(second.reason(), "end_of_input");
        assert!(
            second.peer.written()[written..] == input[text.len()..],
            "cut at {cut}"
        );
        assert_eq!(second.knobs.received(), 3);
    }
}

#[test]
fn a_handover_after_the_end_of_input_keeps_what_was_read() {
    let mut first = upgrading(Setup::default());
    first.peer.send("upgrade\nthe rest");
    first.peer.end();
    first.drop_sender();
    let handover = first.finish().handover.expect("it was handed over");
    assert_eq!(handover.unread, &b"the rest"[..]);
    assert!(!first.peer.saw(StreamEvent::Shutdown));
}

#[test]
fn a_stream_that_fails_is_not_handed_over() {
    let mut first = upgrading(Setup::default());
    first.peer.fail_write(io::ErrorKind::BrokenPipe);
    first.peer.send("upgrade\n");
    let end = first.finish();
    assert_eq!(end.reason.name(), "io");
    assert!(end.handover.is_none());
}
