use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// Which slots of a connection have been woken, in order, and whether the connection is to be.
///
/// INVARIANT: no waker is cloned, woken or dropped while the lock is held. What a waker does is its
/// owner's: it may run the woken task on the spot, and that task may come back here.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    woken: Mutex<Woken>,
    /// Whether there may be any. It may be late, and [`Wakes::arm`] makes up for that.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Woken {
    /// LIMIT: each slot is in it once at most.
    slots: Vec<u32>,
    /// By slot, whether it is in it.
    is_woken: Vec<bool>,
    /// Whom to tell of the next: the connection's task, while it is not being polled.
    connection: Option<Waker>,
}

impl Wakes {
    /// A waker for the next slot, whose number is `slot`.
    pub(super) fn add(self: &Arc<Self>, slot: u32) -> Waker {
        let mut woken = self.lock();
        woken.is_woken.push(false);
        debug_assert_eq!(woken.is_woken.len(), slot as usize + 1);
        drop(woken);
        Waker::from(Arc::new(Signal {
            slot,
            wakes: self.clone(),
        }))
    }

    /// Forget the slots from this number on, and who has been woken.
    pub(super) fn truncate(&self, slots: usize) {
        let mut woken = self.lock();
        woken.slots = Vec::new();
        woken.is_woken = vec![false; slots];
    }

    /// Move those that have been woken into `slots`, which is empty.
    #[inline]
    pub(super) fn take(&self, slots: &mut Vec<u32>) {
        if self.any.load(Ordering::Relaxed) {
            self.take_some(slots);
        }
    }

    fn take_some(&self, slots: &mut Vec<u32>) {
        let mut woken = self.lock();
        self.any.store(false, Ordering::Relaxed);
        mem::swap(&mut woken.slots, slots);
        for &slot in slots.iter() {
            woken.is_woken[slot as usize] = false;
        }
    }

    /// Have the task woken by the next wake. Whether there has been none since the last
    /// [`take`](Self::take).
    pub(super) fn arm(&self, cx: &mut Context<'_>) -> bool {
        let waker = cx.waker().clone();
        let mut woken = self.lock();
        if !woken.slots.is_empty() {
            // What `any` said was late.
            self.any.store(true, Ordering::Relaxed);
            return false;
        }
        let old = woken.connection.replace(waker);
        drop(woken);
        drop(old);
        true
    }

    /// Wake the task no more: it is being polled, and looks for itself.
    pub(super) fn disarm(&self) {
        let waker = self.lock().connection.take();
        drop(waker);
    }

    fn wake(&self, slot: u32) {
        let mut woken = self.lock();
        let Woken {
            slots, is_woken, ..
        } = &mut *woken;
        // A waker that outlived its slot may name one that is not there.
        let Some(is_woken @ false) = is_woken.get_mut(slot as usize) else {
            return;
        };
        *is_woken = true;
        slots.push(slot);
        self.any.store(true, Ordering::Relaxed);
        let waker = woken.connection.take();
        drop(woken);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Woken> {
        // Nothing panics under it.
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes one slot.
struct Signal {
    slot: u32,
    wakes: Arc<Wakes>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wakes.wake(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.wake(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wakes: &Wakes) -> Vec<u32> {
        let mut slots = Vec::new();
        wakes.take(&mut slots);
        slots
    }

    #[test]
    fn each_slot_is_taken_once_in_the_order_of_waking() {
        let wakes = Arc::new(Wakes::default());
        let wakers: Vec<_> = (0..3).map(|slot| wakes.add(slot)).collect();
        for slot in [2, 0, 2, 0, 2] {
            wakers[slot].wake_by_ref();
        }
        assert_eq!(taken(&wakes), [2, 0]);
        assert_eq!(taken(&wakes), []);
        wakers[2].wake_by_ref();
        assert_eq!(taken(&wakes), [2]);
    }

    #[test]
    fn a_wake_before_it_is_armed_is_not_lost() {
        let mut cx = Context::from_waker(Waker::noop());
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.add(0);
        assert!(wakes.arm(&mut cx));
        // As from another thread, after the last look.
        waker.wake_by_ref();
        assert!(!wakes.arm(&mut cx));
        assert_eq!(taken(&wakes), [0]);
        assert!(wakes.arm(&mut cx));
    }
}
