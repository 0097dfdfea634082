//! One step of a world: somewhere, one thing happens.

use std::sync::Arc;

use predictor::heat::worth::SegmentHeat;

use super::broken::Broken;
use super::client::Connection;
use super::core::{Asked, core_id};
use super::door::door_of;
use super::faults::Fate;
use super::plan::Fault;
use super::playground::Want;
use super::regime::Regime;
use super::trace::{Touches, sectors_of};
use super::world::World;
use crate::device::sim::How;
use crate::request::Failure;
use crate::table::op::Token;
use crate::table::sink::{Io, IoKind};
use crate::tier::heat::{HeatForecast, VolumeHeat};
use crate::units::{BLOCK_BYTES, ClientId, Nanos, SEGMENT_SHIFT};
use crate::volume::composer::Foresight;
use crate::volume::placement::{core_of, slice_of};

/// Kinds of events tried in a step before it passes without one.
const TRIES: u32 = 4;
/// The longest that an operation is stuck.
const STUCK_NS: u64 = 60_000_000;
/// Steps for which a core does not run whose flush has failed, where flushes last: others that
/// do not know of it must not go on as if nothing were lost.
const STALL_STEPS: u64 = 300;
/// The longest pause in which nothing happens.
const PAUSE_NS: u64 = 1_000_000_000;
/// The longest time that a forecast of heat speaks of.
const HORIZON_NS: u64 = 20 * PAUSE_NS;

fn number(offset: u64) -> u32 {
    u32::try_from(offset >> SEGMENT_SHIFT).expect("a segment of a volume")
}

impl World {
    /// One thing happens somewhere.
    pub(super) fn step(&mut self, new_work: bool) -> Result<(), Broken> {
        self.outcome.steps += 1;
        self.progress.set(self.outcome.steps);
        self.now = self.now.after(1 + self.rng.below(200_000));
        for _ in 0..TRIES {
            if self.something(new_work)? {
                break;
            }
        }
        self.take_completions()
    }

    /// False if there was nothing of the kind to happen.
    fn something(&mut self, new_work: bool) -> Result<bool, Broken> {
        match self.rng.below(40) {
            0..=16 => return self.some_turn(),
            17..=26 => return Ok(self.finish_io()),
            31..=32 if !self.doors.is_empty() => return self.host_turn(),
            27..=32 => return Ok(self.push_message()),
            33..=36 => return Ok(new_work && self.request()),
            37 => self.control(new_work),
            38 if new_work && self.rng.one_in(3) => self.background(),
            39 if self.rng.one_in(20) => self.now = self.now.after(self.rng.below(PAUSE_NS)),
            39 if self.has(Fault::Flips) && self.rng.one_in(40) => self.rot_data(),
            _ => {}
        }
        Ok(true)
    }

    fn take_completions(&mut self) -> Result<(), Broken> {
        self.take_met();
        while !self.shared.completions.is_empty() {
            for completion in std::mem::take(&mut self.shared.completions) {
                if let Some(number) = door_of(completion.tag) {
                    self.with_door(number, |door, host, _| door.complete(completion, host));
                    continue;
                }
                let (tag, result) = (completion.tag, completion.result);
                let want = self.clients.complete(completion, &mut self.oracle, &mut self.shared)?;
                self.tell_end(tag, &want, result);
            }
        }
        Ok(())
    }

    pub(super) fn tell_end(&self, tag: u64, want: &Want, result: Result<(), Failure>) {
        self.trace.tell(self.outcome.steps, || {
            let text = format!("request {tag} {:?} ended: {result:?}", want.op);
            (Touches::Sectors(want.volume, want.range()), text)
        });
    }

    pub(super) fn core_of_client(&self, client: u64) -> usize {
        usize::try_from(client).expect("few") % self.cores.len()
    }

    /// A core that does not sleep has its turn.
    fn some_turn(&mut self) -> Result<bool, Broken> {
        let first = self.core_at_random();
        for at in 0..self.cores.len() {
            if self.turn((first + at) % self.cores.len())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A core's message reaches another core's ring, and wakes it.
    fn push_message(&mut self) -> bool {
        let cores = self.cores.len();
        let start = self.rng.index(cores * cores);
        for at in 0..cores * cores {
            let (from, to) = ((start + at) / cores % cores, (start + at) % cores);
            if let Some(message) = self.shared.leaving[from][to].pop_front() {
                self.cores[from].mail.send(core_id(to), message);
                return true;
            }
        }
        false
    }

    /// An operation of a disk ends: its bytes move now; its core sees it later.
    fn finish_io(&mut self) -> bool {
        let first = self.rng.index(self.shared.disks.len());
        let disks = self.shared.disks.len();
        let busy = (0..disks).map(|at| (first + at) % disks);
        let Some(disk) = busy.into_iter().find(|at| self.shared.disks[*at].in_flight() > 0) else {
            return false;
        };
        let at = self.rng.index(self.shared.disks[disk].in_flight());
        let io = *self.shared.disks[disk].peek(at);
        if !self.shared.disks[disk].is_ready(at, self.now) || self.holds_back(&io) {
            return false;
        }
        if self.has(Fault::Delays) && self.fault_rng.one_in(50) {
            self.outcome.delays += 1;
            let until = self.now.after(self.fault_rng.below(STUCK_NS));
            self.shared.disks[disk].delay(at, until);
            return true;
        }
        let fate = self.fate(disk, &io);
        let owner = usize::from(self.shared.disks[disk].owner(at).get());
        self.tell_io(disk, &io, owner, fate);
        let (ended, result) = match fate {
            Fate::Done(how) => {
                self.outcome.astray += u64::from(matches!(how, How::Astray(_)));
                (self.shared.complete_io(disk, at, how), Ok(()))
            }
            Fate::Fails => {
                self.degraded |= io.kind == IoKind::Flush;
                if io.kind == IoKind::Flush && self.plan.regime == Regime::SlowFlushes {
                    self.stalled = Some((owner, self.outcome.steps + STALL_STEPS));
                }
                self.clients.failing = true;
                self.outcome.faults += 1;
                (self.shared.fail_io(disk, at, &mut self.fault_rng), Err(Failure::Device))
            }
        };
        self.look_at(&ended);
        self.cores[owner].io_ended(io.token, result);
        true
    }

    /// A client wants something of the core that it is connected to.
    fn request(&mut self) -> bool {
        let depth = self.plan.depth.min(self.plan.regime.max_in_flight());
        if self.clients.in_flight() >= depth {
            return false;
        }
        let client = self.client_rng.below(self.plan.clients.into());
        let core = self.core_of_client(client);
        let from = Connection { client: ClientId::new(1 + client), core: core_id(core) };
        let want = self.playground.want(&self.clients.wrong, &mut self.client_rng);
        let stage = self.client_rng.one_in(3);
        let Some(want) = want else { return false };
        if let Some(number) = self.doors.iter().position(|door| door.client == client) {
            return self.send_through(number, want);
        }
        let (oracle, shared) = (&mut self.oracle, &mut self.shared);
        let Some(request) = self.clients.send(want, from, oracle, shared) else {
            return false;
        };
        self.tell_request(request.tag, &want, core);
        let whole = stage && self.exists(Fault::Tiers);
        let seen = self.foresee(client, &request);
        let foresight = seen.unwrap_or(Foresight { whole, watched: false });
        self.cores[core].ask(Asked::Request(request, foresight));
        true
    }

    pub(super) fn tell_request(&self, tag: u64, want: &Want, core: usize) {
        self.trace.tell(self.outcome.steps, || {
            let range = want.range();
            let what =
                format!("request {tag} {:?} fua {} volume {}", want.op, want.fua, want.volume);
            let touches = Touches::Sectors(want.volume, range.clone());
            (touches, format!("{what} sectors {range:?} at core {core}"))
        });
    }

    /// Predictions, cooling, forecasts.
    fn background(&mut self) {
        let idle = self.plan.regime != Regime::Mixed && !self.rng.one_in(8);
        if idle || !self.exists(Fault::Tiers) {
            return;
        }
        let core = self.core_at_random();
        let (volume, _) = self.playground.volumes[self.rng.index(self.playground.volumes.len())];
        let hot = self.playground.hot[self.rng.index(self.playground.hot.len())];
        let slice = slice_of(volume, hot);
        let owner = core_of(slice, u8::try_from(self.cores.len()).expect("few"));
        match self.rng.below(5) {
            0..2 => {
                let block = hot / BLOCK_BYTES as u64;
                let owner = usize::from(owner.get());
                self.cores[owner].ask(Asked::Predict(slice, volume, block, false));
            }
            2..4 => self.cores[core].ask(Asked::Cool(volume)),
            _ => {
                let forecast = self.some_forecast();
                self.cores[core].ask(Asked::Forecast(Arc::new(forecast)));
            }
        }
    }

    /// Any of the places that are used much may be expected to be hot.
    fn some_forecast(&mut self) -> HeatForecast {
        let mut volumes = Vec::new();
        for (volume, _) in &self.playground.volumes {
            let mut segments: Vec<u32> = self.playground.hot.iter().map(|at| number(*at)).collect();
            segments.sort_unstable();
            segments.dedup();
            let mut heat = || {
                let [expected, recent] =
                    [0; 2].map(|_| f32::from(u16::try_from(self.rng.below(2000)).expect("small")));
                SegmentHeat { expected, recent }
            };
            let segments = segments.into_iter().map(|segment| (segment, heat())).collect();
            volumes.push(VolumeHeat { volume: *volume, segments, other: heat() });
        }
        HeatForecast::new(1 + self.rng.below(HORIZON_NS), volumes)
    }

    /// If nothing can happen before a certain time, that time comes; false if nothing will.
    pub(super) fn skip_time(&mut self) -> bool {
        let quiet = (0..self.cores.len()).all(|core| self.is_quiet(core))
            && self.shared.leaving.iter().flatten().all(|queue| queue.is_empty())
            && self.doors.iter().all(|door| door.is_idle());
        if !quiet {
            return true;
        }
        let disks = self.shared.disks.iter().filter_map(|disk| disk.next_ready());
        let cores = self.cores.iter().filter_map(|core| core.deadline());
        let next: Option<Nanos> = disks.chain(cores).min();
        self.now = self.now.max(next.unwrap_or(self.now));
        next.is_some()
    }

    /// Operations under way at each disk.
    pub(super) fn submitted(&self) -> Vec<usize> {
        self.shared.disks.iter().map(|disk| disk.in_flight()).collect()
    }

    /// Tells of what a core has just asked of the disks.
    pub(super) fn tell_submitted(&self, core: usize, before: &[usize]) {
        for (disk, before) in before.iter().enumerate() {
            for at in *before..self.shared.disks[disk].in_flight() {
                let io = *self.shared.disks[disk].peek(at);
                self.tell_of(&io, core, format!("core {core} asks disk {disk}:"));
            }
        }
    }

    fn tell_io(&self, disk: usize, io: &Io, core: usize, fate: Fate) {
        if self.trace.is_on() {
            let ending = match fate {
                Fate::Done(How::Well) => "does".to_owned(),
                other => format!("{other:?}"),
            };
            self.tell_of(io, core, format!("disk {disk} {ending}:"));
        }
    }

    fn tell_of(&self, io: &Io, core: usize, who: String) {
        self.trace.tell(self.outcome.steps, || {
            let first = io.offset.get() / BLOCK_BYTES as u64;
            let token = Token::unpack(io.token);
            let touches = match (self.blocks_of(io, core), token) {
                (Some((volume, blocks)), _) => Touches::Sectors(volume, sectors_of(blocks)),
                (None, Token::Journal(slice) | Token::Checkpoint(slice)) => {
                    Touches::Slice(slice.get())
                }
                (None, Token::Flush(_)) => Touches::All,
                _ => Touches::Other,
            };
            let blocks = u64::from(io.bytes) / BLOCK_BYTES as u64;
            (touches, format!("{who} {:?} blocks {first}+{blocks} for {token:?}", io.kind))
        });
    }
}
