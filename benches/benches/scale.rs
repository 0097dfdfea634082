//! A large table: lookups among ten million fragments, opening a million,
//! replaying full journals. Prints medians of five; `cargo bench -p benches --bench scale`.
//!
//! The pool is a sparse file of 2 TiB in the target folder, made anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use engine::device::Store;
use engine::format::checkpoint::{PAGE_HEADER_BYTES, PAGE_PAYLOAD_BYTES, Root, seal_page};
use engine::format::journal_block::{MAX_GROUP_BLOCKS, PAYLOAD_BYTES};
use engine::format::layout::{MetaLayout, NewDevice};
use engine::format::record::{
    Entry, FragmentKey, Mapped, Placement, blocks_bytes, put_blocks, put_seat, seat_bytes,
};
use engine::format::superblock::Role;
use engine::journal::chain::{JournalEnd, write_group};
use engine::journal::io::PoolIo;
use engine::journal::log::LogMemory;
use engine::pool::stores::StorePool;
use engine::pool::{self, Pool};
use engine::table::entry::{Place, SlotRef};
use engine::table::index::{Index, Lookup};
use engine::table::open::{claim_pages, claim_slots};
use engine::table::space::Space;
use engine::units::{
    BLOCK_BYTES, Crc, DeviceId, FragmentSize, Generation, SLICES, SliceId, VolumeId,
};
use engine::volume::placement::slice_of;

const VOLUME: VolumeId = VolumeId::new(1);
const MIB: u64 = 1 << 20;
const LOOKED_UP: u32 = 10_000_000;
const OPENED: u32 = 1_000_000;
const BATCH: usize = 32;
const ROUNDS: usize = 5;

fn key(fragment: u32) -> FragmentKey {
    FragmentKey { volume: VOLUME, start: fragment * 16 }
}

fn home(fragment: u32) -> usize {
    usize::from(slice_of(VOLUME, u64::from(fragment) * MIB).get())
}

/// The `number`-th slot of a device whose chunks start at `first`.
fn placement(first: u64, number: u32) -> Placement {
    let block = first / BLOCK_BYTES as u64 + u64::from(number) * 288;
    let slot = SlotRef { device: DeviceId::new(0), block };
    let size = FragmentSize::DEFAULT;
    Placement { size, generation: Generation::new(1), fast: [Some(slot), None], cold: None }
}

fn mapped(page: u32) -> Mapped {
    Mapped { page: Some(page), written: 1, present: 256, cold_blocks: 0 }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    u32::try_from(*state >> 33).expect("31 bits")
}

fn lookups() {
    let mut slices: Vec<_> = (0..SLICES).map(|_| Index::default()).collect();
    for fragment in 0..LOOKED_UP {
        let placed = placement(0, fragment);
        slices[home(fragment)].adopt(key(fragment), &placed, &mapped(fragment / 2)).expect("new");
    }
    let bytes: usize = slices.iter().map(Index::heap_bytes).sum();
    println!("index of {LOOKED_UP} fragments: {:.1} bytes each", ratio(bytes, LOOKED_UP));
    let mut state = 7;
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        let mut took = 0.0;
        let batches = 20_000;
        for _ in 0..batches {
            let blocks: [u64; BATCH] =
                std::array::from_fn(|_| u64::from(random(&mut state) % LOOKED_UP) * 256 + 17);
            let began = Instant::now();
            let slices = blocks.map(|block| {
                let slice = &slices[usize::from(slice_of(VOLUME, block << 12).get())];
                slice.expect(VOLUME, block);
                (slice, block)
            });
            slices.iter().for_each(|(slice, block)| slice.expect_seat(VOLUME, *block));
            let found = slices.map(|(slice, block)| {
                let spot = slice.spot(VOLUME, block, FragmentSize::DEFAULT);
                slice.lookup(spot.key)
            });
            took += began.elapsed().as_secs_f64();
            assert!(std::hint::black_box(found).iter().all(|found| *found == Lookup::Away));
        }
        figures.push(took * 1e9 / (f64::from(batches) * BATCH as f64));
    }
    println!("uniform random lookup, batches of {BATCH}: {:.1} ns each", median(figures));
}

fn ratio(bytes: usize, count: u32) -> f64 {
    bytes as f64 / f64::from(count)
}

/// Writes the checkpoint of a slice whose fragments are `fragments`.
fn write_checkpoint(
    io: &mut StorePool,
    pool: &Pool,
    slice: SliceId,
    fragments: &[(u32, u32)],
    extents: &mut u32,
) {
    let (meta, id) = (&pool.meta, pool.table(slice));
    let mut root = Root { sequence: 2, start_seq: 1, start_group: 1, ..Root::default() };
    let per_page = PAGE_PAYLOAD_BYTES / seat_bytes();
    let first = pool.superblocks[0].data_offset;
    for extent in fragments.chunks(per_page * 16) {
        let mut bytes = vec![0; meta.extent_bytes as usize];
        for (page, seats) in bytes.chunks_exact_mut(BLOCK_BYTES).zip(extent.chunks(per_page)) {
            let mut at = 0;
            for (fragment, number) in seats {
                let out = &mut page[PAGE_HEADER_BYTES + at..];
                let page = meta.pages() / 2 + fragment / 2;
                at += put_seat(out, key(*fragment), &placement(first, *number), &mapped(page));
            }
            let index = u32::try_from(root.pages).expect("few");
            let used = u16::try_from(at).expect("below a block");
            seal_page(page, id.pool, slice, root.sequence, index, used);
            root.pages += 1;
        }
        write_both(io, meta, meta.extent(*extents), &bytes);
        root.extents.push(*extents);
        *extents += 1;
    }
    write_both(io, meta, meta.root(slice, 0), &root.encode(id.pool, slice));
}

fn write_both(io: &mut StorePool, meta: &MetaLayout, at: u64, bytes: &[u8]) {
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, at);
        io.write(device, offset, bytes).expect("written");
    }
}

/// Fills a slice's journal; returns the records in it.
fn fill_journal(io: &mut StorePool, pool: &Pool, slice: SliceId, fragments: &[(u32, u32)]) -> u64 {
    let mut end = JournalEnd { next_seq: 1, prev: Crc::new(0), incarnation: 0, group: 0 };
    let group = MAX_GROUP_BLOCKS * PAYLOAD_BYTES;
    let (mut records, mut state) = (0, u64::from(slice.get()));
    let room = u64::from(pool.meta.journal_blocks) - 45;
    while end.next_seq + MAX_GROUP_BLOCKS as u64 <= room {
        let mut bytes = vec![0; group + 64];
        let mut at = 0;
        while at + blocks_bytes(1) <= group {
            let (fragment, _) = fragments[random(&mut state) as usize % fragments.len()];
            let first = u16::try_from(random(&mut state) % 256).expect("small");
            let entry =
                Entry { place: Place::fast(0, u32::from(first)), crc: Crc::new(first.into()) };
            at += put_blocks(&mut bytes[at..], key(fragment), first, std::iter::once(entry));
            records += 1;
        }
        let id = pool.table(slice);
        write_group(io, &pool.meta, id, &mut end, &bytes[..at], 1).expect("written");
    }
    records
}

/// Opens the pool as a server does; the seconds it took.
fn open(io: &mut StorePool, sizes: &[u64], fragments: u32) -> f64 {
    let began = Instant::now();
    let pool = pool::open(io, sizes).expect("opens");
    let mut seen = 0;
    for slice in (0..SLICES).map(SliceId::new) {
        let memory = LogMemory::heap();
        let (found, _) = pool::recover_table(io, &pool, slice, memory, [1; 16]).expect("recovers");
        let index = found.state.fragments;
        let devices = pool.devices();
        let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
        for (_, seat, size) in index.all() {
            claim_slots(&seat.placement(size), &devices, &mut space).expect("once");
        }
        claim_pages(&index, |_, _| true).expect("once");
        seen += index.len();
    }
    assert_eq!(seen, fragments as usize);
    began.elapsed().as_secs_f64()
}

fn opening(path: &Path) {
    let _ = std::fs::remove_file(path);
    let size_bytes = 2 << 40;
    let stores = [Arc::new(Store::create(path, size_bytes).expect("a sparse file"))];
    let mut io = StorePool::new(&stores).expect("memory");
    let device = NewDevice { size_bytes, role: Role::Fast };
    let pool = pool::create(&mut io, &[device], || [3; 16]).expect("made");
    let mut slices = vec![Vec::new(); usize::from(SLICES)];
    let mut next = 0;
    for fragment in 0..OPENED {
        // Slots of a chunk belong to one slice.
        let of: &mut Vec<(u32, u32)> = &mut slices[home(fragment)];
        let number = match of.last() {
            Some((_, last)) if last % 16 != 15 => last + 1,
            _ => {
                next += 16;
                next - 16
            }
        };
        of.push((fragment, number));
    }
    let mut extents = 16;
    for (slice, fragments) in (0..).map(SliceId::new).zip(&slices) {
        write_checkpoint(&mut io, &pool, slice, fragments, &mut extents);
    }
    io.flush(DeviceId::new(0)).expect("flushed");
    let sizes = [size_bytes];
    let plain = median((0..ROUNDS).map(|_| open(&mut io, &sizes, OPENED)).collect());
    println!("a pool with {OPENED} fragments opens in {plain:.2} s");
    let mut records = 0;
    for (slice, fragments) in (0..).map(SliceId::new).zip(&slices) {
        records += fill_journal(&mut io, &pool, slice, fragments);
    }
    let full = median((0..ROUNDS).map(|_| open(&mut io, &sizes, OPENED)).collect());
    let rate = records as f64 / (full - plain) / 1e6;
    println!("and {records} records in its journals in {full:.2} s: {rate:.1} M records/s");
    let _ = std::fs::remove_file(path);
}

fn main() {
    lookups();
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    opening(&Path::new(&target).join("scale.img"));
}
