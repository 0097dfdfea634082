//! The reactor's sink: the table's actions become entries of queues.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{CoreMessage, DeviceStats};
use crate::core::arena::{Arena, ArenaAddr, Arenas};
use crate::core::mailbox::Mailboxes;
use crate::device::{self, DeviceError, DeviceOp, Devices, Kind};
use crate::format::superblock::Role;
use crate::pool::space_map::SpaceMap;
use crate::request::{Buf, Completion, Failure};
use crate::table::pool::Pool;
use crate::table::sink::{Done, Io, IoKind, IoResult, Mem, Met, Sink};
use crate::units::{BLOCK_BYTES, CoreId, DeviceId, Nanos};
use crate::volume::composer::{Composer, Message, Outlet, Watched};

/// Pages of the arena that targets leave to the engine: old blocks, groups, copies.
pub const RESERVED_PAGES: u32 = 2048;
/// Pages beyond those that stages leave to clients.
const CLIENT_PAGES: u32 = 2048;
/// Background operations that may be under way on one device.
const MAX_BACKGROUND: u32 = 2;
/// Demand that a cold device is given before background work that waits for it to be idle.
const MAX_PASSED_OVER: u32 = 32;

/// Set in an origin that belongs to the control side of a core.
pub const CONTROL_ORIGIN: u64 = 1 << 55;

#[derive(Debug)]
struct InFlight {
    token: u64,
    device: DeviceId,
    background: bool,
}

/// Everything a core has beside its state machines.
pub struct Plant {
    /// This core.
    pub core: CoreId,
    /// Its memory.
    pub arena: Arena,
    arenas: Arc<Arenas>,
    /// Its view of the devices.
    pub devices: Devices,
    /// By device.
    pub roles: Vec<Role>,
    /// By device.
    pub stats: Vec<DeviceStats>,
    /// Chunks and extents of the pool.
    pub space: Arc<SpaceMap>,
    /// To the other cores.
    pub mail: Mailboxes<CoreMessage>,
    /// To this core.
    pub local: VecDeque<Message>,
    /// For the targets of this core.
    pub completions: Vec<Completion>,
    /// What watched requests have met.
    pub met: Vec<(Watched, Met)>,
    /// Ended operations of the control side: origin and outcome.
    pub control: Vec<(u64, Result<(), Failure>)>,
    in_flight: Pool<InFlight>,
    demand: VecDeque<Io>,
    background: VecDeque<Io>,
    queues: Vec<Queue>,
}

/// What a device has been given.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    demand: u32,
    background: u32,
    /// Demand since background work last began.
    passed_over: u32,
}

impl Queue {
    /// True if background work may begin. A disk serves in order what it has, and between
    /// demand and something else lies a seek: on a cold device it waits until that is idle.
    fn takes_background(self, role: Role) -> bool {
        let is_free = role == Role::Fast || self.demand == 0 || self.passed_over >= MAX_PASSED_OVER;
        is_free && self.background < MAX_BACKGROUND
    }

    fn begin(&mut self, background: bool) {
        if background {
            self.background += 1;
            self.passed_over = 0;
        } else {
            self.demand += 1;
            self.passed_over = self.passed_over.saturating_add(1);
        }
    }

    fn end(&mut self, background: bool) {
        let count = if background { &mut self.background } else { &mut self.demand };
        *count -= 1;
    }
}

impl Plant {
    /// The parts of a core; `max_ops` operations per device.
    pub fn new(
        arena: Arena,
        devices: Devices,
        roles: Vec<Role>,
        space: Arc<SpaceMap>,
        mail: Mailboxes<CoreMessage>,
        max_ops: u32,
    ) -> Self {
        let count = u32::try_from(roles.len()).expect("at most 64 devices");
        Self {
            core: arena.core(),
            arenas: Arc::clone(arena.arenas()),
            arena,
            devices,
            stats: vec![DeviceStats::default(); roles.len()],
            queues: vec![Queue::default(); roles.len()],
            roles,
            space,
            mail,
            local: VecDeque::with_capacity(4096),
            completions: Vec::with_capacity(1024),
            met: Vec::with_capacity(1024),
            control: Vec::new(),
            in_flight: Pool::new(max_ops * count),
            demand: VecDeque::with_capacity(4096),
            background: VecDeque::with_capacity(256),
        }
    }

    /// Operations not ended, started or not.
    pub fn pending_io(&self) -> usize {
        self.demand.len() + self.background.len() + self.in_flight.len()
    }

    /// Starts what is queued, demand first. True if anything moved.
    pub fn move_io(&mut self, now: Nanos) -> bool {
        self.start_queued(now);
        self.devices.poll()
    }

    /// The next ended operation.
    pub fn next_done(&mut self, now: Nanos) -> Option<(u64, IoResult)> {
        let device::Completion { token, result } = self.devices.next_ended(now)?;
        let index = u32::try_from(token).expect("a slot of ours");
        let op = self.in_flight.remove(index);
        let at = usize::from(op.device.get());
        self.queues[at].end(op.background);
        self.stats[at].errors += u64::from(result.is_err());
        Some((op.token, result.map_err(|error| failure(op.device, error))))
    }

    fn start_queued(&mut self, now: Nanos) {
        for _ in 0..self.demand.len() {
            let io = self.demand.pop_front().expect("counted");
            if self.devices.can_submit(io.device) {
                self.start(now, io);
            } else {
                self.demand.push_back(io);
            }
        }
        for _ in 0..self.background.len() {
            let io = self.background.pop_front().expect("counted");
            let at = usize::from(io.device.get());
            let takes = self.queues[at].takes_background(self.roles[at]);
            if takes && self.devices.can_submit(io.device) {
                self.start(now, io);
            } else {
                self.background.push_back(io);
            }
        }
    }

    fn start(&mut self, now: Nanos, io: Io) {
        let at = usize::from(io.device.get());
        self.queues[at].begin(io.background);
        let stats = &mut self.stats[at];
        let kind = match io.kind {
            IoKind::Read => {
                stats.reads += 1;
                stats.read_bytes += u64::from(io.bytes);
                Kind::Read
            }
            IoKind::Write { fua } => {
                stats.writes += 1;
                stats.write_bytes += u64::from(io.bytes);
                Kind::Write { fua }
            }
            IoKind::Flush => Kind::Flush,
        };
        let op = InFlight { token: io.token, device: io.device, background: io.background };
        let slot = self.in_flight.insert(op).expect("as many slots as devices take operations");
        self.devices.submit(
            now,
            DeviceOp {
                device: io.device,
                kind,
                offset: io.offset,
                addr: address(io.mem),
                len: io.bytes,
                token: slot.into(),
            },
        );
    }
}

/// The operation of a token, if it waits, as demand.
fn take_as_demand(background: &mut VecDeque<Io>, token: u64) -> Option<Io> {
    let at = background.iter().position(|io| io.token == token)?;
    let io = background.remove(at).expect("just found");
    Some(Io { background: false, ..io })
}

fn address(mem: Mem) -> ArenaAddr {
    ArenaAddr { arena: mem.arena, offset: mem.byte }
}

fn failure(device: DeviceId, error: DeviceError) -> Failure {
    tracing::error!(device = device.get(), %error, "device operation failed");
    match error {
        DeviceError::Media => Failure::Media,
        DeviceError::NoSpace => Failure::NoSpace,
        DeviceError::Vanished | DeviceError::OutOfRange | DeviceError::Errno(_) => Failure::Device,
    }
}

impl Sink for Plant {
    fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        self.arena.alloc(bytes)
    }
    fn free(&mut self, buf: Buf) {
        self.arena.free(buf);
    }
    fn spare_bytes(&self) -> u64 {
        let spare = self.arena.free_pages().saturating_sub(RESERVED_PAGES + CLIENT_PAGES);
        u64::from(spare) * BLOCK_BYTES as u64
    }
    fn bytes(&self, at: Mem, len: usize) -> &[u8] {
        self.arenas.view(address(at), len)
    }
    fn bytes_mut(&mut self, at: Mem, len: usize) -> &mut [u8] {
        self.arenas.view_mut(address(at), len)
    }
    fn copy(&mut self, from: Mem, to: Mem, len: usize) {
        self.arenas.copy(address(from), address(to), len);
    }
    fn io(&mut self, io: Io) {
        if io.kind == IoKind::Read {
            self.devices.expect(io.device, io.offset);
        }
        if io.background { self.background.push_back(io) } else { self.demand.push_back(io) }
    }
    fn hurry(&mut self, token: u64) {
        self.demand.extend(take_as_demand(&mut self.background, token));
    }
    fn claim_chunk(&mut self, device: DeviceId, urgent: bool) -> Option<u32> {
        self.space.claim_chunk(usize::from(device.get()), urgent)
    }
    fn release_chunk(&mut self, device: DeviceId, chunk: u32) {
        self.space.chunks[usize::from(device.get())].release(chunk);
    }
    fn chunks(&self, device: DeviceId) -> (u32, u32) {
        let map = &self.space.chunks[usize::from(device.get())];
        (map.free(), map.len())
    }
    fn ask_space(&mut self, of: CoreId) {
        self.send(of, Message::AskSpace(self.core));
    }
    fn give_space(&mut self, to: CoreId, chunk: Option<(DeviceId, u32)>) {
        self.send(to, Message::GiveSpace(chunk));
    }
    fn ask_flush(&mut self, of: CoreId, device: DeviceId) {
        self.send(of, Message::AskFlush(device, self.core));
    }
    fn tell_flushed(&mut self, to: CoreId, device: DeviceId, result: IoResult) {
        self.send(to, Message::Flushed(device, result));
    }
    fn claim_extent(&mut self) -> Option<u32> {
        self.space.extents.claim(0)
    }
    fn release_extent(&mut self, extent: u32) {
        self.space.extents.release(extent);
    }
    fn fail_device(&mut self, device: DeviceId) {
        self.space.fail_device(device);
    }
    fn has_failed(&self, device: DeviceId) -> bool {
        self.space.has_failed(device)
    }
    fn done(&mut self, done: Done) {
        if done.origin & CONTROL_ORIGIN != 0 {
            return self.control.push((done.origin, done.result));
        }
        self.send(Composer::home(done.origin), Message::Done(done));
    }
}

impl Outlet for Plant {
    fn send(&mut self, to: CoreId, message: Message) {
        if to == self.core {
            self.local.push_back(message);
        } else {
            self.mail.send(to, CoreMessage::Data(message));
        }
    }
    fn complete(&mut self, completion: Completion) {
        self.completions.push(completion);
    }
    fn met(&mut self, watched: Watched, met: Met) {
        self.met.push((watched, met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceOffset;

    #[test]
    fn what_somebody_waits_for_is_demand_unless_it_has_begun() {
        let io = |token| Io {
            device: DeviceId::new(1),
            kind: IoKind::Read,
            offset: DeviceOffset::new(token << 12),
            mem: Mem { arena: 0, byte: 0 },
            bytes: 4096,
            token,
            background: true,
        };
        let mut background: VecDeque<Io> = [5, 6, 7].map(io).into();
        let taken = take_as_demand(&mut background, 6).expect("it waits");
        assert!(taken.token == 6 && !taken.background);
        assert!(background.iter().map(|io| io.token).eq([5, 7]));
        assert!(take_as_demand(&mut background, 6).is_none());
    }

    #[test]
    fn the_laboratory_loads_stages_as_a_server_does() {
        use crate::stage::load;
        use predictor::lab;
        assert_eq!(MAX_PASSED_OVER, lab::MAX_PASSED_OVER);
        assert_eq!((load::RUN_BLOCKS, load::QUIET_NS), (lab::RUN_BLOCKS, lab::QUIET_NS));
    }

    #[test]
    fn background_work_waits_for_a_cold_device_to_be_idle_but_not_for_ever() {
        let mut queue = Queue::default();
        queue.begin(false);
        assert!(queue.takes_background(Role::Fast) && !queue.takes_background(Role::Cold));
        queue.end(false);
        assert!(queue.takes_background(Role::Cold));
        for _ in 1..MAX_PASSED_OVER {
            assert!(!queue.takes_background(Role::Cold) || queue.demand == 0);
            queue.begin(false);
        }
        assert!(queue.takes_background(Role::Cold), "it has been passed over often enough");
        queue.begin(true);
        assert!(!queue.takes_background(Role::Cold), "others are passed over anew");
        queue.begin(true);
        assert!(!queue.takes_background(Role::Fast), "two at once");
        queue.end(true);
        assert!(queue.takes_background(Role::Fast));
    }
}
