use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When an item expires, as it is sent: never, after some seconds, at an instant, or at once.
///
/// The protocol has one number for these. Up to 30 days it counts seconds from the moment at which
/// the server reads it, above that it is Unix time; 0 is never, and what is negative has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiration(i64);

impl Expiration {
    /// The item is kept until it is deleted or evicted.
    pub const NEVER: Self = Self(0);

    /// The item has expired already: nobody gets it.
    pub const PASSED: Self = Self(-1);

    /// The longest time that is counted from the moment of the request: 30 days.
    pub const MAX_AFTER: Duration = Duration::from_secs(MAX_RELATIVE as u64);

    /// After this time, in whole seconds, rounded up: an item is not gone before its time. A time of
    /// zero has passed, which is not what the number 0 says.
    ///
    /// # Errors
    /// The caller is to blame: above 30 days the protocol wants an instant, see [`at`](Self::at).
    pub fn after(time: Duration) -> Result<Self, ExpirationError> {
        if time > Self::MAX_AFTER {
            return Err(ExpirationError(time));
        }
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        // At most the seconds of 30 days.
        Ok(match seconds as i64 {
            0 => Self::PASSED,
            seconds => Self(seconds),
        })
    }

    /// At this instant, on the server's clock, in whole seconds, rounded up.
    pub fn at(instant: SystemTime) -> Self {
        let Ok(since) = instant.duration_since(UNIX_EPOCH) else {
            return Self::PASSED;
        };
        let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        match i64::try_from(seconds) {
            // The first 30 days of 1970, which nobody can name otherwise.
            Ok(seconds) if seconds <= MAX_RELATIVE => Self::PASSED,
            Ok(seconds) => Self(seconds),
            Err(_) => Self::NEVER,
        }
    }

    /// The number as it stands in a line.
    pub fn from_wire(number: i64) -> Self {
        Self(number)
    }

    /// The number as it stands in a line.
    pub fn to_wire(self) -> i64 {
        self.0
    }

    /// How long an item with this expiration lives from `now` on: `None` is for ever, and zero not
    /// at all.
    pub fn remaining(self, now: SystemTime) -> Option<Duration> {
        match self.0 {
            0 => None,
            ..0 => Some(Duration::ZERO),
            seconds @ 1..=MAX_RELATIVE => Some(Duration::from_secs(seconds.unsigned_abs())),
            instant => {
                let instant = Duration::from_secs(instant.unsigned_abs());
                let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                Some(instant.saturating_sub(now))
            }
        }
    }
}

/// The largest number that counts seconds: those of 30 days.
const MAX_RELATIVE: i64 = 60 * 60 * 24 * 30;

/// A time that is too long to be counted from the moment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an expiration after {0:?} cannot be sent: above 30 days it must be an instant (Expiration::at)"
)]
pub struct ExpirationError(pub Duration);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn each_kind_is_its_number_and_lives_as_long() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let after = |time| Expiration::after(time).unwrap();
        for (expiration, number, remaining) in [
            (Expiration::NEVER, 0, None),
            (Expiration::PASSED, -1, Some(Duration::ZERO)),
            (after(Duration::ZERO), -1, Some(Duration::ZERO)),
            (
                after(Duration::from_nanos(1)),
                1,
                Some(Duration::from_secs(1)),
            ),
            (after(30 * DAY), 2_592_000, Some(30 * DAY)),
            (Expiration::at(now), 1_728_000_000, Some(Duration::ZERO)),
            (
                Expiration::at(now + 40 * DAY),
                1_731_456_000,
                Some(40 * DAY),
            ),
            (
                Expiration::at(now - DAY),
                1_727_913_600,
                Some(Duration::ZERO),
            ),
            (Expiration::at(UNIX_EPOCH), -1, Some(Duration::ZERO)),
            (
                Expiration::from_wire(i64::MIN),
                i64::MIN,
                Some(Duration::ZERO),
            ),
            // The first number that is an instant, in 1970.
            (
                Expiration::from_wire(2_592_001),
                2_592_001,
                Some(Duration::ZERO),
            ),
        ] {
            assert_eq!(expiration.to_wire(), number);
            assert_eq!(expiration.remaining(now), remaining, "{number}");
        }
        let error = Expiration::after(30 * DAY + Duration::from_nanos(1)).unwrap_err();
        assert!(error.to_string().contains("Expiration::at"), "{error}");
    }
}
