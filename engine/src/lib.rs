//! The Tessera block store.
//!
//! Rooms, top down; dependencies point one way and nothing below knows a
//! target: `target` → `volume` → `table` → `device`. See ARCHITECTURE.md.

pub mod admin;
pub mod check;
pub mod core;
pub mod device;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod journal;
pub mod planted;
pub mod pool;
pub mod request;
pub mod server;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stage;
pub mod table;
pub mod target;
pub mod tier;
pub mod units;
pub mod volume;
