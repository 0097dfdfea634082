//! What is exported: subsystems, their namespaces, hosts and ANA groups, and listeners.
//!
//! [`Exports`] is the durable part, a plain value: a change is made on a copy, the copy is
//! written ([`file`]), and then it takes the old one's place, so that memory never says
//! what the disk does not. [`view`] joins it with the volumes there are and gives what
//! controllers and cores work by, as snapshots.
//!
//! Invariants: NSIDs are within [`MAX_NSID`] and unique in their subsystem, groups within
//! [`MAX_ANA_GROUP`]; a volume is at most one namespace, of one subsystem; a serial number is one to
//! twenty printable characters. What is not here: who is connected.

pub mod change;
pub mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nvme::Nqn;
use nvme::log::AnaState;

pub use change::ExportError;
pub use view::{NamespaceInfo, SubsystemView};

/// Largest namespace identifier, and most namespaces of a subsystem.
pub const MAX_NSID: u32 = 1024;
/// Largest ANA group.
pub const MAX_ANA_GROUP: u32 = 32;
/// Most subsystems.
pub const MAX_SUBSYSTEMS: usize = 1024;
/// Most hosts in a subsystem's list.
pub const MAX_HOSTS: usize = 1024;
/// Most listeners.
pub const MAX_LISTENERS: usize = 32;
/// Most referrals.
pub const MAX_REFERRALS: usize = 64;
/// The group of namespaces that are put in none.
pub const DEFAULT_GROUP: u32 = 1;

/// Who may connect to a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Everyone who reaches the listener.
    Any,
    /// These.
    Listed(BTreeSet<Nqn>),
}

impl Hosts {
    /// The host may connect.
    pub fn allow(&self, host: &Nqn) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(hosts) => hosts.contains(host),
        }
    }
}

/// A volume as a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The volume's UUID: NGUID and UUID of the namespace.
    pub volume: [u8; 16],
    /// Writes are refused whatever the volume says.
    pub read_only: bool,
    /// ANA group.
    pub group: u32,
}

/// An ANA group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its state.
    pub state: AnaState,
    /// Changes of its state and members.
    pub changes: u64,
}

impl Default for Group {
    fn default() -> Self {
        Self { state: AnaState::Optimized, changes: 0 }
    }
}

/// One subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// Serial number.
    pub serial: String,
    /// Who may connect.
    pub hosts: Hosts,
    /// By NSID.
    pub namespaces: BTreeMap<u32, Namespace>,
    /// By group; groups without an entry are optimized.
    pub groups: BTreeMap<u32, Group>,
    /// Changes of anything that the ANA log says.
    pub ana_changes: u64,
}

/// All that is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// By name.
    pub subsystems: BTreeMap<Nqn, Subsystem>,
    /// Listeners beside those of the configuration.
    pub listeners: BTreeSet<SocketAddr>,
    /// Other discovery services, which hosts are referred to.
    pub referrals: BTreeSet<SocketAddr>,
    /// Changes of what discovery says: its GENCTR.
    pub generation: u64,
}
