//! How a core sleeps, and what makes sure that it wakes.
//!
//! Asleep, the reactor's task waits for two things: a glommio read of the
//! core's eventfd (rung by other cores, by the core's block ring and by its
//! watch ring) and a glommio timer for the next deadline. A parked executor is
//! then one thread blocked in one system call.
//!
//! **Heartbeat.** glommio 0.9 can park although a task is ready: if its preempt
//! timer has expired just before it runs its queues. Awake, a task with a 1 ms
//! timer bounds that. Asleep, the timer above does: it never runs longer than
//! [`BEAT_NS`] while requests are in flight, or [`IDLE_BEAT_NS`] without.
//! A wake that only the heartbeat noticed is a bug in the handshake of
//! [`crate::core::wake`]: [`Park::lost_wakes`] counts it, tests assert zero.
//!
//! Invariant: the pending read is never dropped but carried from sleep to sleep
//! (a dropped one could swallow a signal).

use crate::core::clock;
use crate::core::reactor::Poll;
use crate::core::wake::{WakeSet, Waker};
use crate::units::CoreId;
use glommio::io::BufferedFile;
use glommio::timer::Timer;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task;
use std::time::Duration;

/// The heartbeat's period while requests are in flight, and while awake.
pub const BEAT_NS: u64 = 1_000_000;
/// The heartbeat's period asleep with nothing in flight.
pub const IDLE_BEAT_NS: u64 = 1_000_000_000;

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Work was found at once, or the eventfd was rung.
    Event,
    /// The deadline came.
    Deadline,
    /// Nothing but time passed.
    Heartbeat,
}

/// Whether the awake heartbeat's task runs, and whether it is wanted.
#[derive(Debug, Default)]
struct Beat {
    running: Cell<bool>,
    asleep: Cell<bool>,
}

type Read = Pin<Box<dyn Future<Output = ()>>>;

/// A core's place to sleep. Made and used inside its executor.
pub struct Park {
    wake: WakeSet,
    core: CoreId,
    eventfd: Rc<BufferedFile>,
    read: Option<Read>,
    beat: Rc<Beat>,
    spin_ns: u64,
    sleeps: u64,
    lost_wakes: u64,
}

impl Park {
    /// Sleeps on the eventfd of `core`; polls for `spin_ns` before each sleep
    /// (usually [`crate::core::reactor::SPIN_NS`]).
    ///
    /// # Panics
    /// Outside a glommio executor.
    pub fn new(wake: WakeSet, core: CoreId, spin_ns: u64) -> io::Result<Park> {
        let own = wake.waker(core).as_fd().try_clone_to_owned()?;
        // SAFETY: a descriptor of our own, given away.
        let eventfd = Rc::new(unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) });
        let beat = Rc::new(Beat::default());
        Ok(Park { wake, core, eventfd, read: None, beat, spin_ns, sleeps: 0, lost_wakes: 0 })
    }

    /// How long to poll without work before sleeping.
    pub fn spin_ns(&self) -> u64 {
        self.spin_ns
    }

    /// Times the core went to sleep.
    pub fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// Times work was found only because the heartbeat looked.
    pub fn lost_wakes(&self) -> u64 {
        self.lost_wakes
    }

    /// The reactor polls from now on: starts the awake heartbeat if it does not run.
    pub(crate) fn awake(&mut self) {
        self.beat.asleep.set(false);
        if self.beat.running.replace(true) {
            return;
        }
        let beat = Rc::clone(&self.beat);
        glommio::spawn_local(async move {
            while !beat.asleep.get() {
                Timer::new(Duration::from_nanos(BEAT_NS)).await;
            }
            beat.running.set(false);
        })
        .detach();
    }

    /// Sleeps until there may be work.
    pub(crate) async fn sleep<P: Poll>(&mut self, poll: &mut P) -> Woken {
        poll.arm();
        self.waker().flag().fall_asleep();
        let woken = if poll.poll(clock::now()) || poll.done() {
            Woken::Event
        } else {
            self.doze(poll).await
        };
        self.waker().flag().wake_up();
        poll.disarm();
        self.awake();
        woken
    }

    async fn doze<P: Poll>(&mut self, poll: &mut P) -> Woken {
        self.sleeps += 1;
        self.beat.asleep.set(true);
        let beat_ns = if poll.in_flight() { BEAT_NS } else { IDLE_BEAT_NS };
        let due_ns = poll.next_deadline().map(|at| at.since(clock::now()));
        if self.wait(due_ns.map_or(beat_ns, |due| due.min(beat_ns))).await {
            return Woken::Event;
        }
        if due_ns.is_some_and(|due| due <= beat_ns) {
            return Woken::Deadline;
        }
        if !poll.overdue() || !self.waker().flag().is_sleeping() {
            return Woken::Heartbeat;
        }
        // The kernel's signal can be a moment behind its completion.
        if !self.wait(BEAT_NS).await {
            self.lost_wakes += 1;
        }
        Woken::Event
    }

    /// Waits for the eventfd, at most `ns`; true if it was rung.
    async fn wait(&mut self, ns: u64) -> bool {
        let eventfd = &self.eventfd;
        let read = self.read.get_or_insert_with(|| {
            let eventfd = Rc::clone(eventfd);
            Box::pin(async move {
                let count = eventfd.read_at(0, 8).await;
                assert!(count.is_ok(), "reading an eventfd: {:?}", count.err());
            })
        });
        let mut timer = Timer::new(Duration::from_nanos(ns));
        let rung = poll_fn(|cx| {
            if read.as_mut().poll(cx).is_ready() {
                return task::Poll::Ready(true);
            }
            Pin::new(&mut timer).poll(cx).map(|_| false)
        })
        .await;
        if rung {
            self.read = None;
        }
        rung
    }

    /// Ends the pending read and the heartbeat.
    pub(crate) async fn finish(&mut self) {
        self.beat.asleep.set(true);
        if let Some(read) = self.read.take() {
            self.waker().ring();
            read.await;
        }
    }

    fn waker(&self) -> &Waker {
        self.wake.waker(self.core)
    }
}
