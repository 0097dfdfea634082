//! Changes of what is exported, each checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nvme::Nqn;
use nvme::log::AnaState;

use super::{
    Exports, Group, Hosts, MAX_ANA_GROUP, MAX_HOSTS, MAX_LISTENERS, MAX_NSID, MAX_REFERRALS,
    MAX_SUBSYSTEMS, Namespace, Subsystem,
};

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The name is taken.
    #[error("subsystem {0} exists already")]
    Exists(Nqn),
    /// No subsystem has the name.
    #[error("no subsystem {0}")]
    NotFound(Nqn),
    /// The name is discovery's.
    #[error("{0} is the discovery service's name")]
    Discovery(Nqn),
    /// There are too many.
    #[error("at most {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The serial number cannot be told to hosts.
    #[error(
        "{0:?} is no serial number: 1 to 20 printable ASCII characters without a space at either end"
    )]
    Serial(String),
    /// The NSID is out of range.
    #[error("namespace {0}: 1 to {MAX_NSID}")]
    Nsid(u32),
    /// The NSID is taken.
    #[error("{nqn} has a namespace {nsid} already")]
    NsidTaken {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
    },
    /// The volume is a namespace already. Hosts ignore a second one with the same identity.
    #[error("{nqn} exports the volume already, as namespace {nsid}")]
    VolumeTaken {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
    },
    /// The subsystem has no such namespace.
    #[error("{nqn} has no namespace {nsid}")]
    NoNamespace {
        /// The subsystem.
        nqn: Nqn,
        /// The namespace.
        nsid: u32,
    },
    /// The subsystem lets everyone in.
    #[error("{0} allows any host: make it anew with a list of hosts")]
    AnyHost(Nqn),
    /// The host is not in the subsystem's list.
    #[error("{nqn} does not list {host}")]
    NoHost {
        /// The subsystem.
        nqn: Nqn,
        /// The host.
        host: Nqn,
    },
    /// The group is out of range.
    #[error("ANA group {0}: 1 to {MAX_ANA_GROUP}")]
    Group(u32),
    /// The listener exists.
    #[error("{0} is listened on already")]
    Listening(SocketAddr),
    /// No such listener among those added at run time.
    #[error("{0} is no listener that was added with `listen`")]
    NotListening(SocketAddr),
    /// The referral exists.
    #[error("hosts are referred to {0} already")]
    Referring(SocketAddr),
    /// No such referral.
    #[error("no host is referred to {0}")]
    NotReferring(SocketAddr),
}

impl Subsystem {
    /// Without namespaces.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn new(serial: &str, hosts: Hosts) -> Result<Self, ExportError> {
        let printable = serial.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
        if !(1..=20).contains(&serial.len()) || !printable || serial.trim() != serial {
            return Err(ExportError::Serial(serial.to_owned()));
        }
        if let Hosts::Listed(hosts) = &hosts
            && hosts.len() > MAX_HOSTS
        {
            return Err(ExportError::TooMany { what: "hosts", limit: MAX_HOSTS });
        }
        Ok(Self {
            serial: serial.to_owned(),
            hosts,
            namespaces: BTreeMap::new(),
            groups: BTreeMap::new(),
            ana_changes: 0,
        })
    }

    /// Counts a change of a group.
    fn touch(&mut self, group: u32) -> &mut Group {
        self.ana_changes += 1;
        let group = self.groups.entry(group).or_default();
        group.changes += 1;
        group
    }

    /// Adds a namespace, at the least free NSID if none is given; returns the NSID.
    fn add(&mut self, nqn: &Nqn, nsid: Option<u32>, new: Namespace) -> Result<u32, ExportError> {
        if !(1..=MAX_ANA_GROUP).contains(&new.group) {
            return Err(ExportError::Group(new.group));
        }
        let nsid = match nsid {
            Some(nsid) => nsid,
            None => (1..=MAX_NSID)
                .find(|nsid| !self.namespaces.contains_key(nsid))
                .ok_or(ExportError::TooMany { what: "namespaces", limit: MAX_NSID as usize })?,
        };
        if !(1..=MAX_NSID).contains(&nsid) {
            return Err(ExportError::Nsid(nsid));
        }
        if self.namespaces.contains_key(&nsid) {
            return Err(ExportError::NsidTaken { nqn: nqn.clone(), nsid });
        }
        self.namespaces.insert(nsid, new);
        self.touch(new.group);
        Ok(nsid)
    }
}

impl Exports {
    /// The subsystem of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, nqn: &Nqn) -> Result<&Subsystem, ExportError> {
        self.subsystems.get(nqn).ok_or_else(|| ExportError::NotFound(nqn.clone()))
    }

    fn get_mut(&mut self, nqn: &Nqn) -> Result<&mut Subsystem, ExportError> {
        self.subsystems.get_mut(nqn).ok_or_else(|| ExportError::NotFound(nqn.clone()))
    }

    /// Adds a subsystem.
    ///
    /// # Errors
    /// If its name is taken or discovery's, or there are too many.
    pub fn add_subsystem(&mut self, nqn: Nqn, new: Subsystem) -> Result<(), ExportError> {
        if nqn.is_discovery() {
            return Err(ExportError::Discovery(nqn));
        }
        if self.subsystems.contains_key(&nqn) {
            return Err(ExportError::Exists(nqn));
        }
        if self.subsystems.len() == MAX_SUBSYSTEMS {
            return Err(ExportError::TooMany { what: "subsystems", limit: MAX_SUBSYSTEMS });
        }
        self.subsystems.insert(nqn, new);
        self.generation += 1;
        Ok(())
    }

    /// Removes a subsystem.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_subsystem(&mut self, nqn: &Nqn) -> Result<(), ExportError> {
        self.get(nqn)?;
        self.subsystems.remove(nqn);
        self.generation += 1;
        Ok(())
    }

    /// Adds a namespace, at the least free NSID if none is given; returns the NSID.
    ///
    /// # Errors
    /// If the NSID or the volume is taken, or a value is out of range.
    pub fn add_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: Option<u32>,
        new: Namespace,
    ) -> Result<u32, ExportError> {
        for (nqn, subsystem) in &self.subsystems {
            let same = subsystem.namespaces.iter().find(|(_, old)| old.volume == new.volume);
            if let Some((&nsid, _)) = same {
                return Err(ExportError::VolumeTaken { nqn: nqn.clone(), nsid });
            }
        }
        self.get_mut(nqn)?.add(nqn, nsid, new)
    }

    /// Removes a namespace.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_namespace(&mut self, nqn: &Nqn, nsid: u32) -> Result<(), ExportError> {
        let subsystem = self.get_mut(nqn)?;
        let gone = subsystem.namespaces.remove(&nsid);
        let gone = gone.ok_or_else(|| ExportError::NoNamespace { nqn: nqn.clone(), nsid })?;
        subsystem.touch(gone.group);
        Ok(())
    }

    /// Lets a host in; true if it was not before.
    ///
    /// # Errors
    /// If the subsystem allows any host, or lists too many.
    pub fn add_host(&mut self, nqn: &Nqn, host: Nqn) -> Result<bool, ExportError> {
        let Hosts::Listed(hosts) = &mut self.get_mut(nqn)?.hosts else {
            return Err(ExportError::AnyHost(nqn.clone()));
        };
        if hosts.len() == MAX_HOSTS && !hosts.contains(&host) {
            return Err(ExportError::TooMany { what: "hosts", limit: MAX_HOSTS });
        }
        let new = hosts.insert(host);
        self.generation += u64::from(new);
        Ok(new)
    }

    /// No longer lets a host in.
    ///
    /// # Errors
    /// If it is not listed.
    pub fn remove_host(&mut self, nqn: &Nqn, host: &Nqn) -> Result<(), ExportError> {
        match &mut self.get_mut(nqn)?.hosts {
            Hosts::Any => return Err(ExportError::AnyHost(nqn.clone())),
            Hosts::Listed(hosts) => {
                if !hosts.remove(host) {
                    return Err(ExportError::NoHost { nqn: nqn.clone(), host: host.clone() });
                }
            }
        }
        self.generation += 1;
        Ok(())
    }

    /// Sets the state of an ANA group; true if it was another.
    ///
    /// # Errors
    /// If the group is out of range.
    pub fn set_ana(&mut self, nqn: &Nqn, group: u32, state: AnaState) -> Result<bool, ExportError> {
        let subsystem = self.get_mut(nqn)?;
        if !(1..=MAX_ANA_GROUP).contains(&group) {
            return Err(ExportError::Group(group));
        }
        if subsystem.groups.get(&group).copied().unwrap_or_default().state == state {
            return Ok(false);
        }
        subsystem.touch(group).state = state;
        Ok(true)
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// If it exists, or there are too many.
    pub fn add_listener(&mut self, address: SocketAddr) -> Result<(), ExportError> {
        if self.listeners.len() == MAX_LISTENERS {
            return Err(ExportError::TooMany { what: "listeners", limit: MAX_LISTENERS });
        }
        if !self.listeners.insert(address) {
            return Err(ExportError::Listening(address));
        }
        self.generation += 1;
        Ok(())
    }

    /// Removes a listener.
    ///
    /// # Errors
    /// If it is not one that was added.
    pub fn remove_listener(&mut self, address: SocketAddr) -> Result<(), ExportError> {
        if !self.listeners.remove(&address) {
            return Err(ExportError::NotListening(address));
        }
        self.generation += 1;
        Ok(())
    }

    /// Refers hosts to another discovery service.
    ///
    /// # Errors
    /// If they are already, or there are too many.
    pub fn add_referral(&mut self, address: SocketAddr) -> Result<(), ExportError> {
        if self.referrals.contains(&address) {
            return Err(ExportError::Referring(address));
        }
        if self.referrals.len() == MAX_REFERRALS {
            return Err(ExportError::TooMany { what: "referrals", limit: MAX_REFERRALS });
        }
        self.referrals.insert(address);
        self.generation += 1;
        Ok(())
    }

    /// No longer refers hosts to a discovery service.
    ///
    /// # Errors
    /// If they are not.
    pub fn remove_referral(&mut self, address: SocketAddr) -> Result<(), ExportError> {
        if !self.referrals.remove(&address) {
            return Err(ExportError::NotReferring(address));
        }
        self.generation += 1;
        Ok(())
    }

    /// The subsystems that export a volume.
    pub fn exporting<'a>(&'a self, volume: &'a [u8; 16]) -> impl Iterator<Item = &'a Nqn> {
        let exports = |subsystem: &Subsystem| {
            subsystem.namespaces.values().any(|namespace| namespace.volume == *volume)
        };
        self.subsystems.iter().filter(move |(_, subsystem)| exports(subsystem)).map(|(nqn, _)| nqn)
    }

    /// The listed hosts of a list of texts.
    pub fn listed(hosts: impl IntoIterator<Item = Nqn>) -> Hosts {
        Hosts::Listed(hosts.into_iter().collect::<BTreeSet<_>>())
    }
}
