//! Readiness of cold descriptors: listeners, sockets, timers.
//!
//! A small second io_uring with default flags and one multishot poll per
//! descriptor. It is separate from [`crate::core::ring`] because that ring's
//! deferred work loses wakes of polled descriptors. Looking for events costs a
//! load from shared memory, no system call; while the core sleeps they signal
//! its eventfd.
//!
//! Readiness is reported **on change, not by level**: once when a descriptor is
//! added ready, and again whenever it becomes ready anew (more bytes arrive,
//! another connection waits). A consumer therefore reads until `EAGAIN`, or
//! remembers that it stopped early. An event can be stale: treat it as a hint.
//!
//! The kernel keeps a watched file open: remove it before closing it, or its
//! peer sees no end.

use crate::core::meter::count_syscall;
use crate::core::ring::RingError;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// What to watch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable, or a connection to accept.
    Read,
    /// Writable.
    Write,
    /// Both.
    ReadWrite,
}

/// What happened to a watched descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The caller's name for the descriptor.
    pub token: u64,
    /// It may be read (also at end of stream, and on error, to learn which).
    pub readable: bool,
    /// It may be written.
    pub writable: bool,
}

/// Names a watch, for removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    fd: RawFd,
    mask: u32,
    token: u64,
    /// Counts uses of the slot, so that an event of an earlier one is known.
    generation: u32,
    used: bool,
}

/// User data of entries whose completion means nothing.
const IGNORE: u64 = u64::MAX;

/// The watched descriptors of one core. Lives on that core.
pub struct Watch {
    uring: IoUring,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Watch {
    /// For at most `capacity` descriptors; `eventfd` is the core's.
    pub fn new(capacity: u32, eventfd: BorrowedFd<'_>) -> Result<Watch, RingError> {
        let mut uring = IoUring::builder()
            .setup_cqsize(capacity.max(32).saturating_mul(2))
            .setup_clamp()
            .build(32)
            .map_err(RingError::from_setup)?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        uring.completion().disable_eventfd();
        let slot = |_| Slot { fd: -1, mask: 0, token: 0, generation: 0, used: false };
        Ok(Watch {
            uring,
            slots: (0..capacity).map(slot).collect(),
            free: (0..capacity).rev().collect(),
        })
    }

    /// Watches `fd` until [`Watch::remove`]; its events carry `token`. One system call.
    ///
    /// Fails with `QuotaExceeded` when the capacity is used up.
    pub fn add(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<WatchId> {
        let slot = self.free.pop().ok_or(io::ErrorKind::QuotaExceeded)?;
        let entry = &mut self.slots[slot as usize];
        entry.fd = fd.as_raw_fd();
        entry.mask = mask(interest);
        entry.token = token;
        entry.generation = entry.generation.wrapping_add(1);
        entry.used = true;
        let id = WatchId { slot, generation: entry.generation };
        if let Err(e) = self.arm_poll(id) {
            self.release(slot);
            return Err(e);
        }
        Ok(id)
    }

    /// Ends a watch. No event of it is reported afterwards. One system call.
    ///
    /// # Panics
    /// If it was removed before.
    pub fn remove(&mut self, id: WatchId) -> io::Result<()> {
        assert!(self.is_current(id), "removed a watch twice");
        self.release(id.slot);
        // A `PollRemove` gives up on a poll that has just fired and leaves it armed.
        let entry = opcode::AsyncCancel::new(user_data(id)).build().user_data(IGNORE);
        self.enter(&entry)
    }

    /// The next event; `None` if nothing became ready.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            if self.uring.submission().cq_overflow() {
                // The kernel holds events back until it is entered; a failure
                // leaves the flag set and is tried again with the next pass.
                count_syscall();
                let _ = self.uring.submit();
            }
            let entry: cqueue::Entry = self.uring.completion().next()?;
            if let Some(event) = self.interpret(&entry) {
                return Some(event);
            }
        }
    }

    /// True if an event waits.
    pub fn overdue(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// From now on events signal the eventfd. Poll once more after this.
    pub fn arm(&mut self) {
        self.uring.completion().enable_eventfd();
    }

    /// Events no longer signal the eventfd.
    pub fn disarm(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    fn interpret(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let id = watch_id(entry.user_data())?;
        if !self.is_current(id) {
            return None;
        }
        let token = self.slots[id.slot as usize].token;
        let ready = match u32::try_from(entry.result()) {
            Ok(ready) => ready,
            // The poll itself failed: the consumer's own read tells why.
            Err(_) => return Some(Event { token, readable: true, writable: true }),
        };
        if !cqueue::more(entry.flags()) && self.arm_poll(id).is_err() {
            return Some(Event { token, readable: true, writable: true });
        }
        let failed = ready & bits(libc::POLLERR | libc::POLLHUP) != 0;
        Some(Event {
            token,
            readable: failed || ready & bits(libc::POLLIN | libc::POLLRDHUP) != 0,
            writable: failed || ready & bits(libc::POLLOUT) != 0,
        })
    }

    fn arm_poll(&mut self, id: WatchId) -> io::Result<()> {
        let Slot { fd, mask, .. } = self.slots[id.slot as usize];
        let poll = opcode::PollAdd::new(types::Fd(fd), mask).multi(true);
        self.enter(&poll.build().user_data(user_data(id)))
    }

    fn enter(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: poll entries name no memory; the kernel holds its own
        // reference to the file from here on.
        let pushed = unsafe { self.uring.submission().push(entry) };
        assert!(pushed.is_ok(), "every entry is submitted at once");
        loop {
            count_syscall();
            match self.uring.submit() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    fn is_current(&self, id: WatchId) -> bool {
        let slot = &self.slots[id.slot as usize];
        slot.used && slot.generation == id.generation
    }

    fn release(&mut self, slot: u32) {
        self.slots[slot as usize].used = false;
        self.free.push(slot);
    }
}

fn bits(events: libc::c_short) -> u32 {
    u32::try_from(events).expect("poll masks are positive")
}

fn mask(interest: Interest) -> u32 {
    match interest {
        Interest::Read => bits(libc::POLLIN | libc::POLLRDHUP),
        Interest::Write => bits(libc::POLLOUT),
        Interest::ReadWrite => bits(libc::POLLIN | libc::POLLRDHUP | libc::POLLOUT),
    }
}

fn user_data(id: WatchId) -> u64 {
    u64::from(id.slot) << 32 | u64::from(id.generation)
}

fn watch_id(user_data: u64) -> Option<WatchId> {
    let half = |bits: u64| u32::try_from(bits).expect("32 bits");
    (user_data != IGNORE)
        .then(|| WatchId { slot: half(user_data >> 32), generation: half(user_data & 0xffff_ffff) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::core::wake::WakeSet;
    use crate::units::CoreId;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn watch(capacity: u32) -> (Watch, WakeSet) {
        let set = WakeSet::new(1).expect("an eventfd");
        let watch = Watch::new(capacity, set.waker(CoreId::new(0)).as_fd()).expect("io_uring");
        (watch, set)
    }

    fn next(watch: &mut Watch) -> Event {
        loop {
            if let Some(event) = watch.poll() {
                return event;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn reports_each_arrival_until_removed() {
        let (mut watch, _set) = watch(4);
        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        let id = watch.add(near.as_fd(), Interest::Read, 77).expect("room");
        assert_eq!(watch.poll(), None);
        for _ in 0..3 {
            far.write_all(b"x").expect("open");
            assert_eq!(next(&mut watch), Event { token: 77, readable: true, writable: false });
            near.read_exact(&mut [0]).expect("one byte");
        }
        watch.remove(id).expect("watched");
        far.write_all(b"x").expect("open");
        assert_eq!(watch.poll(), None);
    }

    #[test]
    fn end_of_stream_is_readable_and_ready_at_add_is_seen() {
        let (mut watch, _set) = watch(4);
        let (near, far) = UnixStream::pair().expect("a pair");
        watch.add(near.as_fd(), Interest::ReadWrite, 1).expect("room");
        assert!(next(&mut watch).writable);
        drop(far);
        assert!(next(&mut watch).readable);
    }

    #[test]
    fn a_watch_removed_while_bytes_arrive_holds_the_file_no_longer() {
        let (mut watch, _set) = watch(1);
        for _ in 0..200 {
            let (near, mut far) = UnixStream::pair().expect("a pair");
            far.set_write_timeout(Some(Duration::from_secs(10))).expect("not zero");
            let writer = std::thread::spawn(move || {
                loop {
                    if let Err(error) = far.write_all(&[0; 64]) {
                        return error.kind();
                    }
                }
            });
            for _ in 0..20 {
                let id = watch.add(near.as_fd(), Interest::Read, 1).expect("room");
                (&near).read_exact(&mut [0; 64]).expect("the writer goes on");
                watch.remove(id).expect("watched");
                while watch.poll().is_some() {}
            }
            drop(near);
            let end = writer.join().expect("no panic");
            let ends = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(ends.contains(&end), "{end}");
        }
    }

    #[test]
    fn capacity_is_an_error_and_slots_are_used_again() {
        let (mut watch, _set) = watch(1);
        let (near, far) = UnixStream::pair().expect("a pair");
        let id = watch.add(near.as_fd(), Interest::Read, 1).expect("room");
        let full = watch.add(far.as_fd(), Interest::Read, 2).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
        watch.remove(id).expect("watched");
        watch.add(far.as_fd(), Interest::Write, 2).expect("room again");
        assert_eq!(next(&mut watch).token, 2);
    }
}
