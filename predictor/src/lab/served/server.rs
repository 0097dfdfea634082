//! A server with its client: requests in, what they wait for out.
#![forbid(unsafe_code)]

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::super::Setup;
use super::super::cold::Waits;
use super::super::tier::Key;
use super::device::{BLOCK_SHIFT, Blocks, Part};
use super::stages::{Fate, Stages};
use crate::Access;
use crate::online::{Answer, Met, Predictor};

/// A trace is of one client.
const CLIENT: u64 = 0;

/// A read under way.
struct Pending {
    came_ns: u64,
    parts: u32,
}

/// A part of one, as the predictor wants to hear of it again.
struct Watched {
    request: u64,
    key: Key,
    met: Met,
    /// It came to the fragment; whether more was foreseen of it.
    crossed: Option<bool>,
}

/// One core that has it all.
pub(super) struct Server {
    pub predictor: Option<Predictor>,
    pub stages: Stages,
    /// Blocks that were written.
    near: FxHashMap<Key, Blocks>,
    now: u64,
    requests: u64,
    reads: u64,
    pending: FxHashMap<u64, Pending>,
    parts: u64,
    watched: FxHashMap<Part, Watched>,
    ended: Vec<(u64, Part)>,
    asked: Vec<Key>,
    stalls: Vec<u64>,
    /// Reads of cold fragments that found no stage.
    pub misses: u64,
    /// Stages that the predictor asked for.
    pub issued: u64,
}

impl Server {
    pub fn new(setup: &Setup, predictor: Option<Predictor>) -> Server {
        let fragment_bytes = 1 << setup.settings.fragment_shift;
        Server {
            predictor,
            stages: Stages::new(setup.model, fragment_bytes, setup.tier_fragments),
            near: FxHashMap::default(),
            now: 0,
            requests: 0,
            reads: 0,
            pending: FxHashMap::default(),
            parts: 0,
            watched: FxHashMap::default(),
            ended: Vec::new(),
            asked: Vec::new(),
            stalls: Vec::new(),
            misses: 0,
            issued: 0,
        }
    }

    pub fn request(&mut self, access: &Access) {
        self.now = self.now.max(access.time_ns);
        self.advance(self.now);
        self.requests += 1;
        self.reads += u64::from(!access.write);
        let waiting = access.fragments().filter(|fragment| self.part(access, *fragment)).count();
        if waiting > 0 {
            let parts = u32::try_from(waiting).expect("few fragments");
            self.pending.insert(self.requests, Pending { came_ns: self.now, parts });
        }
    }

    /// The part of a request that lies in a fragment; true if it has to wait.
    fn part(&mut self, access: &Access, fragment: u64) -> bool {
        let shift = access.fragment_shift;
        let last = access.offset_bytes + u64::from(access.size_bytes.max(1)) - 1;
        let begin = access.offset_bytes.max(fragment << shift);
        let end = last.min((fragment << shift) + (1 << shift) - 1);
        let bytes = u32::try_from(end - begin + 1).expect("a part of a request");
        let part = Access::new(access.time_ns, access.volume, access.write, begin, bytes, shift);
        let block = |byte: u64| {
            u32::try_from((byte - (fragment << shift)) >> BLOCK_SHIFT).expect("at most 4096")
        };
        let blocks = block(begin)..block(end) + 1;
        let mut asked = std::mem::take(&mut self.asked);
        let stage = |volume, fragment| asked.push((volume, fragment));
        let predictor = self.predictor.as_mut();
        let crossed = predictor.and_then(|known| {
            // Without a clock all is ranked.
            known.touch(CLIENT, &part, fragment, || 0, stage)
        });
        let key = (access.volume, fragment);
        let waits = if access.write {
            self.near.entry(key).or_default().insert(blocks);
            false
        } else {
            self.read(key, blocks, crossed.map(|crossed| crossed.whole))
        };
        asked.drain(..).for_each(|key| self.predict(key));
        self.asked = asked;
        waits
    }

    fn read(&mut self, key: Key, blocks: Range<u32>, crossed: Option<bool>) -> bool {
        let is_cold = |block: &u32| self.near.get(&key).is_none_or(|near| !near.contains(*block));
        let first = blocks.clone().find(is_cold);
        let last = blocks.rev().find(is_cold);
        let fate = match first.zip(last) {
            None => Fate { met: Met::Near, waits: false },
            Some((first, last)) => {
                self.parts += 1;
                let whole = crossed == Some(true);
                self.stages.demand(self.now, self.parts, key, first..last + 1, whole)
            }
        };
        self.misses += u64::from(fate.met >= Met::Fetched);
        let watched = Watched { request: self.requests, key, met: fate.met, crossed };
        if fate.waits {
            self.watched.insert(self.parts, watched);
        } else {
            self.tell(&watched);
        }
        fate.waits
    }

    fn predict(&mut self, (volume, fragment): Key) {
        let blocks = 0..self.stages.blocks();
        let near = self.near.get(&(volume, fragment));
        let needless = near.is_some_and(|near| blocks.into_iter().all(|at| near.contains(at)));
        let answer = if needless {
            Answer::Needless
        } else {
            self.stages.predict(self.now, (volume, fragment))
        };
        self.issued += u64::from(answer == Answer::Taken);
        let predictor = self.predictor.as_mut().expect("it has asked");
        predictor.answered(volume, fragment, answer);
    }

    /// Tells the predictor what a part has met.
    fn tell(&mut self, part: &Watched) {
        let (volume, fragment) = part.key;
        if let (Some(predictor), Some(whole)) = (&mut self.predictor, part.crossed) {
            predictor.met(volume, fragment..=fragment, part.met, whole);
        }
    }

    fn advance(&mut self, until: u64) {
        let mut ended = std::mem::take(&mut self.ended);
        self.stages.advance(until, &mut ended);
        for (end_ns, part) in ended.drain(..) {
            let part = self.watched.remove(&part).expect("it waits");
            self.tell(&part);
            let pending = self.pending.get_mut(&part.request).expect("it waits");
            pending.parts -= 1;
            if pending.parts == 0 {
                self.stalls.push(end_ns - pending.came_ns);
                self.pending.remove(&part.request);
            }
        }
        self.ended = ended;
    }

    pub fn waits(mut self) -> Waits {
        self.advance(u64::MAX);
        let Server { stages, stalls, reads, .. } = self;
        let made = Waits::of(reads, stalls, stages.slow_ns());
        let (head_ns, late, dropped) = (stages.busy_ns(), stages.ledger.late, stages.dropped);
        Waits { head_ns, late, dropped, ..made }
    }
}
