//! Each kind of damage, made on purpose, must be named; a sound pool has none.

use super::{Depth, PendingLogs, Report, check_pool, fragments};
use crate::device::sim::{Rng, SimDisk};
use crate::format::layout::MetaLayout;
use crate::format::superblock::COPY_OFFSETS;
use crate::journal::recover::{Found, read_table};
use crate::pool;
use crate::sim::shared::SimPool;
use crate::sim::stopped_pool;
use crate::table::fragment::Fragment;
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, SLICES, SliceId};

struct Stopped {
    disks: Vec<SimDisk>,
    sizes: Vec<u64>,
    meta: MetaLayout,
    tables: Vec<(SliceId, Found)>,
    fragments: Vec<Fragment>,
}

fn io<'a>(disks: &'a mut Vec<SimDisk>, rng: &'a mut Rng) -> SimPool<'a> {
    SimPool { disks, fuel: None, rng }
}

impl Stopped {
    fn new(seed: u64) -> Self {
        let (mut disks, sizes) = stopped_pool(seed);
        let mut rng = Rng::new(0);
        let mut io = io(&mut disks, &mut rng);
        let pool = pool::inspect(&mut io, &sizes).expect("a pool");
        let read = |slice| {
            let found = read_table(&mut io, &pool.meta, pool.table(slice), false);
            (slice, found.expect("a sound table"))
        };
        let tables: Vec<_> = (0..SLICES).map(SliceId::new).map(read).collect();
        let fragments = tables.iter().flat_map(|(slice, found): &(SliceId, Found)| {
            fragments(&mut io, &pool.meta, pool.table(*slice), &found.state.fragments)
        });
        let fragments = fragments.collect();
        Self { disks, sizes, meta: pool.meta, tables, fragments }
    }

    fn check(&mut self) -> Report {
        let mut rng = Rng::new(0);
        let logs = PendingLogs { boot: [0; 16], memory: Vec::new() };
        check_pool(&mut io(&mut self.disks, &mut rng), &self.sizes, &logs, Depth::Deep)
    }

    /// Flips a bit, checks, flips it back; the one line that names the damage.
    fn damaged(&mut self, (device, offset): (DeviceId, DeviceOffset)) -> (String, bool) {
        let (disk, block) = (usize::from(device.get()), offset.get() / BLOCK_BYTES as u64);
        self.disks[disk].flip(block, 800);
        let report = self.check();
        self.disks[disk].flip(block, 800);
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
        let damage = &report.damage[0];
        (format!("{}: {}", damage.place, damage.what), damage.what.is_repairable())
    }
}

/// The first stopped pool that has what the test needs.
fn find<T>(want: impl Fn(&Stopped) -> Option<T>) -> (Stopped, T) {
    (0..40)
        .map(Stopped::new)
        .find_map(|stopped| want(&stopped).map(|found| (stopped, found)))
        .expect("one of the first seeds has it")
}

#[test]
fn a_sound_pool_has_no_damage() {
    let mut stopped = Stopped::new(1);
    let report = stopped.check();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(report.volumes >= 1 && report.fragments > 0 && report.blocks > 0);
}

#[test]
fn a_rotten_journal_copy_is_named_and_repairable() {
    let (mut stopped, (slice, seq)) = find(|stopped| {
        let written = |(slice, found): &(SliceId, Found)| {
            (found.end.next_seq > found.root.start_seq).then(|| (*slice, found.end.next_seq - 1))
        };
        stopped.tables.iter().find_map(written)
    });
    let place = stopped.meta.place(1, stopped.meta.journal(slice, seq));
    let (line, repairable) = stopped.damaged(place);
    assert!(
        repairable && line.contains(&format!("slice {slice} journal block {seq} copy 1")),
        "{line}"
    );
}

#[test]
fn a_rotten_page_and_root_are_named_and_repairable() {
    let (mut stopped, (slice, extent, sequence)) = find(|stopped| {
        let with_pages = |(slice, found): &(SliceId, Found)| {
            Some((*slice, *found.root.extents.first()?, found.root.sequence))
        };
        stopped.tables.iter().find_map(with_pages)
    });
    let page = stopped.meta.place(0, stopped.meta.extent(extent));
    let (line, repairable) = stopped.damaged(page);
    assert!(repairable && line.contains("checkpoint page 0 copy 0"), "{line}");
    let root = stopped.meta.place(1, stopped.meta.root(slice, sequence % 2));
    let (line, repairable) = stopped.damaged(root);
    assert!(repairable && line.contains("checkpoint root"), "{line}");
}

#[test]
fn a_rotten_superblock_is_named_and_repairable() {
    let mut stopped = Stopped::new(2);
    for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
        let (line, repairable) = stopped.damaged((DeviceId::new(0), DeviceOffset::new(offset)));
        assert!(repairable && line.starts_with(&format!("device 0 superblock {copy}")), "{line}");
    }
}

#[test]
fn a_rotten_map_page_is_named_and_repairable() {
    let (mut stopped, (slice, page)) = find(|stopped| {
        let of = |(slice, found): &(SliceId, Found)| {
            let page = found.state.fragments.all().find_map(|(_, seat, _)| seat.page())?;
            Some((*slice, page))
        };
        stopped.tables.iter().find_map(of)
    });
    for copy in 0..2 {
        let place = stopped.meta.place(copy, stopped.meta.page(page));
        let (line, repairable) = stopped.damaged(place);
        let name = format!("slice {slice} map page {page} copy {copy}");
        assert!(repairable && line.contains(&name), "{line}");
    }
}

#[test]
fn a_rotten_data_block_is_named_with_volume_and_device() {
    let (mut stopped, stored) = find(|stopped| {
        stopped.fragments.iter().find_map(|fragment| {
            let blocks = 0..fragment.size.blocks();
            let mut fast = blocks.filter_map(|b| fragment.entry(b).place.as_fast());
            let (slot, block) = fast.next()?;
            Some((fragment.placement().fast[slot], block))
        })
    });
    let (slot, block) = (stored.0.expect("a named slot"), stored.1);
    let (line, repairable) = stopped.damaged((slot.device, slot.offset(block)));
    assert!(!repairable && line.contains("stored data fails its checksum"), "{line}");
    let stored = slot.block + u64::from(block);
    assert!(line.contains(&format!("device {} block {stored}", slot.device)), "{line}");
}

#[test]
fn what_both_copies_lost_is_refused_by_name() {
    let (mut stopped, (slice, extent)) = find(|stopped| {
        let with_pages =
            |(slice, found): &(SliceId, Found)| Some((*slice, *found.root.extents.first()?));
        stopped.tables.iter().find_map(with_pages)
    });
    for copy in 0..2 {
        let (device, offset) = stopped.meta.place(copy, stopped.meta.extent(extent));
        let block = offset.get() / BLOCK_BYTES as u64;
        stopped.disks[usize::from(device.get())].flip(block, 0);
    }
    let report = stopped.check();
    let line = format!("{}: {}", report.damage[0].place, report.damage[0].what);
    assert!(line.contains(&format!("slice {slice}: page 0 of checkpoint")), "{line}");
}

#[test]
fn a_directory_without_a_pool_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = super::check(dir.path(), Depth::Metadata).expect_err("nothing there");
    assert!(error.to_string().contains("no tessera.toml"), "{error}");
}
