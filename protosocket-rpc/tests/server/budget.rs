use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures_core::Stream;
use protosocket::{Connection, ConnectionConfig, channel};
use protosocket_rpc::{
    RpcServerConfig,
    server::{ConnectionService, RpcKind, RpcReactor},
};
use protosocket_testkit::scripted_stream;
use tokio::task::coop;

use crate::common::{Text, TextCodec, calls, decoded, encoded};

/// Its rpcs use something of tokio that is always ready, and count how often they are polled.
struct Cooperative {
    polls: Rc<Cell<usize>>,
}

impl ConnectionService for Cooperative {
    type Codec = TextCodec;
    type Request = Text;
    type Response = Text;
    type UnaryFutureType = Pin<Box<dyn Future<Output = Text>>>;
    type StreamType = Pin<Box<dyn Stream<Item = Text>>>;

    fn new_rpc(&mut self, request: Text) -> RpcKind<Self::UnaryFutureType, Self::StreamType> {
        let polls = self.polls.clone();
        let mut request = Some(request);
        RpcKind::Unary(Box::pin(poll_fn(move |cx: &mut Context<'_>| {
            polls.set(polls.get() + 1);
            // What a channel, a socket or a timer of tokio does before anything else.
            match coop::poll_proceed(cx) {
                Poll::Ready(unit) => {
                    unit.made_progress();
                    Poll::Ready(request.take().expect("it is polled until it is ready"))
                }
                Poll::Pending => Poll::Pending,
            }
        })))
    }
}

#[tokio::test(start_paused = true)]
async fn rpcs_without_budget_keep_their_turns() {
    const CALLS: u64 = 2000;
    let (stream, peer) = scripted_stream();
    let polls = Rc::new(Cell::new(0));
    let service = Cooperative {
        polls: polls.clone(),
    };
    let reactor = RpcReactor::new(service, &RpcServerConfig::default()).expect("it is valid");
    let (_, outbound) = channel::<Infallible>(1);
    let config = ConnectionConfig::default();
    let mut connection = Connection::new(stream, TextCodec, reactor, outbound, &config);
    peer.send(encoded(calls(1..=CALLS, "x")));
    peer.end();
    let mut task_polls = 0;
    poll_fn(|cx| {
        task_polls += 1;
        Pin::new(&mut connection).poll(cx).map(drop)
    })
    .await;
    assert_eq!(decoded(&peer.written()).len(), CALLS as usize);
    // Each once when it begins, each once when it is answered, and one a poll that finds no budget.
    let (most, polls) = (2 * CALLS as usize + 2 * task_polls, polls.get());
    assert!(
        polls <= most,
        "{polls} polls of rpcs in {task_polls} of their task"
    );
    assert!(
        task_polls > 10,
        "the budget of a task is far less than {CALLS}"
    );
}
