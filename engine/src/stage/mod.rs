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
use crate::request::Buf;
use crate::table::fragment::FragRef;
use crate::table::pool::Pool;
use crate::table::sink::Mem;
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
    /// Blocks that hold current contents.
    valid: [u64; BITMAP_WORDS],
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
    last_use: Nanos,
}

/// The stages of one core.
#[derive(Debug)]
pub struct Stages {
    pub(crate) slots: Pool<Stage>,
    budget_bytes: u64,
    used_bytes: u64,
    max_loading: u32,
    pub(crate) loading: u32,
    /// Fragments to stage when another load, or that of their map, ends; oldest first.
    pub(crate) queue: std::collections::VecDeque<(SliceId, FragmentKey)>,
    now: Nanos,
}

/// Predictions that may wait for a load to end.
pub(crate) const MAX_QUEUED: usize = 32;

impl Stages {
    /// No stages, within the given bounds.
    pub fn new(settings: &StageSettings) -> Self {
        Self {
            slots: Pool::new(MAX_STAGES),
            budget_bytes: settings.budget_bytes,
            used_bytes: 0,
            max_loading: settings.loading,
            loading: 0,
            queue: std::collections::VecDeque::with_capacity(MAX_QUEUED),
            now: Nanos::new(0),
        }
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) {
        self.budget_bytes = bytes;
    }

    pub(crate) fn set_now(&mut self, now: Nanos) {
        self.now = now;
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

    /// True if the stage holds all these blocks.
    pub(crate) fn covers(&self, slot: u32, first: u32, count: u32) -> bool {
        let stage = self.slots.get(slot);
        (first..first + count).all(|block| stage.is_valid(block))
    }

    /// Where a block's bytes are, if the stage holds it.
    pub(crate) fn block(&self, slot: u32, block: u32) -> Option<Mem> {
        let stage = self.slots.get(slot);
        stage.is_valid(block).then(|| stage.buf.mem().block(block))
    }

    pub(crate) fn mark_used(&mut self, slot: u32) {
        let now = self.now;
        let stage = self.slots.get_mut(slot);
        stage.used = true;
        stage.last_use = now;
    }

    /// These blocks have changed.
    pub(crate) fn forget(&mut self, slot: u32, first: u32, count: usize) {
        let stage = self.slots.get_mut(slot);
        for block in (first..).take(count) {
            stage.valid[block as usize / 64] &= !(1 << (block % 64));
        }
    }

    pub(crate) fn begin(&mut self, slice: SliceId, frag: FragRef, first: u32, buf: Buf) -> u32 {
        self.used_bytes += buf.capacity() as u64;
        self.loading += 1;
        let stage = Stage {
            slice,
            frag,
            buf,
            valid: [0; BITMAP_WORDS],
            first,
            cursor: 0,
            run: None,
            era: None,
            loading: true,
            wanted: false,
            used: false,
            pinned: false,
            last_use: self.now,
        };
        self.slots.insert(stage).expect("may_load was true")
    }

    pub(crate) fn loaded(&mut self, slot: u32) {
        let stage = self.slots.get_mut(slot);
        assert!(std::mem::take(&mut stage.loading));
        self.loading -= 1;
    }

    /// Takes a stage out; returns it and whether it was never used.
    pub(crate) fn remove(&mut self, slot: u32) -> (Stage, bool) {
        let stage = self.slots.remove(slot);
        assert!(!stage.loading && !stage.pinned);
        self.used_bytes -= stage.buf.capacity() as u64;
        let wasted = !stage.used;
        (stage, wasted)
    }

    /// The least recently used stage that can go.
    pub(crate) fn victim(&self) -> Option<u32> {
        let ready = self.slots.iter().filter(|(_, stage)| !stage.loading && !stage.pinned);
        ready.min_by_key(|(_, stage)| stage.last_use).map(|(slot, _)| slot)
    }
}

impl Stage {
    fn is_valid(&self, block: u32) -> bool {
        self.valid[block as usize / 64] & (1 << (block % 64)) != 0
    }

    pub(crate) fn set_valid(&mut self, block: u32) {
        self.valid[block as usize / 64] |= 1 << (block % 64);
    }
}
