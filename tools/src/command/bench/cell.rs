//! One measurement of an engine in this process.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};

use engine::admin::{AdminRequest, AdminResponse};
use engine::core::meter::Meter;
use engine::server::embedded::Embedded;
use engine::target::load::{Job, Load as Generator, News, Span, Tally};
use engine::units::{CoreId, SEGMENT_BYTES, SLICES, VolumeId};
use engine::volume::placement::{core_of, slice_of};

use super::{BenchError, Load, nanos};

/// Whose segments a core asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Anybody's.
    Any,
    /// Those of the next core.
    Next,
    /// Its own.
    Own,
}

/// How the cores are loaded.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Cores of the server.
    pub cores: u8,
    /// Cores with a load.
    pub loaded: u8,
    /// Whose segments they ask for.
    pub owner: Owner,
    /// Bytes to visit: whole segments.
    pub region_bytes: u64,
    /// Overwrite in random order before.
    pub scatter: bool,
    /// Move the bytes out and in.
    pub copy: bool,
}

/// Makes a volume for [`measure`].
pub(super) fn create_volume(server: &Embedded, region_bytes: u64) -> Result<VolumeId, BenchError> {
    let request = AdminRequest::VolumeCreate {
        name: "bench".to_owned(),
        size_bytes: volume_bytes(region_bytes),
        fragment_size: None,
        block_bytes: None,
        read_only: false,
    };
    match server.ask(request)? {
        AdminResponse::Volume(volume) => Ok(VolumeId::new(volume.id)),
        _ => panic!("a new volume is answered with its report"),
    }
}

/// Bytes of a volume that has enough segments of every owner; most of it stays a hole.
fn volume_bytes(region_bytes: u64) -> u64 {
    64 * (region_bytes + SEGMENT_BYTES * u64::from(SLICES))
}

/// The segments that a loaded core visits.
fn extents(cell: &Cell, volume: VolumeId, core: u8) -> Vec<u64> {
    let count = (cell.region_bytes / SEGMENT_BYTES / u64::from(cell.loaded)).max(1);
    let wanted = |segment: &u64| {
        let owner = core_of(slice_of(volume, segment * SEGMENT_BYTES), cell.cores).get();
        match cell.owner {
            Owner::Any => segment % u64::from(cell.loaded) == u64::from(core),
            Owner::Own => owner == core,
            Owner::Next => owner == (core + 1) % cell.cores,
        }
    };
    let count = usize::try_from(count).expect("64-bit platform");
    (0..).filter(wanted).take(count).map(|segment| segment * SEGMENT_BYTES).collect()
}

/// Runs one load on each of the first cores; the sum of what they did, and what all
/// cores together have cost meanwhile.
pub(super) fn measure(
    server: &Embedded,
    volume: VolumeId,
    load: &Load,
    cell: &Cell,
) -> Result<(Tally, Meter), BenchError> {
    let ready = Arc::new(AtomicU32::new(0));
    let mut news = Vec::new();
    for core in 0..cell.loaded {
        let job = Job {
            volume,
            mix: load.mix(),
            extents: extents(cell, volume, core),
            extent_bytes: SEGMENT_BYTES,
            depth: load.depth,
            fill: true,
            scatter: cell.scatter,
            copy: cell.copy,
            warm_up: Span::Time(nanos(load.warm_up)),
            measure: Span::Time(nanos(load.seconds)),
            seed: load.seed + u64::from(core),
        };
        let (sender, receiver) = channel();
        let companions = u32::from(cell.loaded);
        let generator = Generator::new(job, Arc::clone(&ready), companions, sender);
        server.load(CoreId::new(core), generator);
        news.push(receiver);
    }
    for receiver in &news {
        next(receiver)?;
    }
    let before = meters(server);
    let mut sum = Tally::default();
    for receiver in &news {
        let tally = next(receiver)?.ok_or(BenchError::CoreGone)?;
        sum.add(&tally);
    }
    Ok((sum, meters(server).since(before)))
}

/// What the load says next: its end carries a tally.
fn next(news: &Receiver<News>) -> Result<Option<Tally>, BenchError> {
    match news.recv() {
        Ok(News::Begun) => Ok(None),
        Ok(News::Ended(tally)) => Ok(Some(*tally)),
        Ok(News::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(BenchError::CoreGone),
    }
}

fn meters(server: &Embedded) -> Meter {
    server.stats().iter().fold(Meter::default(), |sum, core| sum.plus(core.meter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_finds_its_segments_within_the_volume() {
        let volume = VolumeId::new(1);
        for (cores, loaded, owner) in
            [(1, 1, Owner::Own), (2, 1, Owner::Own), (2, 1, Owner::Next), (64, 64, Owner::Any)]
        {
            let region_bytes = 4 * SEGMENT_BYTES;
            let cell = Cell { cores, loaded, owner, region_bytes, scatter: false, copy: true };
            let mut seen = std::collections::BTreeSet::new();
            for core in 0..loaded {
                let extents = extents(&cell, volume, core);
                assert_eq!(extents.len(), if loaded == 1 { 4 } else { 1 });
                assert!(extents.iter().all(|at| *at < volume_bytes(region_bytes)));
                assert!(extents.into_iter().all(|at| seen.insert(at)), "no segment twice");
            }
        }
    }
}
