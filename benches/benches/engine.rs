//! The engine's inner loops: checksums, records, placement, the mailbox.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::core::mailbox::mesh;
use engine::core::wake::WakeSet;
use engine::format::record::Records;
use engine::journal::recover::State;
use engine::units::{BLOCK_BYTES, CoreId, VolumeId, crc32c};
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
}

criterion_group!(engine_benches, checksum, records, placement, mailbox);
criterion_main!(engine_benches);
