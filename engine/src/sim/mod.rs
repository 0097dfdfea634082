//! The deterministic simulator: whole cores over simulated disks, one seed.
//!
//! Cores run the real composer, table, journal, catalog and recovery, and
//! exchange messages through the real rings with the real wake handshake; some
//! clients speak NVMe/TCP, from the real initiator to the real I/O queues
//! ([`door`]). Only disks, clock, memory, sockets and clients are simulated. A step is one turn
//! of one core, one device operation, one message, one request, chosen at
//! random ([`turn`]). The [`oracle`] knows for every sector which values may be
//! read, live, after the death of the process and after a power cut; a request
//! may fail only where something was done that explains it ([`faults`]). Some
//! worlds dwell on one situation ([`regime`]).
//!
//! A run is a pure function of its [`plan`]. One that fails is made smaller
//! while it fails in the same way ([`shrink`]), then made again with its
//! history kept ([`trace`]). Many seeds run side by side ([`campaign`]).

#![forbid(unsafe_code)]

mod audit;
mod broken;
pub mod campaign;
mod client;
mod control;
mod core;
mod describe;
mod door;
mod doors;
mod examine;
mod faults;
mod foresight;
mod oracle;
mod outcome;
mod payload;
pub mod plan;
mod playground;
mod pool_io;
mod regime;
mod restart;
mod sector;
pub mod shared;
pub mod shrink;
mod sleep;
#[cfg(test)]
mod tests;
pub mod trace;
mod turn;
mod wire;
mod world;

pub use broken::Broken;
pub use outcome::Outcome;
pub use plan::Plan;
pub use trace::Trace;
pub use world::run;

/// The disks and sizes of a pool after some work, stopped cleanly.
#[cfg(test)]
pub(crate) fn stopped_pool(seed: u64) -> (Vec<crate::device::sim::SimDisk>, Vec<u64>) {
    let plan =
        [plan::Fault::Full, plan::Fault::Refusals].into_iter().fold(Plan::of(seed), Plan::without);
    let mut world = world::World::new(plan, Trace::default()).expect("no promise is broken");
    world.auditing = true;
    for _ in 0..8_000 {
        world.step(true).expect("no promise is broken");
    }
    world.stop().expect("no promise is broken");
    (world.shared.disks, world.sizes)
}
