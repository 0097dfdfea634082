//! The cold device below a tier, and how long requests wait for it.
//!
//! Requests come at the times of the trace, whatever waits (open loop): a device that is
//! asked for more than it can do falls behind without limit. A read waits for the last of its
//! fragments. A write waits for nothing and fetches nothing, as on a server, where it goes to
//! the fast tier: its fragment counts as arrived, the rest of it, too.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Model};
use super::tier::Key;
use crate::Access;

/// What clients waited for the cold device, and what it did. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Reads in all.
    pub reads: u64,
    /// Those that waited.
    pub stalled: u64,
    /// What they waited in all.
    pub total_ns: u64,
    /// Median of those that waited.
    pub p50_ns: u64,
    /// 99 % of those that waited did so no longer.
    pub p99_ns: u64,
    /// 99 % of all reads waited no longer.
    pub p99_of_all_ns: u64,
    /// Reads that waited for more than half a seek: what a client sees as slow.
    pub slow: u64,
    /// Median of these.
    pub slow_p50_ns: u64,
    /// 99 % of these waited no longer.
    pub slow_p99_ns: u64,
    /// Time that the head spent on fetches.
    pub head_ns: u64,
    /// Stages that a read waited for.
    pub late: u64,
    /// Stages that never began, as too many waited.
    pub dropped: u64,
}

/// A device and its clients.
pub(super) struct Cold {
    disk: Disk,
    now: u64,
    /// The current request is a write.
    write: bool,
    reads: u64,
    /// When all of the current request has arrived.
    complete_ns: u64,
    stalls: Vec<u64>,
    slow_ns: u64,
    late: u64,
}

impl Cold {
    pub fn new(model: Model, fragment_bytes: u64) -> Cold {
        Cold {
            disk: Disk::new(model, fragment_bytes),
            now: 0,
            write: false,
            reads: 0,
            complete_ns: 0,
            stalls: Vec::new(),
            slow_ns: model.slow_ns(),
            late: 0,
        }
    }

    /// A request comes. A time before that of an earlier one counts as that.
    pub fn begin(&mut self, access: &Access) {
        self.now = self.now.max(access.time_ns);
        self.write = access.write;
        self.reads += u64::from(!access.write);
        self.complete_ns = self.now;
        self.disk.advance(self.now);
    }

    /// It misses a fragment.
    pub fn miss(&mut self, key: Key) {
        if self.write {
            return;
        }
        let end_ns = self.disk.demand(key);
        self.complete_ns = self.complete_ns.max(end_ns);
    }

    /// It finds a fragment that was fetched or staged before, `staged` if for the first time
    /// since it was staged.
    pub fn hit(&mut self, key: Key, staged: bool) {
        if self.write {
            return;
        }
        let end_ns = self.disk.need(key);
        self.late += u64::from(staged && end_ns > self.now);
        self.complete_ns = self.complete_ns.max(end_ns);
    }

    /// Fetches on demand that have not arrived.
    pub fn waiting(&mut self) -> usize {
        self.disk.demanded()
    }

    pub fn stage(&mut self, key: Key) {
        self.disk.stage(key);
    }

    /// A fragment left the tier.
    pub fn evict(&mut self, key: Key) {
        self.disk.forget(key);
    }

    /// The request has touched its last fragment.
    pub fn end(&mut self) {
        if self.complete_ns > self.now {
            self.stalls.push(self.complete_ns - self.now);
        }
    }

    pub fn waits(self) -> Waits {
        let made = Waits::of(self.reads, self.stalls, self.slow_ns);
        let Disk { busy_ns, dropped, .. } = self.disk;
        Waits { head_ns: busy_ns, late: self.late, dropped, ..made }
    }
}

impl Waits {
    /// What the waiting reads among so many have waited; nothing of the device.
    pub(super) fn of(reads: u64, mut stalls: Vec<u64>, slow_ns: u64) -> Waits {
        stalls.sort_unstable();
        let waited_not = usize::try_from(reads).unwrap_or(usize::MAX) - stalls.len();
        let slow = &stalls[stalls.partition_point(|stall| *stall <= slow_ns)..];
        Waits {
            reads,
            stalled: stalls.len() as u64,
            total_ns: stalls.iter().sum(),
            p50_ns: percentile(&stalls, 50),
            p99_ns: percentile(&stalls, 99),
            p99_of_all_ns: percentile_after(waited_not, &stalls, 99),
            slow: slow.len() as u64,
            slow_p50_ns: percentile(slow, 50),
            slow_p99_ns: percentile(slow, 99),
            ..Waits::default()
        }
    }
}

/// The least value that `percent` of the sorted ones do not exceed; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    percentile_after(0, sorted, percent)
}

/// The same of so many zeros and the sorted values.
fn percentile_after(zeros: usize, sorted: &[u64], percent: usize) -> u64 {
    let rank = ((zeros + sorted.len()) * percent).div_ceil(100);
    let place = rank.checked_sub(zeros + 1);
    place.and_then(|place| sorted.get(place)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[], 99), 0);
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99)), (7, 7));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
        assert_eq!(percentile(&[1, 2, 3], 50), 2);
        assert_eq!([98, 99, 100].map(|zeros| percentile_after(zeros, &[7, 9], 99)), [7, 7, 7]);
        assert_eq!([0, 1, 300].map(|zeros| percentile_after(zeros, &[7, 9], 99)), [9, 9, 0]);
    }

    #[test]
    fn who_waits_for_more_than_half_a_seek_is_slow() {
        let waits = Waits::of(5, vec![9 * MS, 3 * MS, 4 * MS, 20 * MS], Model::HDD.slow_ns());
        assert_eq!((waits.stalled, waits.slow), (4, 2));
        assert_eq!((waits.slow_p50_ns, waits.slow_p99_ns), (9 * MS, 20 * MS));
    }

    /// Fragments of 10 ms, a seek of 8 ms.
    ///
    /// | time | request       | head                   | waits |
    /// |------|---------------|------------------------|-------|
    /// | 0    | 3, 4 missed   | 3 to 18, 4 to 28       | 28    |
    /// | 5    | 3 found       |                        | 13    |
    /// | 6    | writes 7      |                        | 0     |
    /// | 6    | stages 9      | 9 from 28 to 46        | 0     |
    /// | 40   | 9 found       |                        | 6     |
    /// | 60   | 9 found       |                        | 0     |
    #[test]
    fn a_read_waits_for_its_last_fragment_and_a_write_for_nothing() {
        let at = |ms, write| Access { time_ns: ms * MS, write, ..Access::default() };
        let mut cold = Cold::new(Model { near_bytes: 0, ..Model::HDD }, 1_500_000);
        cold.begin(&at(0, false));
        cold.miss((0, 3));
        cold.miss((0, 4));
        cold.end();
        cold.begin(&at(5, false));
        cold.hit((0, 3), false);
        cold.end();
        cold.begin(&at(6, true));
        cold.miss((0, 7));
        cold.end();
        cold.begin(&at(6, false));
        cold.stage((0, 9));
        cold.end();
        for (time, staged) in [(40, true), (60, false)] {
            cold.begin(&at(time, false));
            cold.hit((0, 9), staged);
            cold.end();
        }
        let waits = cold.waits();
        assert_eq!((waits.reads, waits.stalled, waits.total_ns), (5, 3, 47 * MS));
        assert_eq!((waits.p50_ns, waits.p99_ns, waits.p99_of_all_ns), (13 * MS, 28 * MS, 28 * MS));
        assert_eq!((waits.late, waits.head_ns), (1, 46 * MS));
        assert_eq!((waits.slow, waits.slow_p50_ns, waits.slow_p99_ns), (3, 13 * MS, 28 * MS));
    }
}
