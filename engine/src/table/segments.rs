//! Segments by volume and number: an open-addressing hash table.
//!
//! Linear probing with deletion by shifting back, so that a lookup touches one
//! bucket, which holds the pointer to the segment's seats: two dependent cache
//! misses from a volume's address to a fragment. Buckets move; whoever walks
//! over all segments does so by the stable positions of [`Segments::next`].

use super::seat::Seat;
use crate::core::prefetch::prefetch;
use crate::units::{FragmentSize, VolumeId};

/// A segment: volume and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentKey {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the 16 MiB segment in it.
    pub segment: u32,
}

/// The fragments of one segment. No cache line divides it.
#[derive(Debug)]
#[repr(align(32))]
pub struct Segment {
    key: SegmentKey,
    /// In the order of [`Seat::at`].
    pub seats: Box<[Seat]>,
    order: u32,
    /// Of all its fragments.
    pub size: FragmentSize,
}

const _: () = assert!(size_of::<Option<Segment>>() == 32);

/// All segments of a slice that have fragments.
#[derive(Debug, Default)]
pub struct Segments {
    buckets: Box<[Option<Segment>]>,
    len: usize,
    order: Vec<SegmentKey>,
    vacant: Vec<u32>,
}

impl SegmentKey {
    /// Of no segment: volumes end long before.
    const NONE: SegmentKey = SegmentKey { volume: VolumeId::new(u32::MAX), segment: u32::MAX };

    fn hash(self) -> u64 {
        let raw = u64::from(self.volume.get()) << 32 | u64::from(self.segment);
        let mixed = raw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }
}

impl Segments {
    fn home(&self, key: SegmentKey) -> usize {
        let mask = self.buckets.len() as u64 - 1;
        usize::try_from(key.hash() & mask).expect("64-bit platform")
    }

    fn after(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.buckets.len() - 1)
    }

    /// The bucket of `key`, or the free one where it would go.
    fn probe(&self, key: SegmentKey) -> usize {
        let mut at = self.home(key);
        while self.buckets[at].as_ref().is_some_and(|segment| segment.key != key) {
            at = self.after(at);
        }
        at
    }

    /// The segment will be looked up soon: brings its bucket near.
    pub fn expect(&self, key: SegmentKey) {
        if self.len > 0 {
            prefetch(&raw const self.buckets[self.home(key)]);
        }
    }

    /// The segment, if it has fragments.
    pub fn get(&self, key: SegmentKey) -> Option<&Segment> {
        if self.len == 0 {
            return None;
        }
        self.buckets[self.probe(key)].as_ref()
    }

    /// The segment, if it has fragments.
    pub fn get_mut(&mut self, key: SegmentKey) -> Option<&mut Segment> {
        if self.len == 0 {
            return None;
        }
        let at = self.probe(key);
        self.buckets[at].as_mut()
    }

    /// The segment, made without seats if it has none.
    pub fn make(&mut self, key: SegmentKey, size: FragmentSize) -> &mut Segment {
        assert!(key != SegmentKey::NONE, "volumes end before");
        if (self.len + 1) * 5 > self.buckets.len() * 4 {
            self.grow();
        }
        let at = self.probe(key);
        if self.buckets[at].is_none() {
            let order = self.vacant.pop().unwrap_or_else(|| {
                self.order.push(SegmentKey::NONE);
                u32::try_from(self.order.len() - 1).expect("fewer than 2^32 segments")
            });
            self.order[order as usize] = key;
            self.len += 1;
            self.buckets[at] = Some(Segment { key, seats: Box::default(), order, size });
        }
        self.buckets[at].as_mut().expect("just made")
    }

    fn grow(&mut self) {
        let room = (self.buckets.len() * 2).max(16);
        let old = std::mem::replace(&mut self.buckets, (0..room).map(|_| None).collect());
        for segment in old.into_iter().flatten() {
            let at = self.probe(segment.key);
            self.buckets[at] = Some(segment);
        }
    }

    /// Takes a segment out.
    pub fn remove(&mut self, key: SegmentKey) {
        let mut hole = self.probe(key);
        let segment = self.buckets[hole].take().expect("a segment that exists");
        self.order[segment.order as usize] = SegmentKey::NONE;
        self.vacant.push(segment.order);
        self.len -= 1;
        // Whatever was pushed past the hole by it moves back.
        let mut at = self.after(hole);
        while let Some(segment) = &self.buckets[at] {
            let home = self.home(segment.key);
            let mask = self.buckets.len() - 1;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.buckets[hole] = self.buckets[at].take();
                hole = at;
            }
            at = self.after(at);
        }
    }

    /// The first segment at or behind stable position `from`, and its position.
    ///
    /// A walk sees every segment that exists throughout, once.
    pub fn next(&self, from: usize) -> Option<(usize, SegmentKey, &Segment)> {
        let rest = self.order.get(from..)?;
        let skipped = rest.iter().position(|key| *key != SegmentKey::NONE)?;
        let key = rest[skipped];
        let segment = self.get(key).expect("ordered segments exist");
        Some((from + skipped, key, segment))
    }

    /// Stable positions that were ever in use: the first behind all segments.
    pub fn positions(&self) -> usize {
        self.order.len()
    }

    /// Bytes that it takes, seats and all.
    pub fn heap_bytes(&self) -> usize {
        let seats: usize = self.buckets.iter().flatten().map(|s| size_of_val(&*s.seats)).sum();
        seats
            + self.buckets.len() * size_of::<Option<Segment>>()
            + self.order.capacity() * size_of::<SegmentKey>()
            + self.vacant.capacity() * size_of::<u32>()
    }
}

impl Segment {
    /// Index of the seat at a position, or where it would go.
    pub fn seat(&self, at: u8) -> Result<usize, usize> {
        let full = usize::from(at);
        if self.seats.get(full).is_some_and(|seat| seat.at == at) {
            return Ok(full);
        }
        self.seats.binary_search_by_key(&at, |seat| seat.at)
    }

    /// The seat at a position will be looked at soon: brings it near, where no seat before it
    /// is missing.
    pub fn expect(&self, at: usize) {
        if let Some(seat) = self.seats.get(..=at).and_then(<[Seat]>::last) {
            prefetch(&raw const *seat);
        }
    }

    /// Adds a seat.
    pub fn add(&mut self, seat: Seat) {
        let Err(at) = self.seat(seat.at) else { panic!("a seat is taken once") };
        let mut seats = std::mem::take(&mut self.seats).into_vec();
        seats.reserve_exact(1);
        seats.insert(at, seat);
        self.seats = seats.into_boxed_slice();
    }

    /// Takes a seat out.
    pub fn take(&mut self, at: u8) -> Seat {
        let Ok(at) = self.seat(at) else { panic!("a seat that exists") };
        let mut seats = std::mem::take(&mut self.seats).into_vec();
        let seat = seats.remove(at);
        self.seats = seats.into_boxed_slice();
        seat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn key(number: u32) -> SegmentKey {
        SegmentKey { volume: VolumeId::new(number % 3), segment: number / 3 }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..60), 0..400)) {
            let mut segments = Segments::default();
            let mut oracle = HashSet::new();
            for (add, number) in steps {
                if add {
                    segments.make(key(number), FragmentSize::DEFAULT);
                    oracle.insert(key(number));
                } else if oracle.remove(&key(number)) {
                    segments.remove(key(number));
                }
                for number in 0..60 {
                    let found = segments.get(key(number)).map(|segment| segment.key);
                    prop_assert_eq!(found, oracle.get(&key(number)).copied());
                }
            }
            let mut at = 0;
            let mut walked = HashSet::new();
            while let Some((position, key, _)) = segments.next(at) {
                prop_assert!(walked.insert(key));
                at = position + 1;
            }
            prop_assert_eq!(walked, oracle);
        }
    }
}
