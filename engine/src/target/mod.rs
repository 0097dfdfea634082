//! Targets: how clients reach volumes.
//!
//! A target turns a protocol into [`crate::request`]s and back. Nothing below
//! knows a target, and no target knows another.

pub mod load;
pub mod nbd;
