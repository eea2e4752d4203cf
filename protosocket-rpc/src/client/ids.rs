use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
};

use super::table::Kind;

/// How many ids are remembered that were given up, at least.
const GIVEN_UP_IDS: usize = 1024;

/// Ids that callers chose themselves, and those of calls that were given up.
#[derive(Default)]
pub(super) struct Ids {
    holders: HashMap<u64, Holder, BuildHasherDefault<IdHasher>>,
    /// Those that were given up, the oldest first, and as the how manieth. Some are free already.
    given_up: VecDeque<(u64, u64)>,
    given_up_ever: u64,
}

/// Whose an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The call in this place has it.
    Call(u32),
    /// The how manieth call that was given up had it. A late response to it may still come.
    GivenUp(u64, Kind),
}

impl Ids {
    pub(super) fn contains(&self, id: u64) -> bool {
        self.holders.contains_key(&id)
    }

    /// The place of the call that has `id`.
    pub(super) fn find(&self, id: u64) -> Option<u32> {
        match self.holders.get(&id) {
            Some(Holder::Call(index)) => Some(*index),
            Some(Holder::GivenUp(..)) | None => None,
        }
    }

    /// Let the call at `index` have `id`, if nobody has. Whether that is so.
    pub(super) fn take(&mut self, id: u64, index: u32) -> bool {
        match self.holders.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(Holder::Call(index));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// The call at `index` is over, and with it what it may have had of `id`.
    pub(super) fn release(&mut self, id: u64, index: u32) {
        self.free_if(id, |holder| holder == Holder::Call(index));
    }

    /// A late response to `id` may still come: nobody may choose it before its last, or for a while.
    pub(super) fn give_up(&mut self, id: u64, kind: Kind, most: usize) {
        // LIMIT: as many ids as calls may be in flight are remembered, or more. By the time at which
        // so many others have been given up, the server has heard of the first.
        if self.given_up.len() >= most.max(GIVEN_UP_IDS)
            && let Some((oldest, number)) = self.given_up.pop_front()
        {
            self.free_if(
                oldest,
                |holder| matches!(holder, Holder::GivenUp(its, _) if its == number),
            );
        }
        self.given_up_ever += 1;
        let number = self.given_up_ever;
        self.given_up.push_back((id, number));
        self.holders.insert(id, Holder::GivenUp(number, kind));
    }

    /// A message has come for `id`, after which nothing does for those that it `ends`.
    pub(super) fn hear(&mut self, id: u64, ends: impl Fn(Kind) -> bool) {
        self.free_if(
            id,
            |holder| matches!(holder, Holder::GivenUp(_, kind) if ends(kind)),
        );
    }

    fn free_if(&mut self, id: u64, is_free: impl FnOnce(Holder) -> bool) {
        if let Entry::Occupied(entry) = self.holders.entry(id)
            && is_free(*entry.get())
        {
            entry.remove();
        }
    }
}

/// Spreads ids, which are numbered in a row as a rule. They are chosen by this program: a peer can
/// ask for any, but enter none, so it cannot make them collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u64(&mut self, id: u64) {
        // The golden ratio; both halves of the product, because the table uses bits of both ends.
        let product = u128::from(self.0 ^ id) * 0x9E37_79B9_7F4A_7C15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
