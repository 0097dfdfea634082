//! One simulated life of a pool: work, crashes, recoveries, audits.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use predictor::online::Predictor;

use super::broken::Broken;
use super::client::Clients;
use super::control::Job;
use super::core::SimCore;
use super::door::Door;
use super::faults::troubles;
use super::foresight::predictor_of;
use super::oracle::Oracle;
use super::outcome::Outcome;
use super::plan::{Fault, Plan};
use super::playground::{Playground, playground};
use super::regime::Regime;
use super::shared::{Shared, SimPool, SimSink};
use super::trace::Trace;
use crate::core::wake::WakeSet;
use crate::device::sim::{Rng, SimDisk};
use crate::format::layout::{JOURNALS, MetaLayout, NewDevice};
use crate::format::superblock::Role;
use crate::journal::log::LogMemory;
use crate::pool;
use crate::pool::space_map::SpaceMap;
use crate::units::{FragmentSize, Nanos, SEGMENT_BYTES, VolumeId};
use crate::volume::catalog::{Catalog, NewVolume};

#[derive(Debug)]
pub(super) struct World {
    pub plan: Plan,
    pub trace: Trace,
    /// Decides what happens next.
    pub rng: Rng,
    /// Decides what clients want.
    pub client_rng: Rng,
    /// Decides what goes wrong.
    pub fault_rng: Rng,
    pub now: Nanos,
    pub sizes: Vec<u64>,
    pub meta: MetaLayout,
    pub shared: Shared,
    pub cores: Vec<SimCore>,
    /// Connections of clients that speak NVMe/TCP.
    pub doors: Vec<Door>,
    pub wake: WakeSet,
    pub catalog: Option<Catalog>,
    /// Pending logs while no process runs.
    pub logs: Vec<Option<LogMemory>>,
    pub oracle: Oracle,
    pub clients: Clients,
    pub playground: Playground,
    pub fragment: FragmentSize,
    pub outcome: Outcome,
    /// Steps taken, for whoever outlives a panic.
    pub progress: Rc<Cell<u64>>,
    /// What the control thread is doing.
    pub job: Job,
    pub edge_failed: bool,
    /// A core that does not run before a step.
    pub stalled: Option<(usize, u64)>,
    /// No new job until a restart.
    pub halted: bool,
    /// The process dies at the end of this step.
    pub dying: bool,
    /// The power has failed since the last process died.
    pub lost_power: bool,
    /// A flush failed: completed writes may be lost.
    pub degraded: bool,
    /// What goes wrong in this world.
    pub troubles: Vec<Fault>,
    /// Operations to each that fails, in a world with errors.
    pub error_odds: u64,
    /// Looks at a checkpoint's root to each that lets it end, in a world of slow roots.
    pub root_odds: u64,
    /// A device has lied about a flush since the last audit.
    pub lied: bool,
    /// Faults are suspended.
    pub auditing: bool,
    /// The copy of the metadata, and of superblocks, that faults may hit. Always the same: a map
    /// page is mended only when it is next written.
    pub weak_copy: usize,
    /// Chunks of a device that can be in use, in a small world.
    pub chunk_limit: Option<u32>,
    /// Chunks out of reach, by device.
    pub hidden: Vec<u32>,
    /// Writes and flushes of the last recovery.
    pub recovery_steps: u64,
    /// Blocks of volumes that held something which was deleted or cut off.
    pub ghosts: BTreeSet<(VolumeId, u64)>,
    /// The learned predictor of all clients, in some worlds.
    pub predictor: Option<Box<Predictor>>,
}

pub(super) const BOOT: [u8; 16] = [9; 16];

/// Makes a run.
pub fn run(plan: &Plan, trace: &Trace) -> Result<Outcome, Broken> {
    run_counting(plan, trace, &Rc::default())
}

/// The same; `steps` says how far it came, also if it panics.
pub(super) fn run_counting(
    plan: &Plan,
    trace: &Trace,
    steps: &Rc<Cell<u64>>,
) -> Result<Outcome, Broken> {
    let mut world = World::new(plan.clone(), trace.clone())?;
    world.progress = steps.clone();
    world.live()?;
    Ok(world.end())
}

fn disks(rng: &mut Rng, regime: Regime) -> Vec<NewDevice> {
    let device = |role| NewDevice { size_bytes: 512 << 20, role };
    let mut devices = vec![device(Role::Fast)];
    if rng.one_in(3) {
        devices.push(device(Role::Fast));
    }
    if !rng.one_in(4) || regime == Regime::Crowded {
        devices.push(device(Role::Cold));
    }
    devices
}

impl World {
    pub(super) fn new(plan: Plan, trace: Trace) -> Result<World, Broken> {
        let mut rng = Rng::new(plan.seed);
        let (client_rng, fault_rng, mut shape) = (rng.fork(), rng.fork(), rng.fork());
        let devices = disks(&mut shape, plan.regime);
        let whole_blocks = shape.one_in(3);
        let mut disks: Vec<_> = devices.iter().map(|_| SimDisk::new(whole_blocks)).collect();
        let mut uuid_rng = shape.fork();
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
        let uuid = || {
            let mut uuid = [0; 16];
            uuid[..8].copy_from_slice(&uuid_rng.bits().to_le_bytes());
            uuid[8..].copy_from_slice(&uuid_rng.bits().to_le_bytes());
            uuid
        };
        let pool = pool::create(&mut io, &devices, uuid).expect("the devices are large enough");
        let fragment =
            [FragmentSize::MIN, FragmentSize::DEFAULT, FragmentSize::MAX][shape.index(3)];
        let mut troubles = troubles(&mut shape);
        let crowded = plan.regime == Regime::Crowded;
        if crowded {
            troubles = vec![Fault::Tiers, Fault::Delays, Fault::Recovery, Fault::Full];
        }
        let honest = !troubles.contains(&Fault::Lies);
        if let Some(fault) = plan.regime.favours()
            && honest
            && shape.one_in(2)
            && !troubles.contains(&fault)
        {
            troubles.push(fault);
        }
        troubles.retain(|fault| plan.allows(*fault));
        let limit = u32::try_from(3 + shape.below(8)).expect("small");
        let lies = troubles.contains(&Fault::Lies);
        let predictor = predictor_of(plan.seed, troubles.contains(&Fault::Tiers));
        let shared = Shared::new(disks, SpaceMap::new(&[], 0, 0), 0, Vec::new(), shape.fork());
        let mut world = World {
            now: Nanos::new(1),
            sizes: devices.iter().map(|device| device.size_bytes).collect(),
            meta: pool.meta,
            shared,
            cores: Vec::new(),
            doors: Vec::new(),
            wake: WakeSet::new(0).expect("no eventfds"),
            catalog: None,
            logs: (0..JOURNALS).map(|_| Some(LogMemory::heap())).collect(),
            oracle: if lies { Oracle::keeping_past() } else { Oracle::default() },
            clients: Clients::default(),
            playground: playground(&mut shape, plan.regime, fragment),
            fragment,
            outcome: Outcome::default(),
            progress: Rc::default(),
            job: Job::Idle,
            edge_failed: false,
            stalled: None,
            halted: lies,
            dying: false,
            lost_power: false,
            degraded: false,
            chunk_limit: troubles.contains(&Fault::Full).then_some(limit),
            troubles,
            lied: false,
            root_odds: [60, 300, 2_000][shape.index(3)],
            error_odds: [80, 500, 3_000][shape.index(3)],
            auditing: true,
            weak_copy: shape.index(2),
            hidden: Vec::new(),
            recovery_steps: 1,
            ghosts: BTreeSet::new(),
            predictor,
            plan,
            trace,
            rng,
            client_rng,
            fault_rng,
        };
        world.clients.roomy = crowded;
        world.restart()?;
        world.first_volumes();
        world.auditing = false;
        Ok(world)
    }

    fn live(&mut self) -> Result<(), Broken> {
        for life in 0..self.plan.lives {
            self.life()?;
            let last = life + 1 == self.plan.lives;
            let rests = self.plan.regime != Regime::CutGroups && self.rng.one_in(4);
            if !self.dying && (last || rests) {
                self.quiesce()?;
            }
            self.crash();
            if !self.restart()? {
                self.outcome.refused += 1;
                return Ok(());
            }
            self.audit()?;
            if self.clients.distrusting {
                return Ok(());
            }
        }
        self.check_leaks()
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
        self.tell_volumes();
        self.update_playground();
    }

    fn end(mut self) -> Outcome {
        self.outcome.completed = self.clients.completed;
        self.outcome.no_space = self.clients.no_space;
        self.outcome.miscompared = self.clients.miscompared;
        self.outcome.failed = self.clients.failed;
        self.outcome.lies = u64::from(self.lied);
        self.outcome
    }

    pub(super) fn core_at_random(&mut self) -> usize {
        self.rng.index(self.cores.len())
    }

    pub(super) fn with_core<T>(
        &mut self,
        core: usize,
        act: impl FnOnce(&mut SimCore, &mut SimSink<'_>) -> T,
    ) -> T {
        let before = if self.trace.is_on() { self.submitted() } else { Vec::new() };
        let mut sink = SimSink { shared: &mut self.shared, core: super::core::core_id(core) };
        self.cores[core].table.set_now(self.now);
        let result = act(&mut self.cores[core], &mut sink);
        if self.trace.is_on() {
            self.tell_submitted(core, &before);
        }
        result
    }
}
