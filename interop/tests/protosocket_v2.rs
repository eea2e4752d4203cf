//! Calls between this project and protosocket-rpc 2.0.2, both ways, with both of its codecs. The
//! same is asked of foreign servers with foreign clients, which shows what the questions are worth,
//! and of ours with ours.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all, stream::BoxStream};
use interop::{
    Call, Client, End,
    Operation::{Echo, Endless, Forever, Later, Reject, Stream},
    Server, ours,
};
use protosocket::SendBuffer;
use protosocket_rpc::RpcServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A call that takes longer than this is lost. Nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a long stream.
const ITEMS: u64 = 10_000;

/// Of all kinds, on one connection, at once.
const MIXED: u64 = 10_000;

/// Run a client in a runtime of its own.
fn run(client: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, client).await });
    done.expect("something was lost: nothing has come for a minute");
}

/// A body that says which call it belongs to, of a size that depends on it.
fn body(number: u64) -> Bytes {
    let sizes = [0, 1, 100, 127, 128, 1000, 5000];
    let size = sizes[number as usize % sizes.len()];
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + size, number as u8);
    body.into()
}

/// Read a stream to its end, and check that it is whole and in order.
async fn expect_items(
    mut items: BoxStream<'static, Result<Call, End>>,
    body: &Bytes,
    expected: u64,
) {
    for count in 0..expected {
        let item = items.next().await.expect("the stream is not over").unwrap();
        assert_eq!((item.count, &item.body), (count, body));
    }
    assert_eq!(items.next().await, None);
}

async fn unary(_: Server, client: impl Client) {
    for operation in [Echo, Later] {
        for number in 0..50 {
            let request = Call::request(operation, number, body(number));
            let answer = client.unary(request).await.unwrap();
            assert_eq!((answer.count, answer.body), (number, body(number)));
        }
    }
    // Larger than what a connection reads and writes at once.
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);
    let answer = client.unary(Call::request(Echo, 0, large.clone())).await;
    assert_eq!(answer.unwrap().body, large);
}

async fn streaming(_: Server, client: impl Client) {
    for count in [0, 1, 2, ITEMS] {
        let items = client.streaming(Call::request(Stream, count, body(count)));
        expect_items(items.await.unwrap(), &body(count), count).await;
    }
}

async fn a_slow_consumer_loses_nothing(_: Server, client: impl Client) {
    // Ten megabytes: more than all buffers between the two hold.
    let body = Bytes::from(vec![7; 1024]);
    let request = Call::request(Stream, ITEMS, body.clone());
    let items = client.streaming(request).await.unwrap();
    let slow = items.then(async |item| {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        item
    });
    let mut slow = Box::pin(slow);
    for count in 0..ITEMS {
        let item = slow.next().await.expect("the stream is not over").unwrap();
        assert_eq!((item.count, item.body), (count, body.clone()));
    }
    assert_eq!(slow.next().await, None);
}

async fn a_client_cancels(server: Server, client: impl Client) {
    let call = client.unary(Call::request(Forever, 0, "unary"));
    let mut call = Box::pin(call);
    assert_eq!(call.as_mut().now_or_never(), None);
    server.seen().until(|seen| seen.running == 1).await;
    drop(call);
    server.seen().until(|seen| seen.dropped == 1).await;

    let request = Call::request(Endless, 3, "stream");
    let mut items = client.streaming(request).await.unwrap();
    for count in 0..3 {
        let item = items.next().await.expect("the stream is not over");
        assert_eq!(item.unwrap().count, count);
    }
    server.seen().until(|seen| seen.running == 1).await;
    drop(items);
    let seen = server.seen().until(|seen| seen.dropped == 2).await;
    assert_eq!((seen.begun, seen.running), (2, 0));

    // The connection is as good as before.
    let answer = client.unary(Call::request(Echo, 5, "after")).await;
    assert_eq!(answer.unwrap().count, 5);
}

async fn a_server_cancels(_: Server, client: impl Client) {
    for _ in 0..3 {
        let answer = client.unary(Call::request(Reject, 0, "no")).await;
        assert_eq!(answer, Err(End::Cancelled));
        let answer = client.unary(Call::request(Echo, 5, "yes")).await;
        assert_eq!(answer.unwrap().count, 5);
    }
}

/// One of ten thousand, and whether it came to the end that it should.
async fn mixed_call(client: impl Client, number: u64) {
    let request = |operation, count| Call::request(operation, count, body(number));
    match number % 10 {
        0..4 => expect_answer(&client, request(Echo, number)).await,
        4..7 => expect_answer(&client, request(Later, number)).await,
        7 => {
            let items = client.streaming(request(Stream, 20)).await.unwrap();
            expect_items(items, &body(number), 20).await;
        }
        8 => {
            let answer = client.unary(request(Reject, 0)).await;
            assert_eq!(answer, Err(End::Cancelled));
        }
        _ => {
            let mut call = Box::pin(client.unary(request(Forever, 0)));
            assert_eq!(call.as_mut().now_or_never(), None);
            tokio::task::yield_now().await;
            assert_eq!(call.as_mut().now_or_never(), None);
        }
    }
}

async fn expect_answer(client: &impl Client, request: Call) {
    let (count, body) = (request.count, request.body.clone());
    let answer = client.unary(request).await.unwrap();
    assert_eq!((answer.count, answer.body), (count, body));
}

async fn ten_thousand_mixed_calls<C: Client>(server: Server, client: C) {
    let calls = (0..MIXED).map(|number| tokio::spawn(mixed_call(client.clone(), number)));
    for (number, ended) in join_all(calls).await.into_iter().enumerate() {
        assert!(ended.is_ok(), "call {number}: {ended:?}");
    }
    let seen = server.seen();
    let seen = seen.until(|seen| seen.running == 0 || !C::CANCELS_IN_ORDER);
    let seen = seen.await;
    // Of those that were given up, some may never have been sent.
    assert!(seen.begun >= MIXED / 10 * 9, "{seen:?}");
    assert!(seen.dropped <= MIXED / 10, "{seen:?}");
}

async fn a_server_is_lost(server: Server, client: impl Client) {
    let pending = tokio::spawn({
        let client = client.clone();
        async move { client.unary(Call::request(Forever, 0, "unary")).await }
    });
    let request = Call::request(Endless, 1, "stream");
    let mut items = client.streaming(request).await.unwrap();
    assert!(matches!(items.next().await, Some(Ok(_))));
    server.seen().until(|seen| seen.running == 2).await;
    drop(server);
    assert!(pending.await.unwrap().is_err());
    // A client of 2.0.2 takes this for the end of the stream.
    assert!(matches!(items.next().await, None | Some(Err(_))));
}

/// What of it a client of ours can tell, whoever the server is.
async fn d17_a_lost_server_is_not_the_end_of_a_stream(server: Server, client: impl Client) {
    let request = Call::request(Endless, 1, "stream");
    let mut items = client.streaming(request).await.unwrap();
    assert!(matches!(items.next().await, Some(Ok(_))));
    drop(server);
    let end = items.next().await;
    assert!(matches!(end, Some(Err(End::Lost(_)))), "{end:?}");
    assert_eq!(items.next().await, None);
}

/// Ids that callers choose, small and large, at once and again.
async fn ids_of_the_callers_own(_: Server, client: impl Client) {
    let ids = [u64::MAX, 1, 1 << 63, u64::from(u32::MAX) + 1, 7];
    for _ in 0..3 {
        let calls = ids.map(|id| {
            let mut request = Call::request(Later, id, body(id));
            request.id = id;
            client.unary(request)
        });
        for (id, answer) in ids.into_iter().zip(join_all(calls).await) {
            let answer = answer.unwrap();
            assert_eq!((answer.id, answer.count, answer.body), (id, id, body(id)));
        }
        let streams = ids.map(|id| {
            let mut request = Call::request(Stream, 20, body(id));
            request.id = id;
            client.streaming(request)
        });
        let streams = join_all(streams).await.into_iter().zip(ids);
        let whole = streams.map(async |(items, id)| {
            expect_items(items.unwrap(), &body(id), 20).await;
        });
        join_all(whole).await;
    }
}

/// Its rpcs are dropped, and the server goes on.
fn a_client_is_lost<C: Client>(
    server: Server,
    connect_to_be_lost: impl AsyncFn(&Server) -> C,
    connect: impl AsyncFn(&Server) -> C,
) {
    run(async {
        let client = connect_to_be_lost(&server).await;
        let request = Call::request(Endless, 1, "stream");
        let mut items = client.streaming(request).await.unwrap();
        assert!(matches!(items.next().await, Some(Ok(_))));
        let mut call = Box::pin(client.unary(Call::request(Forever, 0, "unary")));
        assert_eq!(call.as_mut().now_or_never(), None);
        server.seen().until(|seen| seen.running == 2).await;
        // Dropped, they would be cancelled.
        std::mem::forget((items, call));
    });
    run(async {
        server.seen().until(|seen| seen.dropped == 2).await;
        let client = connect(&server).await;
        unary(server, client).await;
    });
}

/// A client that has closed its side and never reads says no more than one that waits for answers: the
/// server's patience ends the connection, and the rpcs with it.
async fn finished_sending<C: ours::Codec>() {
    let config = RpcServerConfig::default().end_of_input_timeout(Duration::from_millis(100));
    let server = ours::serve_with::<C>(config);
    let mut request = Call::request(Forever, 0, "unary");
    request.id = 1;
    let mut output = SendBuffer::new();
    output.encode(&mut C::default(), request).unwrap();

    let mut client = TcpStream::connect(server.address()).await.unwrap();
    client.write_all(output.contiguous()).await.unwrap();
    server.seen().until(|seen| seen.running == 1).await;
    client.shutdown().await.unwrap();
    let seen = server.seen().until(|seen| seen.dropped == 1).await;
    assert_eq!((seen.begun, seen.running), (1, 0));
    // It is told nothing more, and that this is all.
    let mut rest = Vec::new();
    let read = client.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{read:?} after {rest:02x?}");
}

#[test]
fn who_has_finished_sending_is_not_waited_for_for_ever() {
    run(async {
        finished_sending::<ours::Prost>().await;
        finished_sending::<ours::MessagePack>().await;
    });
}

macro_rules! pair {
    ($name:ident, $server:expr, $client:ident<$codec:ident>; $($question:ident)*) => {
        mod $name {
            use super::*;

            $(
                #[test]
                fn $question() {
                    let server = $server;
                    run(async move {
                        let client = $client::connect::<$codec>(server.address()).await;
                        crate::$question(server, client).await;
                    });
                }
            )*

            #[test]
            fn a_client_is_lost() {
                let to_be_lost = async |server: &Server| {
                    $client::connect_to_be_lost::<$codec>(server.address()).await
                };
                let connect =
                    async |server: &Server| $client::connect::<$codec>(server.address()).await;
                crate::a_client_is_lost($server, to_be_lost, connect);
            }
        }
    };
}

macro_rules! pairs {
    ($codec:ident, $name:ident) => {
        mod $name {
            use interop::{
                Server,
                ours::{self, OurClient},
                protosocket_v2::{self, ForeignClient},
            };

            use super::run;

            type Ours = ours::$codec;
            type Foreign = protosocket_v2::$codec;

            pair!(foreign_server_foreign_client,
                protosocket_v2::serve::<Foreign>(), ForeignClient<Foreign>;
                unary streaming a_slow_consumer_loses_nothing a_client_cancels a_server_cancels
                ten_thousand_mixed_calls a_server_is_lost);

            pair!(our_server_foreign_client,
                ours::serve::<Ours>(), ForeignClient<Foreign>;
                unary streaming a_slow_consumer_loses_nothing a_client_cancels a_server_cancels
                ten_thousand_mixed_calls a_server_is_lost);

            pair!(foreign_server_our_client,
                protosocket_v2::serve::<Foreign>(), OurClient<Ours>;
                unary streaming a_slow_consumer_loses_nothing a_client_cancels a_server_cancels
                ten_thousand_mixed_calls a_server_is_lost
                d17_a_lost_server_is_not_the_end_of_a_stream ids_of_the_callers_own);

            pair!(our_server_our_client,
                ours::serve::<Ours>(), OurClient<Ours>;
                unary streaming a_slow_consumer_loses_nothing a_client_cancels a_server_cancels
                ten_thousand_mixed_calls a_server_is_lost
                d17_a_lost_server_is_not_the_end_of_a_stream ids_of_the_callers_own);
        }
    };
}

pairs!(Prost, prost);
pairs!(MessagePack, messagepack);
