//! The whole wake set, for real: block I/O and sockets on a core that sleeps
//! whenever it can.

use crate::core::arena::{Arena, Arenas};
use crate::core::executor::spawn_core;
use crate::core::mailbox;
use crate::core::park::Park;
use crate::core::reactor::{self, Poll};
use crate::core::wake::WakeSet;
use crate::core::watch::{Interest, Watch};
use crate::device::{Completion, DeviceOp, Devices, Kind, Store};
use crate::request::Buf;
use crate::units::{CoreId, DeviceId, DeviceOffset, Nanos};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const BLOCKS: u64 = 256;

/// Reads blocks of a file one or more at a time, checking each.
struct Reader {
    devices: Devices,
    arena: Arena,
    bufs: Vec<Option<Buf>>,
    to_start: u64,
    ended: Vec<Completion>,
    verified: u64,
    /// Forgets to arm its ring, so that nothing but the beat wakes it.
    deaf: bool,
}

impl Reader {
    fn place(n: u64) -> u64 {
        n * 7 % BLOCKS
    }

    fn start(&mut self, now: Nanos) {
        for slot in 0..self.bufs.len() {
            if self.bufs[slot].is_some() || self.to_start == 0 {
                continue;
            }
            self.to_start -= 1;
            let buf = self.arena.alloc(4096).expect("a page per slot");
            let place = Reader::place(self.to_start);
            let op = DeviceOp {
                device: DeviceId::new(0),
                kind: Kind::Read,
                offset: DeviceOffset::new(place * 4096),
                addr: self.arena.arenas().addr(&buf, 0),
                len: 4096,
                token: (slot as u64) << 32 | place,
            };
            self.bufs[slot] = Some(buf);
            self.devices.submit(now, op);
        }
    }
}

impl Poll for Reader {
    fn poll(&mut self, now: Nanos) -> bool {
        self.start(now);
        let ended = &mut self.ended;
        let mut worked = self.devices.poll();
        while let Some(completion) = self.devices.next_ended(now) {
            worked = true;
            ended.push(completion);
        }
        for completion in self.ended.drain(..) {
            assert_eq!(completion.result, Ok(()));
            let slot = usize::try_from(completion.token >> 32).expect("a slot");
            let place = u8::try_from(completion.token & 0xff).expect("a byte");
            let buf = self.bufs[slot].take().expect("completes once");
            assert!(self.arena.arenas().bytes(&buf).iter().all(|&b| b == place), "block {place}");
            self.arena.free(buf);
            self.verified += 1;
        }
        worked
    }
    fn next_deadline(&self) -> Option<Nanos> {
        self.devices.next_deadline()
    }
    fn arm(&mut self) {
        if !self.deaf {
            self.devices.arm();
        }
    }
    fn disarm(&mut self) {
        self.devices.disarm();
    }
    fn overdue(&mut self) -> bool {
        self.devices.overdue()
    }
    fn done(&self) -> bool {
        self.to_start == 0 && self.devices.in_flight() == 0
    }
}

/// Reads with no spinning at all; the number of lost wakes.
fn read_while_sleeping(depth: usize, reads: u64, deaf: bool) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let data: Vec<u8> = (0..=255u8).flat_map(|n| [n; 4096]).collect();
    std::fs::write(&path, data).expect("written");
    let store = Arc::new(Store::open(&path, BLOCKS * 4096).expect("opens"));
    let (arenas, mut cores) = Arenas::new(1, 1 << 20).expect("1 MiB");
    let wake = WakeSet::new(1).expect("an eventfd");
    let arena = cores.remove(0);
    let thread = spawn_core(None, "reader", move || async move {
        let core = CoreId::new(0);
        let mut park = Park::new(wake.clone(), core, 0);
        let fd = wake.waker(core).as_fd();
        let devices = Devices::new(&[store], arenas, fd, 64, 64).expect("io_uring");
        let bufs = (0..depth).map(|_| None).collect();
        let ended = Vec::with_capacity(depth);
        let mut reader = Reader { devices, arena, bufs, to_start: reads, ended, verified: 0, deaf };
        reactor::run(&mut reader, &mut park);
        (reader.verified, park.sleeps(), park.lost_wakes())
    });
    let (verified, sleeps, lost) = thread.expect("starts").join().expect("ends well");
    println!("{reads} reads, {depth} at a time: {sleeps} sleeps");
    assert_eq!(verified, reads);
    assert!(sleeps > 0, "the test has to sleep to test anything");
    lost
}

#[test]
fn block_io_wakes_a_sleeper() {
    assert_eq!(read_while_sleeping(1, 3_000, false), 0, "the beat alone found work");
    assert_eq!(read_while_sleeping(8, 10_000, false), 0, "the beat alone found work");
}

#[test]
fn the_beat_finds_and_counts_lost_wakes() {
    assert!(read_while_sleeping(1, 2, true) > 0);
}

/// Echoes what a socket says; stops at its end.
struct Echo {
    watch: Watch,
    socket: UnixStream,
    ready: bool,
    ended: bool,
    mail: mailbox::Mailboxes<u8>,
}

impl Poll for Echo {
    fn poll(&mut self, _now: Nanos) -> bool {
        assert!(self.mail.receive().is_none(), "nobody writes");
        while let Some(event) = self.watch.poll() {
            assert_eq!(event.token, 5);
            self.ready |= event.readable;
        }
        if !self.ready {
            return false;
        }
        let mut bytes = [0; 64];
        match self.socket.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(n) => self.socket.write_all(&bytes[..n]).expect("room for an echo"),
            Err(e) if e.kind() == ErrorKind::WouldBlock => self.ready = false,
            Err(e) => assert!(self.ended, "reading: {e}"),
        }
        true
    }
    fn next_deadline(&self) -> Option<Nanos> {
        None
    }
    fn arm(&mut self) {
        self.watch.arm();
    }
    fn disarm(&mut self) {
        self.watch.disarm();
    }
    fn overdue(&mut self) -> bool {
        self.watch.overdue() || self.mail.overdue()
    }
    fn done(&self) -> bool {
        self.ended
    }
}

#[test]
fn sockets_wake_a_sleeper() {
    let (mut client, server) = UnixStream::pair().expect("a pair");
    server.set_nonblocking(true).expect("a flag");
    let wake = WakeSet::new(1).expect("an eventfd");
    let (mut boxes, _control) = mailbox::mesh(&wake, 1, 1);
    let mail = boxes.remove(0);
    let thread = spawn_core(None, "echo", move || async move {
        let core = CoreId::new(0);
        let mut park = Park::new(wake.clone(), core, 0);
        let mut watch = Watch::new(8, wake.waker(core).as_fd()).expect("io_uring");
        watch.add(server.as_fd(), Interest::Read, 5).expect("room");
        let mut echo = Echo { watch, socket: server, ready: false, ended: false, mail };
        reactor::run(&mut echo, &mut park);
        (park.sleeps(), park.lost_wakes())
    })
    .expect("starts");
    for n in 0..3_000u32 {
        let sent = n.to_le_bytes();
        client.write_all(&sent).expect("open");
        let mut back = [0; 4];
        client.read_exact(&mut back).expect("an echo");
        assert_eq!(back, sent);
    }
    drop(client);
    let (sleeps, lost) = thread.join().expect("ends well");
    println!("3000 echoes: {sleeps} sleeps");
    assert!(sleeps > 0, "the test has to sleep to test anything");
    assert_eq!(lost, 0, "the beat alone found work");
}
