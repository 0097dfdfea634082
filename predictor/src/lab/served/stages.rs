//! The stages of a core and the cold device below them, as the engine runs them.
//!
//! The head serves reads in the order in which it is handed them. Demand is handed over at
//! once. One stage loads at a time, by reads of [`RUN_BLOCKS`] one after the other, or all at
//! once where there was no demand for [`QUIET_NS`], each when the head has no demand or has been
//! given much of it since; the other stages wait. A read of blocks of the fragment that loads
//! waits until they have come; what is left is then demand, in one go.
//! A read that finds no stage fetches its blocks alone; if more is foreseen of the fragment
//! it is loaded as well, from behind these blocks on and round its end.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::super::disk::Model;
use super::super::tier::Key;
use super::device::{BLOCK_SHIFT, Blocks, Device, Part, Read};
use crate::ledger::{Ledger, Outcome};
use crate::online::{Answer, Met};

/// Blocks of one read of a stage that nobody waits for, while there is demand beside it.
pub const RUN_BLOCKS: u32 = 64;
/// Without demand for longer than this a stage is read at once.
pub const QUIET_NS: u64 = 200_000_000;

struct Stage {
    here: Blocks,
    /// Block that the load began with.
    first: u32,
    /// Blocks asked for so far, from there on and round the end.
    cursor: u32,
    loading: bool,
    /// A read has waited for blocks on their way: what is left of the load is demand.
    wanted: bool,
    /// It was foreseen, and nobody has asked for it yet.
    unused: bool,
    last_use: u64,
    waiting: Vec<(Part, Range<u32>)>,
}

/// What a read of a client comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub met: Met,
    /// [`Stages::advance`] will tell its end.
    pub waits: bool,
}

/// The stages of a core. Times are nanoseconds and never go back.
pub(super) struct Stages {
    device: Device,
    fragment_bytes: u64,
    /// Most stages at once.
    most: usize,
    stages: FxHashMap<Key, Stage>,
    loading: bool,
    /// The stage whose next read is to be handed over.
    due: Option<Key>,
    /// To be loaded when another load ends, the oldest first, and whether it was foreseen.
    queue: VecDeque<(Key, bool)>,
    uses: u64,
    /// When the head was last given demand.
    demanded_at: u64,
    /// What became of stages that were foreseen.
    pub ledger: Ledger,
    /// Stages that never began, as too many waited.
    pub dropped: u64,
}

impl Stages {
    pub fn new(model: Model, fragment_bytes: u64, most: usize) -> Stages {
        assert!(most > 0, "stages hold something");
        Stages {
            device: Device::new(model),
            fragment_bytes,
            most,
            stages: FxHashMap::default(),
            loading: false,
            due: None,
            queue: VecDeque::new(),
            uses: 0,
            demanded_at: 0,
            ledger: Ledger::default(),
            dropped: 0,
        }
    }

    /// Time that the head has been given work for.
    pub fn busy_ns(&self) -> u64 {
        self.device.busy_ns
    }

    pub fn slow_ns(&self) -> u64 {
        self.device.model.slow_ns()
    }

    /// Blocks of a fragment.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.fragment_bytes >> BLOCK_SHIFT).expect("at most 16 MiB")
    }

    /// A client reads blocks of a fragment that are on the cold device alone; `whole` if more
    /// is foreseen to be read of it.
    pub fn demand(
        &mut self,
        now: u64,
        part: Part,
        key: Key,
        blocks: Range<u32>,
        whole: bool,
    ) -> Fate {
        let Some(stage) = self.stages.get_mut(&key) else {
            let from = blocks.end;
            self.read(now, key, blocks, Read::Demand(part));
            let follows = whole && self.stage(now, key, from, false) == Some(true);
            return Fate { met: if follows { Met::Fetched } else { Met::Missed }, waits: true };
        };
        let (here, loading) = (stage.here.covers(blocks.clone()), stage.loading);
        if !here && !loading {
            self.read(now, key, blocks, Read::Demand(part));
            return Fate { met: Met::Fetched, waits: true };
        }
        self.uses += 1;
        stage.last_use = self.uses;
        if std::mem::take(&mut stage.unused) {
            self.ledger.record(if here { Outcome::Hit } else { Outcome::Late });
        }
        if !here {
            stage.waiting.push((part, blocks));
            stage.wanted = true;
            if self.due == Some(key) {
                self.load_on(now);
            }
        }
        Fate { met: Met::Staged, waits: !here }
    }

    /// A fragment is foreseen to be read.
    pub fn predict(&mut self, now: u64, key: Key) -> Answer {
        if self.stages.contains_key(&key) || self.stage(now, key, 0, true).is_some() {
            Answer::Taken
        } else {
            Answer::Refused
        }
    }

    /// Loads a fragment from a block on: now (true), later (false), or not at all.
    fn stage(&mut self, now: u64, key: Key, from: u32, foreseen: bool) -> Option<bool> {
        if !self.loading {
            return self.begin(now, key, from, foreseen).then_some(true);
        }
        if !self.queue.iter().any(|(waiting, _)| *waiting == key) {
            if self.queue.len() == self.device.model.depth {
                self.queue.pop_front();
                self.dropped += 1;
            }
            self.queue.push_back((key, foreseen));
        }
        Some(false)
    }

    fn read(&mut self, now: u64, (volume, fragment): Key, blocks: Range<u32>, read: Read) {
        let byte = |block: u32| fragment * self.fragment_bytes + (u64::from(block) << BLOCK_SHIFT);
        let bytes = byte(blocks.start)..byte(blocks.end);
        let is_demand = matches!(read, Read::Demand(_));
        self.device.hand(now, volume, bytes, read);
        if is_demand {
            self.demanded_at = now;
            self.load_on(now);
        }
    }

    fn begin(&mut self, now: u64, key: Key, from: u32, foreseen: bool) -> bool {
        if self.stages.len() == self.most {
            let ready = self.stages.iter().filter(|(_, stage)| !stage.loading);
            let oldest = ready.min_by_key(|(_, stage)| stage.last_use).map(|(key, _)| *key);
            let Some(gone) = oldest.and_then(|key| self.stages.remove(&key)) else { return false };
            if gone.unused {
                self.ledger.record(Outcome::Wasted);
            }
        }
        self.uses += 1;
        let stage = Stage {
            here: Blocks::default(),
            first: from % self.blocks(),
            cursor: 0,
            loading: true,
            wanted: false,
            unused: foreseen,
            last_use: self.uses,
            waiting: Vec::new(),
        };
        self.stages.insert(key, stage);
        self.loading = true;
        self.due = Some(key);
        self.load_on(now);
        true
    }

    /// Hands over what is due, if it may go now.
    fn load_on(&mut self, now: u64) {
        let Some(key) = self.due else { return };
        let blocks = self.blocks();
        let stage = self.stages.get_mut(&key).expect("it loads");
        if !stage.wanted && !self.device.is_free() {
            return;
        }
        self.due = None;
        let first = (stage.first + stage.cursor) % blocks;
        let quiet = now - self.demanded_at > QUIET_NS;
        let longest = if stage.wanted || quiet { blocks } else { RUN_BLOCKS };
        let run = first..first + longest.min(blocks - stage.cursor).min(blocks - first);
        stage.cursor += run.end - run.start;
        self.read(now, key, run.clone(), Read::Stage(key, run));
    }

    /// Lets the device work until then; reads of clients that have ended, and when.
    pub fn advance(&mut self, until: u64, ended: &mut Vec<(u64, Part)>) {
        while let Some((end, read)) = self.device.ended(until) {
            match read {
                Read::Demand(part) => {
                    ended.push((end, part));
                    self.load_on(end);
                }
                Read::Stage(key, run) => self.loaded(end, key, run, ended),
            }
        }
    }

    fn loaded(&mut self, now: u64, key: Key, run: Range<u32>, ended: &mut Vec<(u64, Part)>) {
        let blocks = self.blocks();
        let Stage { here, waiting, cursor, loading, .. } =
            self.stages.get_mut(&key).expect("what loads stays");
        here.insert(run);
        waiting.retain(|(part, wanted)| {
            let has_come = here.covers(wanted.clone());
            if has_come {
                ended.push((now, *part));
            }
            !has_come
        });
        if *cursor < blocks {
            self.due = Some(key);
            return self.load_on(now);
        }
        *loading = false;
        self.loading = false;
        while !self.loading
            && let Some((next, foreseen)) = self.queue.pop_front()
        {
            if !self.stages.contains_key(&next) {
                self.begin(now, next, 0, foreseen);
            }
        }
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
