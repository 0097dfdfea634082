//! The control thread of a world: volumes come, go, shrink and grow.
//!
//! One job at a time, as the server does it: the catalog records it; every core
//! learns of it, one after the other; requests under the old list end; the
//! edge is discarded and the segments behind it are dropped; the catalog
//! records the end. A crash anywhere in between is finished after the restart.

use super::core::Asked;
use super::plan::Fault;
use super::regime::Regime;
use super::shared::{CONTROL, SimPool};
use super::world::World;
use crate::device::sim::SECTOR_BYTES;
use crate::table::sink::Done;
use crate::units::{BLOCK_BYTES, SEGMENT_BYTES, VolumeId};
use crate::volume::catalog::{Catalog, CatalogError, DELETING, NewVolume, TRIMMING};
use crate::volume::placement::core_of;
use crate::volume::trim::{edge_parts, first_segment_behind};

/// What the control thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Nothing.
    Idle,
    /// Telling the cores, this one next; then, if there is one, trimming the volume.
    Telling(usize, Option<VolumeId>),
    /// Waiting until requests under the old list have ended.
    Settling(Option<VolumeId>),
    /// Discarding a volume's edge; so many parts to go.
    Edge(VolumeId, usize),
    /// Dropping segments; so many cores to go.
    Dropping(VolumeId, usize),
}

const ORIGIN: u64 = (CONTROL as u64) << 56;

impl World {
    /// Makes the job go on, or begins one.
    pub(super) fn control(&mut self, new_work: bool) {
        let done = std::mem::take(&mut self.shared.control);
        let failed = done.iter().any(|done| done.result.is_err());
        let wanted = self.plan.regime == Regime::Mixed && self.exists(Fault::Volumes);
        match self.job {
            Job::Idle if new_work && wanted && self.rng.one_in(4) && !self.halted => {
                self.begin_job();
            }
            Job::Idle => {}
            Job::Telling(core, volume) => {
                if !self.cores[core].composer.has_settled() {
                    return;
                }
                self.tell_core_volumes(core);
                let next = core + 1;
                self.job = if next < self.cores.len() {
                    Job::Telling(next, volume)
                } else {
                    Job::Settling(volume)
                };
            }
            Job::Settling(volume) => self.settled(volume),
            Job::Edge(volume, left) => self.edge_ended(volume, left, &done, failed),
            Job::Dropping(volume, left) => self.drop_ended(volume, left, &done, failed),
        }
    }

    pub(super) fn catalog(&mut self) -> &mut Catalog {
        self.catalog.as_mut().expect("a process runs")
    }

    /// Changes the catalog; the process may die while it does.
    fn change<T>(
        &mut self,
        act: impl FnOnce(&mut Catalog, &mut SimPool<'_>) -> Result<T, CatalogError>,
    ) -> Option<T> {
        let mut catalog = self.catalog.take().expect("a process runs");
        let mut disks = std::mem::take(&mut self.shared.disks);
        let fuel = (!self.auditing && self.rng.one_in(8)).then(|| self.rng.below(6));
        let mut io = SimPool { disks: &mut disks, fuel, rng: &mut self.rng };
        let result = act(&mut catalog, &mut io);
        self.shared.disks = disks;
        self.catalog = Some(catalog);
        match result {
            Ok(value) => Some(value),
            Err(CatalogError::Io(_)) => {
                self.dying = true;
                None
            }
            Err(error) => panic!("the control thread asks for what is allowed: {error}"),
        }
    }

    fn begin_job(&mut self) {
        let volumes = self.catalog().serving();
        let count = volumes.list().len();
        let pick = self.rng.index(count.max(1));
        let picked = volumes.list().get(pick).cloned();
        let sectors = 40 * SEGMENT_BYTES / SECTOR_BYTES as u64;
        let size = (1 + self.rng.below(sectors)) * SECTOR_BYTES as u64;
        let near = self.playground.hot[self.rng.index(self.playground.hot.len())]
            + (1 + self.rng.below(512)) * SECTOR_BYTES as u64;
        let size = if self.rng.one_in(4) { size } else { near };
        let meta = self.meta;
        match (self.rng.below(4), picked) {
            (0, Some(volume)) if count > 1 => {
                let id = volume.view.id;
                let done = self.change(|c, io| Ok(c.begin_delete(io, &meta, id)?));
                self.tell(done.map(|()| Some(id)));
            }
            (0 | 1, _) if count < 3 => {
                let new = NewVolume {
                    name: format!("volume-{}", self.rng.bits()),
                    size_bytes: size,
                    fragment: self.fragment,
                    block_bytes: 512,
                    read_only: false,
                };
                let done = self.change(|c, io| c.create(io, &meta, &new, [0; 16]));
                self.tell(done.map(|_| None));
            }
            (_, Some(volume)) => {
                let id = volume.view.id;
                let grow = self.rng.one_in(2);
                let size = if grow { volume.view.size_bytes.max(40 * SEGMENT_BYTES) } else { size };
                let done = self.change(|c, io| c.resize(io, &meta, id, size, true));
                self.tell(done.map(|shrinks| shrinks.then_some(id)));
            }
            _ => {}
        }
    }

    /// The catalog has changed: the cores must know.
    fn tell(&mut self, done: Option<Option<VolumeId>>) {
        if let Some(volume) = done {
            self.outcome.jobs += 1;
            self.job = Job::Telling(0, volume);
        }
    }

    fn settled(&mut self, volume: Option<VolumeId>) {
        if !self.cores.iter().all(|core| core.composer.has_settled()) {
            return;
        }
        self.update_playground();
        let Some(id) = volume else {
            self.job = Job::Idle;
            return;
        };
        let record = self.catalog().get(id).expect("it is being trimmed").clone();
        let deleting = record.flags & DELETING != 0;
        let size = if deleting { 0 } else { record.size_bytes };
        self.forget(id, size);
        let parts: Vec<_> = if deleting {
            Vec::new()
        } else {
            edge_parts(id, record.fragment, size, ORIGIN).collect()
        };
        self.job = Job::Edge(id, parts.len());
        for (slice, part) in parts {
            let core = core_of(slice, u8::try_from(self.cores.len()).expect("few"));
            self.cores[usize::from(core.get())].ask(Asked::Part(slice, part));
        }
    }

    fn edge_ended(&mut self, id: VolumeId, left: usize, done: &[Done], failed: bool) {
        let left = left - done.len();
        self.job = Job::Edge(id, left);
        if failed {
            self.edge_failed = true;
        }
        if left > 0 {
            return;
        }
        if std::mem::take(&mut self.edge_failed) {
            // A full pool: again, once there is space. A failed device or block: after a restart.
            self.halted = self.clients.failing || self.rots();
            self.job = if self.halted { Job::Idle } else { Job::Settling(Some(id)) };
            return;
        }
        let record = self.catalog().get(id).expect("it is being trimmed");
        let from = if record.flags & DELETING != 0 { 0 } else { record.size_bytes };
        self.job = Job::Dropping(id, self.cores.len());
        for core in 0..self.cores.len() {
            self.cores[core].ask(Asked::Drop(id, first_segment_behind(from), ORIGIN));
        }
    }

    fn drop_ended(&mut self, id: VolumeId, left: usize, done: &[Done], failed: bool) {
        let left = left - done.len();
        self.job = Job::Dropping(id, left);
        self.edge_failed |= failed;
        if left > 0 {
            return;
        }
        self.job = Job::Idle;
        if std::mem::take(&mut self.edge_failed) {
            assert!(self.clients.failing, "a trim fails only where devices do");
            self.halted = true;
            return;
        }
        let record = self.catalog().get(id).expect("it is being trimmed");
        let size = if record.flags & DELETING != 0 { 0 } else { record.size_bytes };
        let from = first_segment_behind(size) << (SEGMENT_BYTES.trailing_zeros() - 16);
        for core in &self.cores {
            let left = core.table.fragments_of(id).filter(|key| key.start >= from).count();
            assert_eq!(left, 0, "a trim ended with fragments left");
        }
        let meta = self.meta;
        self.change(|c, io| Ok(c.end_drop(io, &meta, id)?));
        self.outcome.trims += 1;
    }

    /// Lets every volume end with a whole block, so that discards reach all of it.
    pub(super) fn round_up_sizes(&mut self) {
        let meta = self.meta;
        for (id, size) in self.playground.volumes.clone() {
            let size = size.next_multiple_of(BLOCK_BYTES as u64);
            self.change(|c, io| c.resize(io, &meta, id, size, false));
        }
        self.tell_volumes();
        self.update_playground();
    }

    /// All cores learn of the volumes, at once.
    pub(super) fn tell_volumes(&mut self) {
        for core in 0..self.cores.len() {
            self.tell_core_volumes(core);
        }
    }

    fn tell_core_volumes(&mut self, core: usize) {
        let volumes = self.catalog().serving();
        for door in self.doors.iter_mut().filter(|door| door.core == core) {
            door.set_volumes(&volumes);
        }
        self.cores[core].composer.set_volumes(volumes);
    }

    /// What lies behind `size` of a volume is gone; reads of it later must find zeros.
    fn forget(&mut self, id: VolumeId, size: u64) {
        let from = size.div_ceil(SECTOR_BYTES as u64);
        self.clients.cut(id, from);
        for block in self.oracle.forget(id, from) {
            self.ghosts.insert((id, block));
        }
    }

    /// Where clients may write from now on.
    pub(super) fn update_playground(&mut self) {
        let volumes = self.catalog().serving();
        let view = |volume: &crate::volume::Volume| (volume.view.id, volume.view.size_bytes);
        self.playground.volumes = volumes.list().iter().map(view).collect();
    }

    /// After a restart: what the catalog says is what there is.
    pub(super) fn resume_jobs(&mut self) {
        let volumes: Vec<_> =
            self.catalog().iter().map(|(id, v)| (id, v.flags, v.size_bytes)).collect();
        self.job = Job::Idle;
        for id in self.oracle.volumes() {
            match volumes.iter().find(|(other, ..)| *other == id) {
                Some((_, flags, size)) if flags & DELETING == 0 => self.forget(id, *size),
                _ => self.forget(id, 0),
            }
        }
        let unfinished = volumes.iter().find(|(_, flags, _)| flags & (DELETING | TRIMMING) != 0);
        if let Some((id, ..)) = unfinished {
            self.job = Job::Telling(0, Some(*id));
        }
        self.update_playground();
    }
}
