//! A target without a protocol: it makes its requests itself.
//!
//! A [`Load`] runs on a core beside the other targets and uses the engine as
//! they do: buffers from the core's arena, [`Request`]s, completions. The bytes of
//! a read are copied out to memory that stands for the client, those of a write
//! in from there. It fills its part of the volume first, may overwrite it in
//! random order, waits for its companions on other cores, and then runs its plan
//! for a while unmeasured and for a while measured, always with the same number
//! of requests under way.
//!
//! The clock is read once per turn and once for the completions of a turn, as
//! a target sees them: together. Nothing is allocated after [`Load::new`].

#![forbid(unsafe_code)]

pub mod plan;
pub mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

pub use plan::{Mix, Order, Plan, Step};
pub use tally::Tally;

use crate::core::clock;
use crate::request::{Buf, Completion, Failure, Host, Op, Request};
use crate::units::{BLOCK_BYTES_U32, ClientId, Nanos, VolumeId, VolumeOffset, WINDOW_BYTES};
use plan::Random;

/// In the high bits of the tags of all loads: no connection has this number.
const TAG: u64 = 0xffff << 48;
/// Bytes of each write that fills the volume.
const FILL_BYTES: u32 = 128 << 10;
/// Requests under way while filling.
const FILL_DEPTH: u16 = 16;

/// How long something goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many nanoseconds; requests under way at the end do not count.
    Time(u64),
    /// So many requests, to the end of the last.
    Requests(u64),
}

/// What a load does.
#[derive(Clone, Debug)]
pub struct Job {
    /// The volume.
    pub volume: VolumeId,
    /// Reads and writes.
    pub mix: Mix,
    /// Where in the volume, in extents of [`Job::extent_bytes`].
    pub extents: Vec<u64>,
    /// Bytes of each extent: whole windows.
    pub extent_bytes: u64,
    /// Requests under way.
    pub depth: u16,
    /// Write everything before measuring.
    pub fill: bool,
    /// After that overwrite everything, 4 KiB at a time in random order.
    pub scatter: bool,
    /// Move bytes between buffers and the memory of a client.
    pub copy: bool,
    /// How long nothing is measured.
    pub warm_up: Span,
    /// How long is measured.
    pub measure: Span,
    /// Of all random choices.
    pub seed: u64,
}

/// What a load says while it runs.
#[derive(Debug)]
pub enum News {
    /// Measuring has begun.
    Begun,
    /// It is over, and this is what came of it.
    Ended(Box<Tally>),
    /// A request failed; the load has stopped.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fill,
    Scatter,
    /// Everything written so far becomes durable.
    Settle,
    /// Waiting for the other loads.
    Ready,
    WarmUp,
    Measure,
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    step: Step,
    bytes: u32,
    began: Nanos,
}

/// A load of one core.
pub struct Load {
    job: Job,
    plan: Plan,
    phase: Phase,
    began: Nanos,
    /// Steps of the filling or scattering, and how many of them have been taken.
    fill: Plan,
    scattered: Vec<u32>,
    taken: u64,
    slots: Vec<Option<Slot>>,
    free: Vec<u16>,
    /// The client's memory, a part for each slot.
    client: Vec<u8>,
    /// When the completions of this turn were seen.
    seen: Option<Nanos>,
    tally: Tally,
    failure: Option<Failure>,
    /// Loads that are ready, of how many.
    ready: Arc<AtomicU32>,
    companions: u32,
    news: Sender<News>,
}

fn fill_plan(job: &Job, block_bytes: u32) -> Plan {
    let mix = Mix { block_bytes, read_percent: 0, order: Order::Sequential, flush_every: 0 };
    Plan::new(mix, job.extents.clone(), job.extent_bytes, 0)
}

/// The numbers below `count` in random order.
fn shuffled(count: u64, seed: u64) -> Vec<u32> {
    let mut all: Vec<u32> = (0..u32::try_from(count).expect("at most 16 TiB")).collect();
    let mut random = Random::new(seed);
    for last in (1..all.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).expect("an index");
        all.swap(last, other);
    }
    all
}

impl Load {
    /// A load that begins as soon as it is on its core; `companions` loads, this one
    /// included, count themselves into `ready` and begin measuring together.
    ///
    /// # Panics
    /// If the depth is 0, or a block is no power of two within a window.
    pub fn new(job: Job, ready: Arc<AtomicU32>, companions: u32, news: Sender<News>) -> Load {
        assert!(job.depth > 0);
        let whole = job.mix.block_bytes.is_power_of_two();
        assert!(whole && u64::from(job.mix.block_bytes) <= WINDOW_BYTES, "blocks of a window");
        assert!(job.extent_bytes.is_multiple_of(WINDOW_BYTES), "whole windows");
        let depth = job.depth.max(FILL_DEPTH);
        let stride = job.mix.block_bytes.max(FILL_BYTES) as usize;
        let mut random = Random::new(job.seed);
        let mut client = vec![0; stride * usize::from(depth)];
        client.iter_mut().for_each(|byte| *byte = random.draw().to_le_bytes()[0]);
        let small = fill_plan(&job, BLOCK_BYTES_U32);
        let scattered = if job.scatter { shuffled(small.blocks(), job.seed) } else { Vec::new() };
        if !job.fill {
            ready.fetch_add(1, Ordering::AcqRel);
        }
        Load {
            plan: Plan::new(job.mix, job.extents.clone(), job.extent_bytes, job.seed),
            phase: if job.fill { Phase::Fill } else { Phase::Ready },
            began: Nanos::new(0),
            fill: fill_plan(&job, FILL_BYTES),
            scattered,
            taken: 0,
            slots: vec![None; depth.into()],
            free: (0..depth).rev().collect(),
            client,
            seen: None,
            tally: Tally::default(),
            failure: None,
            ready,
            companions,
            news,
            job,
        }
    }

    /// True if the tag is a load's.
    pub fn is_tag(tag: u64) -> bool {
        tag & TAG == TAG
    }

    /// True if the engine holds no request of this load.
    pub fn is_quiet(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Makes no more requests.
    pub fn stop(&mut self) {
        self.phase = Phase::Over;
    }

    /// Makes as many requests as there is room for. True if it wants another turn.
    pub fn run(&mut self, host: &mut impl Host) -> bool {
        let measuring = matches!(self.phase, Phase::WarmUp | Phase::Measure);
        // While all requests are under way there is nothing to do, not even to see how late it is.
        if self.phase == Phase::Over || (measuring && !self.has_room()) {
            return false;
        }
        let now = clock::now();
        self.seen = None;
        self.move_on(now);
        let mut moved = matches!(self.phase, Phase::Ready);
        while self.has_room() && host.can_submit() {
            let Some((step, bytes)) = self.next_step() else { break };
            moved = true;
            if !self.submit(step, bytes, now, host) {
                break;
            }
        }
        moved
    }

    fn has_room(&self) -> bool {
        let depth = match self.phase {
            Phase::Fill | Phase::Scatter | Phase::Settle => FILL_DEPTH,
            Phase::WarmUp | Phase::Measure => self.job.depth,
            Phase::Ready | Phase::Over => 0,
        };
        self.slots.len() - self.free.len() < usize::from(depth)
    }

    /// Enters the next phase when this one is over.
    fn move_on(&mut self, now: Nanos) {
        let quiet = self.is_quiet();
        let filled = self.taken == self.fill.blocks();
        match self.phase {
            Phase::Fill if filled && quiet && self.job.scatter => {
                self.fill = fill_plan(&self.job, BLOCK_BYTES_U32);
                self.enter(Phase::Scatter);
            }
            Phase::Fill | Phase::Scatter if filled && quiet => self.enter(Phase::Settle),
            Phase::Settle if self.taken == 1 && quiet => {
                self.ready.fetch_add(1, Ordering::AcqRel);
                self.enter(Phase::Ready);
            }
            Phase::Ready if self.ready.load(Ordering::Acquire) == self.companions => {
                self.began = now;
                self.enter(Phase::WarmUp);
            }
            Phase::WarmUp if self.is_over(self.job.warm_up, now) => {
                self.began = now;
                self.enter(Phase::Measure);
                self.tell(News::Begun);
            }
            Phase::Measure if self.is_over(self.job.measure, now) => {
                self.tally.elapsed_ns = now.since(self.began);
                let tally = std::mem::take(&mut self.tally);
                self.enter(Phase::Over);
                self.tell(News::Ended(Box::new(tally)));
            }
            _ => {}
        }
        if let Some(failure) = self.failure.take() {
            self.enter(Phase::Over);
            self.tell(News::Failed(failure));
        }
    }

    fn is_over(&self, span: Span, now: Nanos) -> bool {
        match span {
            Span::Time(ns) => now.since(self.began) >= ns,
            Span::Requests(count) => self.taken == count && self.is_quiet(),
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.taken = 0;
    }

    fn tell(&self, news: News) {
        // Whoever asked may have given up.
        let _ = self.news.send(news);
    }

    fn next_step(&mut self) -> Option<(Step, u32)> {
        let step = match self.phase {
            Phase::Fill | Phase::Scatter => {
                if self.taken == self.fill.blocks() {
                    return None;
                }
                let at = match self.scattered.get(usize::try_from(self.taken).ok()?) {
                    Some(block) if self.phase == Phase::Scatter => u64::from(*block),
                    _ => self.taken,
                };
                (Step::Write(self.fill.at(at)), self.fill.mix().block_bytes)
            }
            Phase::Settle if self.taken == 0 => (Step::Flush, 0),
            Phase::WarmUp if Span::Requests(self.taken) == self.job.warm_up => return None,
            Phase::Measure if Span::Requests(self.taken) == self.job.measure => return None,
            Phase::WarmUp | Phase::Measure => (self.plan.step(), self.job.mix.block_bytes),
            Phase::Settle | Phase::Ready | Phase::Over => return None,
        };
        self.taken += 1;
        Some(step)
    }

    /// Makes one request; false if there is no buffer: the step is skipped then.
    fn submit(&mut self, step: Step, bytes: u32, now: Nanos, host: &mut impl Host) -> bool {
        let (op, offset) = match step {
            Step::Read(at) => (Op::Read, at),
            Step::Write(at) => (Op::Write, at),
            Step::Flush => (Op::Flush, 0),
        };
        let length = if op == Op::Flush { 0 } else { bytes };
        let mut buf = None;
        if op != Op::Flush {
            let Some(taken) = host.alloc(crate::request::buffer_bytes(offset, bytes)) else {
                self.taken -= 1;
                return false;
            };
            buf = Some(taken);
        }
        let slot = self.free.pop().expect("has_room was true");
        if let (Op::Write, Some(buf)) = (op, &mut buf) {
            self.send(slot, offset, length, buf, host);
        }
        self.slots[usize::from(slot)] = Some(Slot { step, bytes: length, began: now });
        host.submit(Request {
            tag: TAG | u64::from(slot),
            client: ClientId::new(self.job.seed),
            volume: self.job.volume,
            op,
            fua: false,
            offset: VolumeOffset::new(offset),
            length,
            buf,
        });
        true
    }

    /// The client's bytes come into a buffer, each time others.
    fn send(&mut self, slot: u16, offset: u64, bytes: u32, buf: &mut Buf, host: &mut impl Host) {
        let filling = matches!(self.phase, Phase::Fill | Phase::Scatter);
        let (from, to) = (self.client_range(slot, bytes), within(offset, bytes));
        let mine = &mut self.client[from];
        mine[..8].copy_from_slice(&(offset ^ self.taken << 20).to_le_bytes());
        if self.job.copy || filling {
            host.bytes_mut(buf)[to].copy_from_slice(mine);
        }
    }

    fn client_range(&self, slot: u16, bytes: u32) -> std::ops::Range<usize> {
        let start = usize::from(slot) * (self.client.len() / self.slots.len());
        start..start + bytes as usize
    }

    /// A request has ended.
    ///
    /// # Panics
    /// If the load has made no such request.
    pub fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        let number = u16::try_from(completion.tag & !TAG).expect("a slot");
        let slot = self.slots[usize::from(number)].take().expect("a request of this load");
        self.free.push(number);
        if let Some(buf) = completion.buf {
            if let (Step::Read(offset), true) = (slot.step, self.job.copy) {
                let (from, to) =
                    (within(offset, slot.bytes), self.client_range(number, slot.bytes));
                self.client[to].copy_from_slice(&host.bytes(&buf)[from]);
            }
            host.free(buf);
        }
        if let Err(failure) = completion.result {
            self.tally.failed += 1;
            self.failure.get_or_insert(failure);
        } else if self.phase == Phase::Measure {
            let now = *self.seen.get_or_insert_with(clock::now);
            match slot.step {
                Step::Flush => self.tally.flushes += 1,
                step => {
                    let write = matches!(step, Step::Write(_));
                    self.tally.count(write, slot.bytes, now.since(slot.began));
                }
            }
        }
    }
}

/// Where a request's bytes stand in its buffer.
fn within(offset: u64, bytes: u32) -> std::ops::Range<usize> {
    let start = usize::try_from(offset % u64::from(BLOCK_BYTES_U32)).expect("below a block");
    start..start + bytes as usize
}
