//! Reports of the NVMe/TCP target.
//!
//! Fields are only ever added, with a default.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A place where hosts connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmfListenerReport {
    /// Where.
    pub address: SocketAddr,
    /// Discovery alone is served there.
    #[serde(default)]
    pub discovery_only: bool,
}

/// One subsystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmfSubsystemReport {
    /// Its name.
    pub nqn: String,
    /// Its serial number.
    pub serial: String,
    /// Hosts that may connect; absent for any.
    pub hosts: Option<Vec<String>>,
    /// Hosts' controllers now.
    pub controllers: u32,
    /// By number.
    pub namespaces: Vec<NvmfNamespaceReport>,
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmfNamespaceReport {
    /// Its number.
    pub nsid: u32,
    /// The volume's name; absent if there is no such volume any more.
    pub volume: Option<String>,
    /// The volume's UUID: NGUID and UUID of the namespace.
    pub uuid: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// ANA group.
    pub group: u32,
    /// State of the group.
    pub ana_state: String,
}

/// One queue of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmfConnectionReport {
    /// The host's name.
    pub host: String,
    /// Its address and port.
    pub address: String,
    /// The subsystem.
    pub subsystem: String,
    /// The controller.
    pub cntlid: u16,
    /// The queue; 0 for admin.
    pub qid: u16,
    /// The core that serves it; absent for admin.
    pub core: Option<u8>,
    /// Entries of its submission queue.
    pub entries: u16,
    /// Keep-alive timeout, of an admin queue.
    pub kato_ms: Option<u32>,
    /// I/O commands.
    pub commands: u64,
    /// I/O commands that failed.
    pub errors: u64,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
}
