//! A copy job: one fragment on its way to another tier, window by window.

use crate::planted::{Bug, planted};
use crate::request::Buf;
use crate::table::Table;
use crate::table::entry::{Place, SlotRef};
use crate::table::fragment::FragRef;
use crate::table::op::Token;
use crate::table::read::Source;
use crate::table::sink::{Io, IoKind, IoResult, Mem, Sink};
use crate::units::{BLOCK_BYTES_U32, Crc, Generation, SliceId, WINDOW_BLOCKS};

/// Jobs that move fragments to the cold tier: the first ones.
pub const SPILLS: usize = 4;
/// Index of the job that copies a stage to the fast tier.
pub const PROMOTE: usize = SPILLS;
/// All jobs.
pub const JOBS: usize = SPILLS + 1;

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading a window of the fragment.
    Reading,
    /// Writing it to its destination.
    Writing,
    /// Flushing the destination.
    Flushing,
    /// Copied and flushed; waiting for log room or for writers to end.
    Committing,
}

/// A copy job.
#[derive(Debug)]
pub struct Job {
    pub(crate) slice: SliceId,
    pub(crate) frag: FragRef,
    /// The fragment's generation when the job began.
    pub(crate) generation: Generation,
    pub(crate) step: Step,
    /// First block of the window.
    pub(crate) first: u32,
    /// Blocks of the window that are copied, one bit each.
    pub(crate) moving: u64,
    pub(crate) pending: u32,
    pub(crate) failed: bool,
    /// Nobody waits for it.
    pub(crate) background: bool,
    pub(crate) era: Option<usize>,
    /// Destination of a spill.
    pub(crate) cold: Option<SlotRef>,
    /// Memory for a window of a spill.
    pub(crate) buf: Option<Buf>,
    /// The stage that a promotion copies from.
    pub(crate) stage: Option<u32>,
    pub(crate) crcs: [Crc; WINDOW_BLOCKS as usize],
    pub(crate) places: [Place; WINDOW_BLOCKS as usize],
}

impl Job {
    pub(crate) fn new(slice: SliceId, frag: FragRef, generation: Generation) -> Self {
        Self {
            slice,
            frag,
            generation,
            step: Step::Reading,
            first: 0,
            moving: 0,
            pending: 0,
            failed: false,
            background: true,
            era: None,
            cold: None,
            buf: None,
            stage: None,
            crcs: [Crc::new(0); WINDOW_BLOCKS as usize],
            places: [Place::HOLE; WINDOW_BLOCKS as usize],
        }
    }

    /// True for the block at position `i` of the window.
    pub(crate) fn moves(&self, i: u32) -> bool {
        self.moving & (1 << i) != 0
    }

    /// Issues the window's operations in contiguous runs of `place(i)`.
    pub(crate) fn issue<S: Sink>(
        &mut self,
        which: usize,
        kind: IoKind,
        mem: Mem,
        place: impl Fn(&Job, u32) -> Source,
        sink: &mut S,
    ) {
        let index = u32::try_from(which).expect("few jobs");
        let mut i = 0;
        while i < WINDOW_BLOCKS {
            if !self.moves(i) {
                i += 1;
                continue;
            }
            let start = place(self, i);
            let mut count = 1;
            while i + count < WINDOW_BLOCKS
                && self.moves(i + count)
                && start.continues(count, place(self, i + count))
            {
                count += 1;
            }
            self.pending += 1;
            sink.io(Io {
                device: start.device,
                kind,
                offset: start.offset(),
                mem: mem.block(i),
                bytes: count * BLOCK_BYTES_U32,
                token: Token::Copy(index, (i, count)).pack(),
                background: self.background,
            });
            i += count;
        }
    }
}

impl Table {
    /// A run of a job's window has been moved.
    pub(crate) fn copy_moved<S: Sink>(
        &mut self,
        index: u32,
        run: (u32, u32),
        result: IoResult,
        sink: &mut S,
    ) {
        let job = self.tiering.jobs[index as usize].as_mut().expect("a job under way");
        job.pending -= 1;
        job.failed |= result.is_err();
        if job.step == Step::Reading && result.is_ok() {
            let mem = job.buf.as_ref().expect("a spill has memory").mem();
            let bad =
                (run.0..run.0 + run.1).any(|i| sink.crc(mem.block(i)) != job.crcs[i as usize]);
            job.failed |= bad && !planted(Bug::IgnoredCrcOfSpill);
        }
        if job.pending > 0 {
            return;
        }
        match index as usize {
            PROMOTE => self.promotion_moved(sink),
            which => self.spill_moved(which, sink),
        }
    }

    pub(crate) fn copy_flushed<S: Sink>(&mut self, index: u32, result: IoResult, sink: &mut S) {
        let job = self.tiering.jobs[index as usize].as_mut().expect("a job under way");
        job.failed |= result.is_err();
        job.step = Step::Committing;
        self.commit_spill(index as usize, sink);
    }
}
