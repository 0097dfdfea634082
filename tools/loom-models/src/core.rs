//! What the wake set counts with.

#[path = "../../../engine/src/core/meter.rs"]
pub mod meter;
