//! Randomness that can be repeated.

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

/// Replays one seed in every call of [`for_each_seed`].
const SEED: &str = "PROTOSOCKET_SEED";

/// Sets the seeds of every call of [`for_each_seed`].
const SEEDS: &str = "PROTOSOCKET_SEEDS";

/// A small generator: the same seed gives the same numbers, here and everywhere.
///
/// It is for tests, and predictable on purpose.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            // Spread small seeds over all bits; zero is where a xorshift stays.
            state: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// What it was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A generator of its own for a part of a test, so that what one part draws does not change
    /// what the others do.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// The next number, of 48 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Below one of `bounds`, each as likely as the others.
    pub fn below_one_of(&mut self, bounds: &[usize]) -> usize {
        let bound = bounds[self.below(bounds.len())];
        self.below(bound)
    }

    /// Within a range.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, chances: u32) -> bool {
        self.below(1000) < chances as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Run `test` once for each seed, and say which seed it was when one fails.
///
/// With `PROTOSOCKET_SEED=N` in the environment, only seed N is run: that is how a failure is
/// replayed. `PROTOSOCKET_SEEDS=START..END` runs those instead of `seeds`, and
/// `PROTOSOCKET_SEEDS=COUNT` that many from 0 on: that is how a long run is begun.
///
/// # Panics
/// As `test` does, if one of the two variables is not what it must be, and if there is no seed to
/// run: a test that did nothing would pass.
pub fn for_each_seed(seeds: Range<u64>, test: impl FnMut(&mut Random)) {
    run(chosen(seeds, |name| env::var(name).ok()), test);
}

fn run(seeds: Range<u64>, mut test: impl FnMut(&mut Random)) {
    assert!(
        !seeds.is_empty(),
        "there is no seed in {seeds:?}: nothing would be run, and pass"
    );
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| test(&mut Random::new(seed))));
        if let Err(panic) = run {
            eprintln!("seed {seed} failed; {SEED}={seed} replays it");
            resume_unwind(panic);
        }
    }
}

/// As [`for_each_seed`], with a thread of its own for each seed: what a thread keeps, such as the
/// buffers that connections share, is then the same for a seed whatever ran before it.
///
/// # Panics
/// As [`for_each_seed`] does.
pub fn for_each_seed_in_a_thread(seeds: Range<u64>, test: impl Fn(&mut Random) + Sync) {
    for_each_seed(seeds, |random| in_a_thread(random, &test));
}

fn in_a_thread(random: &mut Random, test: impl Fn(&mut Random) + Sync) {
    let run = thread::scope(|scope| scope.spawn(|| test(random)).join());
    if let Err(panic) = run {
        resume_unwind(panic);
    }
}

/// The seeds that the environment asks for, or else those that the test does.
fn chosen(seeds: Range<u64>, variable: impl Fn(&str) -> Option<String>) -> Range<u64> {
    let number = |name: &str, text: &str| -> u64 {
        let number = text.trim().parse();
        number.unwrap_or_else(|_| panic!("{name} must be made of numbers, it has {text:?}"))
    };
    if let Some(seed) = variable(SEED) {
        let seed = number(SEED, &seed);
        return seed..seed + 1;
    }
    let Some(range) = variable(SEEDS) else {
        return seeds;
    };
    let seeds = match range.split_once("..") {
        Some((start, end)) => number(SEEDS, start)..number(SEEDS, end),
        None => 0..number(SEEDS, &range),
    };
    assert!(
        !seeds.is_empty(),
        "{SEEDS} must name at least one seed, it has {range:?}"
    );
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let draw = |seed| Random::new(seed).bytes(32);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(0), draw(u64::MAX));
    }

    #[test]
    fn chances_and_ranges_are_kept() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.per_mille(250)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.per_mille(0));
        assert!(random.per_mille(1000));
        assert!((0..1_000).all(|_| (3..6).contains(&random.within(3..6))));
    }

    #[test]
    fn a_seed_that_fails_stops_the_run() {
        let mut ran = Vec::new();
        let run = catch_unwind(AssertUnwindSafe(|| {
            super::run(3..9, |random| {
                ran.push(random.seed());
                assert_ne!(random.seed(), 5);
            });
        }));
        assert!(run.is_err());
        assert_eq!(ran, [3, 4, 5]);
    }

    #[test]
    fn the_environment_may_choose_the_seeds() {
        let with = |name: &'static str, value: &'static str| {
            chosen(3..9, move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("OTHER", "1"), 3..9);
        assert_eq!(with(SEED, "77"), 77..78);
        assert_eq!(with(SEEDS, "500"), 0..500);
        assert_eq!(with(SEEDS, "20..30"), 20..30);
        assert!(catch_unwind(|| with(SEEDS, "many")).is_err());
    }

    #[test]
    fn a_run_of_nothing_does_not_pass() {
        let chosen = |value: &'static str| {
            catch_unwind(|| chosen(3..9, |name| (name == SEEDS).then(|| value.to_owned())))
        };
        for nothing in ["0", "20..10", "7..7"] {
            assert!(chosen(nothing).is_err(), "{nothing}");
        }
        assert!(catch_unwind(|| super::run(4..4, |_| ())).is_err());
    }

    #[test]
    fn each_seed_has_a_thread_of_its_own_if_asked() {
        thread_local! {
            static USED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
        }
        let ran = std::sync::atomic::AtomicU32::new(0);
        let test = |_: &mut Random| {
            assert!(!USED.replace(true));
            ran.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        super::run(0..3, |random| in_a_thread(random, test));
        assert_eq!(ran.into_inner(), 3);
        let failing = catch_unwind(|| {
            let test = |random: &mut Random| assert_ne!(random.seed(), 1);
            super::run(0..3, |random| in_a_thread(random, test));
        });
        assert!(failing.is_err());
    }
}
