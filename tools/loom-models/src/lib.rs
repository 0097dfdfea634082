//! The engine's lock-free parts in every interleaving of their threads, under loom.
//!
//! The files are the engine's own, compiled once more with `cfg(loom)`, which
//! gives them loom's atomics and the models at their ends. Here, and not in the
//! engine, because that would build all it depends on a second time.
//!
//! The rings of `core::mailbox` are crossbeam's and have its own models; what is
//! modelled here is what we build around them.

pub mod core;
#[path = "../../../engine/src/planted.rs"]
pub mod planted;
#[path = "../../../engine/src/pool/space_map.rs"]
pub mod space_map;
#[path = "../../../engine/src/units.rs"]
pub mod units;
#[path = "../../../engine/src/core/wake.rs"]
pub mod wake;
