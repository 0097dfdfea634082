//! From a volume's address to its fragment.
//!
//! A segment's fragments all have the size that was in force when its first
//! one was made; the segment remembers it for as long as it has any.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::fragment::{FragRef, Fragment};
use crate::format::record::FragmentKey;
use crate::units::{FragmentSize, SEGMENT_BLOCKS, VolumeId};

/// Blocks in the unit of [`FragmentKey::start`].
const UNIT_BLOCKS: u32 = 16;

/// A segment: volume and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentKey {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the 16 MiB segment in it.
    pub segment: u32,
}

#[derive(Debug)]
struct Segment {
    size: FragmentSize,
    live: u32,
    fragments: Box<[Option<u32>]>,
}

/// A fragment's key and a block's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The fragment, existing or not.
    pub key: FragmentKey,
    /// Its size.
    pub size: FragmentSize,
    /// The block in it.
    pub block: u32,
}

/// The fragments of one slice.
#[derive(Debug, Default)]
pub struct Index {
    segments: HashMap<SegmentKey, Segment, FxBuildHasher>,
    fragments: Vec<Option<Box<Fragment>>>,
    vacant: Vec<u32>,
    next_uid: u32,
    live: usize,
}

fn position(key: FragmentKey, size: FragmentSize) -> (SegmentKey, usize) {
    let per_segment = SEGMENT_BLOCKS / UNIT_BLOCKS;
    let segment = SegmentKey { volume: key.volume, segment: key.start / per_segment };
    let units = size.blocks() / UNIT_BLOCKS;
    (segment, ((key.start % per_segment) / units) as usize)
}

impl Index {
    /// Which fragment holds `block` of `volume`; `size` counts where the segment is empty.
    pub fn spot(&self, volume: VolumeId, block: u64, size: FragmentSize) -> Spot {
        let number = u32::try_from(block / u64::from(SEGMENT_BLOCKS)).expect("volume below 64 PiB");
        let segment = self.segments.get(&SegmentKey { volume, segment: number });
        let size = segment.map_or(size, |segment| segment.size);
        let within = u32::try_from(block % u64::from(size.blocks())).expect("below 4096");
        let start = u32::try_from((block - u64::from(within)) / u64::from(UNIT_BLOCKS));
        let start = start.expect("volume below 256 TiB");
        Spot { key: FragmentKey { volume, start }, size, block: within }
    }

    /// The fragment with `key`.
    pub fn find(&self, key: FragmentKey) -> Option<FragRef> {
        let per_segment = SEGMENT_BLOCKS / UNIT_BLOCKS;
        let name = SegmentKey { volume: key.volume, segment: key.start / per_segment };
        let segment = self.segments.get(&name)?;
        let (_, at) = position(key, segment.size);
        let index = segment.fragments[at]?;
        let fragment = self.fragments[index as usize].as_ref().expect("indexed fragments live");
        (fragment.key == key).then_some(FragRef { index, uid: fragment.uid })
    }

    /// Adds a fragment with no blocks.
    ///
    /// Returns `None` if its segment has fragments of another size (only foreign records do that).
    pub fn insert(&mut self, key: FragmentKey, size: FragmentSize) -> Option<FragRef> {
        let (name, at) = position(key, size);
        let count = (SEGMENT_BLOCKS / size.blocks()) as usize;
        let segment = self.segments.entry(name).or_insert_with(|| Segment {
            size,
            live: 0,
            fragments: vec![None; count].into_boxed_slice(),
        });
        if segment.size != size || segment.fragments[at].is_some() {
            return None;
        }
        self.next_uid = self.next_uid.wrapping_add(1);
        let fragment = Box::new(Fragment::new(key, size, self.next_uid));
        let index = match self.vacant.pop() {
            Some(index) => {
                self.fragments[index as usize] = Some(fragment);
                index
            }
            None => {
                self.fragments.push(Some(fragment));
                u32::try_from(self.fragments.len() - 1).expect("fewer than 2^32 fragments")
            }
        };
        segment.fragments[at] = Some(index);
        segment.live += 1;
        self.live += 1;
        Some(FragRef { index, uid: self.next_uid })
    }

    /// Removes a fragment that nothing holds.
    pub fn remove(&mut self, at: FragRef) -> Box<Fragment> {
        let fragment = self.fragments[at.index as usize].take().expect("a live fragment");
        assert!(fragment.uid == at.uid && fragment.pins == 0, "fragment in use");
        let (name, position) = position(fragment.key, fragment.size);
        let segment = self.segments.get_mut(&name).expect("its segment lives");
        segment.fragments[position] = None;
        segment.live -= 1;
        if segment.live == 0 {
            self.segments.remove(&name);
        }
        self.vacant.push(at.index);
        self.live -= 1;
        fragment
    }

    /// The fragment, if it still lives.
    pub fn get(&self, at: FragRef) -> Option<&Fragment> {
        self.fragments[at.index as usize].as_deref().filter(|fragment| fragment.uid == at.uid)
    }

    /// The fragment, if it still lives.
    pub fn get_mut(&mut self, at: FragRef) -> Option<&mut Fragment> {
        let fragment = self.fragments[at.index as usize].as_deref_mut();
        fragment.filter(|fragment| fragment.uid == at.uid)
    }

    /// The fragment that an operation holds.
    pub fn held(&mut self, at: FragRef) -> &mut Fragment {
        self.get_mut(at).expect("a pinned fragment lives")
    }

    /// The first live fragment at or behind position `from`, and its position.
    pub fn next(&self, from: usize) -> Option<(usize, &Fragment)> {
        let rest = self.fragments.get(from..)?;
        let found = rest.iter().enumerate().find_map(|(at, f)| f.as_deref().map(|f| (at, f)));
        found.map(|(at, fragment)| (from + at, fragment))
    }

    /// All live fragments.
    pub fn iter(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter().flatten().map(Box::as_ref)
    }

    /// Number of live fragments.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True without fragments.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_the_size_of_its_first_fragment() {
        let mut index = Index::default();
        let volume = VolumeId::new(1);
        let small = FragmentSize::MIN;
        let spot = index.spot(volume, 5000, FragmentSize::DEFAULT);
        assert_eq!((spot.key.start, spot.block), (304, 136));
        let key = index.spot(volume, 5000, small).key;
        let at = index.insert(key, small).unwrap();
        assert_eq!(index.find(key), Some(at));
        let again = index.spot(volume, 5000, FragmentSize::DEFAULT);
        assert_eq!((again.key, again.size, again.block), (key, small, 8));
        assert_eq!(index.insert(key, small), None);
        index.remove(at);
        assert_eq!(index.find(key), None);
        assert_eq!(index.spot(volume, 5000, FragmentSize::DEFAULT), spot);
    }
}
