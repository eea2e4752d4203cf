//! Randomness that can be repeated.

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Replays one seed in every call of [`for_each_seed`].
const SEED: &str = "PROTOSOCKET_SEED";

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
/// replayed.
pub fn for_each_seed(seeds: Range<u64>, mut test: impl FnMut(&mut Random)) {
    let seeds = match env::var(SEED) {
        Ok(seed) => {
            let seed: u64 = seed
                .parse()
                .unwrap_or_else(|_| panic!("{SEED} must be a number, it is {seed:?}"));
            seed..seed + 1
        }
        Err(_) => seeds,
    };
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| test(&mut Random::new(seed))));
        if let Err(panic) = run {
            eprintln!("seed {seed} failed; {SEED}={seed} replays it");
            resume_unwind(panic);
        }
    }
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
            for_each_seed(3..9, |random| {
                ran.push(random.seed());
                assert_ne!(random.seed(), 5);
            });
        }));
        assert!(run.is_err());
        assert_eq!(ran, [3, 4, 5]);
    }
}
