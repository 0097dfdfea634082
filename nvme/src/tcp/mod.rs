//! NVMe over TCP: PDUs, their checks, and their digests (TCP 3).
//!
//! [`pdu`] has the layouts, [`check`] decides whether a received header may be
//! believed and names what to answer if not, [`digest`] computes CRC-32C: no I/O, no
//! state. [`initiator`] is the host that speaks them.

pub mod check;
pub mod digest;
pub mod initiator;
pub mod pdu;

pub use check::{Digests, Fatal, Received, Receiver, Stage};
pub use digest::{Digest, crc32c};

/// The port that I/O controllers listen on by convention.
pub const PORT: u16 = 4420;
/// The port of discovery services.
pub const DISCOVERY_PORT: u16 = 8009;
/// In-capsule data that every queue takes with fabrics and admin commands (TCP 3.3.2.1).
pub const ADMIN_IN_CAPSULE_BYTES: u32 = 8192;
/// Seconds that a connection may stay open after a request to terminate it (TCP 3.5).
pub const TERMINATE_SECONDS: u64 = 30;
