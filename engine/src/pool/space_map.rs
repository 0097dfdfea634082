//! Which chunks and checkpoint extents of a pool are taken: a bitmap per zone.
//!
//! Shared by all cores and lock-free: a bit is claimed with one atomic `or`.
//! Nothing of it is on disk; it is filled from what the slices own after
//! recovery. Claims are rare (one per 16 MiB of new data), so contention on a
//! word does not matter.
//!
//! The count of free things is changed while the bit is still set, so it is
//! never below what the bits say, and never above the length: whoever looks
//! at it meanwhile may find less than it promised, but no more than there is.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::units::DeviceId;

/// A bitmap of claimable things.
#[derive(Debug)]
pub struct Bitmap {
    words: Box<[AtomicU64]>,
    len: u32,
    free: AtomicU32,
}

impl Bitmap {
    /// All free.
    pub fn new(len: u32) -> Self {
        let words = (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { words, len, free: AtomicU32::new(len) }
    }

    /// Things in all.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if there is nothing to claim, ever.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free things, now.
    pub fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Claims a given one; false if it is taken or does not exist.
    pub fn take(&self, at: u32) -> bool {
        if at >= self.len {
            return false;
        }
        let bit = 1 << (at % 64);
        let old = self.words[at as usize / 64].fetch_or(bit, Ordering::AcqRel);
        let won = old & bit == 0;
        if won {
            self.free.fetch_sub(1, Ordering::Relaxed);
        }
        won
    }

    /// Claims any free one, leaving `reserve` free: less by those claimed at the same moment.
    pub fn claim(&self, reserve: u32) -> Option<u32> {
        if self.free() <= reserve {
            return None;
        }
        for (at, word) in self.words.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != u64::MAX {
                let index = at * 64 + seen.trailing_ones() as usize;
                let index = u32::try_from(index).expect("fewer than 2^32");
                if index >= self.len {
                    break;
                }
                if self.take(index) {
                    return Some(index);
                }
                seen = word.load(Ordering::Relaxed);
            }
        }
        None
    }

    /// Gives one back.
    pub fn release(&self, at: u32) {
        let bit = 1 << (at % 64);
        self.free.fetch_add(1, Ordering::Relaxed);
        let old = self.words[at as usize / 64].fetch_and(!bit, Ordering::AcqRel);
        assert!(old & bit != 0, "released what was free");
    }
}

/// The bitmaps of a pool, and which of its devices have failed.
#[derive(Debug)]
pub struct SpaceMap {
    /// Chunks, by device.
    pub chunks: Vec<Bitmap>,
    /// Checkpoint extents.
    pub extents: Bitmap,
    /// Devices of which a flush failed, one bit each.
    failed: AtomicU64,
}

impl SpaceMap {
    /// Everything free but the extents that belong to the catalog.
    pub fn new(chunks: &[u32], extents: u32, catalog_extents: u32) -> Self {
        let map = Self {
            chunks: chunks.iter().map(|len| Bitmap::new(*len)).collect(),
            extents: Bitmap::new(extents),
            failed: AtomicU64::new(0),
        };
        for extent in 0..catalog_extents {
            assert!(map.extents.take(extent));
        }
        map
    }

    /// A flush of the device failed.
    pub fn fail_device(&self, device: DeviceId) {
        self.failed.fetch_or(1 << device.get(), Ordering::AcqRel);
    }

    /// True once a flush of the device has failed.
    pub fn has_failed(&self, device: DeviceId) -> bool {
        self.failed.load(Ordering::Acquire) & (1 << device.get()) != 0
    }

    /// Claims a chunk; only urgent claims may use the [`reserve`].
    pub fn claim_chunk(&self, device: usize, urgent: bool) -> Option<u32> {
        let bitmap = &self.chunks[device];
        bitmap.claim(if urgent { 0 } else { reserve(bitmap.len()) })
    }
}

/// Of so many chunks of a device, those that only urgent claims may use.
pub fn reserve(chunks: u32) -> u32 {
    chunks / 16
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    /// Two cores claim while a third gives back: no bit is claimed twice, and nobody ever
    /// counts more than there is.
    #[test]
    fn claims_are_unique_and_the_count_stays_in_range() {
        // Three preemptions reach every pair of claims within a release.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let map = Arc::new(Bitmap::new(2));
            assert!(map.take(0));
            let owned = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
            let claimers: Vec<_> = (0..2)
                .map(|_| {
                    let (map, owned) = (map.clone(), owned.clone());
                    loom::thread::spawn(move || {
                        let got = map.claim(0);
                        assert!(map.free() <= map.len(), "{} of {}", map.free(), map.len());
                        let got = got?;
                        let twice = owned[got as usize].swap(true, Ordering::Relaxed);
                        assert!(!twice, "{got} is claimed twice");
                        Some(got)
                    })
                })
                .collect();
            owned[0].store(false, Ordering::Relaxed);
            map.release(0);
            let got = claimers.into_iter().filter_map(|c| c.join().expect("no panic")).count();
            assert_eq!(map.free() as usize, 2 - got, "the count comes to rest at the truth");
        });
    }

    /// A core that is told of a failed flush knows the failed device.
    #[test]
    fn a_failed_device_is_seen_with_the_message_that_tells_of_it() {
        loom::model(|| {
            let map = Arc::new(SpaceMap::new(&[], 0, 0));
            let told = Arc::new(AtomicBool::new(false));
            let (other, telling) = (map.clone(), told.clone());
            let core = loom::thread::spawn(move || {
                other.fail_device(DeviceId::new(3));
                telling.store(true, Ordering::Release);
            });
            map.fail_device(DeviceId::new(4));
            if told.load(Ordering::Acquire) {
                assert!(map.has_failed(DeviceId::new(3)));
            }
            core.join().expect("no panic");
            assert!(map.has_failed(DeviceId::new(3)) && map.has_failed(DeviceId::new(4)));
            assert!(!map.has_failed(DeviceId::new(0)));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn claims_are_unique_and_bounded() {
        let map = Bitmap::new(70);
        let mut got: Vec<_> = std::iter::from_fn(|| map.claim(2)).collect();
        assert_eq!(got.len(), 68);
        got.dedup();
        assert_eq!(got.len(), 68);
        assert!(map.claim(0).is_some() && map.claim(0).is_some());
        assert_eq!(map.claim(0), None);
        map.release(5);
        assert_eq!((map.claim(0), map.free()), (Some(5), 0));
    }

    #[test]
    fn threads_never_share_a_claim() {
        let map = std::sync::Arc::new(Bitmap::new(1000));
        let claims: Vec<_> = (0..4)
            .map(|_| {
                let map = map.clone();
                std::thread::spawn(move || std::iter::from_fn(|| map.claim(0)).collect::<Vec<_>>())
            })
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        let unique: std::collections::HashSet<_> = claims.iter().collect();
        assert_eq!((claims.len(), unique.len()), (1000, 1000));
    }
}
