//! All devices of one core: slots for operations, and the pass over them.

use crate::core::arena::Arenas;
use crate::core::ring::{Ring, RingError};
use crate::device::{
    Backing, Completion, Device, DeviceError, DeviceOp, Io, Kind, Started, Store, check,
};
use crate::units::{BLOCK_BYTES, DeviceId, Nanos};
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
    /// Ended at submission; reported by the next poll.
    ended: VecDeque<(u32, Result<(), DeviceError>)>,
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

    /// True if `device` takes another operation now.
    pub fn can_submit(&self, device: DeviceId) -> bool {
        self.counts[device.get() as usize] < self.max_ops
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
            Err(e) => self.ended.push_back((slot, Err(e))),
        }
    }

    /// Enters the kernel at most once, and reports every operation that has
    /// ended. True if there was anything to do.
    ///
    /// # Panics
    /// If io_uring itself fails: an invariant of ours is broken then.
    pub fn poll(&mut self, now: Nanos, out: &mut impl FnMut(Completion)) -> bool {
        let mut worked = self.start_waiting();
        worked |= self.ring.queued();
        self.ring.submit().expect("io_uring_enter refuses nothing that this ring pushes");
        while let Some((slot, result)) = self.ring.reap() {
            worked = true;
            let slot = u32::try_from(slot).expect("user data is a slot");
            self.reaped(slot, result, out);
        }
        for _ in 0..self.ended.len() {
            worked = true;
            let (slot, result) = self.ended.pop_front().expect("counted");
            self.finish(slot, result, out);
        }
        worked | self.release_due(now, out)
    }

    /// When an emulated device completes its next operation.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let due = |device: &Device| match device {
            Device::Emulated(emulated) => {
                emulated.front().filter(|&(slot, _)| self.slot(slot).held.is_some()).map(|f| f.1)
            }
            Device::Uring(_) | Device::Memory(_) => None,
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
            Started::Done(result) => self.ended.push_back((slot, result)),
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

    /// Judges what the kernel said of a slot's operation.
    fn reaped(&mut self, slot: u32, result: i32, out: &mut impl FnMut(Completion)) {
        let entry = self.slot_mut(slot);
        let Ok(bytes) = u32::try_from(result) else {
            let errno = -result;
            if matches!(errno, libc::EAGAIN | libc::EINTR) && entry.retries < MAX_RETRIES {
                entry.retries += 1;
                self.waiting.push_back(slot);
                return;
            }
            return self.finish(slot, Err(DeviceError::from_errno(errno)), out);
        };
        if entry.op.kind == Kind::Flush || entry.done_bytes + bytes == entry.op.len {
            return self.finish(slot, Ok(()), out);
        }
        // Continue at a block boundary; no whole block more is the end of the file.
        let block = u32::try_from(BLOCK_BYTES).expect("4096");
        let whole = (entry.done_bytes + bytes) / block * block;
        if whole == entry.done_bytes {
            return self.finish(slot, Err(DeviceError::OutOfRange), out);
        }
        entry.done_bytes = whole;
        self.waiting.push_back(slot);
    }

    /// Reports an ended operation, or lets the emulation hold it back.
    fn finish(
        &mut self,
        slot: u32,
        result: Result<(), DeviceError>,
        out: &mut impl FnMut(Completion),
    ) {
        let index = self.slot(slot).op.device.get() as usize;
        if matches!(self.devices[index], Device::Emulated(_)) {
            self.slot_mut(slot).held = Some(result);
        } else {
            self.complete(slot, result, out);
        }
    }

    /// Reports the operations that emulated devices would have done by `now`.
    fn release_due(&mut self, now: Nanos, out: &mut impl FnMut(Completion)) -> bool {
        let mut worked = false;
        for index in 0..self.devices.len() {
            while let Device::Emulated(emulated) = &mut self.devices[index] {
                let Some((slot, due)) = emulated.front() else { break };
                let held = self.slots[slot as usize].as_ref().and_then(|s| s.held);
                let Some(result) = held.filter(|_| due <= now) else { break };
                emulated.pop();
                self.complete(slot, result, out);
                worked = true;
            }
        }
        worked
    }

    fn complete(
        &mut self,
        slot: u32,
        result: Result<(), DeviceError>,
        out: &mut impl FnMut(Completion),
    ) {
        let entry = self.slots[slot as usize].take().expect("completes once");
        self.counts[entry.op.device.get() as usize] -= 1;
        self.free.push(slot);
        out(Completion { token: entry.op.token, result });
    }
}
