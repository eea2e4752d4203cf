//! How often an address may connect.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// LIMIT: addresses that are remembered. Each is forgotten as soon as its bucket is full again.
const MOST_ADDRESSES: usize = 65_536;

/// Forgetting is not worth the while below so many.
const FEW_ADDRESSES: usize = 1024;

/// How often those that are full are looked for while no more can be remembered.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The part of an address that stands for one client.
///
/// An IPv4 address written as IPv6 is still the same. A host with IPv6 is given 2^64 addresses, and
/// can use a different one for each connection: what counts is its network.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

/// How many connections an address may open: so many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A bucket for each address, as the instant at which it is full again.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    full_at: HashMap<IpAddr, Instant>,
    /// How many there may be before those that are full are looked for.
    sweep_at: usize,
    /// When they were looked for last.
    swept: Option<Instant>,
}

impl Buckets {
    /// Take a token for a connection of this client. Whether there was one.
    pub(crate) fn take(&mut self, rate: Rate, client: IpAddr, now: Instant) -> bool {
        let token = Duration::from_secs(1) / rate.per_second;
        let full_at = self.full_at.get(&client).copied().unwrap_or(now).max(now);
        let full_at = full_at + token;
        if full_at > now + token * rate.burst {
            return false;
        }
        self.make_room(now);
        // Whoever has more addresses than are remembered is not stopped by a rate per address; the
        // other limits hold.
        if self.full_at.len() < MOST_ADDRESSES || self.full_at.contains_key(&client) {
            self.full_at.insert(client, full_at);
        }
        true
    }

    /// Forget buckets that are full: O(1) for each connection, in the mean, and a few times a second
    /// at the limit, where the number grows no more.
    fn make_room(&mut self, now: Instant) {
        let has_grown = self.full_at.len() >= self.sweep_at.max(FEW_ADDRESSES);
        let is_full = self.full_at.len() >= MOST_ADDRESSES
            && self.swept.is_none_or(|at| now >= at + SWEEP_EVERY);
        if !has_grown && !is_full {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.swept = Some(now);
        self.sweep_at = self.full_at.len() * 2;
        if self.full_at.len() < FEW_ADDRESSES {
            self.full_at.shrink_to(FEW_ADDRESSES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn f20_a_burst_and_then_the_rate() {
        let mut buckets = Buckets::default();
        let begin = Instant::now();
        let mut take = |milliseconds| {
            let now = begin + Duration::from_millis(milliseconds);
            buckets.take(RATE, address(1), now)
        };
        assert!(take(0) && take(0) && take(0));
        assert!(!take(0) && !take(99), "the bucket is empty");
        assert!(take(100), "a token came back");
        assert!(!take(100));
        assert!(take(250) && !take(250));
        assert!(take(5_000) && take(5_000) && take(5_000));
        assert!(!take(5_000), "it holds no more than the burst");
        assert!(buckets.take(RATE, address(2), begin), "another address");
    }

    #[test]
    fn f20_addresses_are_forgotten_and_bounded() {
        let mut buckets = Buckets::default();
        let begin = Instant::now();
        for number in 0..200_000 {
            let now = begin + Duration::from_millis(u64::from(number));
            assert!(buckets.take(RATE, address(number), now));
        }
        assert!(buckets.full_at.len() <= 2 * FEW_ADDRESSES);
        // All at the same time, so that none can be forgotten.
        let now = begin + Duration::from_secs(1_000);
        for number in 0..200_000 {
            assert!(buckets.take(RATE, address(number), now));
        }
        assert!(buckets.full_at.len() <= MOST_ADDRESSES);
    }

    #[test]
    fn f20_a_crowd_that_has_gone_is_forgotten_and_the_rate_holds_again() {
        let mut buckets = Buckets::default();
        let begin = Instant::now();
        for number in 0..100_000 {
            assert!(buckets.take(RATE, address(number), begin));
        }
        let later = begin + Duration::from_secs(3_600);
        let mut take = || buckets.take(RATE, address(1_000_000), later);
        assert!(take() && take() && take());
        assert!(!take(), "it is remembered");
        assert_eq!(buckets.full_at.len(), 1);
    }

    #[test]
    fn f20_a_client_is_an_ipv4_address_or_an_ipv6_network() {
        let client = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(
            client("2001:db8::1"),
            client("2001:db8::ffff:ffff:ffff:ffff")
        );
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    }
}
