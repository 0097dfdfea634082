//! Targets: how clients reach volumes.
//!
//! A target turns a protocol into [`crate::request`]s and back. Nothing below
//! knows a target, and no target knows another: what several need (sockets, fixed
//! pools, stalls) is here.

#[cfg(any(test, fuzzing))]
pub mod fake;
pub mod load;
pub mod nbd;
pub mod nvmf;
pub mod roster;
mod slots;
pub mod socket;
mod stall;

/// Nanoseconds that a client may leave its replies unread or a write half sent.
pub const STALL_NS: u64 = 30_000_000_000;
