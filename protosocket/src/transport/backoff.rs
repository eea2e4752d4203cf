use std::time::Duration;

use crate::{ConfigError, Limits, jitter::Jitter};

/// How long to wait before something that failed is tried again: exponential, with full jitter.
///
/// Each delay is drawn evenly from zero up to a bound, and the bound doubles from
/// [`first`](Self::first) to [`longest`](Self::longest). Full jitter spreads those that failed
/// together over the whole of the time, where a fixed delay with a little jitter would bring them
/// all back in a wave.
///
/// | what | default | why |
/// |---|---|---|
/// | [`first`](Self::first) | 50 ms | a lost connection or a quick restart is over in that time |
/// | [`longest`](Self::longest) | 30 s | after an outage everybody is back within half a minute |
///
/// A copy begins anew and draws for itself.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    seed: Option<u64>,
    jitter: Jitter,
}

impl Backoff {
    /// One with the defaults above.
    pub fn new() -> Self {
        Self {
            first: Duration::from_millis(50),
            longest: Duration::from_secs(30),
            failures: 0,
            seed: None,
            jitter: Jitter::new(),
        }
    }

    /// The bound of the first delay. Doubled with every failure.
    #[must_use]
    pub fn first(mut self, bound: Duration) -> Self {
        self.first = bound;
        self
    }

    /// What no delay exceeds.
    #[must_use]
    pub fn longest(mut self, bound: Duration) -> Self {
        self.longest = bound;
        self
    }

    /// Draw the same delays in every run, for tests. Copies draw them too.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.jitter = Jitter::from_seed(seed);
        self
    }

    /// Refuse what cannot work.
    ///
    /// # Errors
    /// The caller is to blame: a bound is zero or above ten years, or the first is above the
    /// longest.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.first.is_zero() {
            return Err(ConfigError::new("backoff.first", "must not be zero"));
        }
        if self.longest > Limits::MAX_TIMEOUT {
            return Err(ConfigError::new("backoff.longest", "is above ten years"));
        }
        if self.first > self.longest {
            return Err(ConfigError::new(
                "backoff.first",
                "must not be above backoff.longest",
            ));
        }
        Ok(())
    }

    /// There was a failure: how long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.jitter.fraction())
    }

    /// What the next delay does not exceed.
    pub fn bound(&self) -> Duration {
        let factor = 2_u32.checked_pow(self.failures);
        let doubled = factor.and_then(|factor| self.first.checked_mul(factor));
        doubled.map_or(self.longest, |doubled| doubled.min(self.longest))
    }

    /// There was a success: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// As long as the longest delay, so long an attempt must have held to count as a success.
    pub(super) fn proof(&self) -> Duration {
        self.longest
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Backoff {
    fn clone(&self) -> Self {
        let copy = Self::new().first(self.first).longest(self.longest);
        match self.seed {
            Some(seed) => copy.seed(seed),
            None => copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_from_the_first_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new();
        let bounds: Vec<u128> = (0..40)
            .map(|_| {
                let bound = backoff.bound();
                assert!(backoff.next_delay() <= bound);
                bound.as_millis()
            })
            .collect();
        assert_eq!(
            bounds[..11],
            [
                50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000
            ]
        );
        assert!(bounds[10..].iter().all(|bound| *bound == 30_000));
        assert_eq!(backoff.failures(), 40);
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(50));
    }

    #[test]
    fn jitter_is_full() {
        // Delays lie in every tenth of their range, and about as often in each.
        let mut tenths = [0; 10];
        for seed in 0..10_000 {
            let mut backoff = Backoff::new().seed(seed);
            let bound = backoff.bound();
            let delay = backoff.next_delay();
            tenths[(delay.as_secs_f64() / bound.as_secs_f64() * 10.0) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (850..1150).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn copies_draw_for_themselves_unless_they_are_seeded() {
        let delays = |mut backoff: Backoff| -> Vec<Duration> {
            (0..8).map(|_| backoff.next_delay()).collect()
        };
        let mut used = Backoff::new();
        used.next_delay();
        assert_eq!(used.clone().failures(), 0);
        assert_ne!(delays(used.clone()), delays(used));
        let seeded = Backoff::new().seed(3);
        assert_eq!(delays(seeded.clone()), delays(seeded));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let zero = Backoff::new().first(Duration::ZERO).validate().unwrap_err();
        let upside_down = Backoff::new().longest(Duration::from_millis(1)).validate();
        let endless = Backoff::new().longest(Duration::MAX).validate();
        assert!(zero.to_string().starts_with("backoff.first"));
        assert!(endless.unwrap_err().to_string().contains("ten years"));
        assert!(upside_down.unwrap_err().to_string().contains("longest"));
        assert_eq!(Backoff::new().validate(), Ok(()));
    }
}
