//! Stages: clean copies of whole fragments in RAM, made ahead of demand.
//!
//! A stage belongs to the core that owns its fragment. Its bytes never change:
//! a write to the fragment makes the written blocks invalid in the stage.
//! Stages live within a budget of bytes; the least recently used one goes when
//! room is needed. Only fragments with blocks on a cold device alone are
//! staged, and at most [`StageSettings::loading`] load at once, so that
//! prediction never crowds out demand. Nothing here is durable.

pub mod load;

use crate::format::record::FragmentKey;
use crate::planted::{Bug, planted};
use crate::request::Buf;
use crate::table::fragment::{FragRef, Fragment};
use crate::table::pool::Pool;
use crate::table::sink::{Mem, Sink};
use crate::units::{Nanos, SliceId};

/// Most stages a core can have, whatever its budget.
const MAX_STAGES: u32 = 4096;
const BITMAP_WORDS: usize = 64;

/// Bounds of staging on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageSettings {
    /// Bytes of arena that stages may take.
    pub budget_bytes: u64,
    /// Stages that may load at once.
    pub loading: u32,
}

/// One stage.
#[derive(Debug)]
pub struct Stage {
    pub(crate) slice: SliceId,
    pub(crate) frag: FragRef,
    pub(crate) buf: Buf,
    /// Blocks that a device has given, not verified yet.
    pub(crate) arrived: Blocks,
    /// Blocks that hold current contents.
    pub(crate) valid: Blocks,
    /// Block that the load began with.
    pub(crate) first: u32,
    /// Blocks asked for so far, from there on and round the end.
    pub(crate) cursor: u32,
    /// Blocks that are being read, the first and how many; one read at a time.
    pub(crate) run: Option<(u32, u32)>,
    pub(crate) era: Option<usize>,
    loading: bool,
    /// Somebody waits for blocks that are on their way.
    pub(crate) wanted: bool,
    used: bool,
    /// Held by a copy job.
    pub(crate) pinned: bool,
    /// Neighbours in the order of use.
    older: Option<u32>,
    newer: Option<u32>,
}

/// The stages of one core.
#[derive(Debug)]
pub struct Stages {
    pub(crate) slots: Pool<Stage>,
    /// Ends of the order of use, which touches no empty slot: those are many.
    oldest: Option<u32>,
    newest: Option<u32>,
    budget_bytes: u64,
    used_bytes: u64,
    max_loading: u32,
    pub(crate) loading: u32,
    /// When a client's blocks were last fetched from a cold device.
    pub(crate) demanded_at: Nanos,
    /// Fragments to stage when another load, or that of their map, ends; oldest first.
    pub(crate) queue: std::collections::VecDeque<(SliceId, FragmentKey)>,
}

/// Predictions that may wait for a load to end.
pub(crate) const MAX_QUEUED: usize = 32;

impl Stages {
    /// No stages, within the given bounds.
    pub fn new(settings: &StageSettings) -> Self {
        Self {
            slots: Pool::new(MAX_STAGES),
            oldest: None,
            newest: None,
            budget_bytes: settings.budget_bytes,
            used_bytes: 0,
            max_loading: settings.loading,
            loading: 0,
            demanded_at: Nanos::new(0),
            queue: std::collections::VecDeque::with_capacity(MAX_QUEUED),
        }
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) {
        self.budget_bytes = bytes;
    }

    pub(crate) fn may_load(&self) -> bool {
        self.loading < self.max_loading && self.slots.free() > 0
    }

    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.used_bytes + bytes <= self.budget_bytes
    }

    /// True if nothing needs the stage to stay.
    pub(crate) fn may_go(&self, slot: u32) -> bool {
        let stage = self.slots.get(slot);
        !stage.loading && !stage.pinned
    }

    pub(crate) fn is_loading(&self, slot: u32) -> bool {
        self.slots.get(slot).loading
    }

    /// Verifies the blocks that have arrived, of those that somebody comes for. One that has
    /// changed since it was asked for has another checksum; it, or a bad one, is left to its
    /// device.
    pub(crate) fn verify<S: Sink>(
        &mut self,
        slot: u32,
        fragment: &Fragment,
        first: u32,
        count: u32,
        sink: &S,
    ) {
        let stage = self.slots.get_mut(slot);
        for block in first..first + count {
            if !stage.arrived.remove(block) {
                continue;
            }
            let entry = fragment.entry(block);
            let same = sink.crc(stage.buf.mem().block(block)) == entry.crc;
            if !entry.is_hole() && (same || planted(Bug::IgnoredCrcOfStage)) {
                stage.valid.insert(block);
            }
        }
    }

    /// True if the stage holds all these blocks.
    pub(crate) fn covers(&self, slot: u32, first: u32, count: u32) -> bool {
        let stage = self.slots.get(slot);
        (first..first + count).all(|block| stage.valid.contains(block))
    }

    /// Where a block's bytes are, if the stage holds it.
    pub(crate) fn block(&self, slot: u32, block: u32) -> Option<Mem> {
        let stage = self.slots.get(slot);
        stage.valid.contains(block).then(|| stage.buf.mem().block(block))
    }

    pub(crate) fn mark_used(&mut self, slot: u32) {
        self.slots.get_mut(slot).used = true;
        self.unlink(slot);
        self.link(slot);
    }

    /// These blocks have changed.
    pub(crate) fn forget(&mut self, slot: u32, first: u32, count: usize) {
        let stage = self.slots.get_mut(slot);
        for block in (first..).take(count) {
            stage.arrived.remove(block);
            stage.valid.remove(block);
        }
    }

    pub(crate) fn begin(&mut self, slice: SliceId, frag: FragRef, first: u32, buf: Buf) -> u32 {
        self.used_bytes += buf.capacity() as u64;
        self.loading += 1;
        let stage = Stage {
            slice,
            frag,
            buf,
            arrived: Blocks::NONE,
            valid: Blocks::NONE,
            first,
            cursor: 0,
            run: None,
            era: None,
            loading: true,
            wanted: false,
            used: false,
            pinned: false,
            older: None,
            newer: None,
        };
        let slot = self.slots.insert(stage).expect("may_load was true");
        self.link(slot);
        slot
    }

    pub(crate) fn loaded(&mut self, slot: u32) {
        let stage = self.slots.get_mut(slot);
        assert!(std::mem::take(&mut stage.loading));
        self.loading -= 1;
    }

    /// Takes a stage out; returns it and whether it was never used.
    pub(crate) fn remove(&mut self, slot: u32) -> (Stage, bool) {
        self.unlink(slot);
        let stage = self.slots.remove(slot);
        assert!(!stage.loading && !stage.pinned);
        self.used_bytes -= stage.buf.capacity() as u64;
        let wasted = !stage.used;
        (stage, wasted)
    }

    /// The least recently used stage that can go.
    pub(crate) fn victim(&self) -> Option<u32> {
        let newer = |slot: &u32| self.slots.get(*slot).newer;
        std::iter::successors(self.oldest, newer).find(|slot| self.may_go(*slot))
    }

    /// The stages, those used last before others.
    pub(crate) fn by_use(&self) -> impl Iterator<Item = (u32, &Stage)> {
        let older = |slot: &u32| self.slots.get(*slot).older;
        std::iter::successors(self.newest, older).map(|slot| (slot, self.slots.get(slot)))
    }

    /// Puts a stage at the newer end of the order of use.
    fn link(&mut self, slot: u32) {
        let older = self.newest.replace(slot);
        self.slots.get_mut(slot).older = older;
        match older {
            Some(older) => self.slots.get_mut(older).newer = Some(slot),
            None => self.oldest = Some(slot),
        }
    }

    fn unlink(&mut self, slot: u32) {
        let stage = self.slots.get_mut(slot);
        let (older, newer) = (stage.older.take(), stage.newer.take());
        match older {
            Some(older) => self.slots.get_mut(older).newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots.get_mut(newer).older = older,
            None => self.newest = older,
        }
    }
}

/// A set of a fragment's blocks.
#[derive(Debug)]
pub(crate) struct Blocks([u64; BITMAP_WORDS]);

impl Blocks {
    const NONE: Blocks = Blocks([0; BITMAP_WORDS]);

    fn contains(&self, block: u32) -> bool {
        self.0[block as usize / 64] & (1 << (block % 64)) != 0
    }

    pub(crate) fn insert(&mut self, block: u32) {
        self.0[block as usize / 64] |= 1 << (block % 64);
    }

    /// False if it was not in.
    fn remove(&mut self, block: u32) -> bool {
        let was_in = self.contains(block);
        self.0[block as usize / 64] &= !(1 << (block % 64));
        was_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(stages: &mut Stages, index: u32) -> u32 {
        let buf = Buf { arena: 0, order: 8, page: index << 8 };
        stages.begin(SliceId::new(0), FragRef { index, uid: index }, 0, buf)
    }

    #[test]
    fn the_stage_used_least_recently_goes_unless_it_is_held() {
        let mut stages = Stages::new(&StageSettings { budget_bytes: 4 << 20, loading: 4 });
        let slots: Vec<u32> = (0..4).map(|index| begin(&mut stages, index)).collect();
        assert_eq!(stages.victim(), None, "all load");
        slots[..3].iter().for_each(|slot| stages.loaded(*slot));
        stages.mark_used(slots[0]);
        let by_use = |stages: &Stages| Vec::from_iter(stages.by_use().map(|(slot, _)| slot));
        assert_eq!(by_use(&stages), [slots[0], slots[3], slots[2], slots[1]]);
        stages.slots.get_mut(slots[1]).pinned = true;
        assert_eq!(stages.victim(), Some(slots[2]));
        assert!(stages.remove(slots[2]).1, "nobody used it");
        assert_eq!(by_use(&stages), [slots[0], slots[3], slots[1]]);
        assert_eq!(stages.victim(), Some(slots[0]), "3 loads");
        assert!(!stages.remove(slots[0]).1);
        assert_eq!(begin(&mut stages, 4), slots[0], "an empty slot is taken again");
        assert_eq!(by_use(&stages), [slots[0], slots[3], slots[1]]);
    }
}
