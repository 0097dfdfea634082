//! Simulated clients: random requests, checked against the oracle as they end.

use std::collections::{BTreeSet, HashMap};

use super::oracle::{Oracle, SectorKey, Violation, fill};
use super::regime::Regime;
use crate::device::sim::{Rng, SECTOR_BYTES};
use crate::request::{Completion, Failure, Op, Request, buffer_bytes};
use crate::sim::shared::Shared;
use crate::units::{
    BLOCK_BYTES, ClientId, CoreId, SEGMENT_BYTES, VolumeId, VolumeOffset, WINDOW_BYTES,
};

/// A request that has not ended.
#[derive(Debug)]
struct Sent {
    op: Op,
    fua: bool,
    volume: VolumeId,
    /// First sector and how many.
    sectors: (u64, u64),
    /// Histories at the start of a read.
    marks: Vec<usize>,
    /// What a flush covers.
    covered: Vec<(SectorKey, usize)>,
    core: CoreId,
    /// A read after a restart: what it finds becomes the truth.
    audit: bool,
    /// It began while a block in its range was rotten.
    rotten: bool,
}

/// The clients of a world.
#[derive(Debug, Default)]
pub struct Clients {
    sent: HashMap<u64, Sent>,
    next_tag: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Requests that found the pool full.
    pub no_space: u64,
    /// Requests that a failed device ended.
    pub failed: u64,
    /// Blocks of volumes whose stored bytes are rotten.
    pub bad: BTreeSet<(VolumeId, u64)>,
    /// Devices fail operations.
    pub faulty: bool,
    /// A device may have lost completed writes.
    pub degraded: bool,
}

/// Where clients write.
#[derive(Clone, Debug)]
pub struct Playground {
    /// Volumes and their sizes.
    pub volumes: Vec<(VolumeId, u64)>,
    /// Starts of the regions that get most requests, in bytes.
    pub hot: Vec<u64>,
    /// What kind of requests there are.
    pub regime: Regime,
}

impl Clients {
    /// No requests yet. `faulty`: devices will fail operations.
    pub fn new(faulty: bool) -> Self {
        Self { faulty, ..Self::default() }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// The process is gone, and with it all requests.
    pub fn forget(&mut self) {
        self.sent.clear();
    }

    /// A random request for a client on `core`; `None` if it would not be allowed now.
    pub fn make(
        &mut self,
        rng: &mut Rng,
        playground: &Playground,
        core: CoreId,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Option<Request> {
        let hot = playground.hot[rng.index(playground.hot.len())];
        if let Some((op, fua, offset, length)) = playground.regime.request(rng, hot) {
            let (volume, size) = playground.volumes[0];
            let length = length.min(size.checked_sub(offset)?);
            return self.range(op, fua, volume, offset, length, core, oracle, shared);
        }
        let (volume, size) = playground.volumes[rng.index(playground.volumes.len())];
        let op = match rng.below(20) {
            0..=8 => Op::Write,
            9..=15 => Op::Read,
            16..=17 => Op::Flush,
            18 => Op::Discard,
            _ => Op::WriteZeroes,
        };
        if op == Op::Flush {
            return Some(self.flush(volume, core, oracle));
        }
        let sector = SECTOR_BYTES as u64;
        let mut offset = hot + rng.below(128) * sector;
        let mut length = match rng.below(8) {
            0..=2 => BLOCK_BYTES as u64,
            3..=5 => (1 + rng.below(12)) * sector,
            6 => (1 + rng.below(64)) * BLOCK_BYTES as u64,
            _ => (1 + rng.below(256)) * sector,
        };
        if rng.one_in(3) {
            offset -= offset % BLOCK_BYTES as u64;
        }
        if op == Op::Discard && rng.one_in(4) {
            offset = hot / SEGMENT_BYTES * SEGMENT_BYTES + rng.below(60) * WINDOW_BYTES;
            length = WINDOW_BYTES;
        }
        length = length.min(WINDOW_BYTES - offset % WINDOW_BYTES).min(size.checked_sub(offset)?);
        self.range(op, rng.one_in(8), volume, offset, length, core, oracle, shared)
    }

    /// Reads one block, or the part of it before the volume's end, after a restart.
    pub fn audit(
        &mut self,
        volume: VolumeId,
        block: u64,
        size: u64,
        core: CoreId,
        shared: &mut Shared,
    ) -> Option<Request> {
        let offset = block * BLOCK_BYTES as u64;
        let oracle = &mut Oracle::default();
        let length = (BLOCK_BYTES as u64).min(size - offset);
        let request = self.range(Op::Read, false, volume, offset, length, core, oracle, shared)?;
        self.sent.get_mut(&request.tag).expect("just sent").audit = true;
        Some(request)
    }

    /// Discards a range.
    pub fn discard(
        &mut self,
        volume: VolumeId,
        range: (u64, u64),
        core: CoreId,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Request {
        self.range(Op::Discard, false, volume, range.0, range.1, core, oracle, shared)
            .expect("a discard needs no memory, and nothing else is under way")
    }

    /// A flush of a volume.
    pub fn flush(&mut self, volume: VolumeId, core: CoreId, oracle: &Oracle) -> Request {
        let covered = oracle.flush_begins(volume);
        self.send(
            Sent {
                op: Op::Flush,
                fua: false,
                volume,
                sectors: (0, 0),
                marks: Vec::new(),
                covered,
                core,
                audit: false,
                rotten: false,
            },
            None,
        )
    }

    fn send(&mut self, sent: Sent, buf: Option<crate::request::Buf>) -> Request {
        self.next_tag += 1;
        let sector = SECTOR_BYTES as u64;
        let request = Request {
            tag: self.next_tag,
            client: ClientId::new(1),
            volume: sent.volume,
            op: sent.op,
            fua: sent.fua,
            offset: VolumeOffset::new(sent.sectors.0 * sector),
            length: u32::try_from(sent.sectors.1 * sector).expect("a window"),
            buf,
        };
        self.sent.insert(self.next_tag, sent);
        request
    }

    #[expect(clippy::too_many_arguments, reason = "one private step shared by two callers")]
    fn range(
        &mut self,
        op: Op,
        fua: bool,
        volume: VolumeId,
        offset: u64,
        length: u64,
        core: CoreId,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Option<Request> {
        let sectors = (offset / SECTOR_BYTES as u64, length / SECTOR_BYTES as u64);
        let range = sectors.0..sectors.0 + sectors.1;
        let changes = op != Op::Read;
        if changes && oracle.is_busy(volume, range.clone()) {
            return None;
        }
        let buf = if matches!(op, Op::Read | Op::Write) {
            let short = u32::try_from(length).expect("a window");
            Some(shared.alloc(core, buffer_bytes(offset, short))?)
        } else {
            None
        };
        let head = usize::try_from(offset % BLOCK_BYTES as u64).expect("below a block");
        let mut marks = Vec::new();
        for (at, sector) in range.enumerate() {
            let key = SectorKey { volume, sector };
            if !changes {
                marks.push(oracle.mark(key));
                continue;
            }
            let value = oracle.send(key, op != Op::Write);
            if let Some(buf) = &buf {
                let at = buf.mem().plus(head + at * SECTOR_BYTES);
                fill(key, value, shared.bytes_mut(at, SECTOR_BYTES));
            }
        }
        let fua = fua && changes;
        let rotten = self.touches_bad(volume, sectors);
        let covered = Vec::new();
        let sent = Sent { op, fua, volume, sectors, marks, covered, core, audit: false, rotten };
        Some(self.send(sent, buf))
    }

    fn touches_bad(&self, volume: VolumeId, sectors: (u64, u64)) -> bool {
        let per_block = (BLOCK_BYTES / SECTOR_BYTES) as u64;
        let end = (sectors.0 + sectors.1).div_ceil(per_block);
        let range = (volume, sectors.0 / per_block)..(volume, end);
        sectors.1 > 0 && self.bad.range(range).next().is_some()
    }

    /// Blocks that were changed as a whole are rotten no more.
    fn heal(&mut self, sent: &Sent) {
        let per_block = (BLOCK_BYTES / SECTOR_BYTES) as u64;
        if matches!(sent.op, Op::Write | Op::Discard | Op::WriteZeroes) {
            let first = sent.sectors.0.div_ceil(per_block);
            for block in first..(sent.sectors.0 + sent.sectors.1) / per_block {
                self.bad.remove(&(sent.volume, block));
            }
        }
    }

    /// A request has ended: checks it and gives its buffer back.
    pub fn complete(
        &mut self,
        completion: Completion,
        oracle: &mut Oracle,
        shared: &mut Shared,
    ) -> Result<(), Violation> {
        let sent = self.sent.remove(&completion.tag).expect("a request ends once");
        let ok = completion.result.is_ok();
        let rotten = sent.rotten;
        match completion.result {
            Ok(()) => self.completed += 1,
            Err(Failure::NoSpace) => self.no_space += 1,
            // A core that knows of a shrunk or deleted volume already, or of a grown one not yet.
            Err(Failure::OutOfRange) if !sent.audit => {}
            Err(Failure::Device) if self.faulty && !sent.audit => self.failed += 1,
            Err(Failure::Media) if rotten || self.degraded => self.failed += 1,
            Err(failure) => panic!("{sent:?} failed: {failure}"),
        }
        assert!(!(sent.audit && rotten && ok), "rotten bytes were returned as good: {sent:?}");
        if ok {
            self.heal(&sent);
        }
        let range = sent.sectors.0..sent.sectors.0 + sent.sectors.1;
        let first = sent.sectors.0 * SECTOR_BYTES as u64 % BLOCK_BYTES as u64;
        let head = usize::try_from(first).expect("below a block");
        let volume = sent.volume;
        match sent.op {
            Op::Read if ok => {
                let buf = completion.buf.as_ref().expect("a read has a buffer");
                for (at, sector) in range.enumerate() {
                    let key = SectorKey { volume, sector };
                    let place = buf.mem().plus(head + at * SECTOR_BYTES);
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
            _ => range.for_each(|sector| oracle.sent(SectorKey { volume, sector }, ok, sent.fua)),
        }
        if let Some(buf) = completion.buf {
            assert_eq!(buf.arena, sent.core.get(), "a buffer comes home");
            shared.free(buf);
        }
        Ok(())
    }
}
