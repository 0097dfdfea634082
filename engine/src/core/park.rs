//! How a core sleeps, and what makes sure that it wakes.
//!
//! Asleep, the core's thread is blocked in one system call: ppoll(2) on its
//! eventfd, until the next deadline. The eventfd is rung by other cores, by the
//! core's block ring and by its watch ring. glommio's own parking is not used:
//! version 0.9 can park although a task is ready, for good if its last timer
//! has just fired (docs/decisions/0003-cores.md).
//!
//! **Beat.** No sleep is longer than [`BEAT_NS`]. A wake that only the beat
//! noticed is a bug in the handshake of [`crate::core::wake`]:
//! [`Park::lost_wakes`] counts it, tests assert zero.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::core::clock;
use crate::core::meter::count_syscall;
use crate::core::reactor::Poll;
use crate::core::wake::{WakeSet, Waker};
use crate::units::CoreId;

/// The longest sleep.
pub const BEAT_NS: u64 = 1_000_000_000;
/// How far the kernel's signal can be behind its completion.
const GRACE_NS: u64 = 1_000_000;

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Work was found at once, or the eventfd was rung.
    Event,
    /// The deadline came.
    Deadline,
    /// Nothing but time passed.
    Beat,
}

/// How long polling without work is worth it: for the whole time after work that came
/// soon, for ever less while it comes late. Polling in vain takes the CPU from neighbours,
/// the client among them where CPUs are few.
#[derive(Debug)]
struct Spin {
    longest_ns: u64,
    ns: u64,
}

impl Spin {
    fn new(longest_ns: u64) -> Spin {
        Spin { longest_ns, ns: longest_ns }
    }

    /// Work came after `quiet_ns` without any. Up to twice the longest polling counts as
    /// soon: a sleeper is late by about a wake, which is how long that is.
    fn learn(&mut self, quiet_ns: u64) {
        let soon = quiet_ns <= 2 * self.longest_ns;
        self.ns = if soon { self.longest_ns } else { self.ns / 2 };
    }
}

/// A core's place to sleep.
#[derive(Debug)]
pub struct Park {
    wake: WakeSet,
    core: CoreId,
    spin: Spin,
    sleeps: u64,
    lost_wakes: u64,
}

impl Park {
    /// Sleeps on the eventfd of `core`; polls for at most `spin_ns` before each sleep.
    pub fn new(wake: WakeSet, core: CoreId, spin_ns: u64) -> Park {
        Park { wake, core, spin: Spin::new(spin_ns), sleeps: 0, lost_wakes: 0 }
    }

    /// How long to poll without work before sleeping.
    pub fn spin_ns(&self) -> u64 {
        self.spin.ns
    }

    /// Work came after `quiet_ns` without any.
    pub(crate) fn learn(&mut self, quiet_ns: u64) {
        self.spin.learn(quiet_ns);
    }

    /// Times the core went to sleep.
    pub fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// Times work was found only because the beat looked.
    pub fn lost_wakes(&self) -> u64 {
        self.lost_wakes
    }

    /// Sleeps until there may be work.
    pub(crate) fn sleep<P: Poll>(&mut self, poll: &mut P) -> Woken {
        poll.arm();
        self.waker().flag().fall_asleep();
        let found = poll.poll(clock::now()) || poll.done();
        let woken = if found { Woken::Event } else { self.doze(poll) };
        self.waker().flag().wake_up();
        poll.disarm();
        woken
    }

    fn doze<P: Poll>(&mut self, poll: &mut P) -> Woken {
        self.sleeps += 1;
        let due_ns = poll.next_deadline().map(|at| at.since(clock::now()));
        if self.wait(due_ns.map_or(BEAT_NS, |due| due.min(BEAT_NS))) {
            return Woken::Event;
        }
        if due_ns.is_some_and(|due| due <= BEAT_NS) {
            return Woken::Deadline;
        }
        if !poll.overdue() || !self.waker().flag().is_sleeping() {
            return Woken::Beat;
        }
        if !self.wait(GRACE_NS) {
            self.lost_wakes += 1;
        }
        Woken::Event
    }

    /// Waits for the eventfd, at most `ns`; true if it was rung.
    fn wait(&self, ns: u64) -> bool {
        let waker = self.waker();
        let limit = Timespec::try_from(Duration::from_nanos(ns)).expect("at most a second");
        count_syscall();
        let ready = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&limit));
        // An interrupted sleep is over: whoever sleeps looks around and sleeps again.
        if !matches!(ready, Ok(1..) | Err(rustix::io::Errno::INTR)) {
            assert!(ready.is_ok(), "polling an eventfd: {ready:?}");
            return false;
        }
        count_syscall();
        let read = rustix::io::read(waker, &mut [0; 8]);
        let empty = read == Err(rustix::io::Errno::AGAIN);
        assert!(empty || read.is_ok(), "reading an eventfd: {:?}", read.map_err(io::Error::from));
        true
    }

    fn waker(&self) -> &Waker {
        self.wake.waker(self.core)
    }
}

#[cfg(test)]
mod tests {
    use super::Spin;

    #[test]
    fn polling_pays_only_while_work_comes_soon() {
        let mut spin = Spin::new(50_000);
        let after = |spin: &mut Spin, quiet_ns| {
            spin.learn(quiet_ns);
            spin.ns
        };
        assert_eq!(after(&mut spin, 1_000), 50_000);
        assert_eq!(after(&mut spin, 900_000), 25_000, "one late arrival halves it");
        assert_eq!(after(&mut spin, 20_000), 50_000, "one early arrival restores it");
        for _ in 0..16 {
            after(&mut spin, 900_000);
        }
        assert_eq!(spin.ns, 0, "no polling in vain");
        assert_eq!(after(&mut spin, 90_000), 50_000, "a sleeper is late by a wake");
        assert_eq!(after(&mut Spin::new(0), 0), 0, "none is none");
    }
}
