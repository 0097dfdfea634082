//! Filling a stage: reads of one fragment, every block of use as soon as it has come.
//!
//! Reads go one at a time. Where demand has come to the cold devices lately they are short: a
//! device serves in order what it was handed, and demand shall find little before it. Otherwise
//! they are long: each costs the core two wakes. A client that comes to
//! blocks on their way makes the rest demand, in long reads. What a client has missed is read
//! for it alone, and the load begins behind it. A block is verified when somebody comes for it:
//! checking a whole run at once would hold up others.

use predictor::online::Answer;

use super::MAX_QUEUED;
use crate::format::record::FragmentKey;
use crate::table::Table;
use crate::table::fragment::FragRef;
use crate::table::index::{Lookup, Span};
use crate::table::maps::Wanted;
use crate::table::op::Token;
use crate::table::read::source;
use crate::table::sink::{Io, IoKind, IoResult, Sink};
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, FragmentSize, SliceId, VolumeId};

/// Longest single read of a load that demand may come between, in blocks.
pub(crate) const RUN_BLOCKS: u32 = 64;
/// Longest one of a load that somebody waits for, or where none has come lately.
const LONG_RUN_BLOCKS: u32 = 256;
/// Demand within this time is lately.
pub(crate) const QUIET_NS: u64 = 200_000_000;

/// What comes of the wish to stage a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    /// There is a stage, ready or loading.
    There,
    /// It waits for its map, or for another load to end.
    Waits,
    /// No block of it is on a cold device alone.
    Needless,
    /// There is no room, or its map is lost.
    NoRoom,
}

impl From<Staging> for Answer {
    fn from(staging: Staging) -> Answer {
        match staging {
            Staging::There | Staging::Waits => Answer::Taken,
            Staging::Needless => Answer::Needless,
            Staging::NoRoom => Answer::Refused,
        }
    }
}

impl Staging {
    pub(crate) fn is_there(self) -> bool {
        self == Staging::There
    }
}

impl Table {
    /// A prediction: `block` of `volume` will be read soon.
    pub fn predict<S: Sink>(
        &mut self,
        id: SliceId,
        volume: VolumeId,
        block: u64,
        sink: &mut S,
    ) -> Staging {
        let slice = self.slice(id);
        let key = slice.index.spot(volume, block, FragmentSize::DEFAULT).key;
        let staging = match slice.index.lookup(key) {
            Lookup::Here(at) => self.stage_for(id, at, 0, sink),
            Lookup::Absent => Staging::Needless,
            Lookup::Away => {
                self.wish(id, key);
                let wanted = self.want(id, Span::of(key), sink);
                if wanted == Wanted::Here {
                    self.stage_wished(id, Span::of(key), sink);
                }
                if matches!(wanted, Wanted::Lost(_)) { Staging::NoRoom } else { Staging::Waits }
            }
        };
        self.settle(sink);
        staging
    }

    fn wish(&mut self, id: SliceId, key: FragmentKey) {
        let queue = &mut self.stages.queue;
        if queue.len() == MAX_QUEUED {
            queue.pop_front();
        }
        if !queue.contains(&(id, key)) {
            queue.push_back((id, key));
        }
    }

    /// The map of a span has come: what was wished for of it may be staged.
    pub(crate) fn stage_wished<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) {
        let of_span = |(of, key): &(SliceId, FragmentKey)| *of == id && Span::of(*key) == span;
        while self.stages.may_load()
            && let Some(at) = self.stages.queue.iter().position(of_span)
        {
            let (_, key) = self.stages.queue.remove(at).expect("just found");
            if let Some(at) = self.slice(id).index.find(key) {
                self.stage_for(id, at, 0, sink);
            }
        }
    }

    /// Bytes that stages take now.
    pub fn staged_bytes(&self) -> u64 {
        self.stages.used_bytes()
    }

    /// Changes the budget; stages beyond it go at once.
    pub fn set_stage_budget<S: Sink>(&mut self, bytes: u64, sink: &mut S) {
        self.stages.set_budget(bytes);
        while !self.stages.fits(0) {
            let Some(victim) = self.stages.victim() else { break };
            self.evict_stage(victim, sink);
        }
        self.settle(sink);
    }

    /// Stages a fragment, from a block on and round its end: now, or when another load ends.
    pub(crate) fn stage_for<S: Sink>(
        &mut self,
        id: SliceId,
        at: FragRef,
        from: u32,
        sink: &mut S,
    ) -> Staging {
        let fragment = self.slice(id).index.held(at);
        if fragment.stage.is_some() {
            return Staging::There;
        }
        let cold = (0..fragment.size.blocks()).any(|block| fragment.entry(block).only_cold());
        if !cold {
            return Staging::Needless;
        }
        if self.stages.may_load() {
            let began = self.begin_load(id, at, from, sink);
            return if began { Staging::There } else { Staging::NoRoom };
        }
        let key = self.slice(id).index.held(at).key;
        self.wish(id, key);
        Staging::Waits
    }

    fn begin_load<S: Sink>(&mut self, id: SliceId, at: FragRef, from: u32, sink: &mut S) -> bool {
        let size = self.slice(id).index.held(at).size;
        let bytes = size.bytes();
        while !self.stages.fits(bytes) || sink.spare_bytes() < bytes {
            let Some(victim) = self.stages.victim() else { return false };
            self.evict_stage(victim, sink);
        }
        let Some(buf) = sink.alloc(usize::try_from(bytes).expect("at most 16 MiB")) else {
            return false;
        };
        let slot = self.stages.begin(id, at, from % size.blocks(), buf);
        self.counters.staged += 1;
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        fragment.stage = Some(slot);
        fragment.pins += 1;
        let era = slice.limbo.enter();
        self.stages.slots.get_mut(slot).era = Some(era);
        self.load_more(slot, sink);
        true
    }

    /// Issues the next read; ends the load when all have been done.
    fn load_more<S: Sink>(&mut self, slot: u32, sink: &mut S) {
        let stage = self.stages.slots.get_mut(slot);
        let slice = self.slices[usize::from(stage.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(stage.frag);
        let blocks = fragment.size.blocks();
        let is_quiet = self.now.since(self.stages.demanded_at) > QUIET_NS;
        let is_long = stage.wanted || is_quiet;
        let longest = if is_long { LONG_RUN_BLOCKS } else { RUN_BLOCKS };
        while stage.run.is_none() && stage.cursor < blocks {
            let first = (stage.first + stage.cursor) % blocks;
            let Some(start) = source(fragment, first) else {
                stage.valid.insert(first);
                let at = stage.buf.mem().block(first);
                sink.zero(at, BLOCK_BYTES);
                stage.cursor += 1;
                continue;
            };
            let most = longest.min(blocks - stage.cursor).min(blocks - first);
            let mut count = 1;
            while count < most
                && source(fragment, first + count).is_some_and(|next| start.continues(count, next))
            {
                count += 1;
            }
            stage.cursor += count;
            stage.run = Some((first, count));
            sink.io(Io {
                device: start.device,
                kind: IoKind::Read,
                offset: start.offset(),
                mem: stage.buf.mem().block(first),
                bytes: count * BLOCK_BYTES_U32,
                token: Token::Stage(slot, (first, count)).pack(),
                background: !stage.wanted,
            });
        }
        if stage.run.is_none() {
            self.end_load(slot, sink);
        }
    }

    pub(crate) fn stage_read<S: Sink>(
        &mut self,
        slot: u32,
        run: (u32, u32),
        result: IoResult,
        sink: &mut S,
    ) {
        let stage = self.stages.slots.get_mut(slot);
        let (id, wanted) = (stage.slice, stage.wanted);
        assert_eq!(stage.run.take(), Some(run), "one read at a time");
        if result.is_ok() {
            (run.0..run.0 + run.1).for_each(|block| stage.arrived.insert(block));
        }
        if wanted {
            self.kick(id);
        }
        self.load_more(slot, sink);
    }

    fn end_load<S: Sink>(&mut self, slot: u32, sink: &mut S) {
        self.stages.loaded(slot);
        let stage = self.stages.slots.get_mut(slot);
        let (id, at, era) = (stage.slice, stage.frag, stage.era.take().expect("a load has an era"));
        self.slice(id).limbo.leave(era);
        self.unpin(id, at);
        self.kick(id);
        if self.slice(id).index.get(at).is_none_or(|fragment| fragment.present == 0) {
            self.evict_stage(slot, sink);
        }
        while self.stages.may_load()
            && let Some((id, key)) = self.stages.queue.pop_front()
        {
            if let Some(at) = self.slice(id).index.find(key) {
                self.stage_for(id, at, 0, sink);
            }
        }
    }

    /// A client waits for blocks that a load has not brought yet: what is left is demand.
    pub(crate) fn want_stage<S: Sink>(&mut self, slot: u32, sink: &mut S) {
        let stage = self.stages.slots.get_mut(slot);
        stage.wanted = true;
        if let Some(run) = stage.run {
            sink.hurry(Token::Stage(slot, run).pack());
        }
    }

    pub(crate) fn use_stage(&mut self, slot: u32, waited: bool) {
        self.stages.mark_used(slot);
        self.counters.hits += u64::from(!waited);
    }

    /// Drops a stage; its fragment may follow if it has become empty.
    pub(crate) fn evict_stage<S: Sink>(&mut self, slot: u32, sink: &mut S) {
        let (stage, wasted) = self.stages.remove(slot);
        self.counters.wasted += u64::from(wasted);
        sink.free(stage.buf);
        if self.starved {
            self.kick_all();
        }
        if let Some(fragment) = self.slice(stage.slice).index.get_mut(stage.frag) {
            fragment.stage = None;
            self.drop_if_empty(stage.slice, stage.frag);
        }
    }
}
