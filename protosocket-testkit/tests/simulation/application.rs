//! What sends messages into a simulated connection.

use std::{cell::Cell, future::Future, pin::pin, rc::Rc, task::Poll, time::Duration};

use protosocket::{Sender, TrySendError};
use protosocket_testkit::{Random, simulation::SimulationHandle};

use crate::codec::{Kind, Message, Origin, SharedLedger};

/// Sends messages as an application does: in bursts, waiting for room or not, and at times losing
/// interest in a message that waits.
pub(crate) struct Application {
    pub(crate) simulation: SimulationHandle,
    pub(crate) random: Random,
    pub(crate) sender: Sender<Message>,
    pub(crate) origin: Origin,
    pub(crate) said: SharedLedger,
    pub(crate) max_size: usize,
    /// Rare kinds of messages are among them.
    pub(crate) rare: bool,
    /// The network is whole: come to an end.
    pub(crate) stop: Rc<Cell<bool>>,
}

impl Application {
    fn message(&mut self, kind: Kind) -> Message {
        let edges = [
            0,
            1,
            100,
            4095,
            4096,
            4097,
            16_383,
            16_384,
            16_385,
            128 * 1024,
        ];
        let largest = self.max_size;
        let edge = *self.random.one_of(&edges);
        Message {
            origin: self.origin,
            number: self.said.borrow().next(self.origin),
            kind,
            size: edge.min(self.random.below(largest + 1).max(largest / 2)),
        }
    }

    fn kind(&mut self) -> Kind {
        match self.random.below(100) {
            0 if self.rare => Kind::Bad,
            1..4 => Kind::Silent,
            4..10 => Kind::Skipped,
            10..40 => Kind::Note,
            _ => Kind::Request,
        }
    }

    pub(crate) async fn run(mut self, count: usize) {
        let lull = Duration::from_millis(self.random.below_one_of(&[1, 20, 500]) as u64);
        for _ in 0..count {
            if self.random.per_mille(300) {
                self.simulation.sleep(lull).await;
            }
            if self.stop.get() {
                break;
            }
            let kind = self.kind();
            if !self.send(kind).await {
                break;
            }
        }
        if self.random.per_mille(200) {
            let while_longer = Duration::from_millis(self.random.below(3000) as u64);
            self.simulation.sleep(while_longer).await;
        }
    }

    /// Whether the connection still takes messages.
    pub(crate) async fn send(&mut self, kind: Kind) -> bool {
        let message = self.message(kind);
        let accepted = match self.random.below(10) {
            0..3 => match self.sender.try_send(message) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => false,
                Err(TrySendError::Closed(_)) => return false,
            },
            3 => {
                // Whoever has lost interest when it is its turn drops the place that it was given.
                let mut sending = pin!(self.sender.send(message));
                let mut asked = false;
                let sent = std::future::poll_fn(|cx| {
                    if std::mem::replace(&mut asked, true) {
                        return Poll::Ready(None);
                    }
                    sending.as_mut().poll(cx).map(Some)
                });
                match sent.await {
                    Some(Ok(())) => true,
                    Some(Err(_)) => return false,
                    None => false,
                }
            }
            _ => match self.sender.send(message).await {
                Ok(()) => true,
                Err(_) => return false,
            },
        };
        if accepted {
            self.said.borrow_mut().accept(self.origin);
        }
        true
    }
}
