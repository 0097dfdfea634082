//! Who connects to what, and how.

use std::net::SocketAddr;
use std::time::Duration;

use super::recovery::Timers;
use crate::Nqn;
use crate::tcp::check::Digests;

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The target's address.
    pub address: SocketAddr,
    /// The subsystem.
    pub subsystem: Nqn,
    /// The host.
    pub host: Nqn,
    /// The host's identifier.
    pub host_id: [u8; 16],
    /// Digests of all queues.
    pub digests: Digests,
    /// I/O queues, at least one.
    pub io_queues: u16,
    /// Commands under way on each, if the controller allows as many.
    pub depth: u16,
    /// The only namespace of interest; `None` for all.
    pub nsid: Option<u32>,
    /// Keep-alive timeout; 0 for none.
    pub kato: Duration,
    /// Longest time for a command, and for a connection to be made.
    pub timeout: Duration,
    /// When to connect again, and when to give up.
    pub timers: Timers,
}

impl Settings {
    /// One I/O queue of 128 commands, without digests, with Linux's keep-alive timeout.
    pub fn new(address: SocketAddr, subsystem: Nqn, host: Nqn, host_id: [u8; 16]) -> Settings {
        Settings {
            address,
            subsystem,
            host,
            host_id,
            digests: Digests::default(),
            io_queues: 1,
            depth: 128,
            nsid: None,
            kato: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            timers: Timers::default(),
        }
    }

    pub(super) fn kato_ms(&self) -> u32 {
        u32::try_from(self.kato.as_millis()).unwrap_or(u32::MAX)
    }
}
