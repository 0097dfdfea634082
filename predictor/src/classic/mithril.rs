//! Associations mined from time stamps.
//!
//! Source: J. Yang, R. Karimi, T. Sæmundsson, A. Wildani, Y. Vigfusson, "MITHRIL:
//! Mining Sporadic Associations for Cache Prefetching", SoCC '17, as its
//! authors implement it in libCacheSim (not checked against the print). The *recording table* collects time stamps of blocks that miss;
//! a block with [`MIN_SUPPORT`] of them moves to the *mining table*, and leaves it
//! when it would exceed [`MAX_SUPPORT`], being frequent enough to stay cached. When
//! that table is full, it is sorted by first time stamp and mined: b is associated to
//! an earlier a if both have as many time stamps, each pair at most [`LOOKAHEAD`]
//! apart. The association is strong if some pair is adjacent, else weak; strong ones
//! are kept, and a weak one if it is the nearest association. The *prefetch table*
//! holds the newest [`ASSOCIATES`] of each block, proposed when the block is touched.
//!
//! Time is counted in crossings, for a fragment is touched by many requests in a
//! row. Pairs that differ by one time stamp, which they admit, are left out. The
//! mining table is smaller than theirs, as fragments are fewer than blocks; a row that moved
//! on leaves its place in the recording table empty until the ring comes round.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::request::Requests;
use super::{Key, Rule, SCORE, Touch, at};
use crate::ledger::Lru;
use crate::prefetch::{Prediction, Predictions};

/// Time stamps of a block that is mined, at least (R) and at most (S).
const MIN_SUPPORT: usize = 2;
const MAX_SUPPORT: usize = 8;
/// Greatest distance between the time stamps of associates (Δ).
const LOOKAHEAD: u64 = 20;
/// Associates of a block (P).
const ASSOCIATES: usize = 2;
/// Rows of the tables.
const RECORDING_ROWS: usize = 1 << 13;
const MINING_ROWS: usize = 1 << 9;
const PREFETCH_ROWS: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Row {
    key: Key,
    times: [u64; MAX_SUPPORT],
    count: usize,
}

impl Row {
    fn push(&mut self, time: u64) {
        self.times[self.count] = time;
        self.count += 1;
    }

    fn times(&self) -> &[u64] {
        &self.times[..self.count]
    }

    /// `None` if there is no association, else whether it is strong.
    fn association(&self, later: &Row) -> Option<bool> {
        let pairs = || self.times().iter().zip(later.times()).map(|(a, b)| a.abs_diff(*b));
        let associated = self.count == later.count && pairs().all(|gap| gap <= LOOKAHEAD);
        associated.then(|| pairs().any(|gap| gap == 1))
    }
}

/// Where the row of a block is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Recording(usize),
    Mining(usize),
}

/// The three tables.
#[derive(Clone, Debug)]
pub(super) struct Mithril {
    requests: Requests,
    /// Crossings so far.
    clock: u64,
    places: HashMap<Key, Place>,
    /// A ring; the next row to overwrite is at `cursor`.
    recording: Vec<Option<Row>>,
    cursor: usize,
    mining: Vec<Row>,
    mining_rows: usize,
    /// Associates of each block, the newest first.
    prefetch: Lru<Key, [Option<Key>; ASSOCIATES]>,
}

impl Mithril {
    pub fn new() -> Self {
        Self::with_rows(RECORDING_ROWS, MINING_ROWS)
    }

    fn with_rows(recording_rows: usize, mining_rows: usize) -> Self {
        Self {
            requests: Requests::new(),
            clock: 0,
            places: HashMap::with_capacity(2 * (recording_rows + mining_rows)),
            recording: vec![None; recording_rows],
            cursor: 0,
            mining: Vec::with_capacity(mining_rows),
            mining_rows,
            prefetch: Lru::new(PREFETCH_ROWS),
        }
    }

    fn record(&mut self, key: Key) {
        match self.places.get(&key) {
            None => self.start(key),
            Some(Place::Recording(slot)) => {
                let slot = &mut self.recording[*slot];
                let row = slot.as_mut().expect("its place is known");
                row.push(self.clock);
                if row.count == MIN_SUPPORT {
                    self.places.insert(key, Place::Mining(self.mining.len()));
                    self.mining.extend(slot.take());
                }
                if self.mining.len() == self.mining_rows {
                    self.mine();
                }
            }
            Some(Place::Mining(at)) if self.mining[*at].count < MAX_SUPPORT => {
                self.mining[*at].push(self.clock);
            }
            Some(&Place::Mining(at)) => {
                self.mining.swap_remove(at);
                self.places.remove(&key);
                if let Some(moved) = self.mining.get(at) {
                    self.places.insert(moved.key, Place::Mining(at));
                }
            }
        }
    }

    fn start(&mut self, key: Key) {
        let mut row = Row { key, times: [0; MAX_SUPPORT], count: 0 };
        row.push(self.clock);
        if let Some(old) = self.recording[self.cursor].replace(row) {
            self.places.remove(&old.key);
        }
        self.places.insert(key, Place::Recording(self.cursor));
        self.cursor = (self.cursor + 1) % self.recording.len();
    }

    fn mine(&mut self) {
        // The vector comes back at the end, for its allocation.
        let mut rows = std::mem::take(&mut self.mining);
        rows.sort_by_key(|row| (row.times[0], row.key));
        for (i, row) in rows.iter().enumerate() {
            self.places.remove(&row.key);
            let mut nearest = true;
            let near = |later: &&Row| later.times[0] - row.times[0] <= LOOKAHEAD;
            for later in rows[i + 1..].iter().take_while(near) {
                let Some(strong) = row.association(later) else { continue };
                if std::mem::take(&mut nearest) | strong {
                    self.associate(row.key, later.key);
                }
            }
        }
        rows.clear();
        self.mining = rows;
    }

    fn associate(&mut self, key: Key, later: Key) {
        let associates = at(&mut self.prefetch, key);
        if !associates.contains(&Some(later)) {
            associates.rotate_right(1);
            associates[0] = Some(later);
        }
    }
}

impl Rule for Mithril {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (step, request) = self.requests.follow(touch);
        self.clock += u64::from(step.crossed);
        if step.fault {
            self.record((touch.volume, touch.fragment));
        }
        let Some(request) = request.filter(|r| r.crossed && !r.write) else { return };
        for fragment in request.span() {
            let associates = self.prefetch.get(&(request.volume, fragment));
            for (volume, fragment) in associates.into_iter().flatten().flatten() {
                out.push(Prediction { volume: *volume, fragment: *fragment, score: SCORE });
            }
        }
    }

    fn used(&mut self, volume: u32, fragment: u64, _late: bool) {
        self.requests.used(volume, fragment);
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    /// Reads that all miss, as nothing stays in the tier.
    fn misses(rule: &mut Mithril, driver: &mut Driver, reads: impl IntoIterator<Item = u64>) {
        for fragment in reads {
            driver.read(rule, fragment);
            driver.evict(rule, fragment);
        }
    }

    #[test]
    fn adjacent_blocks_are_associated_when_the_table_is_full() {
        let (mut rule, mut driver) = (Mithril::with_rows(64, 2), Driver::default());
        // 1 at times 1 and 4, 50 at 2 and 5; 300 is seen once and stays unmined.
        misses(&mut rule, &mut driver, [1, 50, 300, 1]);
        assert!(driver.read(&mut rule, 50).is_empty());
        assert_eq!(driver.read(&mut rule, 1), [50]);
        assert!(driver.read(&mut rule, 50).is_empty(), "nothing follows the later one");
    }

    #[test]
    fn of_weak_associations_the_nearest_is_kept() {
        let (mut rule, mut driver) = (Mithril::with_rows(64, 3), Driver::default());
        // 1 at 1 and 6, 20 at 3 and 8, 30 at 5 and 10; 20 and 30 are weak for 1.
        misses(&mut rule, &mut driver, [1, 901, 20, 902, 30, 1, 903, 20, 904, 30]);
        assert_eq!(driver.read(&mut rule, 1), [20]);
        assert_eq!(driver.read(&mut rule, 20), [30]);
    }

    #[test]
    fn far_time_stamps_and_unequal_numbers_do_not_associate() {
        let row = |times: &[u64]| {
            let mut row = Row { key: (0, 0), times: [0; MAX_SUPPORT], count: 0 };
            times.iter().for_each(|time| row.push(*time));
            row
        };
        let first = row(&[10, 100]);
        assert_eq!(first.association(&row(&[30, 120])), Some(false));
        assert_eq!(first.association(&row(&[30, 101])), Some(true));
        assert_eq!(first.association(&row(&[11, 121])), None);
        assert_eq!(first.association(&row(&[11, 101, 102])), None);
    }

    #[test]
    fn frequent_blocks_leave_and_the_ring_forgets() {
        let (mut rule, mut driver) = (Mithril::with_rows(4, 4), Driver::default());
        misses(&mut rule, &mut driver, (0..MAX_SUPPORT).flat_map(|_| [7, 1]));
        assert_eq!(rule.mining.len(), 2);
        misses(&mut rule, &mut driver, [7, 101, 102, 103, 104]);
        assert_eq!(rule.mining.len(), 1, "7 was too frequent");
        assert_eq!(rule.places.len(), 5, "1 is mined, 101 to 104 are recorded");
        misses(&mut rule, &mut driver, [105]);
        assert!(!rule.places.contains_key(&(3, 101)));
    }
}
