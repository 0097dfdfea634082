//! What the thread says of itself.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use nvme::Nqn;

use super::service::Service;
use crate::admin::NvmfConnectionReport;
use crate::target::nvmf::exports::file::ana_name;
use crate::target::nvmf::exports::{Hosts, Subsystem, SubsystemView};

/// A subsystem, as reports have it.
#[derive(Clone, Debug)]
pub struct SubsystemState {
    /// Its name.
    pub nqn: Nqn,
    /// Its durable part.
    pub subsystem: Subsystem,
    /// What is served of it.
    pub view: SubsystemView,
    /// Controllers of hosts that are connected.
    pub controllers: u32,
}

impl SubsystemState {
    /// Hosts that may connect; `None` for any.
    pub fn hosts(&self) -> Option<Vec<String>> {
        match &self.subsystem.hosts {
            Hosts::Any => None,
            Hosts::Listed(hosts) => Some(hosts.iter().map(Nqn::to_string).collect()),
        }
    }

    /// The name of the state of a group.
    pub fn ana(&self, group: u32) -> &'static str {
        ana_name(self.view.group(group).state)
    }
}

impl Service {
    /// All subsystems, by name.
    pub fn subsystems(&self) -> Vec<SubsystemState> {
        self.exports.subsystems.keys().filter_map(|nqn| self.subsystem(nqn)).collect()
    }

    /// One subsystem.
    pub fn subsystem(&self, nqn: &Nqn) -> Option<SubsystemState> {
        Some(SubsystemState {
            nqn: nqn.clone(),
            subsystem: self.exports.subsystems.get(nqn)?.clone(),
            view: (**self.views.get(nqn)?).clone(),
            controllers: u32::try_from(self.controllers(nqn).len()).unwrap_or(u32::MAX),
        })
    }

    /// Where it listens: address, and whether for discovery alone.
    pub fn listening(&self) -> Vec<(SocketAddr, bool)> {
        let at = |listener: &super::listener::Listener| (listener.address, listener.discovery_only);
        self.listeners.values().map(at).collect()
    }

    /// Every queue of every association.
    pub fn connected(&self) -> Vec<NvmfConnectionReport> {
        let mut all = Vec::new();
        for association in self.associations.values() {
            let identity = association.controller.identity();
            let admin = NvmfConnectionReport {
                host: identity.host.to_string(),
                address: association.peer.to_string(),
                subsystem: identity.subsystem.to_string(),
                cntlid: identity.cntlid,
                qid: 0,
                core: None,
                entries: association.entries,
                kato_ms: Some(association.controller.kato_ms()),
                commands: 0,
                errors: 0,
                read_bytes: 0,
                written_bytes: 0,
            };
            all.push(admin.clone());
            for (&qid, queue) in &association.queues {
                all.push(NvmfConnectionReport {
                    address: queue.peer.to_string(),
                    qid,
                    core: Some(queue.core.get()),
                    entries: queue.entries,
                    kato_ms: None,
                    commands: queue.counters.commands(),
                    errors: queue.counters.errors.load(Ordering::Relaxed),
                    read_bytes: queue.counters.read_bytes.load(Ordering::Relaxed),
                    written_bytes: queue.counters.written_bytes.load(Ordering::Relaxed),
                    ..admin.clone()
                });
            }
        }
        all
    }
}
