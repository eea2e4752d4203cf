//! The servers and clients of calls, one file each.
//!
//! To add one: write a file with `pub(super) fn start() -> io::Result<Server>` that answers every
//! unary [`Request`](crate::call::Request) with its body and every other one with a stream, through
//! the public interface and the default configuration of its library, and with a client that
//! implements [`Client`](crate::drive::Client); make it a system in [`SYSTEMS`](super::SYSTEMS).

use super::{OwnClient, Start};
use crate::drive::{by_hand, own, own_without_streams};
use crate::work::{Caller, Load, Rpc as Work};

mod hand_loop;
mod ours;
mod protosocket_v2;
mod tarpc;
mod tonic;

/// How a system answers calls, and how it makes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rpc {
    /// Starts its server.
    pub(super) start: Start,
    /// Its client.
    pub(super) own: Option<OwnClient>,
    /// Whether it speaks the wire of the loop.
    speaks_wire: bool,
    /// Whether servers can stream.
    streams: bool,
}

pub(super) const HAND_LOOP: Rpc = Rpc {
    start: hand_loop::start,
    own: Some(by_hand),
    speaks_wire: true,
    streams: true,
};

pub(super) const OURS: Rpc = Rpc {
    start: ours::start,
    own: Some(own::<ours::Calls>),
    speaks_wire: true,
    streams: true,
};

pub(super) const OURS_PENDING: Rpc = Rpc {
    start: ours::start_pending,
    // The client is that of `ours`.
    own: None,
    speaks_wire: true,
    streams: true,
};

pub(super) const PROTOSOCKET_V2: Rpc = Rpc {
    start: protosocket_v2::start,
    own: Some(own::<protosocket_v2::Calls>),
    speaks_wire: true,
    streams: true,
};

pub(super) const TARPC: Rpc = Rpc {
    start: tarpc::start,
    own: Some(own_without_streams::<tarpc::Calls>),
    speaks_wire: false,
    streams: false,
};

pub(super) const TONIC: Rpc = Rpc {
    start: tonic::start,
    own: Some(own::<tonic::Calls>),
    speaks_wire: false,
    streams: true,
};

impl Rpc {
    /// Whether it can do this work.
    pub(super) fn does(&self, work: Work) -> bool {
        let has_client = match work.caller {
            Caller::Own => self.own.is_some(),
            Caller::Loop => self.speaks_wire,
        };
        has_client
            && match work.load {
                Load::Unary(_) | Load::TwoWorkers(_) => true,
                Load::Stream { .. } | Load::SlowConsumer { .. } => self.streams,
                // Those with a wire of their own cannot follow: calls would pile up for as long as the
                // load lasts, and their latency would be its length.
                Load::Latency { .. } => self.speaks_wire,
                Load::DeafToCalls { .. } | Load::DeafToStreams { .. } | Load::Never { .. } => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::pin;

    use bytes::Bytes;
    use futures_util::future::join_all;
    use futures_util::{StreamExt, TryStreamExt};

    use super::*;
    use crate::drive::tests::with_server;
    use crate::drive::{Client, StreamingClient};

    fn body(length: usize) -> Bytes {
        (0..=250).cycle().take(length).collect()
    }

    fn answers<C: Client>(rpc: Rpc) {
        let answered = with_server(rpc.start, async |address| {
            let client = C::connect(address).await?;
            let bodies = [1, 64, 1 << 10, 1 << 20].map(body);
            let calls = bodies
                .iter()
                .cycle()
                .take(32)
                .map(|body| client.call(body.clone()));
            let answers = join_all(calls).await;
            for (answer, body) in answers.into_iter().zip(bodies.iter().cycle()) {
                assert_eq!(answer?, body);
            }
            io::Result::Ok(())
        });
        answered.expect("answers");
    }

    fn streams<C: StreamingClient>(rpc: Rpc) {
        let answered = with_server(rpc.start, async |address| {
            let client = C::connect(address).await?;
            for (length, items) in [(64, 3_000), (1 << 20, 9)] {
                let stream = client.stream(body(length), items);
                let got: Vec<Bytes> = stream.try_collect().await?;
                assert_eq!(got, vec![body(length); items as usize]);
            }
            {
                let mut dropped = pin!(client.stream(body(64), 1_000_000));
                assert_eq!(dropped.next().await.expect("an item")?, body(64));
            }
            assert_eq!(client.call(body(64)).await?, body(64));
            io::Result::Ok(())
        });
        answered.expect("items");
    }

    #[test]
    fn nobody_is_measured_at_what_it_cannot_do() {
        for (caller, load, able) in [
            (
                Caller::Own,
                Load::Stream { payload: 64 },
                [true, false, true],
            ),
            (
                Caller::Loop,
                Load::Stream { payload: 64 },
                [true, false, false],
            ),
            (Caller::Loop, Load::Never { calls: 1 }, [true, false, false]),
        ] {
            let work = Work { caller, load };
            let does = [HAND_LOOP, TARPC, TONIC].map(|rpc| rpc.does(work));
            assert_eq!(does, able, "{work}");
        }
    }

    #[test]
    fn ours_calls() {
        for rpc in [OURS, OURS_PENDING] {
            answers::<ours::Calls>(rpc);
            streams::<ours::Calls>(rpc);
        }
    }

    #[test]
    fn protosocket_v2_calls() {
        answers::<protosocket_v2::Calls>(PROTOSOCKET_V2);
        streams::<protosocket_v2::Calls>(PROTOSOCKET_V2);
    }

    #[test]
    fn tarpc_calls() {
        answers::<tarpc::Calls>(TARPC);
    }

    #[test]
    fn tonic_calls() {
        answers::<tonic::Calls>(TONIC);
        streams::<tonic::Calls>(TONIC);
    }
}
