//! The protocol of these tests: lines that a server answers with themselves.

use std::{collections::BTreeMap, io};

use protosocket::{EncodeError, LinesCodec, SendBuffer};
use protosocket_pipeline::{Expect, Protocol, Received};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

/// Lines, whose replies tell nothing of their requests. One that begins with `quiet` has none.
pub(crate) struct Echoes;

impl Protocol for Echoes {
    type Request = String;
    type Reply = String;
    type Expected = ();
    type Decoder = LinesCodec;

    fn decoder(&mut self) -> LinesCodec {
        LinesCodec::new()
    }

    fn encode(&mut self, request: &String, output: &mut SendBuffer) -> Result<(), EncodeError> {
        output.put_slice(request.as_bytes());
        output.put_slice(b"\n");
        Ok(())
    }

    fn expect(&mut self, request: &String) -> Expect<Self> {
        match request.starts_with("quiet") {
            true => Expect::Nothing(request.clone()),
            false => Expect::Reply(()),
        }
    }

    fn receive(&mut self, _: Option<&mut ()>, line: String) -> Received<String> {
        Received::Reply(line)
    }
}

/// How often a server has heard each line.
pub(crate) type Heard = BTreeMap<String, u32>;

/// Serve one connection, for so many lines at most, and end it in order.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    most: usize,
    mut hear: impl FnMut(String),
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    for _ in 0..most {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some(said) = line.strip_suffix('\n') else {
            break;
        };
        hear(said.to_owned());
        if !said.starts_with("quiet") {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await?;
        }
    }
    stream.shutdown().await
}
