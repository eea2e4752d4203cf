//! `protosocket-2.0.2`: the published server in its default configuration, with its pooled encoder
//! and a reactor that sends each message back through the connection's channel.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Buf;
use protosocket_server_v2::{ProtosocketServerConfig, ServerConnector};
use protosocket_v2::{
    Connection, Decoder, DeserializeError, MessageReactor, PooledEncoder, ReactorStatus, Serialize,
    StreamWithAddress, TcpSocketListener,
};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::Server;
use crate::frame::{self, HEADER};

pub(super) fn start() -> io::Result<Server> {
    let (_reserved, address) = reserve_port()?;
    let server = ProtosocketServerConfig::default()
        .bind_tcp(address, Connector)
        .map_err(io::Error::other)?;
    Ok(Server::here(address, server))
}

/// Binds a free port without listening on it.
///
/// The server does not tell which port it was given, so it must be told one. Its own socket is
/// bound with `SO_REUSEPORT`; while this one is open, the port can go to nobody else.
pub(super) fn reserve_port() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = (socket.local_addr()?.as_socket())
        .ok_or_else(|| io::Error::other("a TCP socket without an address"))?;
    Ok((socket, address))
}

type Stream = StreamWithAddress<TcpStream>;

struct Connector;

impl ServerConnector for Connector {
    type Codec = (PooledEncoder<Frames>, Frames);
    type Reactor = Echo;
    type SocketListener = TcpSocketListener;

    fn codec(&mut self) -> Self::Codec {
        (PooledEncoder::new(Frames), Frames)
    }

    fn new_reactor(&mut self, outbound: spillway::Sender<Vec<u8>>, _: &Stream) -> Echo {
        Echo { outbound }
    }

    fn spawn_connection(&self, connection: Connection<Stream, Echo>) {
        tokio::spawn(connection);
    }
}

struct Echo {
    outbound: spillway::Sender<Vec<u8>>,
}

impl MessageReactor for Echo {
    type Codec = (PooledEncoder<Frames>, Frames);
    type Inbound = Vec<u8>;
    type Outbound = Vec<u8>;
    type LogicalOutbound = Vec<u8>;

    fn on_inbound_message(&mut self, message: Vec<u8>) -> ReactorStatus {
        if !frame::wants_reply(&message) {
            return ReactorStatus::Continue;
        }
        match self.outbound.send(message) {
            Ok(()) => ReactorStatus::Continue,
            Err(_) => ReactorStatus::Disconnect,
        }
    }

    fn on_outbound_message(&mut self, message: Vec<u8>) -> Vec<u8> {
        message
    }
}

struct Frames;

impl Serialize for Frames {
    type Message = Vec<u8>;

    fn serialize_into_buffer(&mut self, message: Vec<u8>, buffer: &mut Vec<u8>) {
        frame::encode(&message, buffer);
    }
}

impl Decoder for Frames {
    type Message = Vec<u8>;

    fn decode(&mut self, mut buffer: impl Buf) -> Result<(usize, Vec<u8>), DeserializeError> {
        // The connection's receive buffer is one slice, so its first chunk is all there is.
        let Some(length) = frame::announced_length(buffer.chunk()) else {
            return Err(DeserializeError::IncompleteBuffer {
                next_message_size: HEADER,
            });
        };
        let frame_length = HEADER + length;
        if buffer.remaining() < frame_length {
            return Err(DeserializeError::IncompleteBuffer {
                next_message_size: frame_length,
            });
        }
        buffer.advance(HEADER);
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(&buffer.chunk()[..length]);
        Ok((frame_length, message))
    }
}
