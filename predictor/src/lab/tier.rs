//! The fast tier of a run.
#![forbid(unsafe_code)]

use super::Contender;
use crate::classic::{Kind, SarcCache};
use crate::ledger::Lru;

/// A fragment: its volume and its number in it.
pub(super) type Key = (u32, u64);

/// When an unused stage was issued; `None` once the fragment was asked for.
pub(super) type Staged = Option<u64>;

/// What an insertion drove out.
pub(super) type Evicted = Option<(Key, Staged)>;

/// LRU for all but SARC, which is a cache by itself.
pub(super) enum Tier {
    Lru(Lru<Key, Staged>),
    Sarc(SarcCache<Staged>),
}

impl Tier {
    pub fn new(contender: Contender, fragments: usize) -> Tier {
        match contender {
            Contender::Classic(Kind::Sarc) => Tier::Sarc(SarcCache::new(fragments)),
            _ => Tier::Lru(Lru::new(fragments)),
        }
    }

    pub fn contains(&self, key: Key) -> bool {
        match self {
            Tier::Lru(lru) => lru.contains(&key),
            Tier::Sarc(sarc) => sarc.contains(&key),
        }
    }

    /// A demand access; `None` for a miss.
    pub fn demand(&mut self, key: Key) -> Option<&mut Staged> {
        match self {
            Tier::Lru(lru) => lru.get(&key),
            Tier::Sarc(sarc) => sarc.get(&key),
        }
    }

    /// Takes in what was missed.
    pub fn miss(&mut self, key: Key) -> Evicted {
        match self {
            Tier::Lru(lru) => lru.insert(key, None),
            Tier::Sarc(sarc) => sarc.insert_missed(key, None),
        }
    }

    /// What was missed and taken in proves to be sequential.
    pub fn missed_in_sequence(&mut self, key: Key) {
        if let Tier::Sarc(sarc) = self {
            sarc.missed_in_sequence(key);
        }
    }

    /// Takes in a stage, issued at `now`.
    pub fn stage(&mut self, key: Key, now: u64) -> Evicted {
        match self {
            Tier::Lru(lru) => lru.insert(key, Some(now)),
            Tier::Sarc(sarc) => sarc.insert_prefetched(key, Some(now)),
        }
    }
}
