//! The fragment table of one core: its slices, and everything under way in them.
//!
//! A state machine without I/O: [`Table`] takes parts, flushes, predictions and
//! device outcomes, and asks its [`Sink`] for device operations. Time is an
//! argument; bytes are reached through handles only.
//!
//! Invariants, stated as absences: a flushed block is never overwritten; a
//! place, slot or chunk is never reused while a durable record names it or a
//! read of it is under way; no part ends twice; nothing here blocks. Pieces
//! that change the same block of a fragment never run at the same time.
//!
//! Where to look: from an address to a fragment [`index`], its block map and
//! the memory for it [`maps`], reads [`read`], writes and discards [`write`],
//! group commit and checkpoints [`commit`] and [`snapshot`], freeing [`limbo`],
//! deletion and shrinking [`trim`].

pub mod assemble;
pub mod commit;
pub mod entry;
pub mod evict;
pub mod fragment;
pub mod index;
pub mod limbo;
pub mod maps;
pub mod op;
pub mod open;
pub mod pages;
pub mod pool;
pub mod read;
pub mod save;
pub mod seat;
pub mod segments;
pub mod sink;
pub mod slice;
pub mod snapshot;
pub mod space;
pub mod submit;
pub mod trim;
pub mod write;

use crate::format::layout::MetaLayout;
use crate::format::record::FragmentKey;
use crate::stage::Stages;
use crate::tier::Tiering;
use crate::tier::heat::Heat;
use crate::units::{CoreId, Nanos, SliceId, VolumeId};
use commit::{Flusher, VolumeFlush};
use limbo::Freed;
use op::{Ask, Piece, Token};
use pool::Pool;
use sink::{IoResult, Sink};
use slice::Slice;
use space::DeviceGeometry;

/// What a table needs to know beside its slices.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// The core that owns it.
    pub core: CoreId,
    /// How many cores there are.
    pub cores: u8,
    /// The pool's devices, by id.
    pub devices: Vec<DeviceGeometry>,
    /// The metadata zone.
    pub meta: MetaLayout,
    /// Low half of the pool's UUID, as in journal blocks.
    pub pool: u64,
    /// This opening of the pool.
    pub incarnation: u32,
    /// Parts that may be under way at once.
    pub max_parts: u32,
    /// Journal blocks in use after which a slice is checkpointed.
    pub checkpoint_blocks: u32,
    /// Bytes that block maps may take in memory.
    pub map_budget_bytes: u64,
    /// Staging.
    pub stage: crate::stage::StageSettings,
    /// Tiering.
    pub tier: crate::tier::TierSettings,
}

/// Counters of one core's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Parts read.
    pub reads: u64,
    /// Parts written.
    pub writes: u64,
    /// Bytes read by clients.
    pub read_bytes: u64,
    /// Bytes written by clients.
    pub write_bytes: u64,
    /// Pieces served from a stage that was ready.
    pub hits: u64,
    /// Pieces that had to wait for a cold device.
    pub misses: u64,
    /// Pieces that waited for a stage that was still loading.
    pub late: u64,
    /// Stages begun ahead of demand.
    pub staged: u64,
    /// Stages dropped without ever being used.
    pub wasted: u64,
    /// Fragments moved to the cold tier.
    pub spills: u64,
    /// Fragments copied back to the fast tier.
    pub promotions: u64,
    /// Blocks whose stored bytes failed their checksum.
    pub corrupt_blocks: u64,
    /// Group commits.
    pub commits: u64,
    /// Checkpoints published.
    pub checkpoints: u64,
    /// Block maps read from the device.
    pub map_loads: u64,
}

impl Counters {
    /// Adds another core's.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            reads,
            writes,
            read_bytes,
            write_bytes,
            hits,
            misses,
            late,
            staged,
            wasted,
            spills,
            promotions,
            corrupt_blocks,
            commits,
            checkpoints,
            map_loads,
        } = other;
        self.reads += reads;
        self.writes += writes;
        self.read_bytes += read_bytes;
        self.write_bytes += write_bytes;
        self.hits += hits;
        self.misses += misses;
        self.late += late;
        self.staged += staged;
        self.wasted += wasted;
        self.spills += spills;
        self.promotions += promotions;
        self.corrupt_blocks += corrupt_blocks;
        self.commits += commits;
        self.checkpoints += checkpoints;
        self.map_loads += map_loads;
    }
}

/// The slices of one core and what is under way in them.
#[derive(Debug)]
pub struct Table {
    pub(crate) config: TableConfig,
    pub(crate) slices: Vec<Option<Box<Slice>>>,
    pub(crate) asks: Pool<Ask>,
    pub(crate) pieces: Pool<Piece>,
    #[expect(clippy::vec_box, reason = "a box moves into the piece and back, never what is in it")]
    pub(crate) works: Vec<Box<op::Work>>,
    pub(crate) flushes: Pool<VolumeFlush>,
    pub(crate) flushers: Vec<Flusher>,
    /// A device flush may have to be started.
    pub(crate) flush_wanted: bool,
    /// Groups being written without FUA.
    pub(crate) groups_out: u32,
    pub(crate) stages: Stages,
    pub(crate) tiering: Tiering,
    pub(crate) heat: Heat,
    pub(crate) trims: Vec<trim::Trim>,
    pub(crate) kicked: Vec<SliceId>,
    /// Of all slices that wait for the same, another is first each time.
    first_kicked: usize,
    pub(crate) loads: Pool<maps::MapLoad>,
    /// Where the search for maps that may leave stands: slice and position.
    pub(crate) hand: (usize, usize),
    /// A piece waits for memory or a pool slot: the end of any piece kicks all slices.
    pub(crate) starved: bool,
    /// The slice whose checkpoint is being written, and those that wait for their turn.
    pub(crate) snapshots: std::collections::VecDeque<SliceId>,
    pub(crate) snapshot_buf: Option<crate::request::Buf>,
    pub(crate) root_buf: Option<crate::request::Buf>,
    pub(crate) scratch: Vec<Freed>,
    pub(crate) now: Nanos,
    /// Counters since start.
    pub counters: Counters,
}

impl Table {
    /// A table with the slices that recovery made.
    pub fn new(config: TableConfig, slices: Vec<Box<Slice>>) -> Self {
        let count = usize::from(crate::units::SLICES);
        let pieces = config.max_parts * 4 + 64;
        let mut table = Self {
            slices: (0..count).map(|_| None).collect(),
            asks: Pool::new(config.max_parts),
            pieces: Pool::new(pieces),
            works: (0..pieces).map(|_| op::Work::new()).collect(),
            flushes: Pool::new(config.max_parts),
            flushers: config.devices.iter().map(|_| Flusher::default()).collect(),
            flush_wanted: false,
            groups_out: 0,
            stages: Stages::new(&config.stage),
            tiering: Tiering::default(),
            heat: Heat::default(),
            trims: Vec::new(),
            kicked: Vec::with_capacity(count),
            first_kicked: 0,
            loads: Pool::new(maps::MAX_LOADS),
            hand: (0, 0),
            starved: false,
            snapshots: std::collections::VecDeque::with_capacity(count),
            snapshot_buf: None,
            root_buf: None,
            scratch: Vec::new(),
            now: Nanos::new(0),
            counters: Counters::default(),
            config,
        };
        for slice in slices {
            let at = usize::from(slice.id.get());
            assert!(table.slices[at].replace(slice).is_none(), "a slice comes once");
        }
        table
    }

    /// Time passes. Cheap; called before every event.
    pub fn set_now(&mut self, now: Nanos) {
        self.now = now;
    }

    /// True if a part or flush could be taken now.
    pub fn can_submit(&self) -> bool {
        self.asks.free() > 0 && self.flushes.free() > 0 && self.pieces.free() > 64
    }

    /// True while anything that a client waits for is under way.
    pub fn is_busy(&self) -> bool {
        !self.asks.is_empty() || !self.flushes.is_empty()
    }

    /// The slices this core owns.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter().flatten().map(Box::as_ref)
    }

    /// The tier of each device, by id.
    pub fn roles(&self) -> Vec<crate::format::superblock::Role> {
        self.config.devices.iter().map(|device| device.role).collect()
    }

    pub(crate) fn slice(&mut self, id: SliceId) -> &mut Slice {
        self.slices[usize::from(id.get())].as_mut().expect("a slice of this core")
    }

    /// The outcome of a device operation.
    pub fn io_done<S: Sink>(&mut self, token: u64, result: IoResult, sink: &mut S) {
        match Token::unpack(token) {
            Token::Piece(piece, run) => self.piece_moved(piece, run, result, sink),
            Token::Old(piece, which) => self.old_block_read(piece, which, result, sink),
            Token::Journal(slice) => self.group_written(slice, result, sink),
            Token::Flush(device) => self.device_flushed(device, result, sink),
            Token::Checkpoint(slice) => self.snapshot_written(slice, result, sink),
            Token::Stage(stage, run) => self.stage_read(stage, run, result, sink),
            Token::Copy(job, run) => self.copy_moved(job, run, result, sink),
            Token::Map(load) => self.map_read(load, result, sink),
        }
        self.settle(sink);
    }

    /// Tries again what waited for the event that has just been handled, and starts the
    /// device flushes that it asked for.
    pub(crate) fn settle<S: Sink>(&mut self, sink: &mut S) {
        self.retry_kicked(sink);
        if !self.trims.is_empty() {
            self.advance_trims(sink);
            self.retry_kicked(sink);
        }
        self.start_flushes(sink);
    }

    fn retry_kicked<S: Sink>(&mut self, sink: &mut S) {
        while let Some(id) = self.kicked.pop() {
            self.slice(id).kicked = false;
            self.release_limbo(id, sink);
            let count = self.slice(id).waiting.len();
            for _ in 0..count {
                let piece = self.slice(id).waiting.pop_front().expect("counted");
                self.advance(piece, sink);
            }
            // Everyone who waited has been told; whoever comes next tries again.
            self.slice(id).lost.clear();
        }
    }

    /// The pieces waiting in a slice may be able to go on.
    pub(crate) fn kick(&mut self, id: SliceId) {
        let slice = self.slice(id);
        if !slice.kicked {
            slice.kicked = true;
            self.kicked.push(id);
        }
    }

    /// Something that any slice may wait for has become free.
    pub(crate) fn kick_all(&mut self) {
        self.starved = false;
        let first = self.first_kicked;
        self.first_kicked = (first + 1) % self.slices.len();
        for at in 0..self.slices.len() {
            let slice = self.slices[(first + at) % self.slices.len()].as_ref();
            if let Some(id) = slice.filter(|s| !s.waiting.is_empty()).map(|s| s.id) {
                self.kick(id);
            }
        }
    }

    /// Returns places and slots that no reader needs any more.
    fn release_limbo<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let mut freed = std::mem::take(&mut self.scratch);
        self.slice(id).limbo.drain(&mut freed);
        for item in freed.drain(..) {
            self.give_back(id, item, sink);
        }
        self.scratch = freed;
    }

    fn give_back<S: Sink>(&mut self, id: SliceId, item: Freed, sink: &mut S) {
        let slice = self.slice(id);
        match item {
            Freed::Slot(slot, size) => {
                let space = &mut slice.space[usize::from(slot.device.get())];
                let emptied = space.free(slot, size);
                self.tiering.space_freed();
                if let Some(chunk) = emptied {
                    self.chunk_emptied(slot.device, chunk, sink);
                }
            }
            Freed::Pages(page, count) => {
                slice.free_pages(page, count);
                let keep = 2 * slice.index.map_pages();
                while let Some(extent) = slice.pages.spare(keep) {
                    sink.release_extent(extent);
                }
            }
            Freed::Place(at, place, slot) => {
                let Some(fragment) = slice.index.get_mut(at) else { return };
                fragment.give_place(place, slot);
                self.release_idle_slots(id, at);
            }
        }
    }

    /// Takes the pending logs out, as the death of the process leaves them.
    pub fn into_logs(self) -> impl Iterator<Item = (SliceId, crate::journal::log::LogMemory)> {
        self.slices.into_iter().flatten().map(|slice| (slice.id, slice.log.into_memory()))
    }

    /// Fragments of a volume whose maps are in memory, over all slices of this core.
    pub(crate) fn here_of(&self, volume: VolumeId) -> impl Iterator<Item = &fragment::Fragment> {
        self.slices().flat_map(|slice| slice.index.iter()).filter(move |f| f.key.volume == volume)
    }

    /// Keys of a volume's fragments, over all slices of this core. Walks over all of them.
    pub fn fragments_of(&self, volume: VolumeId) -> impl Iterator<Item = FragmentKey> {
        let all = self.slices().flat_map(|slice| slice.index.all());
        all.map(|(key, ..)| key).filter(move |key| key.volume == volume)
    }

    /// Panics unless every slice's invariants hold.
    pub fn self_check(&self) {
        for slice in self.slices() {
            slice.self_check();
        }
    }
}
