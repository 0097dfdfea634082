//! What the oracles know: the crossings that are to come.
#![forbid(unsafe_code)]

use rustc_hash::FxHashMap;

use super::tier::Key;
use crate::Access;

/// All crossings of a client, and how many are past.
pub(super) struct Future {
    /// The fragment of each crossing.
    order: Vec<Key>,
    /// For each crossing the next one to the same fragment.
    again: Vec<Option<usize>>,
    /// For each fragment its next crossing.
    coming: FxHashMap<Key, usize>,
    /// Crossings that are past.
    past: usize,
    /// Writes are no part of it.
    reads_alone: bool,
}

impl Future {
    /// Of all accesses, or of reads alone.
    pub fn new(accesses: &[Access], reads_alone: bool) -> Future {
        let mut order: Vec<Key> = Vec::new();
        for access in accesses.iter().filter(|access| !(reads_alone && access.write)) {
            for fragment in access.fragment..=access.last_fragment {
                let key = (access.volume, fragment);
                if order.last() != Some(&key) {
                    order.push(key);
                }
            }
        }
        let mut again = vec![None; order.len()];
        let mut coming = FxHashMap::default();
        for (at, key) in order.iter().enumerate().rev() {
            again[at] = coming.insert(*key, at);
        }
        Future { order, again, coming, past: 0, reads_alone }
    }

    /// A fragment is touched; true if that is a crossing of what it is made of.
    ///
    /// # Panics
    /// If it is not what was to come.
    pub fn follow(&mut self, key: Key, write: bool) -> bool {
        if self.reads_alone && write {
            return false;
        }
        if self.past > 0 && self.order[self.past - 1] == key {
            return false;
        }
        assert_eq!(self.order[self.past], key, "the future is known");
        match self.again[self.past] {
            Some(next) => self.coming.insert(key, next),
            None => self.coming.remove(&key),
        };
        self.past += 1;
        true
    }

    /// Crossings until a fragment is touched next; 1 for the next one.
    pub fn distance(&self, key: Key) -> Option<usize> {
        self.coming.get(&key).map(|at| at + 1 - self.past)
    }

    /// The fragments of the next crossings, soonest first, with repeats.
    pub fn next(&self, crossings: usize) -> &[Key] {
        let end = (self.past + crossings).min(self.order.len());
        &self.order[self.past..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_counted_in_crossings() {
        let accesses = [(1, 2), (2, 2), (5, 5), (1, 1)].map(|(fragment, last_fragment)| Access {
            fragment,
            last_fragment,
            ..Access::default()
        });
        let mut future = Future::new(&accesses, false);
        assert_eq!(future.next(9), [(0, 1), (0, 2), (0, 5), (0, 1)]);
        assert!(
            future.follow((0, 1), false)
                && future.follow((0, 2), false)
                && !future.follow((0, 2), false)
        );
        assert_eq!([1, 2, 5].map(|n| future.distance((0, n))), [Some(2), None, Some(1)]);
        assert_eq!(future.next(1), [(0, 5)]);
        assert!(future.follow((0, 5), false) && future.follow((0, 1), false));
        assert_eq!((future.distance((0, 1)), future.next(9).len()), (None, 0));
    }

    #[test]
    fn of_reads_alone_writes_are_no_part() {
        let accesses = [(1, false), (2, true), (1, false), (3, false), (1, true)];
        let accesses = accesses.map(|(fragment, write)| Access {
            fragment,
            last_fragment: fragment,
            write,
            ..Access::default()
        });
        let mut future = Future::new(&accesses, true);
        assert_eq!(future.next(9), [(0, 1), (0, 3)], "the client stays where it reads");
        assert!(future.follow((0, 1), false) && !future.follow((0, 2), true));
        assert!(!future.follow((0, 1), false) && future.follow((0, 3), false));
        assert!(!future.follow((0, 1), true));
        assert_eq!(future.distance((0, 1)), None);
    }
}
