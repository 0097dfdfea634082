//! Whole operations through [`Devices`], on a file, in memory and emulated.

use super::*;
use crate::core::arena::Arena;
use crate::core::wake::WakeSet;
use crate::units::{CoreId, Nanos};
use std::os::fd::AsFd;

const MS: u64 = 1_000_000;

/// One core with its devices; `now` is fake.
struct Core {
    arena: Arena,
    devices: Devices,
    _wake: WakeSet,
}

impl Core {
    fn new(stores: Vec<Store>, ring_entries: u32, max_ops: u32) -> Core {
        let (arenas, mut cores) = Arenas::new(1, 4 << 20).expect("4 MiB");
        let wake = WakeSet::new(1).expect("an eventfd");
        let stores: Vec<_> = stores.into_iter().map(Arc::new).collect();
        let fd = wake.waker(CoreId::new(0)).as_fd();
        let devices = Devices::new(&stores, arenas, fd, ring_entries, max_ops).expect("io_uring");
        Core { arena: cores.remove(0), devices, _wake: wake }
    }

    fn submit(
        &mut self,
        device: u8,
        kind: Kind,
        offset: u64,
        addr: ArenaAddr,
        len: u32,
        token: u64,
    ) {
        let (device, offset) = (DeviceId::new(device), DeviceOffset::new(offset));
        self.devices.submit(Nanos::new(0), DeviceOp { device, kind, offset, addr, len, token });
    }

    /// Polls at `now` until nothing is in flight.
    fn drain(&mut self, now: u64) -> Vec<Completion> {
        let mut ended = Vec::new();
        while self.devices.in_flight() > 0 {
            self.devices.poll();
            ended.extend(std::iter::from_fn(|| self.devices.next_ended(Nanos::new(now))));
        }
        ended
    }

    fn one(
        &mut self,
        kind: Kind,
        offset: u64,
        addr: ArenaAddr,
        len: u32,
    ) -> Result<(), DeviceError> {
        self.submit(0, kind, offset, addr, len, 42);
        let ended = self.drain(u64::MAX);
        assert_eq!((ended.len(), ended[0].token), (1, 42));
        ended[0].result
    }
}

fn file_store(dir: &tempfile::TempDir, bytes: u64) -> Store {
    Store::create(&dir.path().join("disk"), bytes).expect("made")
}

/// Write, flush, FUA and read back, more at once than the ring holds.
fn round_trip(store: Store) {
    let mut core = Core::new(vec![store], 4, 64);
    let arenas = Arc::clone(core.arena.arenas());
    let mut out = core.arena.alloc(64 * 4096).expect("free");
    for (n, block) in (0u8..).zip(arenas.bytes_mut(&mut out).chunks_mut(4096)) {
        block.fill(n + 1);
    }
    for n in 0..64u32 {
        let fua = n % 2 == 1;
        let addr = arenas.addr(&out, n as usize * 4096);
        core.submit(0, Kind::Write { fua }, u64::from(63 - n) * 4096, addr, 4096, n.into());
    }
    assert!(!core.devices.can_submit(DeviceId::new(0)));
    let mut tokens: Vec<u64> = core
        .drain(0)
        .into_iter()
        .map(|c| {
            c.result.expect("written");
            c.token
        })
        .collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..64), "each completes once");
    let addr = arenas.addr(&out, 0);
    assert_eq!(core.one(Kind::Flush, 0, addr, 0), Ok(()));

    let back = core.arena.alloc(64 * 4096).expect("free");
    assert_eq!(core.one(Kind::Read, 0, arenas.addr(&back, 0), 64 * 4096), Ok(()));
    for (n, block) in (0u8..).zip(arenas.bytes(&back).chunks(4096)) {
        assert!(block.iter().all(|&b| b == 64 - n), "block {n}");
    }
    let past = core.one(Kind::Read, 128 * 4096, arenas.addr(&back, 0), 4096);
    assert_eq!(past, Err(DeviceError::OutOfRange));
}

#[test]
fn file_round_trip() {
    let dir = tempfile::tempdir().expect("a directory");
    round_trip(file_store(&dir, 128 * 4096));
}

#[test]
fn memory_round_trip() {
    round_trip(Store::memory(128 * 4096).expect("mapped"));
}

#[test]
fn a_file_cut_while_open_is_an_error_not_zeros() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut core = Core::new(vec![file_store(&dir, 1 << 20)], 4, 4);
    let buf = core.arena.alloc(64 << 10).expect("free");
    let addr = core.arena.arenas().addr(&buf, 0);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("disk"));
    let file = file.expect("opens");
    file.set_len((512 << 10) + 5000).expect("cut");
    // The first read is short and continued, then finds the end; the second starts beyond it.
    assert_eq!(core.one(Kind::Read, 480 << 10, addr, 64 << 10), Err(DeviceError::OutOfRange));
    assert_eq!(core.one(Kind::Read, 768 << 10, addr, 4096), Err(DeviceError::OutOfRange));
    assert_eq!(core.one(Kind::Read, 480 << 10, addr, 32 << 10), Ok(()));
}

#[test]
fn kernel_errors_are_sorted() {
    assert_eq!(DeviceError::from_errno(libc::ENODEV), DeviceError::Vanished);
    assert_eq!(DeviceError::from_errno(libc::EIO), DeviceError::Media);
    assert_eq!(DeviceError::from_errno(libc::ENOSPC), DeviceError::NoSpace);
    assert_eq!(DeviceError::from_errno(libc::EROFS), DeviceError::Errno(libc::EROFS));
}

#[test]
fn character_devices_are_refused() {
    assert!(matches!(Store::open(Path::new("/dev/full"), 0), Err(OpenError::Kind { .. })));
}

#[test]
#[should_panic(expected = "whole, aligned blocks")]
fn unaligned_operations_are_bugs() {
    let mut core = Core::new(vec![Store::memory(8192).expect("mapped")], 4, 4);
    let buf = core.arena.alloc(8192).expect("free");
    let addr = core.arena.arenas().addr(&buf, 0);
    core.submit(0, Kind::Read, 512, addr, 4096, 0);
}

#[test]
#[should_panic(expected = "more operations than device 0 takes")]
fn overload_is_a_bug() {
    let mut core = Core::new(vec![Store::memory(8192).expect("mapped")], 4, 1);
    let buf = core.arena.alloc(8192).expect("free");
    let addr = core.arena.arenas().addr(&buf, 0);
    core.submit(0, Kind::Read, 0, addr, 4096, 0);
    core.submit(0, Kind::Read, 0, addr, 4096, 1);
}

#[test]
fn emulation_completes_in_order_at_its_deadlines() {
    let slow = Store::memory(1 << 30).expect("mapped").emulating(Model::HDD);
    let fast = Store::memory(1 << 20).expect("mapped");
    let mut core = Core::new(vec![slow, fast], 4, 8);
    let buf = core.arena.alloc(8192).expect("free");
    let addr = core.arena.arenas().addr(&buf, 0);
    let transfer_ns = 4096 * 1000 / 150;
    core.submit(0, Kind::Read, 512 << 20, addr, 4096, 1);
    core.submit(0, Kind::Write { fua: false }, (512 << 20) + 4096, addr, 4096, 2);
    core.submit(0, Kind::Flush, 0, addr, 0, 3);
    core.submit(0, Kind::Read, 1 << 31, addr, 4096, 4);
    core.submit(1, Kind::Read, 0, addr, 4096, 5);

    let mut at = |now: u64| {
        let mut tokens = Vec::new();
        core.devices.poll();
        let ended = std::iter::from_fn(|| core.devices.next_ended(Nanos::new(now)));
        tokens.extend(ended.map(|c| (c.token, c.result)));
        (tokens, core.devices.next_deadline().map(Nanos::get))
    };
    let first = 8 * MS + transfer_ns;
    let second = first + transfer_ns;
    assert_eq!(at(0), (vec![(5, Ok(()))], Some(first)));
    assert_eq!(at(first - 1), (vec![], Some(first)));
    assert_eq!(at(first), (vec![(1, Ok(()))], Some(second)));
    assert_eq!(at(second).0, [(2, Ok(())), (3, Ok(()))]);
    assert_eq!(at(100 * MS), (vec![(4, Err(DeviceError::OutOfRange))], None));
}

#[test]
fn emulation_over_a_file_keeps_the_data() {
    let dir = tempfile::tempdir().expect("a directory");
    round_trip_slow(file_store(&dir, 128 * 4096).emulating(Model::HDD));
}

fn round_trip_slow(store: Store) {
    assert_eq!(store.emulates().map(|m| m.name), Some("hdd"));
    let mut core = Core::new(vec![store], 4, 4);
    let arenas = Arc::clone(core.arena.arenas());
    let mut buf = core.arena.alloc(4096).expect("free");
    arenas.bytes_mut(&mut buf).fill(9);
    let addr = arenas.addr(&buf, 0);
    assert_eq!(core.one(Kind::Write { fua: true }, 4096, addr, 4096), Ok(()));
    arenas.bytes_mut(&mut buf).fill(0);
    assert_eq!(core.one(Kind::Read, 4096, addr, 4096), Ok(()));
    assert!(arenas.bytes(&buf).iter().all(|&b| b == 9));
}
