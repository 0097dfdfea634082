//! The loop that turns a core: poll, spin a little, sleep.
//!
//! One [`Poll`] holds everything a core does; [`run`] calls it for ever, as the
//! one task of the core's pinned glommio executor. After `spin_ns` without work, less
//! where work has been coming late, the core sleeps ([`crate::core::park`]).
//!
//! Nothing here knows what is polled.

use crate::core::clock;
use crate::core::park::{Park, Woken};
use crate::units::Nanos;

/// How long a core at most polls without finding work before it sleeps: about the cost
/// of a wake, and longer than a read of a fast device takes.
pub const SPIN_NS: u64 = 50_000;

/// What a core does, as the reactor sees it.
pub trait Poll {
    /// Makes one pass over all sources of work, without blocking, and takes
    /// only a bounded amount from each: sockets, mailboxes, devices, due
    /// deadlines. Submits at its end what was collected. True if it did
    /// anything; a pass that did nothing but is not idle must return true.
    /// `now` is the time at its start, from [`clock::now`].
    fn poll(&mut self, now: Nanos) -> bool;
    /// When [`Poll::poll`] is wanted even if nothing arrives until then.
    fn next_deadline(&self) -> Option<Nanos>;
    /// The core is about to sleep: kernel rings signal the eventfd from now on
    /// ([`crate::core::ring::Ring::arm`], [`crate::core::watch::Watch::arm`]).
    fn arm(&mut self);
    /// The core is awake: kernel rings are silent again.
    fn disarm(&mut self);
    /// True if work waits whose producer has finished its wake; asked only by
    /// the beat, to find lost wakes.
    fn overdue(&mut self) -> bool;
    /// True once the core has drained and the reactor shall return.
    fn done(&self) -> bool;
}

/// Runs `poll` until it is done, as the one task of its executor: it never yields,
/// and sleeps with the whole thread (see [`crate::core::park`] for why).
pub fn run<P: Poll>(poll: &mut P, park: &mut Park) {
    let mut quiet_since: Option<Nanos> = None;
    while !poll.done() {
        let now = clock::now();
        if poll.poll(now) {
            if let Some(since) = quiet_since.take() {
                park.learn(now.since(since));
            }
            continue;
        }
        let since = *quiet_since.get_or_insert(now);
        if now.since(since) < park.spin_ns() {
            std::hint::spin_loop();
        } else if park.sleep(poll) != Woken::Beat {
            // After a mere beat the next empty pass sleeps again at once.
            park.learn(clock::now().since(since));
            quiet_since = None;
        }
    }
}
