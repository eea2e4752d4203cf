use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::Value;

/// What a server sends without having been asked, in order.
#[derive(Debug)]
pub struct Pushes(Arc<Shared>);

/// Something that [`Pushes`] tell.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A connection is ready. What belonged to the one before is gone: subscriptions, tracking.
    Connected,
    /// A push: its kind (`message`, `subscribe`, `invalidate` …), and what belongs to it.
    Push(Vec<Value>),
    /// In this place so many events were dropped, because nobody took them as fast as they came.
    Lost(u64),
}

/// The other end of [`Pushes`], which ends with it.
pub(super) struct Publisher(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to take, or there never will be.
    changed: Notify,
}

struct Queue {
    /// INVARIANT: at most `max`, and a gap behind them.
    events: VecDeque<Event>,
    max: usize,
    /// One of the two ends is gone.
    is_closed: bool,
}

/// A queue of at most `max` events.
pub(super) fn pushes(max: usize) -> (Publisher, Pushes) {
    let queue = Queue {
        events: VecDeque::new(),
        max,
        is_closed: false,
    };
    let shared = Arc::new(Shared {
        queue: Mutex::new(queue),
        changed: Notify::new(),
    });
    (Publisher(shared.clone()), Pushes(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("no code that panics runs under it")
    }
}

impl Publisher {
    pub(super) fn tell(&self, event: Event) {
        let mut queue = self.0.lock();
        if queue.is_closed {
            return;
        }
        // LIMIT: max_pushes.
        let is_full = queue.events.len() >= queue.max;
        match queue.events.back_mut() {
            Some(Event::Lost(lost)) if is_full => *lost += 1,
            _ if is_full => queue.events.push_back(Event::Lost(1)),
            _ => queue.events.push_back(event),
        }
        drop(queue);
        self.0.changed.notify_one();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Pushes {
    /// The next event; `None` when the driver has ended and all have been taken. Nothing is lost with
    /// a future that is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut queue = self.0.lock();
                let event = queue.events.pop_front();
                if event.is_some() || queue.is_closed {
                    return event;
                }
            }
            // What has changed in between is remembered.
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Pushes {
    /// Nobody listens: nothing is kept.
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        queue.events = VecDeque::new();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.lock();
        f.debug_struct("Queue")
            .field("events", &queue.events.len())
            .field("max", &queue.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(number: i64) -> Event {
        Event::Push(vec![number.into()])
    }

    #[tokio::test]
    async fn what_is_lost_is_told_where_it_is_missing() {
        let (publisher, mut pushes) = pushes(2);
        (0..5).for_each(|number| publisher.tell(push(number)));
        assert_eq!(pushes.next().await, Some(push(0)));
        // A gap has no room of its own: there is none again yet.
        publisher.tell(push(5));
        assert_eq!(pushes.next().await, Some(push(1)));
        publisher.tell(push(6));
        publisher.tell(push(7));
        drop(publisher);
        assert_eq!(pushes.next().await, Some(Event::Lost(4)));
        assert_eq!(pushes.next().await, Some(push(6)));
        assert_eq!(pushes.next().await, Some(Event::Lost(1)));
        assert_eq!(pushes.next().await, None);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_consumer_that_is_gone() {
        let (publisher, pushes) = pushes(2);
        let message = bytes::Bytes::from(vec![7; 1000]);
        let event = || Event::Push(vec![message.clone().into()]);
        publisher.tell(event());
        drop(pushes);
        publisher.tell(event());
        assert!(message.is_unique(), "it is kept");
    }
}
