//! The wake set: how a core that sleeps learns that there is work.
//!
//! Each core has a [`Flag`] (is it asleep?) and an eventfd. The handshake:
//!
//! ```text
//! producer                         sleeper
//! 1 push the message               1 arm its rings
//! 2 SeqCst fence                   2 SLEEPING = true
//! 3 if SLEEPING.swap(false)        3 SeqCst fence
//!      write the eventfd           4 poll everything once more
//!                                  5 nothing: read the eventfd (sleep)
//! ```
//!
//! Of the two fences, one comes first in the single order of all SeqCst
//! fences. If the producer's does, the sleeper's last poll sees the message;
//! otherwise the producer sees SLEEPING and rings. Without the fences both may
//! miss (store buffering): the loom test below then fails.
//!
//! Run it with `cargo xtask loom`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::core::meter::count_syscall;
use crate::planted::{Bug, planted};
use crate::units::CoreId;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Whether a core sleeps. See the module for the handshake.
#[derive(Debug)]
pub struct Flag {
    sleeping: AtomicBool,
}

impl Default for Flag {
    fn default() -> Self {
        Flag { sleeping: AtomicBool::new(false) }
    }
}

impl Flag {
    /// Producer, after its push: true if it must write the eventfd.
    ///
    /// Of several producers only one is told so.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel)
    }

    /// Sleeper, before its last poll.
    pub fn fall_asleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeper, awake again: nobody needs to ring any more.
    pub fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// True while the sleeper sleeps and nobody has claimed to wake it.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Acquire)
    }
}

/// One core's flag and eventfd.
///
/// Aligned so that cores do not share cache lines (two are fetched at a time).
#[derive(Debug)]
#[repr(align(128))]
pub struct Waker {
    flag: Flag,
    eventfd: OwnedFd,
}

impl Waker {
    fn new() -> std::io::Result<Waker> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Waker { flag: Flag::default(), eventfd })
    }

    /// The flag.
    pub fn flag(&self) -> &Flag {
        &self.flag
    }

    /// To be called after a push to this core: wakes it if it sleeps.
    pub fn notify(&self) {
        if self.flag.must_ring() && !planted(Bug::LostWakeUp) {
            self.ring();
        }
    }

    /// Writes the eventfd, whether the core sleeps or not.
    pub fn ring(&self) {
        let one = 1u64;
        count_syscall();
        // SAFETY: eight readable bytes and a descriptor that `self` keeps open.
        let wrote = unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
        assert_eq!(wrote, 8, "writing an eventfd: {}", std::io::Error::last_os_error());
    }

    /// The eventfd, to be registered with rings or read.
    pub fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// The wakers of all cores, shared by all producers.
#[derive(Clone, Debug)]
pub struct WakeSet {
    wakers: Arc<[Waker]>,
}

impl WakeSet {
    /// One waker per core.
    pub fn new(cores: usize) -> std::io::Result<WakeSet> {
        let wakers: std::io::Result<Vec<Waker>> = (0..cores).map(|_| Waker::new()).collect();
        Ok(WakeSet { wakers: wakers?.into() })
    }

    /// A core's waker.
    pub fn waker(&self, core: CoreId) -> &Waker {
        &self.wakers[core.get() as usize]
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.wakers.len()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Arc, Condvar, Mutex};

    /// Two producers, one sleeper: a sleeper that saw no message was rung.
    #[test]
    fn no_wake_is_lost() {
        loom::model(|| {
            let flag = Arc::new(Flag::default());
            let messages = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let rings = Arc::new(AtomicUsize::new(0));
            let producers: Vec<_> = (0..2)
                .map(|me| {
                    let (flag, messages, rings) = (flag.clone(), messages.clone(), rings.clone());
                    loom::thread::spawn(move || {
                        messages[me].store(1, Ordering::Release);
                        if flag.must_ring() {
                            rings.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();

            flag.fall_asleep();
            let seen: usize = messages.iter().map(|m| m.load(Ordering::Acquire)).sum();
            for producer in producers {
                producer.join().expect("producers do not panic");
            }
            let rings = rings.load(Ordering::Relaxed);
            assert!(seen == 2 || rings > 0, "{seen} messages seen, asleep, and nobody rang");
            assert!(rings <= 1, "only one producer rings");
        });
    }

    /// An eventfd: waits where the real one would, so that a lost wake is a deadlock.
    #[derive(Default)]
    struct EventFd {
        rung: Mutex<bool>,
        bell: Condvar,
    }

    impl EventFd {
        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.bell.notify_one();
        }
        fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.bell.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    /// What a sender of `core::mailbox` does, over a ring that counts.
    fn send(ring: &AtomicUsize, settled: &AtomicUsize, flag: &Flag, fd: &EventFd, message: usize) {
        ring.store(message, Ordering::Release);
        if flag.must_ring() {
            fd.ring();
        }
        settled.store(message, Ordering::Release);
    }

    /// What `core::park` does, again and again, until a message of each of two cores has
    /// come: it never sleeps for good.
    ///
    /// Not more messages, nor preemptions: loom lets the swap in `must_ring` read an older value
    /// than the load before it did, which the language forbids and which is a deadlock then.
    #[test]
    fn a_core_that_sleeps_again_and_again_gets_every_message() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let flag = Arc::new(Flag::default());
            let fd = Arc::new(EventFd::default());
            let rings = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            for me in 0..2 {
                let (flag, fd, rings) = (flag.clone(), fd.clone(), rings.clone());
                loom::thread::spawn(move || {
                    let settled = AtomicUsize::new(0);
                    send(&rings[me], &settled, &flag, &fd, 1);
                });
            }
            let mut popped = 0;
            let mut poll = || {
                let seen: usize = rings.iter().map(|ring| ring.load(Ordering::Acquire)).sum();
                let found = seen > popped;
                popped = seen;
                (found, popped == 2)
            };
            loop {
                if poll().1 {
                    break;
                }
                flag.fall_asleep();
                let (found, all) = poll();
                if !found {
                    fd.wait();
                }
                flag.wake_up();
                if all {
                    break;
                }
            }
        });
    }

    /// A message whose sender has finished its wake leaves no sleeper asleep: what
    /// `Park::lost_wakes` counts does not happen.
    #[test]
    fn a_settled_message_has_woken_its_core() {
        loom::model(|| {
            let flag = Arc::new(Flag::default());
            let fd = Arc::new(EventFd::default());
            let ring = Arc::new(AtomicUsize::new(0));
            let settled = Arc::new(AtomicUsize::new(0));
            let producer = {
                let (flag, fd) = (flag.clone(), fd.clone());
                let (ring, settled) = (ring.clone(), settled.clone());
                loom::thread::spawn(move || send(&ring, &settled, &flag, &fd, 1))
            };
            flag.fall_asleep();
            let popped = ring.load(Ordering::Acquire);
            let overdue = settled.load(Ordering::Acquire) > popped;
            assert!(!(overdue && flag.is_sleeping()), "a lost wake");
            producer.join().expect("producers do not panic");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rings_only_sleepers_and_only_once() {
        let set = WakeSet::new(1).expect("an eventfd");
        let waker = set.waker(CoreId::new(0));
        assert!(!waker.flag().must_ring());
        waker.flag().fall_asleep();
        assert!(waker.flag().must_ring());
        assert!(!waker.flag().must_ring());
        waker.flag().fall_asleep();
        waker.flag().wake_up();
        assert!(!waker.flag().must_ring());
    }
}
