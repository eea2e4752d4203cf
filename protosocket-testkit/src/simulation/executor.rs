//! Runs futures on one thread and a virtual clock, in an order that a seed decides.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use protosocket::{Alarm, Clock, ManualClock};

use super::Stuck;
use crate::Random;

/// Polls without any time passing after which a simulation is said to spin.
const MANY_POLLS: usize = 200_000;

/// Virtual time after which a simulation is said to be late: longer than every default deadline of
/// a connection.
const HORIZON: Duration = Duration::from_secs(60 * 60);

/// An executor for tests: one thread, no runtime, no I/O, and a [`ManualClock`].
///
/// Of the tasks that were woken, the seed decides which one is polled next, so that the order is a
/// part of what is tested and repeats with the seed. When no task is woken, the time moves on to
/// the next alarm. When there is no alarm either, nothing will ever happen: a simulation that is
/// waited for fails then, and names the tasks that have not ended.
///
/// Connections and servers run in it, because they take their time from a clock. What asks tokio's
/// runtime for timers or sockets does not.
///
/// Tasks reach it through a [`SimulationHandle`]. Dropping the simulation drops its tasks.
///
/// ```
/// use std::time::Duration;
/// use protosocket_testkit::{
///     Random,
///     simulation::Simulation,
/// };
///
/// let simulation = Simulation::new(&mut Random::new(7));
/// let handle = simulation.handle();
/// let task = simulation.spawn("sleeper", async move {
///     handle.sleep(Duration::from_secs(600)).await;
///     42
/// });
/// simulation.run().unwrap();
/// assert_eq!(task.take(), Some(42));
/// assert_eq!(simulation.elapsed(), Duration::from_secs(600));
/// ```
pub struct Simulation {
    handle: SimulationHandle,
}

/// A way into a [`Simulation`] for its tasks: they spawn, sleep and look at the time with it. Cheap
/// to clone.
#[derive(Clone)]
pub struct SimulationHandle {
    inner: Rc<Inner>,
}

struct Inner {
    clock: ManualClock,
    begun: Instant,
    horizon: Cell<Duration>,
    random: RefCell<Random>,
    tasks: RefCell<Vec<Slot>>,
    /// Foreground tasks that have not ended.
    unfinished: Cell<usize>,
    woken: Arc<Woken>,
    /// Polls since the time last moved.
    polls: Cell<usize>,
    all_polls: Cell<u64>,
    /// Polls, in a thousand, of tasks that nobody woke.
    spurious: Cell<u32>,
    /// The simulation is gone, and only handles are left.
    closed: Cell<bool>,
}

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    name: Cow<'static, str>,
    foreground: bool,
    state: State,
    waker: Waker,
}

enum State {
    Waiting(BoxedFuture),
    Running,
    Ended,
}

/// The tasks that were woken, sorted: in which order they were must not matter, because some
/// wakers are woken in an order that no seed decides.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

impl Woken {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().expect("no code that panics runs under it")
    }

    fn add(&self, task: usize) {
        let mut woken = self.lock();
        if let Err(place) = woken.binary_search(&task) {
            woken.insert(place, task);
        }
    }
}

struct TaskWaker {
    task: usize,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.add(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.add(self.task);
    }
}

impl Simulation {
    /// A simulation without tasks. What it draws depends on `random` alone, and `random` goes on
    /// as if it had drawn once.
    pub fn new(random: &mut Random) -> Self {
        let clock = ManualClock::new();
        let inner = Rc::new(Inner {
            begun: clock.now(),
            clock,
            horizon: Cell::new(HORIZON),
            random: RefCell::new(random.fork()),
            tasks: RefCell::default(),
            unfinished: Cell::new(0),
            woken: Arc::default(),
            polls: Cell::new(0),
            all_polls: Cell::new(0),
            spurious: Cell::new(0),
            closed: Cell::new(false),
        });
        Self {
            handle: SimulationHandle { inner },
        }
    }

    /// Fail when this much virtual time has passed since the beginning; an hour by default.
    #[must_use]
    pub fn horizon(self, horizon: Duration) -> Self {
        self.inner.horizon.set(horizon);
        self
    }

    /// Poll, in so many of a thousand cases, a task that nobody woke. That finds tasks that mind,
    /// and hides that others are not woken: so it is off by default, and belongs in a part of the
    /// seeds only.
    #[must_use]
    pub fn spurious_wakes(self, per_mille: u32) -> Self {
        self.inner.spurious.set(per_mille);
        self
    }

    /// A way in for tasks.
    pub fn handle(&self) -> SimulationHandle {
        self.handle.clone()
    }

    /// Run until every foreground task has ended.
    ///
    /// # Errors
    /// [`Stuck`] says who has not ended and why it never will.
    pub fn run(&self) -> Result<(), Stuck> {
        self.run_until(|| self.inner.unfinished.get() == 0)
    }

    /// Run until `condition` holds, which is asked after every poll.
    ///
    /// # Errors
    /// [`Stuck`] says who has not ended and why it never will.
    pub fn run_until(&self, mut condition: impl FnMut() -> bool) -> Result<(), Stuck> {
        while !condition() {
            if self.poll_one()? {
                continue;
            }
            match self.inner.clock.next_alarm() {
                Some(at) => self.move_to(at)?,
                None => return Err(self.stuck(Stuck::Stalled)),
            }
        }
        Ok(())
    }

    /// Run for this much virtual time, whatever happens in it.
    ///
    /// # Errors
    /// [`Stuck`] if tasks wake each other for ever, or the horizon comes first.
    pub fn run_for(&self, duration: Duration) -> Result<(), Stuck> {
        let until = self.now() + duration;
        loop {
            if self.poll_one()? {
                continue;
            }
            let next = self.inner.clock.next_alarm().filter(|at| *at <= until);
            match next {
                Some(at) => self.move_to(at)?,
                None if self.now() < until => self.move_to(until)?,
                None => return Ok(()),
            }
        }
    }

    /// Run this future, and everything else meanwhile, until it is done.
    ///
    /// # Errors
    /// [`Stuck`] says who has not ended and why it never will.
    pub fn block_on<F>(&self, future: F) -> Result<F::Output, Stuck>
    where
        F: Future + 'static,
    {
        let task = self.spawn("block_on", future);
        self.run_until(|| task.is_finished())?;
        Ok(task.take().expect("it has ended and nobody else has it"))
    }

    /// Poll one of the tasks that were woken. Whether there was one.
    fn poll_one(&self) -> Result<bool, Stuck> {
        let inner = &*self.inner;
        let Some(id) = inner.choose() else {
            return Ok(false);
        };
        inner.polls.set(inner.polls.get() + 1);
        inner.all_polls.set(inner.all_polls.get() + 1);
        if inner.polls.get() > MANY_POLLS {
            return Err(self.stuck(Stuck::Spins));
        }
        let (mut future, waker) = {
            let mut tasks = inner.tasks.borrow_mut();
            let slot = &mut tasks[id];
            match std::mem::replace(&mut slot.state, State::Running) {
                State::Waiting(future) => (future, slot.waker.clone()),
                other => {
                    slot.state = other;
                    return Ok(true);
                }
            }
        };
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            let mut tasks = inner.tasks.borrow_mut();
            let slot = &mut tasks[id];
            // It may have been cancelled from inside.
            if matches!(slot.state, State::Running) {
                slot.state = State::Waiting(future);
                return Ok(true);
            }
        }
        // What a future owns may spawn, wake or cancel as it is dropped.
        drop(future);
        inner.end(id);
        Ok(true)
    }

    fn move_to(&self, at: Instant) -> Result<(), Stuck> {
        self.inner.polls.set(0);
        if at.saturating_duration_since(self.inner.begun) > self.inner.horizon.get() {
            return Err(self.stuck(Stuck::Late));
        }
        let clock = &self.inner.clock;
        clock.advance(at.saturating_duration_since(clock.now()));
        Ok(())
    }

    fn stuck(&self, how: fn(Duration, Vec<String>) -> Stuck) -> Stuck {
        let tasks = self.inner.tasks.borrow();
        let unfinished = tasks
            .iter()
            .filter(|slot| slot.foreground && !matches!(slot.state, State::Ended))
            .map(|slot| slot.name.to_string());
        how(self.elapsed(), unfinished.collect())
    }
}

impl Deref for Simulation {
    type Target = SimulationHandle;

    fn deref(&self) -> &SimulationHandle {
        &self.handle
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold handles of what holds them.
        self.inner.closed.set(true);
        let Ok(mut tasks) = self.inner.tasks.try_borrow_mut() else {
            return;
        };
        let tasks = std::mem::take(&mut *tasks);
        drop(tasks);
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

impl SimulationHandle {
    /// The clock, to be given to what runs in the simulation.
    pub fn clock(&self) -> ManualClock {
        self.inner.clock.clone()
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    /// How much virtual time has passed since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now() - self.inner.begun
    }

    /// How often tasks have been polled: for a seed, the same in every run.
    pub fn polls(&self) -> u64 {
        self.inner.all_polls.get()
    }

    /// Run a future that [`Simulation::run`] waits for.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        self.add(name.into(), true, future)
    }

    /// Run a future that may never end: a server, a fault that comes late.
    pub fn spawn_background<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        self.add(name.into(), false, future)
    }

    /// Wait for this long on the virtual clock.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Wait until this instant of the virtual clock.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep(self.inner.clock.alarm(at))
    }

    fn add<F>(&self, name: Cow<'static, str>, foreground: bool, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        let outcome = Rc::new(RefCell::new(Outcome {
            output: None,
            ended: false,
            waiting: Vec::new(),
        }));
        let guard = Guard(outcome.clone());
        let future = Box::pin(async move {
            let output = future.await;
            guard.0.borrow_mut().output = Some(output);
        });
        let mut tasks = self.inner.tasks.borrow_mut();
        let id = tasks.len();
        let task = Task {
            handle: self.clone(),
            id,
            outcome,
        };
        if self.inner.closed.get() {
            return task;
        }
        let waker = Arc::new(TaskWaker {
            task: id,
            woken: self.inner.woken.clone(),
        });
        tasks.push(Slot {
            name,
            foreground,
            state: State::Waiting(future),
            waker: waker.into(),
        });
        self.inner.woken.add(id);
        let unfinished = self.inner.unfinished.get() + usize::from(foreground);
        self.inner.unfinished.set(unfinished);
        task
    }
}

impl Inner {
    /// The task that is polled next, if one was woken.
    fn choose(&self) -> Option<usize> {
        let mut random = self.random.borrow_mut();
        let mut woken = self.woken.lock();
        let spurious = self.spurious.get();
        match woken.len() {
            0 => None,
            _ if spurious > 0 && random.per_mille(spurious) => {
                Some(random.below(self.tasks.borrow().len()))
            }
            1 => woken.pop(),
            count => Some(woken.remove(random.below(count))),
        }
    }

    fn end(&self, id: usize) {
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks[id];
        let was = std::mem::replace(&mut slot.state, State::Ended);
        if slot.foreground && !matches!(was, State::Ended) {
            self.unfinished.set(self.unfinished.get() - 1);
        }
        drop(tasks);
        // What it owns may spawn, wake or cancel as it is dropped.
        drop(was);
    }
}

impl fmt::Debug for SimulationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("elapsed", &self.elapsed())
            .field("polls", &self.polls())
            .field("unfinished", &self.inner.unfinished.get())
            .finish_non_exhaustive()
    }
}

/// A task of a [`Simulation`]: its output, to be awaited or taken. Dropping this lets the task go
/// on.
///
/// As a future it resolves to the output, or to `None` when the task was cancelled.
pub struct Task<T> {
    handle: SimulationHandle,
    id: usize,
    outcome: Rc<RefCell<Outcome<T>>>,
}

struct Outcome<T> {
    output: Option<T>,
    /// The future has been dropped, done or not.
    ended: bool,
    waiting: Vec<Waker>,
}

/// Notes that the task's future has been dropped.
struct Guard<T>(Rc<RefCell<Outcome<T>>>);

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        let mut outcome = self.0.borrow_mut();
        outcome.ended = true;
        let waiting = std::mem::take(&mut outcome.waiting);
        drop(outcome);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<T> Task<T> {
    /// Whether it has returned or was cancelled.
    pub fn is_finished(&self) -> bool {
        self.outcome.borrow().ended
    }

    /// What it returned, once.
    pub fn take(&self) -> Option<T> {
        self.outcome.borrow_mut().output.take()
    }

    /// Drop the task's future where it stands, as an owner does who has lost interest. A task that
    /// cancels itself is dropped when it next waits.
    pub fn cancel(&self) {
        self.handle.inner.end(self.id);
    }
}

impl<T> Clone for Task<T> {
    /// The same task: whoever takes its output first has it.
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            id: self.id,
            outcome: self.outcome.clone(),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut outcome = self.outcome.borrow_mut();
        if outcome.ended {
            return Poll::Ready(outcome.output.take());
        }
        let known = outcome
            .waiting
            .iter()
            .any(|waker| waker.will_wake(cx.waker()));
        if !known {
            outcome.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Waits on the virtual clock.
pub struct Sleep(Pin<Box<dyn Alarm>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll_due(cx)
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulation(seed: u64) -> Simulation {
        Simulation::new(&mut Random::new(seed))
    }

    /// The order in which ten tasks that are woken at the same instants get their turns.
    fn turns(seed: u64) -> Vec<usize> {
        let simulation = simulation(seed);
        let turns = Rc::new(RefCell::new(Vec::new()));
        for task in 0..10 {
            let (handle, turns) = (simulation.handle(), turns.clone());
            simulation.spawn("turn", async move {
                for _ in 0..3 {
                    turns.borrow_mut().push(task);
                    handle.sleep(Duration::from_secs(1)).await;
                }
            });
        }
        simulation.run().unwrap();
        assert_eq!(simulation.elapsed(), Duration::from_secs(3));
        turns.take()
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(turns(3), turns(3));
        assert_ne!(turns(3), turns(4));
        let mut sorted = turns(3)[..10].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_waits_for_nothing_is_named() {
        let simulation = simulation(1);
        simulation.spawn("patient", std::future::pending::<()>());
        simulation.spawn_background("server", std::future::pending::<()>());
        simulation.spawn("done", async {});
        let stuck = simulation.run().unwrap_err();
        let expected = Stuck::Stalled(Duration::ZERO, vec!["patient".to_owned()]);
        assert_eq!(stuck, expected);
        assert!(stuck.to_string().contains("patient"), "{stuck}");
    }

    #[test]
    fn whoever_never_rests_or_never_ends_is_named() {
        let spinning = simulation(1);
        spinning.spawn("spinner", async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        assert!(matches!(spinning.run(), Err(Stuck::Spins(_, names)) if names == ["spinner"]));

        let late = simulation(1).horizon(Duration::from_secs(10));
        let handle = late.handle();
        late.spawn("sleeper", async move {
            loop {
                handle.sleep(Duration::from_secs(1)).await;
            }
        });
        let stuck = late.run().unwrap_err();
        let expected = Stuck::Late(Duration::from_secs(10), vec!["sleeper".to_owned()]);
        assert_eq!(stuck, expected);
    }

    #[test]
    fn a_cancelled_task_is_dropped_where_it_stands() {
        let simulation = simulation(1);
        let held = Rc::new(());
        let kept = held.clone();
        let task = simulation.spawn("holder", async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        simulation.run_for(Duration::from_secs(1)).unwrap();
        assert!(!task.is_finished());
        task.cancel();
        assert!(task.is_finished());
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(simulation.block_on(task).unwrap(), None);
        simulation.run().unwrap();
    }

    #[test]
    fn a_task_is_awaited_by_another() {
        let simulation = simulation(1);
        let handle = simulation.handle();
        let sum = simulation.block_on(async move {
            let slow = handle.clone();
            let task = handle.spawn("slow", async move {
                slow.sleep(Duration::from_millis(5)).await;
                2
            });
            task.await.unwrap_or_default() + 1
        });
        assert_eq!(sum.unwrap(), 3);
    }

    #[test]
    fn running_for_a_while_stops_at_the_instant() {
        let simulation = simulation(1);
        let handle = simulation.handle();
        let task = simulation.spawn("late", async move {
            handle.sleep(Duration::from_secs(2)).await;
        });
        simulation.run_for(Duration::from_millis(1999)).unwrap();
        assert!(!task.is_finished());
        simulation.run_for(Duration::from_millis(1)).unwrap();
        assert!(task.is_finished());
        assert_eq!(simulation.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn a_simulation_that_is_dropped_drops_its_tasks() {
        let simulation = simulation(1);
        let held = Rc::new(());
        let (kept, handle) = (held.clone(), simulation.handle());
        simulation.spawn("holder", async move {
            handle.sleep(Duration::from_secs(1)).await;
            drop(kept);
        });
        let handle = simulation.handle();
        drop(simulation);
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(handle.spawn("too late", async {}).is_finished());
    }

    #[test]
    fn spurious_wakes_poll_those_that_nobody_woke() {
        let polls = |per_mille| {
            let simulation = simulation(5).spurious_wakes(per_mille);
            let polls = Rc::new(Cell::new(0));
            let counted = polls.clone();
            simulation.spawn_background(
                "counted",
                std::future::poll_fn(move |_| -> Poll<()> {
                    counted.set(counted.get() + 1);
                    Poll::Pending
                }),
            );
            let handle = simulation.handle();
            simulation.spawn("busy", async move {
                for _ in 0..100 {
                    handle.sleep(Duration::from_millis(1)).await;
                }
            });
            simulation.run().unwrap();
            polls.get()
        };
        assert_eq!(polls(0), 1);
        assert!(polls(300) > 10);
    }
}
