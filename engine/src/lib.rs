//! The Tessera block store.
//!
//! Rooms, top down; dependencies point one way and nothing below knows a
//! target: `target` → `volume` → `table` → `device`. See ARCHITECTURE.md.

pub mod core;
pub mod device;
pub mod request;
pub mod target;
pub mod format;
pub mod journal;
pub mod pool;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stage;
pub mod table;
pub mod tier;
pub mod units;
pub mod volume;
