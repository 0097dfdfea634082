//! The machine room: what one pinned core is made of.
//!
//! A core owns an [`arena::Arena`] (its buffers), a [`ring::Ring`] (its block
//! I/O), a [`watch::Watch`] (readiness of sockets), its ends of the
//! [`mailbox`]es and one place in the [`wake::WakeSet`]. [`executor`] starts
//! its thread on one of the [`cpus`], [`reactor`] turns it, [`park`] lets it
//! sleep; [`meter`] says what it costs.
//!
//! Invariants: nothing here takes a lock; nothing here allocates while I/O is
//! flowing (parking does, once per sleep); every queue is bounded. Nothing
//! here knows a volume, a fragment or a protocol.

pub mod arena;
pub mod buddy;
pub mod clock;
pub mod cpus;
pub mod distance;
pub mod executor;
pub mod mailbox;
pub mod meter;
pub mod park;
pub mod prefetch;
pub mod reactor;
pub mod ring;
pub mod wake;
pub mod watch;

#[cfg(all(test, not(loom)))]
mod sleep_tests;
