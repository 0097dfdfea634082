//! Starting the cores of an opened pool.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use predictor::rank::Saved;

use super::ServeError;
use super::command::CoreMessage;
use super::core_loop::{CoreLoop, Shared};
use super::observe::{Observer, Verdicts};
use super::open::Opened;
use super::sink::Plant;
use super::tower::Settled;
use crate::admin::config::Config;
use crate::core::arena::{Arena, Arenas};
use crate::core::cpus::allowed_cpus;
use crate::core::executor::{CoreThread, spawn_core};
use crate::core::mailbox::{Control, Mailboxes, mesh};
use crate::core::park::Park;
use crate::core::reactor;
use crate::core::wake::WakeSet;
use crate::core::watch::Watch;
use crate::device::{Devices, Store};
use crate::format::superblock::Role;
use crate::pool::space_map::SpaceMap;
use crate::stage::StageSettings;
use crate::table::open::{GROUP_BUF_BYTES, open_slice};
use crate::table::slice::Slice;
use crate::table::{Table, TableConfig};
use crate::target::nvmf::QUEUES_PER_CORE;
use crate::tier::TierSettings;
use crate::units::{CoreId, SliceId};
use crate::volume::Volumes;
use crate::volume::catalog::CATALOG_EXTENTS;
use crate::volume::composer::Composer;
use crate::volume::placement::core_of;

/// Requests of one core that may be under way.
const MAX_REQUESTS: u32 = 1024;
/// Operations that one core may have on one device.
const MAX_OPS: u32 = 512;
/// Messages from one core to another that may be under way: parts, answers, predictions, two
/// about space, and two about flushes of each device.
const MAIL: usize = 4 * MAX_REQUESTS as usize;
const CONTROL_MAIL: usize = 1024;
/// NBD clients of one core.
const CONNECTIONS: u16 = 256;

/// How a core ended.
pub type CoreEnd = Result<u64, ServeError>;

/// Cores that do not run yet.
pub struct Cores {
    /// To their mailboxes.
    pub control: Control<CoreMessage>,
    /// Their parts.
    pub kits: Vec<Kit>,
    /// Free and taken space.
    pub space: Arc<SpaceMap>,
}

/// Everything that one core is made of, on its way to the core's thread.
pub struct Kit {
    composer: Composer,
    table: Table,
    arena: Arena,
    mail: Mailboxes<CoreMessage>,
    observer: Observer,
    stores: Vec<Arc<Store>>,
    space: Arc<SpaceMap>,
    wake: WakeSet,
    shared: Arc<Shared>,
    cpu: Option<usize>,
    /// CPUs that no core has.
    spare_cpus: Vec<usize>,
    spin_ns: u64,
}

/// How the predictor is set up, from the configuration.
pub fn predictor_settings(config: &Config) -> predictor::prefetch::Settings {
    predictor::prefetch::Settings {
        sequence_length: config.sequence_length as usize,
        prefetch_depth: config.prefetch_depth as usize,
        stage_threshold: config.stage_threshold,
        prefetch_budget: config.prefetch_budget,
        fragment_shift: config.fragment_size().log2(),
    }
}

/// Claims what the slices own.
fn space_of(opened: &Opened, slices: &[Box<Slice>]) -> Result<SpaceMap, ServeError> {
    let chunks: Vec<_> = opened.pool.superblocks.iter().map(|sb| sb.chunks).collect();
    let space = SpaceMap::new(&chunks, opened.pool.meta.extents, CATALOG_EXTENTS);
    for slice in slices {
        for (device, owned) in slice.space.iter().enumerate() {
            if !owned.owned().all(|chunk| space.chunks[device].take(chunk)) {
                let what = "a chunk belongs to two slices";
                return Err(contradiction(slice.id, what));
            }
        }
        if !slice.extents().all(|extent| space.extents.take(extent)) {
            return Err(contradiction(slice.id, "a checkpoint extent belongs to two slices"));
        }
    }
    Ok(space)
}

fn contradiction(slice: SliceId, what: &'static str) -> ServeError {
    let error = crate::journal::recover::RecoverError::Record { slice, what };
    ServeError::Pool(crate::pool::PoolError::Recover(error))
}

fn tier_settings(config: &Config) -> TierSettings {
    let free = (1.0 - config.tier_policy.spill_watermark) * 100.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share between 0 and 1, checked when parsed, in per cent"
    )]
    let spill_below_percent = free.clamp(0.0, 100.0) as u8;
    TierSettings {
        spill_below_percent,
        idle_ns: u64::from(config.tier_policy.idle_seconds) * 1_000_000_000,
        promote_touches: 2,
    }
}

/// How many cores there are, their CPUs, as far as there are so many, and those left.
fn divide_cpus(config: &Config) -> (usize, Vec<usize>, Vec<usize>) {
    let mut cpus = allowed_cpus();
    let count = config.cores.map_or(cpus.len(), usize::from).clamp(1, 64);
    let spare = cpus.split_off(count.min(cpus.len()));
    (count, cpus, spare)
}

/// The CPUs that no core has, for what runs beside them.
pub fn spare_cpus(config: &Config) -> Vec<usize> {
    divide_cpus(config).2
}

/// The parts of one core for each allowed CPU, or of as many as the configuration says; their
/// predictors begin with the models of an earlier run.
pub fn assemble(
    config: &Config,
    opened: &mut Opened,
    volumes: &Volumes,
    models: &Arc<Saved>,
    settled: &Settled,
) -> Result<Cores, ServeError> {
    let (count, cpus, spare) = divide_cpus(config);
    let cores = u8::try_from(count).expect("at most 64");
    let memory = usize::try_from(config.memory_per_core.bytes()).expect("64-bit platform");
    let (_, mut arenas) = Arenas::new(count, memory)?;
    let system = |what| move |source| ServeError::System { what, source };
    let wake = WakeSet::new(count).map_err(system("making eventfds"))?;
    let (mail, control) = mesh(&wake, MAIL, CONTROL_MAIL);
    let devices = opened.pool.devices();
    let mut slices = Vec::new();
    for ((found, log), id) in opened.tables.drain(..).zip((0..).map(SliceId::new)) {
        let arena = &mut arenas[usize::from(core_of(id, cores).get())];
        let buf = arena.alloc(GROUP_BUF_BYTES).expect("an arena holds its groups");
        let slice = open_slice(id, found, log, &devices, buf);
        slices.push(slice.map_err(|error| ServeError::Pool(error.into()))?);
    }
    let space = Arc::new(space_of(opened, &slices)?);
    let mut owned: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for slice in slices {
        owned[usize::from(core_of(slice.id, cores).get())].push(slice);
    }
    let shared = Arc::new(Shared { drained: AtomicU32::new(0), saved: AtomicU32::new(0) });
    let verdicts = Arc::new(Verdicts::default());
    let cold = opened.pool.devices().iter().any(|device| device.role == Role::Cold);
    let mut kits = Vec::new();
    for ((arena, mail), slices) in arenas.into_iter().zip(mail).zip(owned) {
        let core = arena.core();
        let mut composer = Composer::new(core, cores, MAX_REQUESTS);
        composer.set_volumes(volumes.clone());
        let mut observer = Observer::new(
            cold,
            config.prefetch,
            predictor_settings(config),
            config.stage_budget.bytes(),
            Arc::clone(settled),
            Arc::clone(&verdicts),
        );
        observer.remember(Arc::clone(models));
        kits.push(Kit {
            composer,
            table: Table::new(table_config(config, opened, core, cores), slices),
            arena,
            mail,
            observer,
            stores: opened.stores.clone(),
            space: Arc::clone(&space),
            wake: wake.clone(),
            shared: Arc::clone(&shared),
            cpu: cpus.get(usize::from(core.get())).copied(),
            spare_cpus: spare.clone(),
            spin_ns: u64::from(config.spin_us) * 1000,
        });
    }
    Ok(Cores { control, kits, space })
}

/// Starts a thread for each core.
pub fn spawn(kits: Vec<Kit>) -> Result<Vec<CoreThread<CoreEnd>>, ServeError> {
    let start = |kit: Kit| {
        let (cpu, name) = (kit.cpu, format!("core-{}", kit.arena.core()));
        Ok(spawn_core(cpu, &name, move || run(kit))?)
    };
    kits.into_iter().map(start).collect()
}

fn table_config(config: &Config, opened: &Opened, core: CoreId, cores: u8) -> TableConfig {
    TableConfig {
        core,
        cores,
        devices: opened.pool.devices(),
        meta: opened.pool.meta,
        pool: opened.pool.short_id(),
        incarnation: opened.pool.incarnation(),
        max_parts: MAX_REQUESTS * u32::from(cores) + 64,
        checkpoint_blocks: opened.pool.meta.journal_blocks / 2,
        map_budget_bytes: config.map_budget.bytes(),
        stage: StageSettings { budget_bytes: config.stage_budget.bytes(), loading: 1 },
        tier: tier_settings(config),
    }
}

impl Kit {
    /// Puts the core together, on the thread that will turn it.
    pub fn build(self) -> Result<(CoreLoop, Park), ServeError> {
        let core = self.arena.core();
        let eventfd = self.wake.waker(core);
        let arenas = Arc::clone(self.arena.arenas());
        let entries = MAX_OPS * u32::try_from(self.stores.len()).expect("at most 64 devices");
        let ring = entries.next_power_of_two().min(4096);
        let fd = std::os::fd::AsFd::as_fd(eventfd);
        let mut devices = Devices::new(&self.stores, arenas, fd, ring, MAX_OPS)?;
        if !self.spare_cpus.is_empty() {
            devices.keep_workers_on(&self.spare_cpus)?;
        }
        let watch = Watch::new(u32::from(CONNECTIONS) + u32::from(QUEUES_PER_CORE) + 8, fd)?;
        let roles = self.table.roles();
        let plant = Plant::new(self.arena, devices, roles, self.space, self.mail, MAX_OPS);
        let park = Park::new(self.wake.clone(), core, self.spin_ns);
        let core_loop = CoreLoop::new(
            self.composer,
            self.table,
            plant,
            self.observer,
            watch,
            CONNECTIONS,
            self.shared,
            self.cpu,
        );
        Ok((core_loop, park))
    }

    /// Staged fragments are never copied to the fast tier.
    #[must_use]
    pub fn without_promotion(mut self) -> Kit {
        self.table.config.tier.promote_touches = 0;
        self
    }
}

/// The body of a core's thread. Ends with the number of wakes that only the beat found.
async fn run(kit: Kit) -> CoreEnd {
    let (mut core_loop, mut park) = kit.build()?;
    reactor::run(&mut core_loop, &mut park);
    Ok(park.lost_wakes())
}
