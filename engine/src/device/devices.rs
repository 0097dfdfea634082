//! All devices of one core: slots for operations, and the pass over them.

use crate::core::arena::Arenas;
use crate::core::ring::{Ring, RingError};
use crate::device::memory::{Half, MemoryStore};
use crate::device::{
    Backing, Completion, Device, DeviceError, DeviceOp, Io, Kind, Started, Store, check,
};
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, Nanos};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// How often one operation is started again after `EAGAIN` or `EINTR`.
const MAX_RETRIES: u8 = 100;

/// An operation on its way.
struct Slot {
    op: DeviceOp,
    done_bytes: u32,
    retries: u8,
    /// How it ended, while an emulation holds its completion back.
    held: Option<Result<(), DeviceError>>,
}

/// An operation that needs no kernel.
enum Ended {
    /// It was refused.
    Refused(DeviceError),
    /// Its bytes are memory: copied when it is reported.
    Copy,
}

/// All devices of one core. Lives on that core.
///
/// Drain it before dropping it: until an operation completes, the kernel may
/// write to its buffer.
pub struct Devices {
    ring: Ring,
    arenas: Arc<Arenas>,
    stores: Vec<Arc<Store>>,
    devices: Vec<Device>,
    /// Operations in flight per device, each at most `max_ops`.
    counts: Vec<u32>,
    max_ops: u32,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Not started: the ring was full, or a part is left.
    waiting: VecDeque<u32>,
    /// Reported by the next poll: refused at submission, or to be copied then.
    ended: VecDeque<(u32, Ended)>,
}

impl Devices {
    /// The devices of the calling core's thread; `DeviceId` `n` is `stores[n]`.
    ///
    /// `ring_entries` (a power of two) operations can be in the kernel at once;
    /// `max_ops` per device can be submitted, the rest waits here. With
    /// `ring_entries` at least `max_ops` times the devices, a slow device never
    /// keeps the others' operations waiting. `eventfd` is
    /// the core's; it is signalled between [`Devices::arm`] and [`Devices::disarm`].
    pub fn new(
        stores: &[Arc<Store>],
        arenas: Arc<Arenas>,
        eventfd: BorrowedFd<'_>,
        ring_entries: u32,
        max_ops: u32,
    ) -> Result<Devices, RingError> {
        let mut ring = Ring::new(ring_entries, Arc::clone(&arenas))?;
        ring.register_eventfd(eventfd)?;
        let mut files = Vec::new();
        let mut devices = Vec::new();
        for store in stores {
            let index = u32::try_from(files.len()).expect("at most 256 devices");
            devices.push(Device::new(store, index, max_ops as usize));
            if let Backing::File(file) = store.backing() {
                files.push(file.fd());
            }
        }
        ring.register_files(&files)?;
        let slots = max_ops * u32::try_from(stores.len()).expect("at most 256 devices");
        Ok(Devices {
            ring,
            arenas,
            stores: stores.to_vec(),
            counts: vec![0; devices.len()],
            devices,
            max_ops,
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            waiting: VecDeque::with_capacity(slots as usize),
            ended: VecDeque::with_capacity(slots as usize),
        })
    }

    /// Keeps the kernel's threads that work for these devices on some CPUs.
    pub fn keep_workers_on(&mut self, cpus: &[usize]) -> Result<(), RingError> {
        self.ring.keep_workers_on(cpus)
    }

    /// True if `device` takes another operation now.
    pub fn can_submit(&self, device: DeviceId) -> bool {
        self.counts[device.get() as usize] < self.max_ops
    }

    /// A read from `offset` will be submitted with this pass.
    pub fn expect(&self, device: DeviceId, offset: DeviceOffset) {
        if let Some(memory) = self.memory(device) {
            memory.expect(offset, Half::First);
        }
    }

    /// Starts an operation; its completion comes from a later [`Devices::poll`],
    /// errors included. No system call is made here.
    ///
    /// # Panics
    /// If [`Devices::can_submit`] is false or `op` breaks its contract.
    pub fn submit(&mut self, now: Nanos, op: DeviceOp) {
        assert!(self.can_submit(op.device), "more operations than device {} takes", op.device);
        let index = op.device.get() as usize;
        self.counts[index] += 1;
        let slot = self.free.pop().expect("as many slots as operations of all devices");
        self.slots[slot as usize] = Some(Slot { op, done_bytes: 0, retries: 0, held: None });
        if let Device::Emulated(emulated) = &mut self.devices[index] {
            emulated.claim(now, slot, &op);
        }
        match check(&op, self.stores[index].size_bytes()) {
            Ok(()) if self.waiting.is_empty() => self.start(slot),
            Ok(()) => self.waiting.push_back(slot),
            Err(e) => self.ended.push_back((slot, Ended::Refused(e))),
        }
    }

    /// Starts what waits and enters the kernel at most once. True if there was anything to do.
    /// [`Devices::next_ended`] then reports what has ended.
    ///
    /// # Panics
    /// If io_uring itself fails: an invariant of ours is broken then.
    pub fn poll(&mut self) -> bool {
        let mut worked = self.start_waiting();
        worked |= self.ring.queued();
        self.ring.submit().expect("io_uring_enter refuses nothing that this ring pushes");
        worked
    }

    /// The next operation that has ended. One at a time, so that the caller looks at its bytes
    /// while they are near.
    pub fn next_ended(&mut self, now: Nanos) -> Option<Completion> {
        loop {
            let (slot, result) = match self.ring.reap() {
                Some((slot, result)) => {
                    let slot = u32::try_from(slot).expect("user data is a slot");
                    (slot, self.judge(slot, result))
                }
                None => match self.ended.pop_front() {
                    Some((slot, ended)) => (slot, Some(self.end(slot, ended))),
                    None => return self.next_due(now),
                },
            };
            let Some(result) = result else { continue };
            let index = self.slot(slot).op.device.get() as usize;
            if !matches!(self.devices[index], Device::Emulated(_)) {
                return Some(self.complete(slot, result));
            }
            self.slot_mut(slot).held = Some(result);
        }
    }

    /// Performs what is performed only now; brings near the rest of what comes after it.
    fn end(&mut self, slot: u32, ended: Ended) -> Result<(), DeviceError> {
        if let Ended::Refused(error) = ended {
            return Err(error);
        }
        if let Some((next, Ended::Copy)) = self.ended.front() {
            let DeviceOp { device, kind, offset, .. } = self.slot(*next).op;
            if let (Kind::Read, Some(memory)) = (kind, self.memory(device)) {
                memory.expect(offset, Half::Second);
            }
        }
        let op = self.slot(slot).op;
        let memory = self.memory(op.device).expect("only memory is copied");
        memory.perform(&self.arenas, &op)
    }

    fn memory(&self, device: DeviceId) -> Option<&MemoryStore> {
        match self.stores[usize::from(device.get())].backing() {
            Backing::Memory(memory) => Some(memory),
            Backing::File(_) => None,
        }
    }

    /// When an emulated device completes its next operation.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let due = |device: &Device| match device {
            Device::Emulated(emulated) => {
                emulated.front().filter(|&(slot, _)| self.slot(slot).held.is_some()).map(|f| f.1)
            }
            Device::Uring(_) | Device::Memory => None,
        };
        self.devices.iter().filter_map(due).min()
    }

    /// Operations submitted and not yet reported.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The stores, indexed by `DeviceId`.
    pub fn stores(&self) -> &[Arc<Store>] {
        &self.stores
    }

    /// True if a completion waits in the kernel's ring.
    pub fn overdue(&mut self) -> bool {
        self.ring.overdue()
    }

    /// Completions signal the eventfd from now on. Poll once more after this.
    pub fn arm(&mut self) {
        self.ring.arm();
    }

    /// Completions are silent again.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    fn slot(&self, slot: u32) -> &Slot {
        self.slots[slot as usize].as_ref().expect("in flight")
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        self.slots[slot as usize].as_mut().expect("in flight")
    }

    /// Starts what is left of a slot's operation, or queues it again.
    fn start(&mut self, slot: u32) {
        let Slot { op, done_bytes, .. } = *self.slot(slot);
        let mut io = Io { ring: &mut self.ring, arenas: &self.arenas };
        match self.devices[op.device.get() as usize].start(&mut io, slot, &op, done_bytes) {
            Started::InFlight => {}
            Started::Full => self.waiting.push_front(slot),
            Started::Copy => self.ended.push_back((slot, Ended::Copy)),
        }
    }

    fn start_waiting(&mut self) -> bool {
        let before = self.waiting.len();
        for _ in 0..before {
            if self.ring.room() == 0 {
                break;
            }
            let slot = self.waiting.pop_front().expect("counted");
            self.start(slot);
        }
        self.waiting.len() < before
    }

    /// Judges what the kernel said of a slot's operation; `None` if a part of it is left.
    fn judge(&mut self, slot: u32, result: i32) -> Option<Result<(), DeviceError>> {
        let entry = self.slot_mut(slot);
        let Ok(bytes) = u32::try_from(result) else {
            let errno = -result;
            if matches!(errno, libc::EAGAIN | libc::EINTR) && entry.retries < MAX_RETRIES {
                entry.retries += 1;
                self.waiting.push_back(slot);
                return None;
            }
            return Some(Err(DeviceError::from_errno(errno)));
        };
        if entry.op.kind == Kind::Flush || entry.done_bytes + bytes == entry.op.len {
            return Some(Ok(()));
        }
        // Continue at a block boundary; no whole block more is the end of the file.
        let block = u32::try_from(BLOCK_BYTES).expect("4096");
        let whole = (entry.done_bytes + bytes) / block * block;
        if whole == entry.done_bytes {
            return Some(Err(DeviceError::OutOfRange));
        }
        entry.done_bytes = whole;
        self.waiting.push_back(slot);
        None
    }

    /// The next operation that an emulated device would have done by `now`.
    fn next_due(&mut self, now: Nanos) -> Option<Completion> {
        for index in 0..self.devices.len() {
            let Device::Emulated(emulated) = &mut self.devices[index] else { continue };
            let Some((slot, due)) = emulated.front() else { continue };
            let held = self.slots[slot as usize].as_ref().and_then(|s| s.held);
            let Some(result) = held.filter(|_| due <= now) else { continue };
            emulated.pop();
            return Some(self.complete(slot, result));
        }
        None
    }

    fn complete(&mut self, slot: u32, result: Result<(), DeviceError>) -> Completion {
        let entry = self.slots[slot as usize].take().expect("completes once");
        self.counts[entry.op.device.get() as usize] -= 1;
        self.free.push(slot);
        Completion { token: entry.op.token, result }
    }
}
