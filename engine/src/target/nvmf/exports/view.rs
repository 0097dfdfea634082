//! What controllers and cores see of a subsystem: a snapshot, replaced as a whole.

use std::collections::BTreeMap;

use nvme::Nqn;
use nvme::log::AnaState;

use super::{Group, Subsystem};
use crate::units::VolumeId;
use crate::volume::Volumes;

/// A namespace whose volume there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its number.
    pub nsid: u32,
    /// The volume.
    pub volume: VolumeId,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// Size in logical blocks.
    pub blocks: u64,
    /// log2 of a logical block's bytes.
    pub block_shift: u8,
    /// Writes are refused.
    pub read_only: bool,
    /// ANA group.
    pub group: u32,
}

/// A subsystem with the namespaces that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemView {
    /// Its name.
    pub nqn: Nqn,
    /// Serial number.
    pub serial: String,
    /// Ascending by NSID.
    pub namespaces: Vec<NamespaceInfo>,
    /// By number; groups without an entry are optimized.
    pub groups: BTreeMap<u32, Group>,
    /// Changes of anything that the ANA log says.
    pub ana_changes: u64,
}

impl SubsystemView {
    /// Joins a subsystem with the volumes; namespaces of volumes that are gone are left
    /// out and told to `missing`.
    pub fn new(
        nqn: &Nqn,
        subsystem: &Subsystem,
        volumes: &Volumes,
        mut missing: impl FnMut(u32, &[u8; 16]),
    ) -> Self {
        let mut namespaces = Vec::new();
        for (&nsid, namespace) in &subsystem.namespaces {
            let volume = volumes.list().iter().find(|volume| volume.uuid == namespace.volume);
            let Some(volume) = volume else {
                missing(nsid, &namespace.volume);
                continue;
            };
            let shift = volume.view.block_bytes.trailing_zeros();
            namespaces.push(NamespaceInfo {
                nsid,
                volume: volume.view.id,
                uuid: volume.uuid,
                blocks: volume.view.size_bytes >> shift,
                block_shift: u8::try_from(shift).expect("below 32"),
                read_only: namespace.read_only || volume.view.read_only,
                group: namespace.group,
            });
        }
        Self {
            nqn: nqn.clone(),
            serial: subsystem.serial.clone(),
            namespaces,
            groups: subsystem.groups.clone(),
            ana_changes: subsystem.ana_changes,
        }
    }

    /// The active namespace of a number.
    pub fn get(&self, nsid: u32) -> Option<&NamespaceInfo> {
        let at = self.namespaces.binary_search_by_key(&nsid, |namespace| namespace.nsid);
        at.ok().map(|at| &self.namespaces[at])
    }

    /// A group's state and changes.
    pub fn group(&self, group: u32) -> Group {
        self.groups.get(&group).copied().unwrap_or_default()
    }

    /// The state of a namespace's group.
    pub fn state(&self, namespace: &NamespaceInfo) -> AnaState {
        self.group(namespace.group).state
    }

    /// Namespaces that are in one of two views, or differ, ascending.
    pub fn differing(&self, other: &SubsystemView) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.namespaces.iter().chain(&other.namespaces).map(|n| n.nsid).collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|nsid| self.get(*nsid) != other.get(*nsid));
        all
    }
}
