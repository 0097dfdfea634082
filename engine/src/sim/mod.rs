//! The deterministic simulator: whole cores over simulated disks, one seed.
//!
//! Cores run the real composer, table, journal, catalog and recovery; only
//! disks, clock, memory and clients are simulated. The [`oracle`] knows for
//! every sector which values may be read, live, after the death of the process
//! and after a power cut. Some worlds are short of space, some have devices
//! that fail operations, in some bits rot, some dwell on one situation ([`regime`]). A run is a pure function of its seed.

mod audit;
pub mod client;
mod control;
mod faults;
pub mod oracle;
pub mod regime;
mod restart;
pub mod shared;
pub mod world;

pub use world::{Outcome, run};

/// The disks and sizes of a pool after some work, stopped cleanly.
#[cfg(test)]
pub(crate) fn stopped_pool(seed: u64) -> (Vec<crate::device::sim::SimDisk>, Vec<u64>) {
    let mut world = world::World::new(seed);
    world.rots = false;
    world.auditing = true;
    for _ in 0..4_000 {
        world.step(true).expect("no promise is broken");
    }
    world.stop().expect("no promise is broken");
    (world.shared.disks, world.sizes)
}
