//! The NVMe/TCP target.
//!
//! ```text
//! host ── TCP ──► fabric thread: accept → ICReq → Connect ─┬─ qid 0: stays there, with its controller
//!                                                          └─ qid ≥ 1: a NewQueue moves to a core
//!                 drop association, replace namespaces │           ▲ QueueEnd, counters
//!                                                      ▼           │
//!                 core k: server ── queue ── Host::submit ── engine
//! ```
//!
//! This file has what the two sides tell each other. A core knows of a queue what is in its
//! [`NewQueue`] and nothing else: no controller, no subsystem, no host but by name.

#![forbid(unsafe_code)]

pub mod connection;
pub mod controller;
pub mod discovery;
pub mod exports;
pub mod fabric;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod queue;
pub mod server;
pub mod transport;

pub use server::Server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nvme::log::AnaState;
use nvme::tcp::{Digests, Fatal};

use crate::target::socket::Socket;
use crate::units::{ClientId, VolumeId};

/// Bytes of the longest transfer of a command: MDTS (Base 5.17.2.1), in pages of 4 KiB.
pub const MAX_TRANSFER_BYTES: u32 = 1 << 20;
/// MDTS as Identify Controller has it, where MPSMIN is 4 KiB.
pub const MDTS: u8 = 8;
/// Most bytes of data in one H2CData: MAXH2CDATA of every ICResp.
pub const MAX_H2C_DATA_BYTES: u32 = 256 << 10;
/// In-capsule data that I/O queues take: IOCCSZ is this and the command's 64 bytes, in units
/// of 16.
pub const IN_CAPSULE_BYTES: u32 = 8192;
/// Most entries of an I/O queue: MQES and one.
pub const MAX_QUEUE_ENTRIES: u16 = 256;
/// Blocks of the longest fused Compare and Write: ACWU and one (NVM 2.1.4).
pub const COMPARE_AND_WRITE_BLOCKS: u32 = 1;
/// Most blocks of one range of a Dataset Management: DMRSL (NVM 4.1.5.4).
pub const DSM_RANGE_BLOCKS: u32 = 1 << 21;
/// Most blocks of all its ranges, DMSL: as many ranges as there can be, each of the longest. It
/// bounds the work of one command.
pub const DSM_BLOCKS: u64 = 256 * DSM_RANGE_BLOCKS as u64;
/// I/O queues that one core takes; the fabric thread counts them.
pub const QUEUES_PER_CORE: u16 = 256;

const _: () = assert!(MAX_TRANSFER_BYTES == 4096 << MDTS);

/// One admin connection and its I/O queues: unique while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId(pub u64);

/// A namespace, as I/O commands see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Namespace identifier.
    pub nsid: u32,
    /// The volume behind it.
    pub volume: VolumeId,
    /// Bytes of a logical block: 512 or 4096.
    pub block_bytes: u32,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// Writes are refused: the volume, or the export, is read-only.
    pub read_only: bool,
    /// Its ANA group's state on this controller.
    pub ana_state: AnaState,
    /// Its ANA group.
    pub ana_group: u32,
}

/// The namespaces that one controller offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<Namespace>);

impl Namespaces {
    /// From any order.
    ///
    /// # Panics
    /// If two have one NSID, one has NSID 0 or FFFFFFFFh, or a block size is neither 512 nor
    /// 4096.
    pub fn new(mut list: Vec<Namespace>) -> Namespaces {
        list.sort_by_key(|namespace| namespace.nsid);
        assert!(list.windows(2).all(|pair| pair[0].nsid < pair[1].nsid), "an NSID is of one");
        for namespace in &list {
            assert!(!matches!(namespace.nsid, 0 | u32::MAX), "a reserved NSID");
            assert!(matches!(namespace.block_bytes, 512 | 4096), "no size of a block");
        }
        Namespaces(list)
    }

    /// The namespace of an NSID.
    pub fn get(&self, nsid: u32) -> Option<&Namespace> {
        // Most often NSIDs are 1, 2, 3, …
        let guess = usize::try_from(nsid).ok()?.checked_sub(1)?;
        match self.0.get(guess) {
            Some(namespace) if namespace.nsid == nsid => Some(namespace),
            _ => {
                let at = self.0.binary_search_by_key(&nsid, |namespace| namespace.nsid).ok()?;
                Some(&self.0[at])
            }
        }
    }

    /// All, by NSID.
    pub fn list(&self) -> &[Namespace] {
        &self.0
    }
}

/// What an I/O queue has done so far. The core counts, anyone may look.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Commands that were received: what TBKAS takes for a sign of life.
    pub commands: AtomicU64,
    /// Commands that ended with an error.
    pub errors: AtomicU64,
    /// Reads that ended well.
    pub reads: AtomicU64,
    /// Writes that ended well.
    pub writes: AtomicU64,
    /// Bytes that were read by the host.
    pub read_bytes: AtomicU64,
    /// Bytes that the host has written.
    pub written_bytes: AtomicU64,
}

impl QueueCounters {
    /// Commands that were received so far.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

/// Counts on: only the core that has the queue does.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Why an I/O queue has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The host closed the connection.
    #[error("the host closed the connection")]
    Closed,
    /// Its association was dropped.
    #[error("its association ended")]
    Dropped,
    /// The host broke the protocol, and was told so.
    #[error("the host broke the protocol: {0}")]
    Violation(Fatal),
    /// The host found that we had, and has told so.
    #[error("the host terminated the connection: {0}")]
    Terminated(Fatal),
    /// The host neither reads nor sends.
    #[error("the host neither reads nor sends")]
    Stalled,
    /// The connection was lost.
    #[error("the connection was lost ({0})")]
    Lost(std::io::ErrorKind),
    /// The core has [`QUEUES_PER_CORE`] queues.
    #[error("too many queues on one core")]
    TooMany,
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

/// An I/O queue has ended: its socket is closed, the engine has nothing of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEnd {
    /// Whose it was.
    pub association: AssociationId,
    /// Its identifier.
    pub qid: u16,
    /// Why.
    pub reason: EndReason,
}

/// An I/O queue that is connected: on its way to a core.
///
/// The response to its Connect was sent.
pub struct NewQueue {
    /// Its socket, nonblocking.
    pub socket: Socket,
    /// What was received behind the Connect.
    pub received: Vec<u8>,
    /// Whose it is.
    pub association: AssociationId,
    /// The controller's identifier.
    pub cntlid: u16,
    /// The queue's identifier, from 1.
    pub qid: u16,
    /// Entries of the submission queue, 2..=[`MAX_QUEUE_ENTRIES`]: SQSIZE and one.
    pub entries: u16,
    /// Digests in use.
    pub digests: Digests,
    /// The host has disabled the flow control of submission queues (Connect CATTR bit 2):
    /// SQHD is FFFFh, and reads may end with SUCCESS in their last C2HData.
    pub flow_control_off: bool,
    /// The host's name.
    pub host_nqn: Arc<str>,
    /// Whose access pattern its commands are: the host's.
    pub client: ClientId,
    /// What it may reach.
    pub namespaces: Arc<Namespaces>,
    /// What it does.
    pub counters: Arc<QueueCounters>,
    /// Called once, on the core, when it has ended. Must not block.
    pub on_end: Box<dyn FnOnce(QueueEnd) + Send>,
}

#[cfg(test)]
mod tests;
