//! One core: its mailbox, sockets, table and devices, polled in turn.
//!
//! A pass takes a bounded amount from every source, lets the state machines
//! turn it into operations and answers, and hands all operations to the kernel
//! at once. The core never blocks in a pass and shares nothing but mailboxes,
//! the space map and counters.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

use super::command::{Command, CoreMessage, CoreStats, Forecast, Outcome};
use super::host::CoreHost;
use super::observe::Observer;
use super::sink::{CONTROL_ORIGIN, Plant};
use super::watches::Watches;
use crate::core::meter::Meter;
use crate::core::reactor::Poll;
use crate::core::watch::Watch;
use crate::table::Table;
use crate::target::load::Load;
use crate::target::nbd;
use crate::target::nvmf;
use crate::target::roster::{Member, Roster};
use crate::target::socket::Socket;
use crate::units::{BLOCK_BYTES, Nanos, VolumeId};
use crate::volume::composer::{Composer, Message};

/// Messages taken from the mailbox in one pass.
const MESSAGES_PER_PASS: usize = 256;
/// How often timers that nobody waits for closely are looked at.
const SECOND_NS: u64 = 1_000_000_000;
/// While stopping, other cores are looked at this often.
const STOP_POLL_NS: u64 = 1_000_000;
/// Least time between two looks for background work while the core is busy.
const TICK_NS: u64 = 5_000_000;

/// Tokens of watched sockets from here on are of the NVMe/TCP target.
const NVMF_TOKEN: u64 = 1 << 32;

/// How far a core has come in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// No new requests; those under way end.
    Draining,
    /// Waiting until every core has drained.
    Drained,
    /// The last flush.
    Flushing,
    /// The last checkpoints.
    Checkpointing,
    /// Waiting until no core needs another's flushes any more.
    Saved,
    /// Clients are being hung up on.
    Closing,
    Done,
}

/// What all cores of a process share besides mailboxes.
#[derive(Debug)]
pub struct Shared {
    /// Cores that have drained.
    pub drained: AtomicU32,
    /// Cores that have written their last checkpoint.
    pub saved: AtomicU32,
}

/// One core.
pub struct CoreLoop {
    composer: Composer,
    table: Table,
    plant: Plant,
    observer: Observer,
    nbd: nbd::Server,
    nvmf: nvmf::Server,
    load: Option<Box<Load>>,
    watch: Watch,
    nbd_watches: Watches,
    nvmf_watches: Watches,
    forecasts: Vec<Forecast>,
    held: VecDeque<Message>,
    waiters: HashMap<u64, Sender<Outcome>>,
    next_origin: u64,
    settling: Option<Sender<Outcome>>,
    cooling: VecDeque<(VolumeId, Sender<Outcome>)>,
    /// Commands that wait for a slot of the table.
    postponed: VecDeque<Command>,
    shared: Arc<Shared>,
    stop: Stop,
    now: Nanos,
    next_tick: Option<Nanos>,
    last_tick: Nanos,
    next_second: Nanos,
    flushes: u64,
    errors: u64,
    cpu: Option<usize>,
}

/// How many messages ahead the way to a part's fragment is brought near.
const EXPECT_AHEAD: usize = 11;
/// How many messages ahead the seat of a part's fragment is brought near.
const SEAT_AHEAD: usize = 9;
/// How many messages ahead a part's fragment is sought.
const SEEK_AHEAD: usize = 7;
/// How many messages ahead its map entry is brought near.
const APPROACH_AHEAD: usize = 3;

impl CoreLoop {
    /// Pages of its arena that nobody has.
    #[cfg(test)]
    pub fn free_pages(&self) -> u32 {
        self.plant.arena.free_pages()
    }

    /// What a device has done for this core.
    #[cfg(test)]
    pub fn device_stats(&self, device: usize) -> super::command::DeviceStats {
        self.plant.stats[device]
    }

    /// Foresees a read of a block of a slice of this core.
    #[cfg(test)]
    pub fn foresee(&mut self, slice: crate::units::SliceId, volume: VolumeId, block: u64) {
        self.forecasts.push((None, slice, volume, block));
    }

    /// Puts a core together; `connections` clients at most.
    #[expect(clippy::too_many_arguments, reason = "the parts of a core, each made elsewhere")]
    pub fn new(
        composer: Composer,
        table: Table,
        plant: Plant,
        observer: Observer,
        watch: Watch,
        connections: u16,
        shared: Arc<Shared>,
        cpu: Option<usize>,
    ) -> Self {
        let mut this = Self {
            composer,
            table,
            plant,
            observer,
            nbd: nbd::Server::new(connections),
            nvmf: nvmf::Server::new(nvmf::QUEUES_PER_CORE),
            load: None,
            watch,
            nbd_watches: Watches::new(0, connections),
            nvmf_watches: Watches::new(NVMF_TOKEN, nvmf::QUEUES_PER_CORE),
            forecasts: Vec::with_capacity(64),
            held: VecDeque::with_capacity(1024),
            waiters: HashMap::new(),
            next_origin: 0,
            settling: None,
            cooling: VecDeque::new(),
            postponed: VecDeque::new(),
            shared,
            stop: Stop::No,
            now: Nanos::new(0),
            next_tick: Some(Nanos::new(0)),
            last_tick: Nanos::new(0),
            next_second: Nanos::new(0),
            flushes: 0,
            errors: 0,
            cpu,
        };
        this.table.checkpoint_full(&mut this.plant);
        this
    }

    fn take_mail(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..MESSAGES_PER_PASS {
            let Some((_, message)) = self.plant.mail.receive() else { break };
            worked = true;
            match message {
                CoreMessage::Data(message) if message.takes_slot() => self.held.push_back(message),
                CoreMessage::Data(message) => self.handle(message),
                CoreMessage::Predict(from, slice, volume, block) => {
                    self.forecasts.push((Some(from), slice, volume, block));
                }
                CoreMessage::Predicted(volume, block, staging) => {
                    self.observer.outstanding -= 1;
                    self.observer.answered(volume, block, staging, self.composer.volumes());
                }
                CoreMessage::Command(command) => self.command(*command),
            }
        }
        while self.table.can_submit()
            && let Some(command) = self.postponed.pop_front()
        {
            worked = true;
            self.command(command);
        }
        worked | self.handle_data()
    }

    /// Handles messages of the data path, from other cores and this one, until none can go on.
    fn handle_data(&mut self) -> bool {
        let mut worked = false;
        loop {
            let message = match self.held.pop_front() {
                Some(message) => message,
                None => match self.plant.local.pop_front() {
                    Some(message) => message,
                    None => return worked,
                },
            };
            if message.takes_slot() && !self.table.can_submit() {
                self.held.push_front(message);
                return worked;
            }
            worked = true;
            let Self { table, plant, .. } = self;
            if let Some(Message::Part(slice, part)) = plant.local.get(EXPECT_AHEAD) {
                table.expect(*slice, part);
            }
            if let Some(Message::Part(slice, part)) = plant.local.get(SEAT_AHEAD) {
                table.expect_seat(*slice, part);
            }
            if let Some(Message::Part(slice, part)) = plant.local.get_mut(SEEK_AHEAD) {
                table.seek(*slice, part);
            }
            if let Some(Message::Part(slice, part)) = plant.local.get(APPROACH_AHEAD) {
                table.approach(*slice, part);
            }
            self.handle(message);
        }
    }

    #[inline]
    fn handle(&mut self, message: Message) {
        let Self { table, composer, plant, .. } = self;
        match message {
            Message::Part(slice, part) => table.submit(slice, part, plant),
            Message::Flush(volume, origin) => table.flush(Some(volume), origin, plant),
            Message::Done(done) => composer.done(done, plant),
            Message::AskSpace(by) => table.space_asked(by, plant),
            Message::GiveSpace(chunk) => table.space_given(chunk, plant),
            Message::AskFlush(device, by) => table.flush_asked(device, by, plant),
            Message::Flushed(device, result) => {
                table.flushed_elsewhere(device, result, plant);
            }
        }
    }

    fn predict(&mut self) -> bool {
        let worked = !self.forecasts.is_empty();
        let mut forecasts = std::mem::take(&mut self.forecasts);
        for (from, slice, volume, block) in forecasts.drain(..) {
            let staging = self.table.predict(slice, volume, block, &mut self.plant);
            match from {
                None => self.observer.answered(volume, block, staging, self.composer.volumes()),
                Some(from) => {
                    let answer = CoreMessage::Predicted(volume, block, staging);
                    self.plant.mail.send(from, answer);
                }
            }
        }
        self.forecasts = forecasts;
        worked
    }

    fn serve_clients(&mut self) -> bool {
        let mut worked = false;
        while let Some(event) = self.watch.poll() {
            worked = true;
            let conn = |token| u16::try_from(token).expect("a connection's number");
            match event.token.checked_sub(NVMF_TOKEN) {
                Some(token) => self.nvmf.mark(conn(token)),
                None => self.nbd.mark(conn(event.token)),
            }
        }
        let Self {
            nbd,
            nvmf,
            nbd_watches,
            nvmf_watches,
            watch,
            composer,
            plant,
            observer,
            forecasts,
            flushes,
            now,
            ..
        } = self;
        let mut host = CoreHost { composer, plant, observer, forecasts, flushes, now: *now };
        worked |= serve(nbd, nbd_watches, watch, *now, &mut host);
        worked | serve(nvmf, nvmf_watches, watch, *now, &mut host)
    }

    fn run_load(&mut self) -> bool {
        let Self { load, composer, plant, observer, forecasts, flushes, now, .. } = self;
        let Some(load) = load else { return false };
        load.run(&mut CoreHost { composer, plant, observer, forecasts, flushes, now: *now })
    }

    fn finish_io(&mut self) -> bool {
        let mut worked = self.plant.move_io(self.now);
        while let Some((token, result)) = self.plant.next_done(self.now) {
            worked = true;
            self.table.io_done(token, result, &mut self.plant);
        }
        worked
    }

    /// Hands completions to the target that made the requests.
    fn complete(&mut self) -> bool {
        let mut worked = false;
        for (watched, met) in self.plant.met.drain(..) {
            self.observer.met(&watched, met, self.composer.volumes());
        }
        while let Some(completion) = self.plant.completions.pop() {
            worked = true;
            self.errors += u64::from(completion.result.is_err());
            let Self { nbd, nvmf, load, .. } = self;
            let Self { composer, plant, observer, forecasts, flushes, now, .. } = self;
            let mut host = CoreHost { composer, plant, observer, forecasts, flushes, now: *now };
            match load {
                Some(load) if Load::is_tag(completion.tag) => load.complete(completion, &mut host),
                _ if nvmf::Server::is_tag(completion.tag) => nvmf.route(completion, &mut host),
                _ => nbd.route(completion, &mut host),
            }
        }
        while let Some((origin, result)) = self.plant.control.pop() {
            worked = true;
            if let Some(waiter) = self.waiters.remove(&origin) {
                // The asker may have given up.
                let _ = waiter.send(result);
            }
        }
        if self.composer.has_settled()
            && let Some(waiter) = self.settling.take()
        {
            let _ = waiter.send(Ok(()));
        }
        worked
    }

    /// Takes the oldest request to cool a volume further.
    fn cool(&mut self) {
        let Some((volume, waiter)) = self.cooling.pop_front() else { return };
        if self.table.cool(volume, &mut self.plant) {
            self.cooling.push_front((volume, waiter));
        } else {
            let _ = waiter.send(Ok(()));
        }
        if !self.cooling.is_empty() {
            self.next_tick = Some(self.now.after(TICK_NS));
        }
    }

    /// True if it did anything that may have queued work.
    fn timers(&mut self, worked: bool) -> bool {
        let due = self.next_tick.is_some_and(|at| self.now >= at);
        let busy = worked && self.now.since(self.last_tick) > TICK_NS;
        if due || busy {
            self.last_tick = self.now;
            self.next_tick = self.table.tick(&mut self.plant);
            self.cool();
            self.observer.judge(&self.table.counters);
        } else if worked {
            // What has just begun to wait for memory must not wait for another event.
            let soon = self.last_tick.after(TICK_NS);
            self.next_tick = Some(self.next_tick.map_or(soon, |at| at.min(soon)));
        }
        if self.now >= self.next_second {
            self.next_second = self.now.after(SECOND_NS);
            let Self { nbd, nvmf, composer, plant, observer, forecasts, flushes, now, .. } = self;
            let mut host = CoreHost { composer, plant, observer, forecasts, flushes, now: *now };
            nbd.expire(*now, &mut host);
            nvmf.expire(*now, &mut host);
        }
        due || busy
    }

    fn origin(&mut self, waiter: Sender<Outcome>) -> u64 {
        self.next_origin = (self.next_origin + 1) % CONTROL_ORIGIN;
        let origin = u64::from(self.plant.core.get()) << 56 | CONTROL_ORIGIN | self.next_origin;
        self.waiters.insert(origin, waiter);
        origin
    }

    fn command(&mut self, command: Command) {
        let takes_slot =
            matches!(command, Command::Flush(_) | Command::Part(..) | Command::DropRange(..));
        if takes_slot && !self.table.can_submit() {
            return self.postponed.push_back(command);
        }
        match command {
            Command::Volumes(volumes, waiter) => {
                self.composer.set_volumes(volumes);
                self.settling = Some(waiter);
            }
            Command::Connection(socket) => self.connect(socket),
            Command::NvmfQueue(queue) => {
                self.nvmf.add(*queue, self.now);
                self.nvmf_watches.update(&self.nvmf, &mut self.watch);
            }
            Command::NvmfDrop(association) => {
                let Self { nvmf, composer, plant, observer, forecasts, flushes, now, .. } = self;
                let mut host =
                    CoreHost { composer, plant, observer, forecasts, flushes, now: *now };
                nvmf.drop_association(association, &mut host);
            }
            Command::NvmfNamespaces(association, namespaces) => {
                self.nvmf.set_namespaces(association, &namespaces);
            }
            Command::Load(load) => {
                let idle = self.load.as_ref().is_none_or(|load| load.is_quiet());
                assert!(idle, "a load ends before the next begins");
                self.load = Some(load);
            }
            Command::Flush(waiter) => {
                let origin = self.origin(waiter);
                self.table.flush(None, origin, &mut self.plant);
            }
            Command::Part(slice, mut part, waiter) => {
                part.origin = self.origin(waiter);
                self.table.submit(slice, part, &mut self.plant);
            }
            Command::DropRange(volume, segment, waiter) => {
                let origin = self.origin(waiter);
                self.table.drop_range(volume, segment, origin, &mut self.plant);
            }
            Command::Cool(volume, waiter) => {
                self.cooling.push_back((volume, waiter));
                self.next_tick = Some(self.now);
            }
            Command::Prefetch(kind, settings) => self.observer.configure(kind, settings),
            Command::StageBudget(bytes) => {
                self.table.set_stage_budget(bytes, &mut self.plant);
                self.observer.set_stage_budget(bytes);
            }
            Command::Tower(model, trained) => self.observer.install(model, trained),
            Command::Remember(saved) => self.observer.remember(saved),
            // Whoever asked may have given up.
            Command::Learned(model, reply) => {
                let learned = self.observer.predictor().and_then(|known| known.learned(model));
                let _ = reply.send(learned);
            }
            Command::Explain(volume, reply) => {
                let of = volume.map(VolumeId::get);
                let reasons = self.observer.predictor().map(|known| known.explain(of));
                let _ = reply.send(reasons.unwrap_or_default());
            }
            Command::Study(client, accesses, reply) => {
                self.observer.study(client, &accesses);
                let _ = reply.send(());
            }
            Command::Tap(tap) => self.observer.tap = tap,
            Command::Heat { mut into, taken, reply } => {
                let counts = if taken {
                    self.table.take_heat(into)
                } else {
                    self.table.copy_heat(&mut into);
                    into
                };
                // The asker may have given up.
                let _ = reply.try_send(counts);
            }
            Command::Forecast(forecast) => self.table.set_forecast(forecast),
            Command::Stats(reply) => drop(reply.send(self.stats())),
            Command::Stop => {
                self.stop = Stop::Draining;
                self.nbd.stop();
                self.nvmf.stop();
                if let Some(load) = &mut self.load {
                    load.stop();
                }
            }
        }
    }

    fn connect(&mut self, socket: Socket) {
        match self.nbd.add(socket, self.now) {
            Ok(_) => self.nbd_watches.update(&self.nbd, &mut self.watch),
            Err(error) => tracing::warn!(%error, "a client was turned away"),
        }
    }

    fn stats(&mut self) -> CoreStats {
        let block = BLOCK_BYTES as u64;
        let mut devices = self.plant.stats.clone();
        for (id, device) in (0..).zip(&mut devices) {
            device.used_bytes = self.table.device_used(crate::units::DeviceId::new(id));
        }
        let usage = |volume: &crate::volume::Volume| {
            let usage = self.table.usage(volume.view.id);
            let (fast, cold) = (usage.fast_blocks * block, usage.cold_blocks * block);
            (volume.view.id, usage.fragments, fast, cold)
        };
        CoreStats {
            counters: self.table.counters,
            devices,
            flushes: self.flushes,
            errors: self.errors,
            staged_bytes: self.table.staged_bytes(),
            slices: u32::try_from(self.table.slices().count()).expect("at most 64"),
            fragments: self.table.slices().map(|slice| slice.index.len() as u64).sum(),
            volumes: self.composer.volumes().list().iter().map(usage).collect(),
            connections: self.nbd.iter().map(|(_, connection)| connection.volume()).collect(),
            prediction: self.observer.predictor().map(|known| known.report()),
            meter: Meter::of_this_thread(),
            cpu: self.cpu,
        }
    }

    fn cores(&self) -> u32 {
        u32::try_from(self.plant.mail.cores()).expect("few cores")
    }

    /// Takes stopping one step further. True if it moved.
    fn stop_step(&mut self) -> bool {
        let before = self.stop;
        let quiet = self.nbd.is_quiet() && self.nvmf.is_quiet() && self.composer.in_flight() == 0;
        match self.stop {
            Stop::Draining if quiet => {
                self.composer.stop();
                self.shared.drained.fetch_add(1, Ordering::AcqRel);
                self.stop = Stop::Drained;
            }
            Stop::Drained if self.shared.drained.load(Ordering::Acquire) == self.cores() => {
                let (waiter, _) = std::sync::mpsc::channel();
                let origin = self.origin(waiter);
                self.table.flush(None, origin, &mut self.plant);
                self.stop = Stop::Flushing;
            }
            Stop::Flushing if self.waiters.is_empty() => {
                self.table.checkpoint_all(&mut self.plant);
                self.stop = Stop::Checkpointing;
            }
            Stop::Checkpointing if !self.table.is_checkpointing() => {
                self.shared.saved.fetch_add(1, Ordering::AcqRel);
                self.stop = Stop::Saved;
            }
            Stop::Saved if self.shared.saved.load(Ordering::Acquire) == self.cores() => {
                self.stop = Stop::Closing;
            }
            Stop::Closing => {
                let Self { nbd, nvmf, composer, plant, observer, forecasts, flushes, now, .. } =
                    self;
                let mut host =
                    CoreHost { composer, plant, observer, forecasts, flushes, now: *now };
                nbd.close(&mut host);
                nvmf.close(&mut host);
                if nbd.is_empty() && nvmf.is_empty() && self.plant.pending_io() == 0 {
                    self.stop = Stop::Done;
                }
            }
            _ => {}
        }
        self.stop != before
    }
}

/// Polls a target's connections, and watches those that are not polled anyway.
fn serve<C: Member>(
    roster: &mut Roster<C>,
    watches: &mut Watches,
    watch: &mut Watch,
    now: Nanos,
    host: &mut CoreHost<'_>,
) -> bool {
    let (idle, hot) = (roster.is_idle(), roster.hot().len());
    if idle && hot == 0 {
        return false;
    }
    let worked = roster.run(now, host, |conn, _| watches.forget(conn, watch));
    if worked || !idle || roster.hot().len() != hot {
        watches.update(roster, watch);
    }
    worked
}

impl Poll for CoreLoop {
    fn poll(&mut self, now: Nanos) -> bool {
        self.now = now;
        self.table.set_now(now);
        let mut worked = self.take_mail();
        worked |= self.serve_clients();
        worked |= self.run_load();
        worked |= self.handle_data();
        worked |= self.predict();
        worked |= self.finish_io();
        worked |= self.handle_data();
        worked |= self.complete();
        worked |= self.timers(worked);
        if self.stop != Stop::No {
            worked |= self.stop_step();
        }
        // What the last steps have queued goes out with the next pass.
        worked || !self.plant.local.is_empty() || !self.plant.completions.is_empty()
    }

    fn next_deadline(&self) -> Option<Nanos> {
        let stop = (self.stop != Stop::No).then(|| self.now.after(STOP_POLL_NS));
        let closely = self.nbd.has_deadline() || self.nvmf.has_deadline();
        let second = closely.then_some(self.next_second);
        [self.next_tick, self.plant.devices.next_deadline(), stop, second]
            .into_iter()
            .flatten()
            .min()
    }

    fn arm(&mut self) {
        if !self.nbd.hot().is_empty() {
            self.nbd.cool_all();
            self.nbd_watches.update(&self.nbd, &mut self.watch);
        }
        if !self.nvmf.hot().is_empty() {
            self.nvmf.cool_all();
            self.nvmf_watches.update(&self.nvmf, &mut self.watch);
        }
        self.plant.devices.arm();
        self.watch.arm();
    }

    fn disarm(&mut self) {
        self.plant.devices.disarm();
        self.watch.disarm();
    }

    fn overdue(&mut self) -> bool {
        self.plant.devices.overdue() || self.watch.overdue() || self.plant.mail.overdue()
    }

    fn done(&self) -> bool {
        self.stop == Stop::Done
    }
}
