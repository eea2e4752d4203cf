//! Calls over TLS.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use protosocket::{Layered, StreamWithAddress, TcpConnector, TcpOptions, TcpSocketListener};
use protosocket_prost::{ClientCodec, ServerCodec};
use protosocket_rpc::{
    Message, ProtosocketControlCode,
    client::{Configuration, connect},
    server::{ConnectionService, RpcConnection, RpcConnector, RpcKind, SocketService},
};
use protosocket_server::ProtosocketServerConfig;
use protosocket_tls::{Acceptor, TlsStream};
use tokio::net::TcpStream;

use crate::{
    pair::{client, server},
    pki::Authority,
    served::soon,
};

#[derive(Clone, PartialEq, prost::Message)]
struct Call {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    text: String,
}

impl Message for Call {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        ProtosocketControlCode::from_u8(self.code.try_into().unwrap_or(u8::MAX))
    }

    fn set_message_id(&mut self, id: u64) {
        self.id = id;
    }

    fn cancelled(id: u64) -> Self {
        let code = ProtosocketControlCode::Cancel.as_u8().into();
        let text = String::new();
        Self { id, code, text }
    }

    fn ended(id: u64) -> Self {
        let code = ProtosocketControlCode::End.as_u8().into();
        let text = String::new();
        Self { id, code, text }
    }
}

/// Answers each call with the name in the certificate of its caller's connection.
struct Service;

impl SocketService for Service {
    type ConnectionService = OfConnection;
    type SocketListener = Layered<TcpSocketListener, Acceptor>;

    fn codec(&self) -> ServerCodec<Call, Call> {
        ServerCodec::default()
    }

    fn new_stream_service(&self, stream: &TlsStream<StreamWithAddress<TcpStream>>) -> OfConnection {
        OfConnection {
            known: stream.peer_certificates().is_some(),
        }
    }

    fn spawn_connection(&self, connection: RpcConnection<Self>) {
        tokio::spawn(connection);
    }
}

struct OfConnection {
    known: bool,
}

impl ConnectionService for OfConnection {
    type Codec = ServerCodec<Call, Call>;
    type Request = Call;
    type Response = Call;
    type UnaryFutureType = Ready<Call>;
    type StreamType = NoStream;

    fn new_rpc(&mut self, mut request: Call) -> RpcKind<Ready<Call>, NoStream> {
        request
            .text
            .push_str(if self.known { " (known)" } else { "" });
        RpcKind::Unary(ready(request))
    }
}

struct NoStream(Infallible);

impl Stream for NoStream {
    type Item = Call;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Call>> {
        match self.0 {}
    }
}

#[tokio::test]
async fn calls_go_over_tls_and_services_know_the_certificate_of_their_caller() {
    let authority = Authority::new();
    let acceptor = server(&authority).require_client_certificate(authority.roots());
    let any = "127.0.0.1:0".parse().expect("it is an address");
    let listener = TcpSocketListener::listen(any, TcpOptions::new()).expect("a port is free");
    let address = listener.local_address().expect("it is bound");
    let listener = Layered::new(listener, acceptor.build().expect("it is valid"));
    let server = ProtosocketServerConfig::default();
    let server = server.build_server(listener, RpcConnector::new(Service));
    let server = server.expect("the configuration is valid");
    let handle = server.handle();
    tokio::spawn(server);

    let identity = authority.sign(&["client.test"]).identity();
    let connector = client(&authority).client_certificate(identity).build();
    let connector = Layered::new(TcpConnector::new(address), connector.expect("it is valid"));
    let codec = ClientCodec::<Call, Call>::default();
    let connected = soon(connect(&connector, codec, &Configuration::new())).await;
    let (client, connection) = connected.expect("it listens");
    let connection = tokio::spawn(connection);
    let mut calls = Vec::new();
    for number in 0..100 {
        let text = format!("call {number}");
        let request = Call {
            text,
            ..Call::default()
        };
        calls.push(client.send_unary(request).expect("the connection is open"));
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answer = soon(call).await.expect("it is answered");
        assert_eq!(answer.text, format!("call {number} (known)"));
    }
    drop(client);
    let end = soon(connection).await.expect("it does not panic");
    assert!(end.reason.is_graceful(), "{}", end.reason);
    let report = soon(handle.drain(Duration::from_secs(10))).await;
    assert_eq!(report.stuck, 0, "{report}");
}
