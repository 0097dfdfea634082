//! Deaths and rebirths of a world: crashes, recovery, building the cores again.

use super::regime::Regime;
use super::shared::{Shared, SimPool};
use super::world::{BOOT, SimCore, World};
use crate::format::layout::JOURNALS;
use crate::journal::log::{LogMemory, PendingLog};
use crate::journal::recover::{Found, RecoverError};
use crate::pool::space_map::SpaceMap;
use crate::pool::{self, Pool, PoolError};
use crate::sim::faults::CATALOG_LOG;
use crate::stage::StageSettings;
use crate::table::open::{GROUP_BUF_BYTES, open_slice};
use crate::table::{Table, TableConfig};
use crate::tier::TierSettings;
use crate::units::{CoreId, SLICES, SliceId};
use crate::volume::catalog::{CATALOG_EXTENTS, Catalog};
use crate::volume::composer::Composer;
use crate::volume::placement::core_of;

impl World {
    /// The process dies, alone or with the power.
    pub(super) fn crash(&mut self) {
        // A flush that failed has lost what only the power could lose otherwise.
        let aimed = self.playground.regime == Regime::CutGroups && !self.rng.one_in(8);
        let power_cut = self.degraded || aimed || self.rng.one_in(2);
        self.outcome.kills += u64::from(!power_cut);
        self.outcome.power_cuts += u64::from(power_cut);
        for core in self.cores.drain(..) {
            self.outcome.counters.add(&core.table.counters);
            for (slice, log) in core.table.into_logs() {
                self.logs[usize::from(slice.get())] = Some(log);
            }
        }
        self.catalog = None;
        self.lose(power_cut);
        self.clients.forget();
        self.lost_power = power_cut;
        self.degraded = false;
        self.halted = false;
        self.dying = false;
        self.edge_failed = false;
    }

    fn lose(&mut self, power_cut: bool) {
        let Shared { disks, arenas, .. } = &mut self.shared;
        let bytes = |io: &_| Shared::io_bytes(arenas, io);
        for disk in disks {
            if power_cut {
                disk.power_cut(&mut self.rng, &bytes);
            } else {
                disk.kill(&mut self.rng, &bytes);
            }
        }
        if power_cut {
            self.logs = (0..JOURNALS).map(|_| Some(LogMemory::heap())).collect();
        }
    }

    /// Recovers with any number of cores; recovery itself may crash a few times.
    pub(super) fn restart(&mut self) {
        if self.rng.one_in(4) {
            self.examine_dead();
        }
        if self.rots && self.rng.one_in(2) {
            self.rot_metadata();
        } else if self.rots {
            self.rot_data();
        }
        let mut crashes = 3;
        loop {
            let fuel = (crashes > 0 && self.rng.one_in(3)).then(|| self.rng.below(40));
            match self.try_restart(fuel) {
                Ok(()) => break,
                Err(PoolError::Io(_) | PoolError::Recover(RecoverError::Io(_))) => {}
                Err(error) => panic!("the pool does not open: {error}"),
            }
            crashes -= 1;
            self.outcome.crashes_in_recovery += 1;
            let power_cut = self.rng.one_in(2);
            self.lose(power_cut);
            self.lost_power |= power_cut;
        }
        self.oracle.restart(std::mem::take(&mut self.lost_power));
        self.resume_jobs();
        self.examine_recovered();
    }

    fn try_restart(&mut self, fuel: Option<u64>) -> Result<(), PoolError> {
        let mut disks = std::mem::take(&mut self.shared.disks);
        let mut io = SimPool { disks: &mut disks, fuel, rng: &mut self.rng };
        let opened = pool::open(&mut io, &self.sizes);
        let mut founds = Vec::new();
        let mut result = opened.as_ref().map(drop).map_err(|_| ());
        let mut error = None;
        if let Ok(pool) = &opened {
            for slice in 0..JOURNALS {
                let slot = &mut self.logs[usize::from(slice)];
                let memory = slot.as_ref().expect("kept while dead").duplicate();
                match pool::recover_table(&mut io, pool, SliceId::new(slice), memory, BOOT) {
                    Ok(found) => founds.push(found),
                    Err(cause) => {
                        error = Some(cause);
                        result = Err(());
                        break;
                    }
                }
            }
        }
        self.shared.disks = disks;
        if result.is_err() {
            for (slice, (_, log)) in founds.into_iter().enumerate() {
                self.logs[slice] = Some(log.into_memory());
            }
            let pool_error = opened.err();
            return Err(pool_error.or(error.map(PoolError::Recover)).expect("one of them failed"));
        }
        self.build(&opened.expect("checked"), founds);
        Ok(())
    }

    /// In a small world only so many chunks of each device can be in use.
    fn limit_chunks(&mut self) {
        let Some(limit) = self.chunk_limit else { return };
        self.hidden = self.shared.space.chunks.iter().map(|_| 0).collect();
        for (bitmap, hidden) in self.shared.space.chunks.iter().zip(&mut self.hidden) {
            let owned = bitmap.len() - bitmap.free();
            let mut at = 0;
            while bitmap.free() > limit.saturating_sub(owned) {
                *hidden += u32::from(bitmap.take(at));
                at += 1;
            }
        }
    }

    fn build(&mut self, pool: &Pool, mut founds: Vec<(Found, PendingLog)>) {
        let count = u8::try_from(1 + self.rng.below(3)).expect("few");
        let chunks: Vec<_> = pool.superblocks.iter().map(|sb| sb.chunks).collect();
        let space = SpaceMap::new(&chunks, pool.meta.extents, CATALOG_EXTENTS);
        let disks = std::mem::take(&mut self.shared.disks);
        self.shared = Shared::new(disks, space, count);
        self.meta = pool.meta;
        let (found, log) = founds.pop().expect("the catalog comes last");
        self.logs[CATALOG_LOG] = Some(log.into_memory());
        let catalog = Catalog::open(found, pool.short_id(), pool.incarnation());
        let mut slices: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for ((found, log), id) in founds.into_iter().zip(0..SLICES) {
            let id = SliceId::new(id);
            self.logs[usize::from(id.get())] = None;
            let core = core_of(id, count);
            let buf = self.shared.alloc(core, GROUP_BUF_BYTES).expect("an empty arena");
            let slice = open_slice(id, found, log, &pool.devices(), buf)
                .unwrap_or_else(|error| panic!("the table contradicts itself: {error}"));
            for (device, space) in slice.space.iter().enumerate() {
                for chunk in space.owned() {
                    let fresh = self.shared.space.chunks[device].take(chunk);
                    assert!(fresh, "chunk {chunk} of device {device} has two owners");
                }
            }
            for extent in slice.extents() {
                assert!(self.shared.space.extents.take(extent), "extent {extent} has two owners");
            }
            slices[usize::from(core.get())].push(slice);
        }
        self.limit_chunks();
        let config = self.config(pool);
        for (core, slices) in (0..count).zip(slices) {
            let config = TableConfig { core: CoreId::new(core), ..config.clone() };
            let mut composer = Composer::new(CoreId::new(core), count, 64);
            composer.set_volumes(catalog.serving());
            self.cores.push(SimCore { composer, table: Table::new(config, slices) });
        }
        self.catalog = Some(catalog);
        for core in 0..self.cores.len() {
            self.with_core(core, |core, sink| core.table.checkpoint_full(sink));
        }
    }

    fn config(&mut self, pool: &Pool) -> TableConfig {
        TableConfig {
            core: CoreId::new(0),
            devices: pool.devices(),
            meta: pool.meta,
            pool: pool.short_id(),
            incarnation: pool.incarnation(),
            max_parts: 64,
            checkpoint_blocks: self.playground.regime.checkpoint_blocks()[self.rng.index(3)],
            map_budget_bytes: [0, 20 << 10, 200 << 10, 1 << 30][self.rng.index(4)],
            stage: StageSettings { budget_bytes: 17 << 20, loading: 2 },
            tier: TierSettings {
                spill_below_percent: 40,
                idle_ns: self.rng.below(2) * 50_000_000,
                promote_touches: 1,
            },
        }
    }
}
