//! One simulated life of a pool: work, crashes, recoveries, audits.

use super::client::{Clients, Playground};
use super::oracle::{Oracle, Violation};
use super::shared::{Shared, SimPool, SimSink};
use crate::device::sim::{Rng, SECTOR_BYTES, SimDisk};
use crate::format::layout::NewDevice;
use crate::format::superblock::Role;
use crate::journal::log::LogMemory;
use crate::pool::space_map::SpaceMap;
use crate::pool::{self, Pool, PoolError};
use crate::request::VolumeView;
use crate::stage::StageSettings;
use crate::table::open::{GROUP_BUF_BYTES, open_slice};
use crate::table::{Table, TableConfig};
use crate::tier::TierSettings;
use crate::units::{
    BLOCK_BYTES, CoreId, FragmentSize, Nanos, SEGMENT_BYTES, SLICES, SliceId, VolumeId,
};
use crate::volume::catalog::CATALOG_EXTENTS;
use crate::volume::composer::{Composer, Message};
use crate::volume::placement::{core_of, slice_of};
use crate::volume::{Volume, Volumes};

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Requests refused for want of space.
    pub no_space: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Crashes while recovering.
    pub crashes_in_recovery: u64,
    /// Everything the tables counted.
    pub counters: crate::table::Counters,
}

impl Outcome {
    /// Adds another run's.
    pub fn add(&mut self, other: &Outcome) {
        self.steps += other.steps;
        self.completed += other.completed;
        self.no_space += other.no_space;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.counters.add(&other.counters);
    }
}

struct SimCore {
    composer: Composer,
    table: Table,
}

struct World {
    rng: Rng,
    now: Nanos,
    sizes: Vec<u64>,
    shared: Shared,
    cores: Vec<SimCore>,
    /// Pending logs while no process runs.
    logs: Vec<Option<LogMemory>>,
    oracle: Oracle,
    clients: Clients,
    playground: Playground,
    volumes: Volumes,
    outcome: Outcome,
    /// The power has failed since the last process died.
    lost_power: bool,
}

const BOOT: [u8; 16] = [9; 16];
const MAX_IN_FLIGHT: usize = 24;
/// Work between two crashes, at most.
const EPISODE_STEPS: u64 = 3_000;

/// Runs one seed.
pub fn run(seed: u64, episodes: u64) -> Result<Outcome, Violation> {
    let mut world = World::new(seed);
    for episode in 0..episodes {
        let steps = 50 + world.rng.below(EPISODE_STEPS);
        for _ in 0..steps {
            world.step(true)?;
        }
        if episode + 1 == episodes || world.rng.one_in(4) {
            world.quiesce()?;
        }
        world.crash();
        world.restart();
        world.audit()?;
    }
    world.outcome.completed = world.clients.completed;
    world.outcome.no_space = world.clients.no_space;
    Ok(world.outcome)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut devices = vec![NewDevice { size_bytes: 512 << 20, role: Role::Fast }];
        if rng.one_in(3) {
            devices.push(NewDevice { size_bytes: 512 << 20, role: Role::Fast });
        }
        if !rng.one_in(4) {
            devices.push(NewDevice { size_bytes: 512 << 20, role: Role::Cold });
        }
        let sizes: Vec<_> = devices.iter().map(|device| device.size_bytes).collect();
        let mut disks: Vec<_> = devices.iter().map(|_| SimDisk::default()).collect();
        let mut uuid_rng = Rng::new(rng.next());
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
        let uuid = || {
            let mut uuid = [0; 16];
            uuid[..8].copy_from_slice(&uuid_rng.next().to_le_bytes());
            uuid[8..].copy_from_slice(&uuid_rng.next().to_le_bytes());
            uuid
        };
        pool::create(&mut io, &devices, uuid).expect("the devices are large enough");
        let fragment = [FragmentSize::MIN, FragmentSize::DEFAULT, FragmentSize::MAX][rng.index(3)];
        let (playground, volumes) = playground(&mut rng, fragment);
        let mut world = World {
            rng,
            now: Nanos::new(1),
            sizes,
            shared: Shared::new(disks, SpaceMap::new(&[], 0, 0), 1),
            cores: Vec::new(),
            logs: (0..SLICES).map(|_| Some(LogMemory::heap())).collect(),
            oracle: Oracle::default(),
            clients: Clients::default(),
            playground,
            volumes,
            outcome: Outcome::default(),
            lost_power: false,
        };
        world.restart();
        world
    }

    /// One thing happens somewhere.
    fn step(&mut self, new_work: bool) -> Result<(), Violation> {
        self.outcome.steps += 1;
        self.now = self.now.after(1 + self.rng.below(200_000));
        match self.rng.below(10) {
            0..=3 => self.deliver(),
            4..=6 => self.finish_io(),
            7..=8 if new_work => self.request(),
            9 if self.rng.one_in(3) => self.background(),
            _ => self.deliver(),
        }
        for completion in std::mem::take(&mut self.shared.completions) {
            self.clients.complete(completion, &mut self.oracle, &mut self.shared)?;
        }
        Ok(())
    }

    fn core_at_random(&mut self) -> usize {
        self.rng.index(self.cores.len())
    }

    fn with_core(&mut self, core: usize, act: impl FnOnce(&mut SimCore, &mut SimSink<'_>)) {
        let id = CoreId::new(u8::try_from(core).expect("few cores"));
        let mut sink = SimSink { shared: &mut self.shared, core: id };
        self.cores[core].table.set_now(self.now);
        act(&mut self.cores[core], &mut sink);
    }

    /// A core takes one message, from any sender that has one for it.
    fn deliver(&mut self) {
        let core = self.core_at_random();
        let from = self.rng.index(self.cores.len());
        if matches!(
            self.shared.mail[core][from].front(),
            Some(Message::Part(..) | Message::Flush(..))
        ) && !self.cores[core].table.can_submit()
        {
            return;
        }
        let Some(message) = self.shared.mail[core][from].pop_front() else { return };
        self.with_core(core, |core, sink| match message {
            Message::Part(slice, part) => core.table.submit(slice, part, sink),
            Message::Flush(volume, origin) => core.table.flush(Some(volume), origin, sink),
            Message::Done(done) => core.composer.done(done, sink),
        });
    }

    fn finish_io(&mut self) {
        let disk = self.rng.index(self.shared.disks.len());
        let queued = self.shared.disks[disk].in_flight();
        if queued == 0 {
            return;
        }
        let at = self.rng.index(queued);
        let (io, owner) = self.shared.complete_io(disk, at);
        let owner = usize::from(owner.get());
        self.with_core(owner, |core, sink| core.table.io_done(io.token, Ok(()), sink));
    }

    fn request(&mut self) {
        if self.clients.in_flight() >= MAX_IN_FLIGHT {
            return;
        }
        let core = self.core_at_random();
        let id = CoreId::new(u8::try_from(core).expect("few cores"));
        let made = self.clients.make(
            &mut self.rng,
            &self.playground,
            id,
            &mut self.oracle,
            &mut self.shared,
        );
        if let Some(request) = made {
            let stage = self.rng.one_in(3);
            self.with_core(core, |core, sink| core.composer.submit(request, stage, sink));
        }
    }

    /// Ticks, predictions, cooling.
    fn background(&mut self) {
        let core = self.core_at_random();
        let (volume, _) = self.playground.volumes[self.rng.index(self.playground.volumes.len())];
        let hot = self.playground.hot[self.rng.index(self.playground.hot.len())];
        let slice = slice_of(volume, hot);
        let owner = usize::from(core_of(slice, u8::try_from(self.cores.len()).expect("few")).get());
        match self.rng.below(4) {
            0 => self.with_core(owner, |core, sink| {
                core.table.predict(slice, volume, hot / BLOCK_BYTES as u64, sink);
            }),
            1 => self.with_core(core, |core, sink| {
                core.table.cool(volume, sink);
            }),
            _ => self.with_core(core, |core, sink| {
                core.table.tick(sink);
            }),
        }
    }

    /// Lets everything under way end.
    fn quiesce(&mut self) -> Result<(), Violation> {
        let mut left = 400_000;
        while self.clients.in_flight() > 0 {
            self.step(false)?;
            if self.rng.one_in(50) {
                for core in 0..self.cores.len() {
                    self.with_core(core, |core, sink| {
                        core.table.tick(sink);
                    });
                }
            }
            left -= 1;
            assert!(left > 0, "requests never end: {:?}", self.clients);
        }
        for core in &self.cores {
            core.table.self_check();
        }
        Ok(())
    }

    /// The process dies, alone or with the power.
    fn crash(&mut self) {
        let power_cut = self.rng.one_in(2);
        self.outcome.kills += u64::from(!power_cut);
        self.outcome.power_cuts += u64::from(power_cut);
        for core in self.cores.drain(..) {
            self.outcome.counters.add(&core.table.counters);
            for (slice, log) in core.table.into_logs() {
                self.logs[usize::from(slice.get())] = Some(log);
            }
        }
        self.lose(power_cut);
        self.clients.forget();
        self.lost_power = power_cut;
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
            self.logs = (0..SLICES).map(|_| Some(LogMemory::heap())).collect();
        }
    }

    /// Recovers with any number of cores; recovery itself may crash a few times.
    fn restart(&mut self) {
        let mut crashes = 3;
        loop {
            let fuel = (crashes > 0 && self.rng.one_in(3)).then(|| self.rng.below(40));
            match self.try_restart(fuel) {
                Ok(()) => return self.oracle.restart(std::mem::take(&mut self.lost_power)),
                Err(PoolError::Io(_)) => {}
                Err(PoolError::Recover(crate::journal::recover::RecoverError::Io(_))) => {}
                Err(error) => panic!("the pool does not open: {error}"),
            }
            crashes -= 1;
            self.outcome.crashes_in_recovery += 1;
            let power_cut = self.rng.one_in(2);
            self.lose(power_cut);
            self.lost_power |= power_cut;
        }
    }

    fn try_restart(&mut self, fuel: Option<u64>) -> Result<(), PoolError> {
        let mut disks = std::mem::take(&mut self.shared.disks);
        let mut io = SimPool { disks: &mut disks, fuel, rng: &mut self.rng };
        let opened = pool::open(&mut io, &self.sizes);
        let mut founds = Vec::new();
        let mut result = opened.as_ref().map(drop).map_err(|_| ());
        let mut error = None;
        if let Ok(pool) = &opened {
            for slice in 0..SLICES {
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

    fn build(
        &mut self,
        pool: &Pool,
        founds: Vec<(crate::journal::recover::Found, crate::journal::log::PendingLog)>,
    ) {
        let count = u8::try_from(1 + self.rng.below(3)).expect("few");
        let chunks: Vec<_> = pool.superblocks.iter().map(|sb| sb.chunks).collect();
        let space = SpaceMap::new(&chunks, pool.meta.extents, CATALOG_EXTENTS);
        let disks = std::mem::take(&mut self.shared.disks);
        self.shared = Shared::new(disks, space, count);
        let mut slices: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for ((found, log), id) in founds.into_iter().zip(0..SLICES) {
            let id = SliceId::new(id);
            let core = core_of(id, count);
            let buf = self.shared.alloc(core, GROUP_BUF_BYTES).expect("an empty arena");
            let slice = open_slice(id, &found, log, &pool.devices(), buf)
                .unwrap_or_else(|error| panic!("the table contradicts itself: {error}"));
            for (device, space) in slice.space.iter().enumerate() {
                for chunk in space.owned() {
                    let fresh = self.shared.space.chunks[device].take(chunk);
                    assert!(fresh, "chunk {chunk} of device {device} has two owners");
                }
            }
            for extent in &slice.journal.root.extents {
                assert!(self.shared.space.extents.take(*extent), "extent {extent} has two owners");
            }
            slices[usize::from(core.get())].push(slice);
        }
        let tier = TierSettings {
            spill_below_percent: 40,
            idle_ns: self.rng.below(2) * 50_000_000,
            promote_touches: 1,
        };
        let checkpoint_blocks = [3, 10, 64][self.rng.index(3)];
        for (core, slices) in (0..count).zip(slices) {
            let config = TableConfig {
                core: CoreId::new(core),
                devices: pool.devices(),
                meta: pool.meta,
                pool: pool.short_id(),
                incarnation: pool.incarnation(),
                max_parts: 64,
                checkpoint_blocks,
                stage: StageSettings { budget_bytes: 17 << 20, loading: 2 },
                tier,
            };
            let mut composer = Composer::new(CoreId::new(core), count, 64);
            composer.set_volumes(self.volumes.clone());
            self.cores.push(SimCore { composer, table: Table::new(config, slices) });
        }
        for core in 0..self.cores.len() {
            self.with_core(core, |core, sink| core.table.checkpoint_full(sink));
        }
    }

    /// Reads every block that was ever touched.
    fn audit(&mut self) -> Result<(), Violation> {
        let per_block = (BLOCK_BYTES / SECTOR_BYTES) as u64;
        let mut blocks: Vec<_> =
            self.oracle.keys().iter().map(|key| (key.volume, key.sector / per_block)).collect();
        blocks.dedup();
        for (volume, block) in blocks {
            while self.clients.in_flight() >= 8 {
                self.step(false)?;
            }
            let core = self.core_at_random();
            let id = CoreId::new(u8::try_from(core).expect("few cores"));
            let request = self.clients.audit(volume, block, id, &mut self.shared);
            let request = request.expect("memory for a few blocks");
            self.with_core(core, |core, sink| core.composer.submit(request, false, sink));
        }
        self.quiesce()
    }
}

/// Two volumes with a few busy regions, across fragments and segments.
fn playground(rng: &mut Rng, fragment: FragmentSize) -> (Playground, Volumes) {
    let volume = |id: u32, size_bytes| Volume {
        view: VolumeView {
            id: VolumeId::new(id),
            name: format!("volume-{id}"),
            size_bytes,
            block_bytes: 512,
            read_only: false,
        },
        uuid: [0; 16],
        fragment,
    };
    let sizes = [40 * SEGMENT_BYTES, 3 * SEGMENT_BYTES + 512 * 7];
    let regions = if fragment == FragmentSize::MAX { 24 } else { 6 };
    let hot = (0..1 + rng.below(regions))
        .map(|_| rng.below(sizes[1] / WINDOW_BYTES * 8) * WINDOW_BYTES % sizes[0])
        .collect();
    let volumes = vec![(VolumeId::new(1), sizes[0]), (VolumeId::new(2), sizes[1])];
    let list = Volumes::new(vec![volume(1, sizes[0]), volume(2, sizes[1])]);
    (Playground { volumes, hot }, list)
}

const WINDOW_BYTES: u64 = crate::units::WINDOW_BYTES;

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_seeds_keep_every_promise() {
        for seed in 0..20 {
            if let Err(violation) = super::run(seed, 4) {
                panic!("seed {seed}: {violation}");
            }
        }
    }
}
