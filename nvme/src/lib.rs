//! The NVMe specification as types, shared by driver, initiator and target.
//!
//! Sections refer to the NVM Express Base Specification, revision 2.0
//! ("Base"), the NVM Command Set Specification, revision 1.0 ("NVM"), and the
//! TCP Transport Specification, revision 1.0 ("TCP").
//! Everything here is a layout or a number, without I/O and state, except
//! [`tcp::initiator`], the host side of NVMe/TCP. Values from a peer are decoded
//! fallibly; fields are little-endian on every host.

#![forbid(unsafe_code)]

pub mod code;
pub mod discovery;
pub mod entry;
pub mod fabrics;
pub mod feature;
pub mod identify;
pub mod log;
pub mod nqn;
pub mod property;
pub mod sgl;
pub mod tcp;

pub use code::Status;
pub use entry::{CompletionEntry, SubmissionEntry};
pub use nqn::Nqn;
pub use sgl::SglDescriptor;
