//! An RPC call that streams both ways, as hosts on the credit multiplexer: each direction has its
//! own credit and its own end, and the credit is granted when the application takes a message.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use protosocket::{
    ActionId, CloseReason, Connection, ConnectionConfig, ConnectionStats, Host, HostContext,
    Limits, MachineReactor, Sender, channel,
};
use tokio::{
    io::duplex,
    sync::{mpsc, oneshot},
};

use crate::{
    frames::Frames,
    mux::{Command, Config, Event, Mux, MuxError, Role},
};
use protosocket_testkit::within;

/// What a client's application sends through the channel.
enum Call {
    /// Begin a call: its number goes to the first, what comes back to the second.
    Begin(oneshot::Sender<u32>, mpsc::UnboundedSender<Bytes>),
    Issue(Command),
}

/// The client's end of a call.
struct ClientCall {
    stream: u32,
    connection: Sender<Call>,
    /// Not bounded itself: the credit bounds what is in it.
    inbox: mpsc::UnboundedReceiver<Bytes>,
}

impl ClientCall {
    /// The connection numbers its calls, because clones of a sender are not in order with each
    /// other.
    async fn begin(connection: &Sender<Call>) -> Self {
        let (deliver, inbox) = mpsc::unbounded_channel();
        let (number, begun) = oneshot::channel();
        let sent = connection.send(Call::Begin(number, deliver)).await;
        sent.expect("the connection is there");
        Self {
            stream: begun.await.expect("the call is begun"),
            connection: connection.clone(),
            inbox,
        }
    }

    async fn issue(&self, command: Command) {
        let sent = self.connection.send(Call::Issue(command)).await;
        sent.expect("the connection is there");
    }

    async fn send(&self, message: impl Into<Bytes>) {
        self.issue(Command::Send(self.stream, message.into())).await;
    }

    /// No more requests; answers still come.
    async fn finish(&self) {
        self.issue(Command::Finish(self.stream)).await;
    }

    async fn receive(&mut self) -> Option<Bytes> {
        let message = self.inbox.recv().await?;
        self.issue(Command::Consumed(self.stream, message.len()))
            .await;
        Some(message)
    }
}

#[derive(Default)]
struct Client {
    last: u32,
    inboxes: BTreeMap<u32, mpsc::UnboundedSender<Bytes>>,
}

impl Host<Mux> for Client {
    type Message = Call;

    fn on_event(&mut self, _: &mut HostContext<'_, Mux>, event: Event) {
        match event {
            Event::Data(stream, message) => {
                if let Some(inbox) = self.inboxes.get(&stream) {
                    // An application that has dropped its call is not interested.
                    let _ = inbox.send(message);
                }
            }
            Event::Finished(stream) | Event::Cancelled(stream) => {
                self.inboxes.remove(&stream);
            }
            Event::Opened(_) | Event::Sent(..) | Event::Goodbye => {}
        }
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Mux>, _: ActionId, (): ()) {}

    fn on_message(&mut self, context: &mut HostContext<'_, Mux>, message: Call) {
        match message {
            Call::Begin(begun, inbox) => {
                let stream = self.last + 1;
                // A refused call is told by the channel that is dropped.
                if context.command(Command::Open(stream)).is_ok() {
                    self.last = stream;
                    self.inboxes.insert(stream, inbox);
                    let _ = begun.send(stream);
                }
            }
            // A call that the server has ended meanwhile rejects what comes too late.
            Call::Issue(command) => drop(context.command(command)),
        }
    }

    fn on_end(&mut self, _: &CloseReason, _: &ConnectionStats, _: Option<&MuxError>) {
        // Whoever waits for an answer is told at once.
        self.inboxes.clear();
    }
}

/// The server's end of a call: what the handler and the host share.
#[derive(Clone, Default)]
struct ServerCall(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    requests: VecDeque<Bytes>,
    requests_ended: bool,
    answers: VecDeque<Bytes>,
    /// Taken by the handler, to be granted again.
    consumed: usize,
    waker: Option<Waker>,
}

impl ServerCall {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("nothing panics under it")
    }

    async fn receive(&self) -> Option<Bytes> {
        std::future::poll_fn(|cx| {
            let mut shared = self.lock();
            if let Some(message) = shared.requests.pop_front() {
                shared.consumed += message.len();
                return Poll::Ready(Some(message));
            }
            if shared.requests_ended {
                return Poll::Ready(None);
            }
            shared.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn send(&self, message: Bytes) {
        self.lock().answers.push_back(message);
    }

    fn deliver(&self, act: impl FnOnce(&mut Shared)) {
        let mut shared = self.lock();
        act(&mut shared);
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
    }
}

type Handler = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Server<F> {
    handle: F,
    calls: BTreeMap<u32, (ServerCall, Handler)>,
}

impl<F, T> Host<Mux> for Server<F>
where
    F: Fn(ServerCall) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    type Message = ();

    fn on_event(&mut self, _: &mut HostContext<'_, Mux>, event: Event) {
        match event {
            Event::Opened(stream) => {
                let call = ServerCall::default();
                let handler = Box::pin((self.handle)(call.clone()));
                self.calls.insert(stream, (call, handler));
            }
            Event::Data(stream, message) => {
                if let Some((call, _)) = self.calls.get(&stream) {
                    call.deliver(|shared| shared.requests.push_back(message));
                }
            }
            Event::Finished(stream) => {
                if let Some((call, _)) = self.calls.get(&stream) {
                    call.deliver(|shared| shared.requests_ended = true);
                }
            }
            Event::Cancelled(stream) => {
                self.calls.remove(&stream);
            }
            Event::Sent(..) | Event::Goodbye => {}
        }
    }

    fn on_action(&mut self, _: &mut HostContext<'_, Mux>, _: ActionId, (): ()) {}

    fn on_message(&mut self, _: &mut HostContext<'_, Mux>, (): ()) {}

    fn poll(&mut self, cx: &mut Context<'_>, context: &mut HostContext<'_, Mux>) {
        self.calls.retain(|&stream, (call, handler)| {
            let done = handler.as_mut().poll(cx).is_ready();
            let mut shared = call.lock();
            let answers = shared.answers.drain(..);
            let mut commands: Vec<_> = answers
                .map(|answer| Command::Send(stream, answer))
                .collect();
            match std::mem::take(&mut shared.consumed) {
                0 => {}
                size => commands.push(Command::Consumed(stream, size)),
            }
            if done {
                commands.push(Command::Finish(stream));
            }
            for command in commands {
                // The client may have cancelled; the event that says so is on its way.
                let _ = context.command(command);
            }
            !done
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_streams_both_ways_and_each_way_ends_by_itself() {
    let started = tokio::time::Instant::now();
    let (near, far) = duplex(64);
    let (sender, outbound) = channel(4);
    let limits = ConnectionConfig::client(Limits::client()).expect("the limits are valid");
    let reactor = MachineReactor::new(Mux::new(Role::Client, Config::default()), Client::default());
    let client = tokio::spawn(Connection::new(near, Frames, reactor, outbound, &limits));

    // Answers each request at once, and says how many there were when they have ended.
    let handle = |call: ServerCall| async move {
        let mut bytes = 0;
        while let Some(message) = call.receive().await {
            bytes += message.len();
            call.send(message);
        }
        call.send(format!("{bytes} bytes").into());
    };
    let (_, outbound) = channel(1);
    let machine = Mux::new(Role::Server, Config::default());
    let calls = BTreeMap::new();
    let reactor = MachineReactor::new(machine, Server { handle, calls });
    let limits = ConnectionConfig::default();
    let server = tokio::spawn(Connection::new(far, Frames, reactor, outbound, &limits));

    let mut call = ClientCall::begin(&sender).await;
    let mut other = ClientCall::begin(&sender).await;
    let mut all = Vec::new();
    for index in 0..20 {
        // More than a window, in all, so the answers have to be consumed for it to go on.
        let message = vec![index; 16];
        call.send(message.clone()).await;
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            answer.extend_from_slice(&within(call.receive()).await.expect("it goes on"));
        }
        assert_eq!(answer, message);
        all.extend(answer);
    }
    call.finish().await;
    // This direction has ended, the other one says its last word.
    let mut last = Vec::new();
    while let Some(part) = within(call.receive()).await {
        last.extend_from_slice(&part);
    }
    assert_eq!(last, format!("{} bytes", all.len()).into_bytes());
    // The other call was untouched by all this.
    other.send("abc").await;
    assert_eq!(
        within(other.receive()).await,
        Some(Bytes::from_static(b"abc"))
    );
    other.issue(Command::Cancel(other.stream)).await;
    drop((sender, call, other));
    let end = within(client).await.unwrap();
    assert!(matches!(end.reason, CloseReason::NoSenders));
    assert!(within(server).await.unwrap().stats.unsent == 0);
    assert_eq!(tokio::time::Instant::now(), started);
}
