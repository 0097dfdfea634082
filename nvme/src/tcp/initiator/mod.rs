//! The host side of NVMe/TCP: queue pairs, controllers, and reconnecting (TCP; Base 3, 5, 6).
//!
//! State machines without I/O, and thin drivers over non-blocking sockets that are polled:
//!
//! ```text
//! Attachment   requests that outlive connections: retried, requeued, or failed by timers
//!   └ Association   an admin queue and I/O queues; keep alive, events
//!       └ Connection   a QueuePair on a socket
//!           └ QueuePair   PDUs, CIDs, R2T, digests; every byte of the target is checked
//! ```
//!
//! Time is an argument everywhere. The data path allocates nothing, and payloads move
//! between the socket and the caller's [`Memory`]. Not here: TLS, authentication, and
//! several paths to one namespace.

mod admin;
mod association;
mod attachment;
mod bringup;
mod command;
mod discovery;
mod error;
mod memory;
mod outbox;
mod queue;
mod recovery;
mod retry;
mod settings;
mod slots;
mod socket;

pub use association::Association;
pub use attachment::{Attachment, Counts};
pub use bringup::{Controller, Namespace};
pub use command::Command;
pub use discovery::Discovery;
pub use error::{Error, describe};
pub use memory::{Data, Memory, Tag};
pub use outbox::{Batch, SLICES};
pub use queue::{Completion, QueuePair};
pub use recovery::{Advice, Recovery, Timers};
pub use retry::{HOST_PATHING_ERROR, Verdict, judge};
pub use settings::Settings;
pub use slots::MAX_DEPTH;
pub use socket::Connection;

#[cfg(test)]
mod tests;
