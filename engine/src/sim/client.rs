//! Simulated clients: their requests under way, checked against the oracle as they end.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::broken::Broken;
use super::oracle::Oracle;
use super::payload::{Compares, Payload, set_expected, set_values};
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
    /// A host's, which hears of its end late.
    host: bool,
    /// A part of its range has ceased to exist meanwhile.
    cut: bool,
}

impl Sent {
    /// Something that begins now; values and bytes are still to be set.
    fn new(want: Want, core: CoreId, oracle: &mut Oracle) -> Self {
        let Want { op, volume, .. } = want;
        let mark = |sector| oracle.mark(SectorKey { volume, sector });
        let marks = if op == Op::Read { want.range().map(mark).collect() } else { Vec::new() };
        let covered = if op == Op::Flush { oracle.flush_begins(volume) } else { Vec::new() };
        let (compares, value) = (Compares::Equal, oracle.next_value());
        Sent {
            want,
            marks,
            covered,
            compares,
            value,
            core,
            audit: false,
            excused: false,
            host: false,
            cut: false,
        }
    }
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

    /// A request of a core; `None` if it would not be allowed now, or finds no memory.
    pub fn send(
        &mut self,
        want: Want,
        from: Connection,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Option<Request> {
        let Want { op, volume, .. } = want;
        if want.changes() && oracle.is_busy(volume, want.range()) {
            return None;
        }
        let length = u32::try_from(want.bytes_long()).expect("a window");
        let offset = want.sectors.0 * SECTOR_BYTES as u64;
        let buf = match op {
            Op::Read | Op::Write => Some(shared.alloc(from.core, buffer_bytes(offset, length))?),
            Op::CompareAndWrite => Some(shared.alloc(from.core, 2 * BLOCK_BYTES)?),
            _ => None,
        };
        let place = |block| buf.as_ref().map(|buf| buf.mem().block(block).plus(want.head()));
        let mut sent = Sent::new(want, from.core, oracle);
        if op == Op::CompareAndWrite {
            let expected = shared.bytes_mut(place(1).expect("two blocks"), want.bytes_long());
            sent.compares = set_expected(&want, sent.value, expected, oracle);
        }
        if want.changes() {
            let bytes = place(0).map(|place| shared.bytes_mut(place, want.bytes_long()));
            set_values(&want, bytes, false, oracle);
        }
        Some(Request {
            tag: self.note(sent),
            client: from.client,
            volume,
            op,
            fua: want.fua && want.changes(),
            offset: VolumeOffset::new(offset),
            length,
            buf,
        })
    }

    /// The same over a connection to `core`: its tag and bytes, a write's followed by those that
    /// it depends on. `None` if it would not be allowed now.
    pub fn send_out(
        &mut self,
        want: Want,
        core: CoreId,
        oracle: &mut Oracle,
    ) -> Option<(u64, Vec<u8>)> {
        if want.changes() && oracle.is_busy(want.volume, want.range()) {
            return None;
        }
        let mut sent = Sent { host: true, ..Sent::new(want, core, oracle) };
        let mut bytes = match want.op {
            Op::Read | Op::Write => vec![0; want.bytes_long()],
            Op::CompareAndWrite => vec![0; 2 * want.bytes_long()],
            _ => Vec::new(),
        };
        let length = want.bytes_long().min(bytes.len());
        let (data, expected) = bytes.split_at_mut(length);
        if !expected.is_empty() {
            sent.compares = set_expected(&want, sent.value, expected, oracle);
        }
        if want.changes() {
            set_values(&want, (!data.is_empty()).then_some(data), true, oracle);
        }
        Some((self.note(sent), bytes))
    }

    fn note(&mut self, sent: Sent) -> u64 {
        self.next_tag += 1;
        self.sent.insert(self.next_tag, sent);
        self.next_tag
    }

    /// What lies behind a sector of a volume is gone and begins again: what hosts have under way
    /// there may have been before or come after.
    pub fn cut(&mut self, volume: VolumeId, from: u64) {
        for sent in self.sent.values_mut() {
            sent.covered.retain(|(key, _)| key.volume != volume || key.sector < from);
            sent.cut |= sent.host && sent.want.volume == volume && sent.want.range().end > from;
        }
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

    /// A request of a core has ended: checks it and gives its buffer back. Returns what it was.
    pub fn complete(
        &mut self,
        completion: Completion,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Result<Want, Broken> {
        let Completion { tag, result, buf } = completion;
        self.end(tag, result, Payload::Arena(buf), oracle, shared)
    }

    /// A request has ended: checks it. Returns what it was.
    pub fn end(
        &mut self,
        tag: u64,
        result: Result<(), Failure>,
        payload: Payload,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Result<Want, Broken> {
        let sent = self.sent.remove(&tag).expect("a request ends once");
        self.count(&sent, result)?;
        let Want { op, volume, fua, .. } = sent.want;
        let (range, ok) = (sent.want.range(), result.is_ok());
        match op {
            Op::Read if ok && !sent.cut => {
                let length = sent.want.bytes_long();
                let bytes = match &payload {
                    Payload::Arena(buf) => {
                        let mem = buf.as_ref().expect("a read has a buffer").mem();
                        &*shared.bytes_mut(mem.plus(sent.want.head()), length)
                    }
                    Payload::Host(bytes) => bytes,
                };
                for ((at, sector), bytes) in range.enumerate().zip(bytes.chunks(SECTOR_BYTES)) {
                    let key = SectorKey { volume, sector };
                    if sent.audit {
                        oracle.check_restarted(key, bytes)?;
                    } else {
                        oracle.check_live(key, sent.marks[at], bytes)?;
                    }
                }
            }
            Op::Flush if ok => oracle.flush_ends(&sent.covered),
            Op::Read | Op::Flush | Op::Status => {}
            Op::CompareAndWrite if result == Err(Failure::Miscompare) => {
                for (value, sector) in (sent.value..).zip(range) {
                    oracle.unsent(SectorKey { volume, sector }, value);
                }
            }
            _ => range.for_each(|sector| oracle.sent(SectorKey { volume, sector }, ok, fua)),
        }
        if let Payload::Arena(Some(buf)) = payload {
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
            Err(Failure::Miscompare) if sent.compares != Compares::Equal || sent.cut => {
                self.miscompared += 1;
            }
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
