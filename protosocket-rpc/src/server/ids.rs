use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
};

/// Which slot the call with an id is in.
///
/// Ids are the peer's choice, so they are hashed with a key that it does not know; and what it could
/// gain is bounded, because the map never holds more than `max_concurrent_rpcs`.
#[derive(Debug)]
pub(super) struct Ids(HashMap<u64, u32, Key>);

impl Ids {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self(HashMap::with_hasher(Key {
            add: random.hash_one(0),
            // An odd factor loses no bit.
            multiply: random.hash_one(1) | 1,
        }))
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) fn contains(&self, id: u64) -> bool {
        !self.0.is_empty() && self.0.contains_key(&id)
    }

    pub(super) fn insert(&mut self, id: u64, index: u32) {
        let known = self.0.insert(id, index);
        debug_assert_eq!(known, None, "an id that is in flight is not begun again");
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<u32> {
        self.0.remove(&id)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Give back the memory for more than so many.
    pub(super) fn shrink_to(&mut self, ids: usize) {
        self.0.shrink_to(ids);
    }
}

#[derive(Debug, Clone, Copy)]
struct Key {
    add: u64,
    multiply: u64,
}

impl BuildHasher for Key {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher {
            key: *self,
            hash: 0,
        }
    }
}

/// Hashes one `u64`: the two halves of a product, folded into each other, so that every bit of the id
/// reaches those by which the map chooses.
#[derive(Debug)]
struct IdHasher {
    key: Key,
    hash: u64,
}

impl Hasher for IdHasher {
    #[inline]
    fn write_u64(&mut self, id: u64) {
        let product = u128::from(id ^ self.key.add) * u128::from(self.key.multiply);
        self.hash = (product as u64) ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.hash ^ u64::from(byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}
