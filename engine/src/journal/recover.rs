//! Opening a table: checkpoint, journal, pending log; then everything on record.
//!
//! Synchronous and idempotent: a crash at any step leaves a state from which
//! the same table is recovered again. `docs/format.md` has the truth table of
//! what is believed when copies disagree. Never truncates silently: a journal
//! block below the watermark that is bad in both copies refuses the pool.

use std::collections::BTreeMap;

use super::end_mark::{ends, write_end_mark};
use super::log::{LogMemory, LogTag, PendingLog, survivors};
use crate::format::checkpoint::{Root, open_page};
use crate::format::journal_block::{HEADER_BYTES, Header, PAYLOAD_BYTES, open, seal};
use crate::format::layout::MetaLayout;
use crate::format::record::{FragmentKey, Mapped, Placement, Record, Records, VolumeRecord};
use crate::planted::{Bug, planted};
use crate::table::index::{Index, Span};
use crate::table::seat::fits;
use crate::units::{BLOCK_BYTES, Crc, DeviceId, DeviceOffset, SliceId, VolumeId};

/// Synchronous access to a pool's devices, for the time before and beside the reactor.
pub trait PoolIo {
    /// Fills `buf` from a device.
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError>;
    /// Writes `buf` to a device.
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError>;
    /// Makes everything written to a device durable.
    fn flush(&mut self, device: DeviceId) -> Result<(), IoError>;
    /// Number of devices.
    fn devices(&self) -> u8;
}

/// A device operation failed.
#[derive(Debug, thiserror::Error)]
#[error("device {device}: {cause}")]
pub struct IoError {
    /// Which device.
    pub device: DeviceId,
    /// What the system said.
    pub cause: std::io::Error,
}

/// Why a table cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No valid root in any copy.
    #[error("slice {slice}: both checkpoint roots are damaged in both copies")]
    NoRoot {
        /// Which table.
        slice: SliceId,
    },
    /// A checkpoint page is bad in both copies.
    #[error("slice {slice}: page {page} of checkpoint {sequence} is damaged in both copies")]
    Page {
        /// Which table.
        slice: SliceId,
        /// Which checkpoint.
        sequence: u64,
        /// Which page.
        page: u64,
    },
    /// A journal block that a flush acknowledged is bad in both copies.
    #[error("slice {slice}: journal block {seq} was acknowledged and is damaged in both copies")]
    Journal {
        /// Which table.
        slice: SliceId,
        /// Its sequence.
        seq: u64,
    },
    /// Records that no program of ours writes.
    #[error("slice {slice}: a record contradicts the table ({what})")]
    Record {
        /// Which table.
        slice: SliceId,
        /// How.
        what: &'static str,
    },
}

/// A volume as recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredVolume {
    /// Identity for life.
    pub uuid: [u8; 16],
    /// Size in bytes.
    pub size_bytes: u64,
    /// Size of new fragments.
    pub fragment: crate::units::FragmentSize,
    /// log2 of the presented block size.
    pub block_shift: u8,
    /// See [`VolumeRecord::flags`].
    pub flags: u8,
    /// Unique name.
    pub name: String,
}

/// What a table's records add up to.
#[derive(Debug, Default)]
pub struct State {
    /// Fragments, in a slice's table; their maps wait for first use.
    pub fragments: Index,
    /// Volumes, in the catalog.
    pub volumes: BTreeMap<VolumeId, RecoveredVolume>,
}

impl State {
    /// Applies encoded records. `fuzzy`: the state may be newer than the records.
    pub fn apply(&mut self, bytes: &[u8], fuzzy: bool) -> Result<(), &'static str> {
        let mut records = Records::new(bytes);
        let mut start = 0;
        while let Some(record) = records.next() {
            let record = record.map_err(|_| "malformed")?;
            if !self.apply_one(&record, &bytes[start..records.position()]) && !fuzzy {
                return Err("a record of a fragment that does not exist");
            }
            start = records.position();
        }
        Ok(())
    }

    /// False if it speaks of something that does not exist.
    fn apply_one(&mut self, record: &Record<'_>, raw: &[u8]) -> bool {
        let none = Mapped { page: None, written: 0, present: 0, cold_blocks: 0 };
        match *record {
            Record::Seat(key, placement, mapped) => self.place(key, &placement, &mapped),
            Record::Fragment(key, placement) => self.place(key, &placement, &none),
            Record::Blocks { key, first, entries } => {
                self.change(key, usize::from(first) + entries.len(), raw)
            }
            Record::Holes { key, first, count } => {
                self.change(key, usize::from(first) + usize::from(count), raw)
            }
            Record::Drop(key) => {
                let exists = self.fragments.seat(key).is_some();
                if exists {
                    self.fragments.remove_away(key);
                    // Another fragment of its page may come before it is made anew.
                    if self.fragments.seats(Span::of(key)).next().is_some() {
                        self.fragments.postpone(Span::of(key), raw);
                    }
                }
                exists
            }
            Record::Volume(volume) => {
                self.volumes.insert(volume.id, recovered_volume(&volume));
                true
            }
            Record::VolumeGone(id) => self.volumes.remove(&id).is_some(),
        }
    }

    /// The fragment lies there; it is made if it does not exist.
    fn place(&mut self, key: FragmentKey, placement: &Placement, mapped: &Mapped) -> bool {
        match self.fragments.seat(key) {
            Some((_, size)) if size == placement.size && fits(placement) => {
                self.fragments.replace_placement(key, placement);
                true
            }
            Some(_) => false,
            None => self.fragments.adopt(key, placement, mapped).is_some(),
        }
    }

    /// Blocks before `end` change: the record waits until the fragment's map is read.
    fn change(&mut self, key: FragmentKey, end: usize, raw: &[u8]) -> bool {
        let known = self.fragments.seat(key);
        let fits = known.is_some_and(|(_, size)| end <= size.blocks() as usize);
        if fits {
            self.fragments.postpone(Span::of(key), raw);
        }
        fits
    }
}

fn recovered_volume(volume: &VolumeRecord<'_>) -> RecoveredVolume {
    RecoveredVolume {
        uuid: volume.uuid,
        size_bytes: volume.size_bytes,
        fragment: volume.fragment,
        block_shift: volume.block_shift,
        flags: volume.flags,
        name: volume.name.to_owned(),
    }
}

/// Where the journal goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    /// Sequence of the next block.
    pub next_seq: u64,
    /// CRC of the last block.
    pub prev: Crc,
    /// Incarnation in the last block.
    pub incarnation: u32,
    /// Last durable group.
    pub group: u64,
}

/// A table as found on the medium, before the pending log.
#[derive(Debug)]
pub struct Found {
    /// What the records say.
    pub state: State,
    /// The checkpoint in force.
    pub root: Root,
    /// Where the journal goes on.
    pub end: JournalEnd,
    /// How many journal blocks, pages and roots were good in one copy only.
    pub damaged_copies: u64,
}

/// Identity that every structure of a table must carry.
#[derive(Clone, Copy, Debug)]
pub struct TableId {
    /// Low half of the pool's UUID.
    pub pool: u64,
    /// The table.
    pub slice: SliceId,
}

/// A part of a table that is kept in two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablePart {
    /// One of the two checkpoint roots.
    Root(u64),
    /// A page of the checkpoint in force.
    Page(u64),
    /// A map page.
    Map(u32),
    /// A journal block, by sequence.
    Journal(u64),
}

impl std::fmt::Display for TablePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TablePart::Root(which) => write!(f, "checkpoint root {which}"),
            TablePart::Page(page) => write!(f, "checkpoint page {page}"),
            TablePart::Map(page) => write!(f, "map page {page}"),
            TablePart::Journal(seq) => write!(f, "journal block {seq}"),
        }
    }
}

/// A copy that the other one proves wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedCopy {
    /// What it is a copy of.
    pub part: TablePart,
    /// 0 or 1.
    pub copy: usize,
    /// Where it lies.
    pub device: DeviceId,
    /// First byte on the device.
    pub offset: DeviceOffset,
}

/// Reads a table. Writes only if `repair`: over a copy that the other one proves wrong, over a
/// root's position that holds no root in either copy, and over what follows the journal's end.
pub fn read_table(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    repair: bool,
) -> Result<Found, RecoverError> {
    scan_table(io, meta, id, repair, &mut Vec::new())
}

/// As [`read_table`], listing every copy that was wrong, also if the table is refused.
pub fn scan_table(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    repair: bool,
    damaged: &mut Vec<DamagedCopy>,
) -> Result<Found, RecoverError> {
    let mut reader = Reader { io, meta, id, repair, damaged };
    let (root, alone) = reader.root()?;
    let mut state = State::default();
    reader.pages(&root, &mut state)?;
    let (end, ended) = reader.journal(&root, &mut state)?;
    if end.group < root.fuzzy_group {
        return Err(RecoverError::Journal { slice: id.slice, seq: end.next_seq });
    }
    if repair && alone {
        write_older_root(io, meta, id, &root)?;
    }
    // What an end mark covers, the chain does not let through either.
    let left = planted(Bug::TailLeft) || planted(Bug::BrokenChain);
    if repair && !ended && !left {
        write_end_mark(io, meta, id, end.next_seq)?;
    }
    Ok(Found { state, root, end, damaged_copies: damaged.len() as u64 })
}

struct Reader<'a> {
    io: &'a mut dyn PoolIo,
    meta: &'a MetaLayout,
    id: TableId,
    repair: bool,
    damaged: &'a mut Vec<DamagedCopy>,
}

impl Reader<'_> {
    fn read(&mut self, copy: usize, at: u64, buf: &mut [u8]) -> Result<(), RecoverError> {
        let (device, offset) = self.meta.place(copy, at);
        Ok(self.io.read(device, offset, buf)?)
    }

    fn mend(
        &mut self,
        part: TablePart,
        copy: usize,
        at: u64,
        good: &[u8],
    ) -> Result<(), RecoverError> {
        let (device, offset) = self.meta.place(copy, at);
        self.damaged.push(DamagedCopy { part, copy, device, offset });
        if self.repair {
            self.io.write(device, offset, good)?;
            self.io.flush(device)?;
        }
        Ok(())
    }

    /// The newest valid root of either position and copy; true if the other position has none.
    fn root(&mut self) -> Result<(Root, bool), RecoverError> {
        let mut best: Option<Root> = None;
        let mut alone = false;
        for which in 0..2 {
            let at = self.meta.root(self.id.slice, which);
            let mut blocks = [[0; BLOCK_BYTES]; 2];
            let mut roots = [None, None];
            for copy in 0..2 {
                self.read(copy, at, &mut blocks[copy])?;
                let root = Root::decode(&blocks[copy], self.id.pool, self.id.slice).ok();
                // One that strayed from the other position must not be mended into this one.
                roots[copy] = root.filter(|root| root.sequence % 2 == which);
            }
            let sequence = |root: &Option<Root>| root.as_ref().map(|root| root.sequence);
            let newest = usize::from(sequence(&roots[1]) > sequence(&roots[0]));
            alone |= roots[newest].is_none();
            if roots[0] != roots[1] && roots[newest].is_some() {
                self.mend(TablePart::Root(which), 1 - newest, at, &blocks[newest])?;
            }
            if sequence(&roots[newest]) > sequence(&best) {
                best = roots[newest].take();
            }
        }
        let root = best.ok_or(RecoverError::NoRoot { slice: self.id.slice })?;
        Ok((root, alone))
    }

    fn pages(&mut self, root: &Root, state: &mut State) -> Result<(), RecoverError> {
        let per_extent = u64::from(self.meta.extent_bytes) / BLOCK_BYTES as u64;
        let mut copies = [0, 1].map(|_| vec![0; self.meta.extent_bytes as usize]);
        for first in (0..root.pages).step_by(usize::try_from(per_extent).expect("few pages")) {
            let (slice, sequence) = (self.id.slice, root.sequence);
            let damaged = |page| RecoverError::Page { slice, sequence, page };
            let number = usize::try_from(first / per_extent).expect("a root names few extents");
            let extent = root.extents.get(number).filter(|extent| **extent < self.meta.extents);
            let at = self.meta.extent(*extent.ok_or_else(|| damaged(first))?);
            let count = usize::try_from(per_extent.min(root.pages - first)).expect("few pages");
            for (copy, bytes) in copies.iter_mut().enumerate() {
                self.read(copy, at, &mut bytes[..count * BLOCK_BYTES])?;
            }
            for (page, within) in (first..).zip(0..count) {
                let bytes = within * BLOCK_BYTES..(within + 1) * BLOCK_BYTES;
                let both = [&copies[0][bytes.clone()], &copies[1][bytes.clone()]];
                let index = u32::try_from(page).unwrap_or(u32::MAX);
                let pool = self.id.pool;
                let open = |block| open_page(block, pool, slice, sequence, index).ok();
                let at = at + bytes.start as u64;
                let part = TablePart::Page(page);
                let records = match [open(both[0]), open(both[1])] {
                    [Some(records), Some(_)] => records,
                    [Some(records), None] => {
                        self.mend(part, 1, at, both[0])?;
                        records
                    }
                    [None, Some(records)] => {
                        self.mend(part, 0, at, both[1])?;
                        records
                    }
                    [None, None] => return Err(damaged(page)),
                };
                self.apply(state, records, true)?;
            }
        }
        let outside = |page: u32, size| page.saturating_add(Span::pages(size)) > self.meta.pages();
        let mut seats = state.fragments.all();
        if seats.any(|(_, seat, size)| seat.page().is_some_and(|page| outside(page, size))) {
            let what = "a map page outside the zone";
            return Err(RecoverError::Record { slice: self.id.slice, what });
        }
        Ok(())
    }

    fn apply(&self, state: &mut State, records: &[u8], fuzzy: bool) -> Result<(), RecoverError> {
        state
            .apply(records, fuzzy)
            .map_err(|what| RecoverError::Record { slice: self.id.slice, what })
    }

    /// Replays complete groups from the root's start on. True if nothing that stands behind the
    /// end can ever be believed.
    fn journal(
        &mut self,
        root: &Root,
        state: &mut State,
    ) -> Result<(JournalEnd, bool), RecoverError> {
        let rings = self.rings()?;
        let mut end = JournalEnd {
            next_seq: root.start_seq,
            prev: root.start_prev,
            incarnation: root.incarnation,
            group: root.start_group - 1,
        };
        let ring = u64::from(self.meta.journal_blocks);
        let mut records = Vec::new();
        while end.next_seq - root.start_seq < ring {
            records.clear();
            let Some(next) = self.group(&rings, &end, &mut records)? else { break };
            self.apply(state, &records, next.group <= root.fuzzy_group)?;
            end = next;
        }
        // A watermark at or above the end says that more was acknowledged than can be read.
        let promised = rings.iter().flat_map(|ring| ring.chunks_exact(BLOCK_BYTES)).any(|block| {
            open(block).is_ok_and(|(header, ..)| {
                self.ours(&header) && header.durable.wrapping_add(1) > end.next_seq
            })
        });
        if promised {
            return Err(RecoverError::Journal { slice: self.id.slice, seq: end.next_seq });
        }
        let at = self.position(end.next_seq);
        let ended =
            |ring: &Vec<u8>| ends(&ring[at..at + BLOCK_BYTES], self.meta, self.id, end.next_seq);
        // Behind the end of a full ring stands its beginning.
        let full = end.next_seq - root.start_seq >= ring;
        let ended = full || rings.iter().all(ended);
        Ok((end, ended))
    }

    /// Where a block stands in its ring, in bytes.
    fn position(&self, seq: u64) -> usize {
        let position = usize::try_from(seq % u64::from(self.meta.journal_blocks));
        position.expect("a ring fits in memory") * BLOCK_BYTES
    }

    fn rings(&mut self) -> Result<[Vec<u8>; 2], RecoverError> {
        let bytes = self.meta.journal_blocks as usize * BLOCK_BYTES;
        let mut rings = [vec![0; bytes], vec![0; bytes]];
        let at = self.meta.journal(self.id.slice, 0);
        for (copy, ring) in rings.iter_mut().enumerate() {
            self.read(copy, at, ring)?;
        }
        Ok(rings)
    }

    fn ours(&self, header: &Header) -> bool {
        header.pool == self.id.pool && header.slice == self.id.slice
    }

    /// Reads the group behind `end`; `None` if it is not complete in either copy.
    fn group(
        &mut self,
        rings: &[Vec<u8>; 2],
        end: &JournalEnd,
        records: &mut Vec<u8>,
    ) -> Result<Option<JournalEnd>, RecoverError> {
        let mut next = end.clone();
        let mut repairs = Vec::new();
        loop {
            let seq = next.next_seq;
            let at = self.position(seq);
            let index = seq - end.next_seq;
            let valid = |ring: &'_ Vec<u8>| {
                let (header, crc, payload) = open(&ring[at..at + BLOCK_BYTES]).ok()?;
                let fits = self.ours(&header)
                    && header.seq == seq
                    && u64::from(header.index) == index
                    && (header.prev == next.prev || planted(Bug::BrokenChain))
                    && header.incarnation >= next.incarnation
                    && header.group == end.group + 1;
                fits.then(|| (header, crc, payload.to_vec()))
            };
            let mut found = rings.each_ref().map(valid);
            let written = |at: usize| found[at].as_ref().map(|(header, ..)| header.incarnation);
            // Where both fit, the later one was written by who did not believe the other.
            let newest = usize::from(written(1) > written(0));
            if found[0] != found[1] {
                repairs.push((1 - newest, seq, rings[newest][at..at + BLOCK_BYTES].to_vec()));
            }
            let Some((header, crc, payload)) = found[newest].take() else {
                if planted(Bug::TornGroup) && index > 0 {
                    next.group += 1;
                    break;
                }
                return Ok(None);
            };
            records.extend_from_slice(&payload);
            next.next_seq += 1;
            next.prev = crc;
            next.incarnation = header.incarnation;
            if header.index + 1 == header.blocks {
                next.group = header.group;
                break;
            }
        }
        for (copy, seq, good) in repairs {
            let at = self.meta.journal(self.id.slice, seq);
            self.mend(TablePart::Journal(seq), copy, at, &good)?;
        }
        Ok(Some(next))
    }
}

/// Appends a group to both copies of the journal, durably.
///
/// # Panics
/// If the ring is full: openers leave room for the pending log's two groups.
pub fn write_group(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    end: &mut JournalEnd,
    records: &[u8],
    incarnation: u32,
) -> Result<(), IoError> {
    // Only a group that is whole and durable is part of the chain: a failed one is written over.
    let mut next = end.clone();
    let blocks = u16::try_from(records.len().div_ceil(PAYLOAD_BYTES)).expect("a bounded group");
    let durable = next.next_seq.wrapping_sub(1);
    for (index, payload) in (0u16..).zip(records.chunks(PAYLOAD_BYTES)) {
        let mut block = [0; BLOCK_BYTES];
        block[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let header = Header {
            pool: id.pool,
            slice: id.slice,
            index,
            blocks,
            bytes: u16::try_from(payload.len()).expect("below a block"),
            seq: next.next_seq,
            group: next.group + 1,
            durable,
            prev: next.prev,
            incarnation,
        };
        next.prev = seal(&mut block, &header);
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.journal(id.slice, next.next_seq));
            io.write(device, offset, &block)?;
        }
        next.next_seq += 1;
    }
    next.incarnation = incarnation;
    next.group += 1;
    for copy in 0..2 {
        io.flush(meta.copies[copy].0)?;
    }
    *end = next;
    Ok(())
}

/// Writes the first, empty checkpoint of a table, at both positions, and the end of its journal.
/// Other blocks of an earlier pool need no erasing: they carry its UUID.
pub fn write_empty_root(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
) -> Result<(), IoError> {
    let root = Root { sequence: 1, start_seq: 1, start_group: 1, ..Root::default() };
    let block = root.encode(id.pool, id.slice);
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.root(id.slice, root.sequence % 2));
        io.write(device, offset, &block)?;
    }
    write_older_root(io, meta, id, &root)?;
    write_end_mark(io, meta, id, root.start_seq)
}

/// Puts a root below the one in force at the other position, durably.
///
/// A newer one may lie there: written to one copy before a crash, and not readable
/// just now. What is not believed today must not be believed later, when its
/// extents and its part of the journal have served others.
fn write_older_root(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    root: &Root,
) -> Result<(), IoError> {
    // Only a forged root in force has sequence 0: the first one has 1.
    let Some(sequence) = root.sequence.checked_sub(1) else { return Ok(()) };
    let block = Root { sequence, ..root.clone() }.encode(id.pool, id.slice);
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.root(id.slice, sequence % 2));
        io.write(device, offset, &block)?;
        io.flush(device)?;
    }
    Ok(())
}

/// Completes a found table with what a dead process left in the pending log:
/// applies it, flushes the data it speaks of and journals it, then starts a new log.
pub fn replay_log(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    found: &mut Found,
    memory: LogMemory,
    tag: &LogTag,
    incarnation: u32,
) -> Result<PendingLog, RecoverError> {
    let mut left = survivors(&memory, tag);
    if planted(Bug::HandoverWithoutDrain) {
        left.clear();
    }
    let again = planted(Bug::RecoveryAppliedTwice);
    let is_fresh = |(group, _): &(u64, _)| *group > found.end.group || again;
    let fresh: Vec<_> = left.into_iter().filter(is_fresh).collect();
    if !fresh.is_empty() {
        for device in 0..io.devices() {
            io.flush(DeviceId::new(device))?;
        }
    }
    for (group, records) in fresh {
        if group != found.end.group + 1 && !again {
            return Err(RecoverError::Record { slice: id.slice, what: "pending log has a gap" });
        }
        found
            .state
            .apply(&records, false)
            .map_err(|what| RecoverError::Record { slice: id.slice, what })?;
        write_group(io, meta, id, &mut found.end, &records, incarnation)?;
    }
    Ok(PendingLog::start(memory, tag, found.end.group + 1))
}
