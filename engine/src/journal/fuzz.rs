//! Fuzz target of recovery: see [`crate::fuzz`].
//!
//! The input is a program that builds the medium of one table: groups, checkpoints and a
//! pending log of any records, written by the real encoders, and damage to any block of them.

use std::collections::HashMap;

use super::chain::{JournalEnd, write_group};
use super::io::{IoError, PoolIo};
use super::log::{LogMemory, LogTag, PendingLog};
use super::parts::TableId;
use super::recover::{Found, read_table, replay_log, write_empty_root};
use crate::format::checkpoint::{PAGE_HEADER_BYTES, PAGE_PAYLOAD_BYTES, Root, seal_page};
use crate::format::fuzz::{POOL, SLICE, block, reseal};
use crate::format::journal_block::{MAX_GROUP_BYTES, PAYLOAD_BYTES};
use crate::format::layout::{CATALOG, MetaLayout, chunk_bytes};
use crate::format::record::{
    Entry, FragmentKey, MAX_RECORD_BYTES, Mapped, Placement, VolumeRecord, put_blocks, put_drop,
    put_fragment, put_holes, put_seat, put_volume, put_volume_gone,
};
use crate::format::superblock::Role;
use crate::table::assemble::assemble;
use crate::table::entry::{Place, SlotRef};
use crate::table::index::Span;
use crate::table::open::{claim_pages, claim_slots};
use crate::table::pages::Pages;
use crate::table::space::{DeviceGeometry, Space};
use crate::units::{
    BLOCK_BYTES, Crc, DeviceId, DeviceOffset, FragmentSize, Generation, SliceId, VolumeId,
};
use crate::volume::catalog::Catalog;

/// Short rings, so that inputs fill them.
const META: MetaLayout = MetaLayout {
    journal_blocks: 16,
    extent_bytes: 16 << 10,
    extents: 4,
    copies: [
        (DeviceId::new(0), DeviceOffset::new(1 << 20)),
        (DeviceId::new(1), DeviceOffset::new(1 << 20)),
    ],
};
const DATA_OFFSET: u64 = 64 << 20;
const TAG: LogTag = LogTag { boot: [1; 16], pool: [2; 16], slice: SLICE };
/// Most steps of an input.
const STEPS: usize = 64;

/// Sparse devices in memory.
pub(crate) struct Disks {
    blocks: HashMap<(DeviceId, u64), [u8; BLOCK_BYTES]>,
    devices: u8,
    writes: u64,
}

impl Disks {
    /// Devices full of zeros.
    pub(crate) fn new(devices: u8) -> Self {
        Self { blocks: HashMap::new(), devices, writes: 0 }
    }
}

impl PoolIo for Disks {
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError> {
        assert!(device.get() < self.devices);
        let first = offset.get() / BLOCK_BYTES as u64;
        for (at, out) in (first..).zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            match self.blocks.get(&(device, at)) {
                Some(block) => out.copy_from_slice(block),
                None => out.fill(0),
            }
        }
        Ok(())
    }
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError> {
        assert!(device.get() < self.devices);
        self.writes += 1;
        let first = offset.get() / BLOCK_BYTES as u64;
        for (at, bytes) in (first..).zip(buf.chunks_exact(BLOCK_BYTES)) {
            self.blocks.insert((device, at), block(bytes));
        }
        Ok(())
    }
    fn flush(&mut self, _: DeviceId) -> Result<(), IoError> {
        Ok(())
    }
    fn devices(&self) -> u8 {
        self.devices
    }
}

/// The input, from front to back; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }
    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
    fn key(&mut self) -> FragmentKey {
        let start = u32::from(self.byte()) * 16;
        FragmentKey { volume: VolumeId::new(1), start }
    }
    /// A slot of any device, mostly where slots may be.
    fn slot(&mut self) -> Option<SlotRef> {
        match self.byte() {
            0 => None,
            255 => SlotRef::from_raw(self.long()),
            byte => {
                let block = DATA_OFFSET / BLOCK_BYTES as u64 + u64::from(self.short());
                Some(SlotRef { device: DeviceId::new(byte % 4), block })
            }
        }
    }
}

struct Medium {
    disks: Disks,
    id: TableId,
    end: JournalEnd,
    sequence: u64,
    log: PendingLog,
    /// Records of the next group, page or log entry.
    records: Vec<u8>,
}

impl Medium {
    fn new(slice: SliceId) -> Self {
        let id = TableId { pool: POOL, slice };
        let mut disks = Disks::new(2);
        write_empty_root(&mut disks, &META, id).expect("memory does not fail");
        let end = JournalEnd { next_seq: 1, prev: Crc::new(0), incarnation: 0, group: 0 };
        let log = PendingLog::start(LogMemory::heap(), &TAG, 1);
        Self { disks, id, end, sequence: 1, log, records: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 9 {
            0..=3 => self.record(input),
            4 => self.commit(input.byte()),
            5 => self.checkpoint(input),
            6 => self.damage(input),
            7 => self.pend(input.byte()),
            _ => self.go_back(input.byte()),
        }
    }

    fn record(&mut self, input: &mut Input<'_>) {
        let mut out = [0; MAX_RECORD_BYTES];
        let kind = input.byte() % 8;
        let len = match kind {
            0 | 7 => {
                let size = FragmentSize::from_log2(16 + input.byte() % 9).expect("in range");
                let (key, generation) = (input.key(), Generation::new(input.short().into()));
                let fast = [input.slot(), input.slot()];
                let placement = Placement { size, generation, fast, cold: input.slot() };
                let page = Some(input.byte()).filter(|page| *page < 64).map(u32::from);
                let mapped = Mapped { page, written: 1, present: 1, cold_blocks: 0 };
                match kind {
                    0 => put_fragment(&mut out, key, &placement),
                    _ => put_seat(&mut out, key, &placement, &mapped),
                }
            }
            1 => {
                let (key, first, count) = (input.key(), input.short(), input.byte() % 4 + 1);
                let entries: Vec<Entry> = (0..count)
                    .map(|_| Entry { place: Place::from_raw(input.short()), crc: Crc::new(7) })
                    .collect();
                put_blocks(&mut out, key, first, entries.into_iter())
            }
            2 => put_holes(&mut out, input.key(), input.short(), input.short()),
            3 => put_drop(&mut out, input.key()),
            4 => {
                let volume = VolumeRecord {
                    id: VolumeId::new(u32::from_le_bytes(input.bytes())),
                    uuid: [3; 16],
                    size_bytes: input.long(),
                    fragment: FragmentSize::DEFAULT,
                    block_shift: if input.byte() & 1 == 0 { 9 } else { 12 },
                    flags: input.byte(),
                    name: ["a", "b", ""][usize::from(input.byte() % 3)],
                };
                put_volume(&mut out, &volume)
            }
            5 => put_volume_gone(&mut out, VolumeId::new(u32::from_le_bytes(input.bytes()))),
            _ => {
                let raw: [u8; 24] = input.bytes();
                out[..24].copy_from_slice(&raw);
                usize::from(input.byte() % 25)
            }
        };
        if self.records.len() + len <= MAX_GROUP_BYTES {
            self.records.extend_from_slice(&out[..len]);
        }
    }

    /// Records so far as a group, sometimes as one of several blocks.
    fn commit(&mut self, how: u8) {
        if how & 1 != 0 {
            let key = FragmentKey { volume: VolumeId::new(3), start: 0 };
            while self.records.len() < PAYLOAD_BYTES + MAX_RECORD_BYTES {
                self.records.extend_from_slice(&empty_fragment(key));
            }
        }
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.append(&records, u32::from(how >> 1));
        }
    }

    fn append(&mut self, records: &[u8], incarnation: u32) {
        write_group(&mut self.disks, &META, self.id, &mut self.end, records, incarnation)
            .expect("memory does not fail");
    }

    fn checkpoint(&mut self, input: &mut Input<'_>) {
        self.sequence = self.sequence.wrapping_add(u64::from(input.byte() % 3));
        let mut page = [0; BLOCK_BYTES];
        let records = std::mem::take(&mut self.records);
        let len = records.len().min(PAGE_PAYLOAD_BYTES);
        page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + len].copy_from_slice(&records[..len]);
        let bytes = u16::try_from(len).expect("less than a block");
        seal_page(&mut page, POOL, self.id.slice, self.sequence, 0, bytes);
        let extent = u32::from(input.byte() % 4);
        let mut root = Root {
            sequence: self.sequence,
            start_seq: self.end.next_seq,
            start_prev: self.end.prev,
            incarnation: self.end.incarnation,
            start_group: self.end.group + 1,
            fuzzy_group: self.end.group + u64::from(input.byte() % 3),
            pages: u64::from(len > 0),
            extents: vec![extent],
        };
        if input.byte() & 7 == 1 {
            (root.start_seq, root.start_group) = (input.long(), input.long());
            (root.pages, root.fuzzy_group) = (input.long(), input.long());
        }
        self.put(META.extent(extent), &page);
        let at = META.root(self.id.slice, self.sequence % 2);
        self.put(at, &root.encode(POOL, self.id.slice));
    }

    /// Writes both copies of a block.
    fn put(&mut self, at: u64, block: &[u8; BLOCK_BYTES]) {
        for copy in 0..2 {
            let (device, offset) = META.place(copy, at);
            self.disks.write(device, offset, block).expect("memory does not fail");
        }
    }

    /// Changes some bytes of one or both copies of a block; the checksum may hold again.
    fn damage(&mut self, input: &mut Input<'_>) {
        let (how, which) = (input.byte(), input.byte());
        let at = match how % 4 {
            0 => META.root(self.id.slice, u64::from(which % 2)),
            1 => META.extent(u32::from(which % 4)),
            _ => META.journal(self.id.slice, u64::from(which)),
        };
        let start = usize::from(input.short()) % (BLOCK_BYTES - 8);
        let change: [u8; 8] = input.bytes();
        for copy in 0..2 {
            if how & 4 << copy != 0 {
                continue;
            }
            let (device, offset) = META.place(copy, at);
            let mut block = [0; BLOCK_BYTES];
            self.disks.read(device, offset, &mut block).expect("memory does not fail");
            for (byte, change) in block[start..].iter_mut().zip(change) {
                *byte ^= change;
            }
            if how & 16 != 0 {
                reseal(&mut block, 4);
            }
            self.disks.write(device, offset, &block).expect("memory does not fail");
        }
    }

    /// Records so far become the pending log's group.
    fn pend(&mut self, how: u8) {
        let records = std::mem::take(&mut self.records);
        if how & 1 != 0 {
            self.log = PendingLog::start(LogMemory::heap(), &TAG, self.end.group + 1);
        }
        if self.log.load() + records.len() <= MAX_GROUP_BYTES && !records.is_empty() {
            self.log.append(|out| {
                out[..records.len()].copy_from_slice(&records);
                records.len()
            });
        }
        if how & 2 != 0 && !self.log.is_empty() && !self.log.is_committing() {
            self.log.begin_commit();
        }
    }

    /// The chain goes on from an earlier group, as after a lost write.
    fn go_back(&mut self, how: u8) {
        if let Ok(found) = read_table(&mut self.disks, &META, self.id, how & 1 != 0) {
            self.end = found.end;
        }
    }
}

/// A medium of any contents: what recovery makes of it.
pub fn recovery(bytes: &[u8]) {
    let mut input = Input(bytes);
    let slice = if input.byte() & 1 == 0 { SLICE } else { CATALOG };
    let mut medium = Medium::new(slice);
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        medium.step(&mut input);
    }
    let Medium { mut disks, id, log, .. } = medium;
    let before = disks.writes;
    let looked = read_table(&mut disks, &META, id, false);
    assert_eq!(disks.writes, before, "looking changes nothing");
    let repaired = read_table(&mut disks, &META, id, true);
    assert_eq!(looked.is_ok(), repaired.is_ok());
    let (Ok(looked), Ok(mut found)) = (looked, repaired) else { return };
    assert_same(&looked, &found);
    let again = read_table(&mut disks, &META, id, false).expect("repaired");
    assert_same(&again, &found);
    assert_eq!(again.damaged_copies, 0, "every copy that was wrong is mended");
    open(again);
    let used = found.end.next_seq - found.root.start_seq;
    // Openers leave room for the groups of the pending log.
    if used == 0 {
        let memory = log.into_memory();
        if replay_log(&mut disks, &META, id, &mut found, memory, &TAG, u32::MAX).is_ok() {
            appended(&mut disks, id, found);
        }
    }
}

fn empty_fragment(key: FragmentKey) -> Vec<u8> {
    let (size, generation) = (FragmentSize::MIN, Generation::new(1));
    let mut out = vec![0; MAX_RECORD_BYTES];
    let placement = Placement { size, generation, fast: [None; 2], cold: None };
    let len = put_fragment(&mut out, key, &placement);
    out.truncate(len);
    out
}

fn assert_same(one: &Found, other: &Found) {
    assert_eq!((&one.root, &one.end), (&other.root, &other.end));
    assert_eq!(one.state.volumes, other.state.volumes);
    let seats = |found: &Found| {
        let index = &found.state.fragments;
        let mut seats: Vec<_> = index
            .all()
            .map(|(key, seat, size)| {
                let pending = index.pending(Span::of(key)).to_vec();
                (key, seat.placement(size), seat.mapped(), pending)
            })
            .collect();
        seats.sort_by_key(|(key, ..)| *key);
        seats
    };
    assert_eq!(seats(one), seats(other));
}

/// What is committed behind a recovered journal is there at the next recovery.
fn appended(disks: &mut Disks, id: TableId, mut found: Found) {
    let blocks = found.end.next_seq - found.root.start_seq;
    if blocks >= u64::from(META.journal_blocks) {
        return;
    }
    let records = empty_fragment(FragmentKey { volume: VolumeId::new(2), start: 0 });
    write_group(disks, &META, id, &mut found.end, &records, u32::MAX)
        .expect("memory does not fail");
    found.state.apply(&records, false).expect("a new fragment");
    let again = read_table(disks, &META, id, false).expect("what was committed");
    assert_same(&again, &found);
}

/// Builds what the server builds from it.
fn open(found: Found) {
    let roles = [Role::Fast, Role::Fast, Role::Cold];
    let devices: Vec<_> = (0..)
        .zip(roles)
        .map(|(id, role)| DeviceGeometry {
            id: DeviceId::new(id),
            role,
            data_offset: DATA_OFFSET,
            chunk_bytes: chunk_bytes(role),
            chunks: 8,
        })
        .collect();
    let index = &found.state.fragments;
    let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
    for (_, seat, size) in index.all() {
        let _ = claim_slots(&seat.placement(size), &devices, &mut space);
    }
    let mut pages = Pages::default();
    let _ = claim_pages(index, |page, count| pages.adopt(page, count));
    for (key, ..) in index.all() {
        let _ = assemble(index, Span::of(key), &|_, _| None);
    }
    let _ = Catalog::open(found, POOL, 1).serving();
}
