//! A reactor that can be asked for replies of any size, as a server and as a client.

use std::{
    future::Future,
    net::SocketAddr,
    task::{Context, Poll},
};

use protosocket::{LinesCodec, MessageReactor, ReactorContext, ReactorStatus, SendError, Sender};
use protosocket_testkit::corpus::{ClientSetup, ServerSetup};

use crate::echo::{self, Client};

/// The longest line of a long reply, its ending included.
const LINE: u64 = 64 * 1024;

pub(crate) fn serve(setup: ServerSetup) -> (SocketAddr, impl Future) {
    echo::bind(setup, || (codec(), Replier::default()))
}

pub(crate) async fn connect(setup: ClientSetup) {
    echo::drive(setup, codec(), Replier::default()).await;
}

fn codec() -> LinesCodec {
    LinesCodec::new().line_feed()
}

/// Answers `reply N` with N bytes, `chatter` with lines for ever, `quit` with a goodbye and the
/// end, and everything else with itself.
#[derive(Default)]
struct Replier {
    /// Bytes that are still to be said.
    owed: u64,
    open: Option<Sender<String>>,
}

impl Client for Replier {
    fn keep_open(&mut self, sender: Sender<String>) {
        self.open = Some(sender);
    }
}

impl MessageReactor for Replier {
    type Codec = LinesCodec;
    type Inbound = String;
    type Outbound = String;
    type LogicalOutbound = String;

    fn on_inbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> ReactorStatus {
        if let Some(count) = message.strip_prefix("reply ") {
            self.owed += count.parse::<u64>().expect("the corpus gives numbers");
            return ReactorStatus::Continue;
        }
        match message.as_str() {
            "chatter" => {
                self.owed = u64::MAX;
                ReactorStatus::Continue
            }
            "quit" => {
                let _ = context.reply("goodbye".to_owned());
                ReactorStatus::Disconnect
            }
            _ => context.reply(message),
        }
    }

    fn on_outbound_message(
        &mut self,
        context: &mut ReactorContext<'_, LinesCodec>,
        message: String,
    ) -> Result<(), SendError<String>> {
        context.send(message)
    }

    fn poll_outbound_many(
        &mut self,
        _cx: &mut Context<'_>,
        context: &mut ReactorContext<'_, LinesCodec>,
    ) -> Poll<Option<()>> {
        let mut said = false;
        while self.owed > 0 && !context.room().is_empty() {
            let size = self.owed.min(LINE);
            let line = "x".repeat(size as usize - 1);
            context.send(line).expect("there is room");
            self.owed -= size;
            said = true;
        }
        match said {
            true => Poll::Ready(Some(())),
            false => Poll::Ready(None),
        }
    }

    fn in_flight(&self) -> usize {
        usize::from(self.owed > 0)
    }

    fn on_end_of_input(&mut self, _context: &mut ReactorContext<'_, LinesCodec>) -> ReactorStatus {
        self.open = None;
        ReactorStatus::Continue
    }
}
