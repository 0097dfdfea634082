//! Superblocks, tables, catalog and pending logs.

use std::collections::BTreeMap;

use super::claims::Claims;
use super::data;
use super::maps::read_span;
use super::report::{Place, Report, What};
use crate::format::layout::{CATALOG, JOURNALS};
use crate::format::superblock::{COPY_OFFSETS, Superblock};
use crate::journal::io::PoolIo;
use crate::journal::log::{LogMemory, LogTag, survivors};
use crate::journal::recover::{Found, RecoverError, scan_table};
use crate::journal::state::RecoveredVolume;
use crate::pool::{Pool, inspect};
use crate::table::index::{Index, Span};
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, SLICES, SliceId, VolumeId};
use crate::volume::catalog::DELETING;

/// What dead processes left, by table.
#[derive(Debug)]
pub struct PendingLogs {
    /// The id of this boot: logs of another one count for nothing.
    pub boot: [u8; 16],
    /// A log's memory, or `None` where there is none.
    pub memory: Vec<Option<LogMemory>>,
}

pub(super) type Volumes = BTreeMap<VolumeId, RecoveredVolume>;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Superblocks, tables and block maps.
    Metadata,
    /// Every stored block, too.
    Deep,
}

/// Examines a pool on devices of the given sizes. Never writes.
pub fn check_pool(io: &mut dyn PoolIo, sizes: &[u64], logs: &PendingLogs, depth: Depth) -> Report {
    let mut report = Report::default();
    let pool = match inspect(io, sizes) {
        Ok(pool) => pool,
        Err(error) => {
            report.add(Place::Pool, error.into());
            return report;
        }
    };
    check_superblocks(io, &mut report);
    let mut claims = Claims::default();
    let catalog = read(io, &pool, CATALOG, logs, &mut report);
    if let Some(catalog) = &catalog {
        claims.extents(CATALOG, &catalog.root.extents, &Index::default(), &mut report);
        check_names(&catalog.state.volumes, &mut report);
        report.volumes = catalog.state.volumes.len() as u64;
    }
    let volumes = catalog.map(|catalog| catalog.state.volumes);
    for slice in (0..SLICES).map(SliceId::new) {
        let Some(found) = read(io, &pool, slice, logs, &mut report) else { continue };
        let index = &found.state.fragments;
        report.fragments += index.len() as u64;
        claims.extents(slice, &found.root.extents, index, &mut report);
        claims.slots(slice, index, &pool.devices(), &mut report);
        let mut last = None;
        for span in index.all().map(|(key, ..)| Span::of(key)) {
            if last.replace(span) == Some(span) {
                continue;
            }
            let table = pool.table(slice);
            for fragment in read_span(io, &pool.meta, table, index, span, &mut report) {
                super::claims::check_home(slice, &fragment, volumes.as_ref(), &mut report);
                if depth == Depth::Deep {
                    data::check_blocks(io, &fragment, &mut report);
                }
            }
        }
    }
    report
}

/// A copy that is bad; which of two whole ones is newer does not matter.
fn check_superblocks(io: &mut dyn PoolIo, report: &mut Report) {
    for device in (0..io.devices()).map(DeviceId::new) {
        for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
            let mut block = [0; BLOCK_BYTES];
            let place = Place::Superblock { device, copy };
            match io.read(device, DeviceOffset::new(offset), &mut block) {
                Err(error) => report.add(place, error.into()),
                Ok(()) => {
                    if let Err(error) = Superblock::decode(&block) {
                        report.add(place, What::Superblock(error));
                    }
                }
            }
        }
    }
}

/// A table as the next start would see it; `None` if that would refuse it.
fn read(
    io: &mut dyn PoolIo,
    pool: &Pool,
    slice: SliceId,
    logs: &PendingLogs,
    report: &mut Report,
) -> Option<Found> {
    assert!(slice.get() < JOURNALS);
    let mut damaged = Vec::new();
    let found = scan_table(io, &pool.meta, pool.table(slice), false, &mut damaged);
    for at in damaged {
        report.add(Place::Copy { slice, at }, What::Differs);
    }
    let complete = |mut found: Found| {
        let memory = logs.memory.get(usize::from(slice.get())).and_then(Option::as_ref);
        if let Some(memory) = memory {
            let tag = LogTag { boot: logs.boot, pool: pool.uuid(), slice };
            apply_log(&mut found, memory, &tag)?;
        }
        Ok(found)
    };
    match found.and_then(complete) {
        Ok(found) => Some(found),
        Err(error) => {
            report.add(Place::Table(slice), error.into());
            None
        }
    }
}

fn apply_log(found: &mut Found, memory: &LogMemory, tag: &LogTag) -> Result<(), RecoverError> {
    let record = |what| RecoverError::Record { slice: tag.slice, what };
    for (group, records) in survivors(memory, tag) {
        if group <= found.end.group {
            continue;
        }
        if group != found.end.group + 1 {
            return Err(record("pending log has a gap"));
        }
        found.state.apply(&records, false).map_err(record)?;
        found.end.group = group;
    }
    Ok(())
}

fn check_names(volumes: &Volumes, report: &mut Report) {
    let mut names = BTreeMap::new();
    for (id, volume) in volumes.iter().filter(|(_, volume)| volume.flags & DELETING == 0) {
        if let Some(other) = names.insert(&volume.name, *id) {
            report.add(Place::Volume(*id), What::SameName(other));
        }
    }
}
