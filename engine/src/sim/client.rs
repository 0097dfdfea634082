//! Simulated clients: their requests under way, checked against the oracle as they end.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::broken::Broken;
use super::oracle::Oracle;
use super::payload::{Compares, set_expected, set_values};
use super::playground::{PER_BLOCK, Want};
use super::sector::SectorKey;
use super::shared::Shared;
use crate::device::sim::SECTOR_BYTES;
use crate::request::{Completion, Failure, Op, Request, buffer_bytes};
use crate::units::{BLOCK_BYTES, ClientId, CoreId, VolumeId, VolumeOffset};

/// A client: its connection ends at one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whose requests.
    pub client: ClientId,
    /// Where they arrive.
    pub core: CoreId,
}

/// The connections of whoever audits.
const AUDITOR: Connection = Connection { client: ClientId::new(0), core: CoreId::new(0) };

impl Connection {
    fn at(self, core: CoreId) -> Self {
        Self { core, ..self }
    }
}

/// A request that has not ended.
#[derive(Debug)]
struct Sent {
    want: Want,
    /// Histories at the start of a read.
    marks: Vec<usize>,
    /// What a flush covers.
    covered: Vec<(SectorKey, usize)>,
    compares: Compares,
    /// The value of a change's first sector; the others follow.
    value: u64,
    core: CoreId,
    /// A read after a restart: what it finds becomes the truth.
    audit: bool,
    /// A device has returned bytes of its blocks that a fault had changed.
    excused: bool,
}

/// The clients of a world.
#[derive(Debug, Default)]
pub struct Clients {
    sent: FxHashMap<u64, Sent>,
    next_tag: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Comparisons that found a difference, as they had to.
    pub miscompared: u64,
    /// Requests that found the pool full.
    pub no_space: u64,
    /// Requests that a failed device or a fault ended.
    pub failed: u64,
    /// A device has failed an operation in this life of the process.
    pub failing: bool,
    /// The cold tier has room for all that there is: nothing may find the pool full.
    pub roomy: bool,
    /// Devices lie, and it may show: every error is believed.
    pub distrusting: bool,
    /// Discards that a fault ended.
    pub failed_discards: u64,
    /// The last blocks that a device got wrong: chance alone comes back to them too rarely.
    pub wrong: VecDeque<(VolumeId, u64)>,
    /// Blocks that an audit could not read as part of a larger request.
    pub again: Vec<(VolumeId, u64)>,
}

impl Clients {
    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// The process is gone, and with it all requests.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.failing = false;
    }

    /// A device has returned wrong bytes of these blocks of a volume.
    pub fn excuse(&mut self, volume: VolumeId, sectors: &std::ops::Range<u64>) {
        self.wrong.push_front((volume, sectors.start / PER_BLOCK));
        self.wrong.truncate(4);
        for sent in self.sent.values_mut().filter(|sent| sent.want.volume == volume) {
            let range = sent.want.range();
            // Partly written blocks are read whole.
            let (start, end) = (range.start / PER_BLOCK, range.end.div_ceil(PER_BLOCK));
            sent.excused |= start * PER_BLOCK < sectors.end && sectors.start < end * PER_BLOCK;
        }
    }

    /// A request over a connection; `None` if it would not be allowed now, or finds no memory.
    pub fn send(
        &mut self,
        want: Want,
        from: Connection,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Option<Request> {
        let Want { op, volume, .. } = want;
        let changes = !matches!(op, Op::Read | Op::Flush);
        if changes && oracle.is_busy(volume, want.range()) {
            return None;
        }
        let length = u32::try_from(want.sectors.1 * SECTOR_BYTES as u64).expect("a window");
        let offset = want.sectors.0 * SECTOR_BYTES as u64;
        let buf = match op {
            Op::Read | Op::Write => Some(shared.alloc(from.core, buffer_bytes(offset, length))?),
            Op::CompareAndWrite => Some(shared.alloc(from.core, 2 * BLOCK_BYTES)?),
            _ => None,
        };
        let mut sent = Sent {
            want,
            marks: Vec::new(),
            covered: Vec::new(),
            compares: Compares::Equal,
            value: oracle.next_value(),
            core: from.core,
            audit: false,
            excused: false,
        };
        if op == Op::CompareAndWrite {
            let buf = buf.as_ref().expect("two blocks");
            sent.compares = set_expected(&want, sent.value, buf, oracle, shared);
        }
        match op {
            Op::Flush => sent.covered = oracle.flush_begins(volume),
            Op::Read => {
                let mark = |sector| oracle.mark(SectorKey { volume, sector });
                sent.marks = want.range().map(mark).collect();
            }
            _ => set_values(&want, buf.as_ref(), oracle, shared),
        }
        self.next_tag += 1;
        self.sent.insert(self.next_tag, sent);
        Some(Request {
            tag: self.next_tag,
            client: from.client,
            volume,
            op,
            fua: want.fua && changes,
            offset: VolumeOffset::new(offset),
            length,
            buf,
        })
    }

    /// Reads blocks, or the part of them before the volume's end, after a restart.
    pub fn audit(
        &mut self,
        volume: VolumeId,
        blocks: std::ops::Range<u64>,
        size: u64,
        core: CoreId,
        shared: &mut Shared,
    ) -> Request {
        let (start, end) = (blocks.start * BLOCK_BYTES as u64, blocks.end * BLOCK_BYTES as u64);
        let want = Want::bytes(Op::Read, false, volume, start, end.min(size) - start);
        let request = self.send(want, AUDITOR.at(core), &mut Oracle::default(), shared);
        let request = request.expect("memory for a few blocks");
        self.sent.get_mut(&request.tag).expect("just sent").audit = true;
        request
    }

    /// Discards a range of bytes, with nothing else under way there.
    pub fn discard(
        &mut self,
        volume: VolumeId,
        range: (u64, u64),
        core: CoreId,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Request {
        let want = Want::bytes(Op::Discard, false, volume, range.0, range.1);
        self.send(want, AUDITOR.at(core), oracle, shared).expect("a discard needs no memory")
    }

    /// A flush of a volume.
    pub fn flush(
        &mut self,
        volume: VolumeId,
        core: CoreId,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Request {
        let want = Want::bytes(Op::Flush, false, volume, 0, 0);
        self.send(want, AUDITOR.at(core), oracle, shared).expect("a flush needs no memory")
    }

    /// A request has ended: checks it and gives its buffer back. Returns what it was.
    pub fn complete(
        &mut self,
        completion: Completion,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Result<Want, Broken> {
        let sent = self.sent.remove(&completion.tag).expect("a request ends once");
        self.count(&sent, completion.result)?;
        let Want { op, volume, fua, .. } = sent.want;
        let (range, ok) = (sent.want.range(), completion.result.is_ok());
        match op {
            Op::Read if ok => {
                let buf = completion.buf.as_ref().expect("a read has a buffer");
                for (at, sector) in range.enumerate() {
                    let key = SectorKey { volume, sector };
                    let place = buf.mem().plus(sent.want.head() + at * SECTOR_BYTES);
                    let bytes = &*shared.bytes_mut(place, SECTOR_BYTES);
                    if sent.audit {
                        oracle.check_restarted(key, bytes)?;
                    } else {
                        oracle.check_live(key, sent.marks[at], bytes)?;
                    }
                }
            }
            Op::Flush if ok => oracle.flush_ends(&sent.covered),
            Op::Read | Op::Flush | Op::Status => {}
            Op::CompareAndWrite if completion.result == Err(Failure::Miscompare) => {
                for (value, sector) in (sent.value..).zip(range) {
                    oracle.unsent(SectorKey { volume, sector }, value);
                }
            }
            _ => range.for_each(|sector| oracle.sent(SectorKey { volume, sector }, ok, fua)),
        }
        if let Some(buf) = completion.buf {
            assert_eq!(buf.arena, sent.core.get(), "a buffer comes home");
            shared.free(buf);
        }
        Ok(sent.want)
    }

    /// Counts the outcome; an error if nothing explains a failure.
    fn count(&mut self, sent: &Sent, result: Result<(), Failure>) -> Result<(), Broken> {
        let Want { op, volume, .. } = sent.want;
        let std::ops::Range { start: first, end } = sent.want.range();
        match result {
            Ok(()) if sent.compares == Compares::Different => {
                return Err(Broken::Compared { volume, first, end });
            }
            Ok(()) => self.completed += 1,
            Err(Failure::Miscompare) if sent.compares != Compares::Equal => self.miscompared += 1,
            Err(Failure::NoSpace) if !self.roomy => self.no_space += 1,
            // A core that knows of a shrunk or deleted volume already, or of a grown one not yet.
            Err(Failure::OutOfRange) if !sent.audit => {}
            Err(Failure::Device) if self.failing => self.failed += 1,
            Err(Failure::Media) if sent.excused => self.failed += 1,
            Err(Failure::Media | Failure::Device) if self.distrusting => self.failed += 1,
            Err(failure) => return Err(Broken::Failed { op, volume, first, end, failure }),
        }
        self.failed_discards += u64::from(op == Op::Discard && result.is_err());
        if sent.audit && result.is_err() && sent.want.sectors.1 > PER_BLOCK {
            let range = sent.want.range();
            let blocks = range.start / PER_BLOCK..range.end.div_ceil(PER_BLOCK);
            self.again.extend(blocks.map(|block| (volume, block)));
        }
        Ok(())
    }
}
