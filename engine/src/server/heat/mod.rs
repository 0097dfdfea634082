//! The heat of volumes: what the cores count, and what is expected of it.
//!
//! The cores count requests per segment ([`crate::tier::heat`]). One slow thread
//! ([`service`]) collects the counts at the end of each bin, lets a forecaster
//! look at each volume ([`follow`]), and gives all cores the forecast as one
//! immutable value, by which they choose what to spill. What a forecaster has
//! learned is kept with the pool in `heat.safetensors`.
//!
//! It takes at most [`SHARE_OF_TRAINING`] of what `train_cpu` allows, and skips
//! forecasts rather than exceed that. No core waits for it.

mod follow;
mod report;
mod service;
#[cfg(test)]
mod tests;

pub use follow::Settings;
pub use service::{HeatAsk, HeatChange, HeatThread};

/// Part of `train_cpu` that forecasts may take; the training of the prefetcher has the rest.
pub const SHARE_OF_TRAINING: f32 = 0.125;
