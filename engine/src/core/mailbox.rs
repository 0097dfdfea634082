//! Messages between cores: one bounded ring for every ordered pair.
//!
//! [`mesh`] makes them all. Each core keeps a [`Mailboxes`]: a sender to every
//! core, itself included, and a receiver from every core and from the control
//! thread, which keeps the [`Control`].
//!
//! Invariants: a ring has one producer and one consumer; messages of one pair
//! arrive in order; a push never waits. The capacity is at least the number of
//! messages that can be outstanding (request slots bound it), so a full ring
//! between cores is a bug and asserts; the control thread is told instead.

use crate::core::wake::WakeSet;
use crate::units::CoreId;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A core, possibly the receiver itself.
    Core(CoreId),
    /// The control thread.
    Control,
}

#[derive(Debug)]
#[repr(align(128))]
struct Settled(AtomicU64);

/// One direction of one pair.
#[derive(Debug)]
struct Ring<T> {
    queue: ArrayQueue<T>,
    /// Messages pushed whose wake is done: what lies beyond is still being rung.
    settled: Settled,
}

impl<T> Ring<T> {
    fn new(capacity: usize) -> Arc<Ring<T>> {
        Arc::new(Ring { queue: ArrayQueue::new(capacity), settled: Settled(AtomicU64::new(0)) })
    }
}

#[derive(Debug)]
struct Sender<T> {
    ring: Arc<Ring<T>>,
    to: CoreId,
    pushed: u64,
}

impl<T> Sender<T> {
    fn send(&mut self, message: T, wake: &WakeSet) -> Result<(), T> {
        self.ring.queue.push(message)?;
        wake.waker(self.to).notify();
        self.pushed += 1;
        self.ring.settled.0.store(self.pushed, Ordering::Release);
        Ok(())
    }
}

#[derive(Debug)]
struct Receiver<T> {
    ring: Arc<Ring<T>>,
    from: Source,
    popped: u64,
}

/// One core's ends of all its rings. Lives on that core.
#[derive(Debug)]
pub struct Mailboxes<T> {
    core: CoreId,
    wake: WakeSet,
    senders: Vec<Sender<T>>,
    receivers: Vec<Receiver<T>>,
    /// The receiver to look at first, so that none is starved.
    turn: usize,
}

impl<T> Mailboxes<T> {
    /// Sends `message` to core `to`, which may be this core, and wakes it if it sleeps.
    ///
    /// # Panics
    /// If the ring is full: more messages are outstanding than was promised to [`mesh`].
    pub fn send(&mut self, to: CoreId, message: T) {
        let sent = self.senders[to.get() as usize].send(message, &self.wake);
        assert!(sent.is_ok(), "mailbox from core {} to core {to} is full", self.core);
    }

    /// The next message, taking the senders in turn; `None` if there is none.
    pub fn receive(&mut self) -> Option<(Source, T)> {
        let senders = self.receivers.len();
        for _ in 0..senders {
            let next = self.turn + 1;
            let receiver = &mut self.receivers[self.turn];
            self.turn = if next == senders { 0 } else { next };
            // Cheaper than a failing pop, which costs a fence.
            if receiver.ring.queue.is_empty() {
                continue;
            }
            if let Some(message) = receiver.ring.queue.pop() {
                receiver.popped += 1;
                return Some((receiver.from, message));
            }
        }
        None
    }

    /// True if a message waits whose sender has finished its wake: if this core
    /// still sleeps then, the wake was lost. For [`crate::core::reactor::Poll::overdue`].
    pub fn overdue(&self) -> bool {
        self.receivers.iter().any(|r| r.ring.settled.0.load(Ordering::Acquire) > r.popped)
    }

    /// This core.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.senders.len()
    }
}

/// The control thread's ends: one sender per core.
#[derive(Debug)]
pub struct Control<T> {
    wake: WakeSet,
    senders: Vec<Sender<T>>,
}

impl<T> Control<T> {
    /// Sends `message` to core `to` and wakes it if it sleeps. If its ring is
    /// full the message comes back: try again later.
    pub fn send(&mut self, to: CoreId, message: T) -> Result<(), T> {
        self.senders[to.get() as usize].send(message, &self.wake)
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.senders.len()
    }
}

/// All rings between the cores of `wake`, and from the control thread to each.
///
/// `capacity`: the most messages that can be outstanding from one core to
/// another; `control_capacity`: how many the control thread may queue per core.
pub fn mesh<T>(
    wake: &WakeSet,
    capacity: usize,
    control_capacity: usize,
) -> (Vec<Mailboxes<T>>, Control<T>) {
    let ids =
        || (0..wake.cores()).map(|c| CoreId::new(u8::try_from(c).expect("at most 256 cores")));
    let mut control = Control { wake: wake.clone(), senders: Vec::new() };
    let mut boxes: Vec<Mailboxes<T>> = ids()
        .map(|core| Mailboxes {
            core,
            wake: wake.clone(),
            senders: Vec::new(),
            receivers: Vec::new(),
            turn: 0,
        })
        .collect();
    for to in ids() {
        for from in ids() {
            let ring = Ring::new(capacity);
            boxes[from.get() as usize].senders.push(Sender { ring: ring.clone(), to, pushed: 0 });
            let receiver = Receiver { ring, from: Source::Core(from), popped: 0 };
            boxes[to.get() as usize].receivers.push(receiver);
        }
        let ring = Ring::new(control_capacity);
        control.senders.push(Sender { ring: ring.clone(), to, pushed: 0 });
        let receiver = Receiver { ring, from: Source::Control, popped: 0 };
        boxes[to.get() as usize].receivers.push(receiver);
    }
    (boxes, control)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn two() -> (Mailboxes<u32>, Mailboxes<u32>, Control<u32>) {
        let wake = WakeSet::new(2).expect("eventfds");
        let (mut boxes, control) = mesh(&wake, 2, 1);
        let b = boxes.pop().expect("two cores");
        (boxes.pop().expect("two cores"), b, control)
    }

    #[test]
    fn messages_arrive_in_order_with_their_source() {
        let (mut a, mut b, mut control) = two();
        a.send(CoreId::new(1), 1);
        a.send(CoreId::new(1), 2);
        b.send(CoreId::new(1), 3);
        assert_eq!(control.send(CoreId::new(1), 4), Ok(()));
        assert_eq!(control.send(CoreId::new(1), 5), Err(5));
        assert!(b.overdue());
        let got: Vec<_> = std::iter::from_fn(|| b.receive()).collect();
        let core = |c| Source::Core(CoreId::new(c));
        assert_eq!(got, [(core(0), 1), (core(1), 3), (Source::Control, 4), (core(0), 2)]);
        assert!(!b.overdue());
        assert_eq!(a.receive(), None);
    }

    #[test]
    #[should_panic(expected = "mailbox from core 0 to core 1 is full")]
    fn overflow_between_cores_is_a_bug() {
        let (mut a, _b, _) = two();
        (0..3).for_each(|n| a.send(CoreId::new(1), n));
    }
}
