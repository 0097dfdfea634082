//! Deaths and rebirths of a world: crashes, recovery, building the cores again.

use super::broken::Broken;
use super::core::SimCore;
use super::examine::CATALOG_LOG;
use super::plan::Fault;
use super::regime::Regime;
use super::shared::{Shared, SimPool};
use super::trace::Touches;
use super::world::{BOOT, World};
use crate::core::mailbox::mesh;
use crate::core::wake::WakeSet;
use crate::format::layout::JOURNALS;
use crate::format::superblock::Role;
use crate::journal::log::{LogMemory, PendingLog};
use crate::journal::recover::{Found, RecoverError};
use crate::pool::space_map::SpaceMap;
use crate::pool::{self, Pool, PoolError};
use crate::stage::StageSettings;
use crate::table::open::{GROUP_BUF_BYTES, open_slice};
use crate::table::slice::Slice;
use crate::table::{Table, TableConfig};
use crate::tier::TierSettings;
use crate::units::{CoreId, SLICES, SliceId};
use crate::volume::catalog::{CATALOG_EXTENTS, Catalog};
use crate::volume::composer::Composer;
use crate::volume::placement::core_of;

/// Messages that may be outstanding between two cores: as in the server, what request slots allow.
const MAILBOX: usize = 192;
/// Requests of one core under way.
const REQUESTS: u32 = 64;

impl World {
    /// The process dies, alone or with the power.
    pub(super) fn crash(&mut self) {
        // A flush that failed has lost what only the power could lose otherwise.
        let aimed = self.plan.regime == Regime::CutGroups && !self.rng.one_in(8);
        let power_cut = self.degraded || aimed || self.rng.one_in(2);
        self.outcome.kills += u64::from(!power_cut);
        self.outcome.power_cuts += u64::from(power_cut);
        self.tell_all(if power_cut { "power cut" } else { "the process dies" });
        for core in self.cores.drain(..) {
            self.outcome.counters.add(&core.table.counters);
            for (slice, log) in core.table.into_logs() {
                self.logs[usize::from(slice.get())] = Some(log);
            }
        }
        self.doors.clear();
        self.catalog = None;
        self.lose(power_cut);
        self.clients.forget();
        self.lost_power = power_cut;
        self.degraded = false;
        self.halted = self.exists(Fault::Lies);
        self.dying = false;
        self.edge_failed = false;
        self.stalled = None;
    }

    fn tell_all(&self, what: &str) {
        self.trace.tell(self.outcome.steps, || (Touches::All, what.to_owned()));
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

    /// Recovers with any number of cores; recovery itself may crash a few times. False if the
    /// pool refuses to open, which it may after a device has lied.
    pub(super) fn restart(&mut self) -> Result<bool, Broken> {
        let honest = !self.exists(Fault::Lies);
        if honest && !self.auditing && self.rng.one_in(6) {
            self.examine_dead()?;
        }
        if self.has(Fault::Flips) && self.fault_rng.one_in(2) {
            self.rot_metadata();
        } else if self.has(Fault::Flips) {
            self.rot_data();
        }
        let mut crashes = if self.has(Fault::Recovery) { 3 } else { 0 };
        loop {
            let dies = crashes > 0 && self.rng.one_in(3);
            let fuel = dies.then(|| self.rng.below(self.recovery_steps));
            if self.has(Fault::Misreads) && self.fault_rng.one_in(2) {
                self.mislead_recovery();
            }
            let opened = self.try_restart(fuel);
            self.shared.disks.iter_mut().for_each(|disk| disk.lead_right());
            match opened {
                Ok(()) => break,
                Err(PoolError::Io(_) | PoolError::Recover(RecoverError::Io(_))) => {}
                Err(_) if self.lied && self.lost_power => return Ok(false),
                Err(error) => return Err(Broken::Pool(format!("the pool does not open: {error}"))),
            }
            crashes -= 1;
            self.outcome.crashes_in_recovery += 1;
            let power_cut = self.rng.one_in(2);
            self.tell_all(if power_cut { "power cut in recovery" } else { "death in recovery" });
            self.lose(power_cut);
            self.lost_power |= power_cut;
        }
        let lost_power = std::mem::take(&mut self.lost_power);
        self.clients.distrusting = self.lied && lost_power;
        self.oracle.restart(lost_power);
        self.resume_jobs();
        self.tell_all(&format!("recovered with {} cores", self.cores.len()));
        if honest && !self.auditing && self.rng.one_in(3) {
            self.examine_recovered()?;
        }
        Ok(true)
    }

    fn try_restart(&mut self, fuel: Option<u64>) -> Result<(), PoolError> {
        let mut disks = std::mem::take(&mut self.shared.disks);
        let limit = fuel.unwrap_or(u64::MAX);
        let mut io = SimPool { disks: &mut disks, fuel: Some(limit), rng: &mut self.rng };
        let mut founds = Vec::new();
        let logs = &mut self.logs;
        let result = pool::open(&mut io, &self.sizes).and_then(|pool| {
            for slice in 0..JOURNALS {
                let log = logs[usize::from(slice)].as_ref().expect("kept while dead").duplicate();
                founds.push(pool::recover_table(&mut io, &pool, SliceId::new(slice), log, BOOT)?);
            }
            Ok(pool)
        });
        self.recovery_steps = self.recovery_steps.max(limit - io.fuel.unwrap_or(0) + 1);
        self.shared.disks = disks;
        match result {
            Ok(pool) => self.build(&pool, founds),
            Err(error) => {
                for (slice, (_, log)) in founds.into_iter().enumerate() {
                    self.logs[slice] = Some(log.into_memory());
                }
                Err(error)
            }
        }
    }

    /// In a small world only so many chunks of each device can be in use.
    fn limit_chunks(&mut self, pool: &Pool) {
        let Some(limit) = self.chunk_limit else { return };
        self.hidden = self.shared.space.chunks.iter().map(|_| 0).collect();
        let devices = self.shared.space.chunks.iter().zip(&pool.superblocks);
        for ((bitmap, superblock), hidden) in devices.zip(&mut self.hidden) {
            if self.clients.roomy && superblock.role == Role::Cold {
                continue;
            }
            let owned = bitmap.len() - bitmap.free();
            let mut at = 0;
            while bitmap.free() > limit.saturating_sub(owned) {
                *hidden += u32::from(bitmap.take(at));
                at += 1;
            }
        }
    }

    fn build(
        &mut self,
        pool: &Pool,
        mut founds: Vec<(Found, PendingLog)>,
    ) -> Result<(), PoolError> {
        let count = 1 + self.rng.below(self.plan.cores.into());
        let count = u8::try_from(count).expect("few");
        let chunks: Vec<_> = pool.superblocks.iter().map(|sb| sb.chunks).collect();
        let space = SpaceMap::new(&chunks, pool.meta.extents, CATALOG_EXTENTS);
        let disks = std::mem::take(&mut self.shared.disks);
        let arenas = std::mem::take(&mut self.shared.arenas);
        self.shared = Shared::new(disks, space, count, arenas, self.fault_rng.fork());
        self.meta = pool.meta;
        let (found, log) = founds.pop().expect("the catalog comes last");
        self.logs[CATALOG_LOG] = Some(log.into_memory());
        let catalog = Catalog::open(found, pool.short_id(), pool.incarnation());
        let mut slices: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for ((found, log), id) in founds.into_iter().zip(0..SLICES) {
            let core = core_of(SliceId::new(id), count);
            slices[usize::from(core.get())].push(self.open_slice(pool, id, core, found, log)?);
        }
        self.limit_chunks(pool);
        if self.exists(Fault::Refusals) && !self.auditing {
            self.shared.refuses = 4 + self.rng.below(30);
        }
        let config = self.config(pool);
        self.wake = WakeSet::new(count.into()).expect("a few eventfds");
        let (boxes, _) = mesh(&self.wake, MAILBOX, 1);
        for ((core, slices), mail) in (0..count).zip(slices).zip(boxes) {
            let config = TableConfig { core: CoreId::new(core), cores: count, ..config.clone() };
            let mut composer = Composer::new(CoreId::new(core), count, REQUESTS);
            composer.set_volumes(catalog.serving());
            self.cores.push(SimCore::new(composer, Table::new(config, slices), mail));
        }
        self.connect(&catalog.serving());
        self.catalog = Some(catalog);
        for core in 0..self.cores.len() {
            self.with_core(core, |core, sink| core.table.checkpoint_full(sink));
        }
        Ok(())
    }

    fn open_slice(
        &mut self,
        pool: &Pool,
        id: u16,
        core: CoreId,
        found: Found,
        log: PendingLog,
    ) -> Result<Box<Slice>, PoolError> {
        let id = SliceId::new(id);
        self.logs[usize::from(id.get())] = None;
        let buf = self.shared.alloc(core, GROUP_BUF_BYTES).expect("an empty arena");
        let refuse = |what| PoolError::Recover(RecoverError::Record { slice: id, what });
        let slice = open_slice(id, found, log, &pool.devices(), buf)?;
        for (device, space) in slice.space.iter().enumerate() {
            for chunk in space.owned() {
                if !self.shared.space.chunks[device].take(chunk) {
                    return Err(refuse("a chunk has two owners"));
                }
            }
        }
        for extent in slice.extents() {
            if !self.shared.space.extents.take(extent) {
                return Err(refuse("an extent has two owners"));
            }
        }
        Ok(slice)
    }

    fn config(&mut self, pool: &Pool) -> TableConfig {
        TableConfig {
            core: CoreId::new(0),
            cores: 0,
            devices: pool.devices(),
            meta: pool.meta,
            pool: pool.short_id(),
            incarnation: pool.incarnation(),
            max_parts: 64,
            checkpoint_blocks: self.plan.regime.checkpoint_blocks()[self.rng.index(3)],
            map_budget_bytes: [0, 20 << 10, 200 << 10, 1 << 30][self.rng.index(4)],
            stage: StageSettings { budget_bytes: 17 << 20, loading: 2 },
            tier: TierSettings {
                spill_below_percent: if self.exists(Fault::Tiers) { 40 } else { 0 },
                idle_ns: self.rng.below(2) * 50_000_000 * u64::from(self.exists(Fault::Tiers)),
                promote_touches: 1,
            },
        }
    }
}
