//! One simulated life of a pool: work, crashes, recoveries, audits.

use std::collections::BTreeSet;

use super::client::{Clients, Playground};
use super::control::Job;
use super::faults::DeviceBlock;
use super::oracle::{Oracle, Violation};
use super::regime::Regime;
use super::shared::{Shared, SimPool, SimSink};
use crate::device::sim::{Rng, SimDisk};
use crate::format::layout::{JOURNALS, MetaLayout, NewDevice};
use crate::format::superblock::Role;
use crate::journal::log::LogMemory;
use crate::pool;
use crate::pool::space_map::SpaceMap;
use crate::request::Failure;
use crate::table::Table;
use crate::table::sink::IoKind;
use crate::units::{
    BLOCK_BYTES, CoreId, FragmentSize, Nanos, SEGMENT_BYTES, VolumeId, WINDOW_BYTES,
};
use crate::volume::catalog::{Catalog, NewVolume};
use crate::volume::composer::{Composer, Message};
use crate::volume::placement::{core_of, slice_of};

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Requests refused for want of space.
    pub no_space: u64,
    /// Requests that a failing device or a rotten block ended.
    pub failed: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Crashes while recovering.
    pub crashes_in_recovery: u64,
    /// Volumes created, deleted, shrunk, grown.
    pub jobs: u64,
    /// Deletions and shrinks brought to their end.
    pub trims: u64,
    /// Device operations failed.
    pub faults: u64,
    /// Times that bits were flipped on a medium.
    pub flips: u64,
    /// Examinations of the whole pool.
    pub checks: u64,
    /// Everything the tables counted.
    pub counters: crate::table::Counters,
}

impl Outcome {
    /// Adds another run's.
    pub fn add(&mut self, other: &Outcome) {
        self.steps += other.steps;
        self.completed += other.completed;
        self.no_space += other.no_space;
        self.failed += other.failed;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.jobs += other.jobs;
        self.trims += other.trims;
        self.faults += other.faults;
        self.flips += other.flips;
        self.checks += other.checks;
        self.counters.add(&other.counters);
    }
}

pub(super) struct SimCore {
    pub composer: Composer,
    pub table: Table,
}

pub(super) struct World {
    pub rng: Rng,
    pub now: Nanos,
    pub sizes: Vec<u64>,
    pub meta: MetaLayout,
    pub shared: Shared,
    pub cores: Vec<SimCore>,
    pub catalog: Option<Catalog>,
    /// Pending logs while no process runs.
    pub logs: Vec<Option<LogMemory>>,
    pub oracle: Oracle,
    pub clients: Clients,
    pub playground: Playground,
    pub fragment: FragmentSize,
    pub outcome: Outcome,
    /// What the control thread is doing.
    pub job: Job,
    pub edge_failed: bool,
    /// No new job until a restart.
    pub halted: bool,
    /// The process dies at the end of this step.
    pub dying: bool,
    /// The power has failed since the last process died.
    pub lost_power: bool,
    /// A flush failed: completed writes may be lost.
    pub degraded: bool,
    /// Devices fail operations in this world.
    pub faulty: bool,
    /// Bits rot in this world.
    pub rots: bool,
    /// The copy of the metadata zone that rots.
    pub rot_copy: usize,
    /// Faults are suspended.
    pub auditing: bool,
    /// Chunks of a device that can be in use, in a small world.
    pub chunk_limit: Option<u32>,
    /// Chunks out of reach, by device.
    pub hidden: Vec<u32>,
    /// Device blocks in which bits were flipped.
    pub rotten: BTreeSet<DeviceBlock>,
    /// Blocks of volumes that held something which was deleted or cut off.
    pub ghosts: BTreeSet<(VolumeId, u64)>,
}

pub(super) const BOOT: [u8; 16] = [9; 16];
/// Work between two crashes, at most.
pub(super) const EPISODE_STEPS: u64 = 3_000;

/// Runs one seed.
pub fn run(seed: u64, episodes: u64) -> Result<Outcome, Violation> {
    let mut world = World::new(seed);
    for episode in 0..episodes {
        world.episode()?;
        let last = episode + 1 == episodes;
        let rests = world.playground.regime != Regime::CutGroups && world.rng.one_in(4);
        if !world.dying && (last || rests) {
            world.quiesce()?;
        }
        world.crash();
        world.restart();
        world.audit()?;
    }
    world.check_leaks()?;
    world.outcome.completed = world.clients.completed;
    world.outcome.no_space = world.clients.no_space;
    world.outcome.failed = world.clients.failed;
    Ok(world.outcome)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut devices = vec![NewDevice { size_bytes: 512 << 20, role: Role::Fast }];
        if rng.one_in(3) {
            devices.push(NewDevice { size_bytes: 512 << 20, role: Role::Fast });
        }
        if !rng.one_in(4) {
            devices.push(NewDevice { size_bytes: 512 << 20, role: Role::Cold });
        }
        let mut disks: Vec<_> = devices.iter().map(|_| SimDisk::default()).collect();
        let mut uuid_rng = Rng::new(rng.bits());
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
        let uuid = || {
            let mut uuid = [0; 16];
            uuid[..8].copy_from_slice(&uuid_rng.bits().to_le_bytes());
            uuid[8..].copy_from_slice(&uuid_rng.bits().to_le_bytes());
            uuid
        };
        let pool = pool::create(&mut io, &devices, uuid).expect("the devices are large enough");
        let fragment = [FragmentSize::MIN, FragmentSize::DEFAULT, FragmentSize::MAX][rng.index(3)];
        let faulty = rng.one_in(5);
        let mut world = World {
            now: Nanos::new(1),
            sizes: devices.iter().map(|device| device.size_bytes).collect(),
            meta: pool.meta,
            shared: Shared::new(disks, SpaceMap::new(&[], 0, 0), 1),
            cores: Vec::new(),
            catalog: None,
            logs: (0..JOURNALS).map(|_| Some(LogMemory::heap())).collect(),
            oracle: Oracle::default(),
            clients: Clients::new(faulty),
            playground: playground(&mut rng, fragment),
            fragment,
            outcome: Outcome::default(),
            job: Job::Idle,
            edge_failed: false,
            halted: false,
            dying: false,
            lost_power: false,
            degraded: false,
            faulty,
            rots: false,
            rot_copy: 0,
            auditing: false,
            chunk_limit: rng.one_in(4).then(|| u32::try_from(3 + rng.below(8)).expect("small")),
            hidden: Vec::new(),
            rotten: BTreeSet::new(),
            ghosts: BTreeSet::new(),
            rng,
        };
        world.restart();
        world.first_volumes();
        world.rots = world.rng.one_in(4);
        world.rot_copy = world.rng.index(2);
        world
    }

    /// Two volumes: a long one, and one that ends inside a block.
    fn first_volumes(&mut self) {
        let meta = self.meta;
        for (name, size_bytes) in
            [("first", 40 * SEGMENT_BYTES), ("second", 3 * SEGMENT_BYTES + 512 * 7)]
        {
            let new = NewVolume {
                name: name.to_owned(),
                size_bytes,
                fragment: self.fragment,
                block_bytes: 512,
                read_only: false,
            };
            let mut disks = std::mem::take(&mut self.shared.disks);
            let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut self.rng };
            let catalog = self.catalog.as_mut().expect("a process runs");
            catalog.create(&mut io, &meta, &new, [1; 16]).expect("an empty catalog");
            self.shared.disks = disks;
        }
        let volumes = self.catalog().serving();
        for core in &mut self.cores {
            core.composer.set_volumes(volumes.clone());
        }
        self.update_playground();
    }

    /// One thing happens somewhere.
    pub(super) fn step(&mut self, new_work: bool) -> Result<(), Violation> {
        self.outcome.steps += 1;
        self.now = self.now.after(1 + self.rng.below(200_000));
        match self.rng.below(10) {
            0..=3 => self.deliver(),
            4..=6 => self.finish_io(),
            7..=8 if new_work => self.request(),
            9 if self.rng.one_in(3) => self.background(),
            9 => self.control(new_work),
            _ => self.deliver(),
        }
        self.clients.degraded = self.degraded;
        for completion in std::mem::take(&mut self.shared.completions) {
            self.clients.complete(completion, &mut self.oracle, &mut self.shared)?;
        }
        Ok(())
    }

    pub(super) fn core_at_random(&mut self) -> usize {
        self.rng.index(self.cores.len())
    }

    pub(super) fn with_core<T>(
        &mut self,
        core: usize,
        act: impl FnOnce(&mut SimCore, &mut SimSink<'_>) -> T,
    ) -> T {
        let id = CoreId::new(u8::try_from(core).expect("few cores"));
        let mut sink = SimSink { shared: &mut self.shared, core: id };
        self.cores[core].table.set_now(self.now);
        act(&mut self.cores[core], &mut sink)
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
        let io = *self.shared.disks[disk].peek(at);
        if self.holds_back(&io) {
            return;
        }
        let flush = io.kind == IoKind::Flush;
        let fails = self.fails_now(flush);
        let (io, owner) = if fails {
            self.degraded |= flush;
            self.outcome.faults += 1;
            self.shared.fail_io(disk, at, &mut self.rng)
        } else {
            self.shared.complete_io(disk, at)
        };
        let result = if fails { Err(Failure::Device) } else { Ok(()) };
        let owner = usize::from(owner.get());
        self.with_core(owner, |core, sink| core.table.io_done(io.token, result, sink));
    }

    fn request(&mut self) {
        if self.clients.in_flight() >= self.playground.regime.max_in_flight() {
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
        if self.playground.regime != Regime::Mixed && !self.rng.one_in(8) {
            return;
        }
        let core = self.core_at_random();
        let (volume, _) = self.playground.volumes[self.rng.index(self.playground.volumes.len())];
        let hot = self.playground.hot[self.rng.index(self.playground.hot.len())];
        let slice = slice_of(volume, hot);
        let owner = usize::from(core_of(slice, u8::try_from(self.cores.len()).expect("few")).get());
        match self.rng.below(4) {
            0 => drop(self.with_core(owner, |core, sink| {
                core.table.predict(slice, volume, hot / BLOCK_BYTES as u64, sink)
            })),
            1 => drop(self.with_core(core, |core, sink| core.table.cool(volume, sink))),
            _ => drop(self.with_core(core, |core, sink| core.table.tick(sink))),
        }
    }
}

/// A few busy regions, across fragments and segments.
fn playground(rng: &mut Rng, fragment: FragmentSize) -> Playground {
    let regime = Regime::choose(rng);
    let regions = if fragment == FragmentSize::MAX { 24 } else { 6 };
    let windows = 3 * SEGMENT_BYTES / WINDOW_BYTES * 8;
    let mut hot = regime.regions(rng);
    if hot.is_empty() {
        let count = 1 + rng.below(regions);
        let region = |_| rng.below(windows) * WINDOW_BYTES % (40 * SEGMENT_BYTES);
        hot = (0..count).map(region).collect();
    }
    Playground { volumes: Vec::new(), hot, regime }
}

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
