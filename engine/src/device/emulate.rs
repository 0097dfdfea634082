//! Makes a device behave like a slower one: `--emulate hdd`.
//!
//! Data is real and goes to the device below at once; completions are held
//! back until a virtual head would have got there. One head per store serves
//! all cores first come, first served: an operation pays a seek unless it
//! starts close to where the one before it ended, then its bytes at the
//! transfer rate; a flush waits for what is queued before it.
//!
//! The head is two atomics and no lock. Swapping the position puts operations
//! in one order and tells each what precedes it; claiming time
//! (`busy_until = max(now, busy_until) + service`) puts them in another. The
//! two orders can differ between cores racing within nanoseconds; each
//! operation still pays exactly one service time, so the load on the head is
//! exact either way.

use crate::device::{Device, DeviceOp, Kind};
use crate::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The device that is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name in options and reports.
    pub name: &'static str,
    /// Nanoseconds of a seek with its rotation.
    pub seek_ns: u64,
    /// Bytes per second once it transfers.
    pub bytes_per_second: u64,
    /// Bytes that the next operation may start away from the last one's end
    /// and still cost no seek.
    pub near_bytes: u64,
}

impl Model {
    /// A 7,200 rpm disk: 8 ms seek, 150 MB/s.
    pub const HDD: Model = Model {
        name: "hdd",
        seek_ns: 8_000_000,
        bytes_per_second: 150_000_000,
        near_bytes: 64 << 10,
    };

    /// The model of that name.
    pub fn by_name(name: &str) -> Option<Model> {
        [Model::HDD].into_iter().find(|model| model.name == name)
    }

    fn service_ns(&self, from: u64, op: &DeviceOp) -> u64 {
        let near = op.offset.get().abs_diff(from) <= self.near_bytes;
        let seek_ns = if near { 0 } else { self.seek_ns };
        seek_ns + u64::from(op.len) * 1_000_000_000 / self.bytes_per_second
    }
}

/// The one head of a store, shared by all cores.
#[derive(Debug)]
pub struct Head {
    model: Model,
    /// Where the last operation ends, in bytes.
    position: AtomicU64,
    /// When the head will have served everything claimed so far.
    busy_until_ns: AtomicU64,
}

impl Head {
    pub(super) fn new(model: Model) -> Head {
        assert!(model.bytes_per_second > 0, "a device transfers");
        Head { model, position: AtomicU64::new(0), busy_until_ns: AtomicU64::new(0) }
    }

    pub(super) fn model(&self) -> Model {
        self.model
    }

    /// Queues `op` and says when the head has served it.
    pub(super) fn claim(&self, now: Nanos, op: &DeviceOp) -> Nanos {
        let service_ns = match op.kind {
            Kind::Flush => 0,
            Kind::Read | Kind::Write { .. } => {
                let end = op.offset.get().saturating_add(u64::from(op.len));
                let from = self.position.swap(end, Ordering::Relaxed);
                self.model.service_ns(from, op)
            }
        };
        let mut busy = self.busy_until_ns.load(Ordering::Relaxed);
        loop {
            let end = busy.max(now.get()) + service_ns;
            match self.busy_until_ns.compare_exchange_weak(
                busy,
                end,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Nanos::new(end),
                Err(seen) => busy = seen,
            }
        }
    }
}

/// One core's queue to an emulated store.
pub(super) struct Emulated {
    below: Device,
    head: Arc<Head>,
    /// Slots in the order they were claimed, which is that of their deadlines.
    queue: VecDeque<(u32, Nanos)>,
}

impl Emulated {
    /// `most`: the most operations queued at once.
    pub(super) fn new(below: Device, head: Arc<Head>, most: usize) -> Emulated {
        Emulated { below, head, queue: VecDeque::with_capacity(most) }
    }

    pub(super) fn below(&mut self) -> &mut Device {
        &mut self.below
    }

    /// Queues the operation in `slot`.
    pub(super) fn claim(&mut self, now: Nanos, slot: u32, op: &DeviceOp) {
        self.queue.push_back((slot, self.head.claim(now, op)));
    }

    /// The slot that may complete next, and when.
    pub(super) fn front(&self) -> Option<(u32, Nanos)> {
        self.queue.front().copied()
    }

    /// The front has completed.
    pub(super) fn pop(&mut self) {
        self.queue.pop_front().expect("there was a front");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::arena::ArenaAddr;
    use crate::units::{DeviceId, DeviceOffset};

    const MS: u64 = 1_000_000;

    fn op(kind: Kind, offset: u64, len: u32) -> DeviceOp {
        DeviceOp {
            device: DeviceId::new(0),
            kind,
            offset: DeviceOffset::new(offset),
            addr: ArenaAddr { arena: 0, offset: 0 },
            len,
            token: 0,
        }
    }

    #[test]
    fn seeks_queue_up_and_neighbours_are_cheap() {
        let head = Head::new(Model::HDD);
        let at =
            |now: u64, kind, offset, len| head.claim(Nanos::new(now), &op(kind, offset, len)).get();
        // 1.5 MB take 10 ms; the head starts at 0.
        assert_eq!(at(0, Kind::Read, 0, 1_500_000), 10 * MS);
        assert_eq!(at(0, Kind::Read, 1_500_000, 150_000), 11 * MS);
        assert_eq!(at(0, Kind::Read, 1_650_000 + (64 << 10), 150_000), 12 * MS);
        assert_eq!(at(0, Kind::Write { fua: false }, 1 << 30, 150_000), 21 * MS);
        assert_eq!(at(0, Kind::Flush, 0, 0), 21 * MS);
        // Idle time is not saved up, and a flush does not move the head.
        assert_eq!(at(100 * MS, Kind::Read, (1 << 30) + 150_000, 150_000), 101 * MS);
        assert_eq!(at(200 * MS, Kind::Read, 0, 0), 208 * MS);
    }

    #[test]
    fn cores_share_the_head() {
        let head = Arc::new(Head::new(Model::HDD));
        let threads: Vec<_> = (0..2u64)
            .map(|core| {
                let head = Arc::clone(&head);
                std::thread::spawn(move || {
                    for n in 0..1000 {
                        let far = (core * 1000 + n) << 30;
                        head.claim(Nanos::new(0), &op(Kind::Read, far + (1 << 29), 150_000));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("claims"));
        let flush = head.claim(Nanos::new(0), &op(Kind::Flush, 0, 0));
        assert_eq!(flush.get(), 2000 * 9 * MS);
    }

    #[test]
    fn models_have_names() {
        assert_eq!(Model::by_name("hdd"), Some(Model::HDD));
        assert_eq!(Model::by_name("tape"), None);
    }
}
