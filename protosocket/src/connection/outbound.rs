use std::task::{Context, Poll};

use crate::Receiver;

/// The connection's end of its channel, until nobody can send into it any more.
///
/// Most reactors of servers answer through their context and let their sender go: their
/// connections carry no channel through the idle part of their lives.
pub(super) struct Outbound<T>(Option<Box<Receiver<T>>>);

impl<T> Outbound<T> {
    pub(super) fn new(receiver: Receiver<T>) -> Self {
        let mut outbound = Self(Some(Box::new(receiver)));
        outbound.give_up_if_unreachable();
        outbound
    }

    /// Free the channel if there is no sender, weak ones included, and no message.
    pub(super) fn give_up_if_unreachable(&mut self) {
        if self
            .0
            .as_mut()
            .is_some_and(|receiver| receiver.is_unreachable())
        {
            self.0 = None;
        }
    }

    #[inline]
    pub(super) fn try_next(&mut self) -> Option<T> {
        self.0.as_mut()?.try_next()
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(receiver) => receiver.poll_ready(cx),
            None => Poll::Pending,
        }
    }

    pub(super) fn register(&mut self, cx: &mut Context<'_>) {
        if let Some(receiver) = &mut self.0 {
            receiver.register(cx);
        }
    }

    /// Give the places of what was received back to those that wait for room.
    pub(super) fn release(&mut self) {
        if let Some(receiver) = &mut self.0 {
            receiver.release();
        }
    }

    pub(super) fn disarm(&mut self) {
        if let Some(receiver) = &mut self.0 {
            receiver.disarm();
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |receiver| receiver.len())
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|receiver| receiver.is_abandoned())
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|receiver| receiver.is_finished())
    }

    pub(super) fn close(&mut self) {
        if let Some(receiver) = &mut self.0 {
            receiver.close();
        }
    }

    pub(super) fn close_and_drop(&mut self) -> usize {
        self.0
            .as_mut()
            .map_or(0, |receiver| receiver.close_and_drop())
    }
}
