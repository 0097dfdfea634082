//! The engine's inner loops: checksums, records, journal, table, placement, the mailbox.

use std::hint::black_box;

use benches::core::{Core, Tier, Work};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::core::mailbox::mesh;
use engine::core::wake::WakeSet;
use engine::format::journal_block::MAX_GROUP_BYTES;
use engine::format::record::{Entry, FragmentKey, Records, put_blocks};
use engine::journal::log::{LogMemory, LogTag, PendingLog};
use engine::journal::state::State;
use engine::table::entry::Place;
use engine::units::{BLOCK_BYTES, CoreId, Crc, SliceId, VolumeId, crc32c};
use engine::volume::placement::slice_of;

fn checksum(c: &mut Criterion) {
    let block = [0x5a; BLOCK_BYTES];
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    group.bench_function("crc32c of a block", |b| b.iter(|| crc32c(black_box(&block))));
    group.finish();
}

fn records(c: &mut Criterion) {
    let bytes = benches::window_records(60_000);
    let count = Records::new(&bytes).count() as u64;
    let mut group = c.benchmark_group("records");
    group.throughput(Throughput::Elements(count));
    group.bench_function("decode", |b| b.iter(|| Records::new(black_box(&bytes)).count()));
    group.bench_function("replay", |b| {
        b.iter(|| {
            let mut state = State::default();
            state.apply(black_box(&bytes), true).map(|()| state)
        });
    });
    group.finish();
}

fn journal(c: &mut Criterion) {
    let tag = LogTag { boot: [1; 16], pool: [2; 16], slice: SliceId::new(3) };
    let mut log = PendingLog::start(LogMemory::heap(), &tag, 1);
    let key = FragmentKey { volume: VolumeId::new(1), start: 0 };
    let entry = Entry { place: Place::fast(0, 7), crc: Crc::new(8) };
    c.bench_function("a block's record into the pending log", |b| {
        b.iter(|| {
            if log.load() + RECORD_ROOM > MAX_GROUP_BYTES {
                log.begin_commit();
                log.end_commit();
            }
            log.append(|out| put_blocks(out, key, 7, std::iter::once(black_box(entry))));
        });
    });
}

/// More than a record of one block.
const RECORD_ROOM: usize = 256;

/// Whole cores: everything between a target and the memory of the device.
fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(READS));
    for (name, tier) in [("reads of fast blocks", Tier::Fast), ("reads of stages", Tier::Staged)] {
        let mut core = Core::new(tier);
        group.bench_function(name, |b| b.iter(|| core.begin(Work::Read, READS).finish()));
    }
    let mut core = Core::new(Tier::Fast);
    group.bench_function("writes of fast blocks", |b| {
        b.iter(|| core.begin(Work::Write, READS).finish());
    });
    group.finish();
}

/// Requests of one turn of a whole-core bench.
const READS: u64 = 10_000;

fn placement(c: &mut Criterion) {
    let volume = VolumeId::new(7);
    c.bench_function("slice of an offset", |b| b.iter(|| slice_of(volume, black_box(1 << 36))));
}

fn mailbox(c: &mut Criterion) {
    let wake = WakeSet::new(1).expect("an eventfd");
    let (mut boxes, _control) = mesh::<u64>(&wake, 64, 64);
    let own = &mut boxes[0];
    c.bench_function("mailbox to oneself", |b| {
        b.iter(|| {
            own.send(CoreId::new(0), black_box(1));
            own.receive()
        });
    });
    round_trip(c);
}

/// There and back between two threads that poll.
fn round_trip(c: &mut Criterion) {
    let wake = WakeSet::new(2).expect("eventfds");
    let (mut boxes, _control) = mesh::<u64>(&wake, 64, 64);
    let (mut other, mut own) = (boxes.pop().expect("two"), boxes.pop().expect("two"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                match other.receive() {
                    Some((_, 0)) => return,
                    Some((_, message)) => other.send(CoreId::new(0), message),
                    None => std::hint::spin_loop(),
                }
            }
        });
        c.bench_function("mailbox to another core and back", |b| {
            b.iter(|| {
                own.send(CoreId::new(1), black_box(1));
                while own.receive().is_none() {
                    std::hint::spin_loop();
                }
            });
        });
        own.send(CoreId::new(1), 0);
    });
}

criterion_group!(engine_benches, checksum, records, journal, table, placement, mailbox);
criterion_main!(engine_benches);
