//! Changes of what is exported, from the admin side, and how hosts come to know.

use std::net::SocketAddr;
use std::sync::Arc;

use nvme::Nqn;
use nvme::feature::Event;
use nvme::log::AnaState;

use super::admit::tell_events;
use super::association::{Association, namespaces};
use super::listener::{ListenError, Listener};
use super::service::Service;
use crate::server::open::uuid_text;
use crate::target::nvmf::AssociationId;
use crate::target::nvmf::discovery::{self, Port, reachable};
use crate::target::nvmf::exports::file::{self, FileError};
use crate::target::nvmf::exports::{
    ExportError, Exports, MAX_ANA_GROUP, Namespace, Subsystem, SubsystemView,
};
use crate::volume::Volumes;

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// It makes no sense.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// It cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refuses something else.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl Service {
    /// Makes a change: on a copy, on the disk, then here.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Exports) -> Result<T, ExportError>,
    ) -> Result<T, ManageError> {
        let mut new = self.exports.clone();
        let result = change(&mut new)?;
        file::save(&self.settings.data_dir, &new)?;
        self.exports = new;
        self.refresh();
        Ok(result)
    }

    /// Adds a subsystem with its namespaces.
    ///
    /// # Errors
    /// If it exists, a value is out of range, or it cannot be kept.
    pub fn add_subsystem(
        &mut self,
        nqn: Nqn,
        subsystem: Subsystem,
        volumes: Vec<Namespace>,
    ) -> Result<(), ManageError> {
        self.change(|exports| {
            exports.add_subsystem(nqn.clone(), subsystem)?;
            volumes.into_iter().try_for_each(|new| exports.add_namespace(&nqn, None, new).map(drop))
        })
    }

    /// Removes a subsystem; its hosts are disconnected.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_subsystem(&mut self, nqn: &Nqn) -> Result<(), ManageError> {
        self.change(|exports| exports.remove_subsystem(nqn))
    }

    /// Adds a namespace; its hosts are told.
    ///
    /// # Errors
    /// If the NSID or the volume is taken.
    pub fn add_namespace(
        &mut self,
        nqn: &Nqn,
        nsid: Option<u32>,
        new: Namespace,
    ) -> Result<u32, ManageError> {
        self.change(|exports| exports.add_namespace(nqn, nsid, new))
    }

    /// Removes a namespace; its hosts are told.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_namespace(&mut self, nqn: &Nqn, nsid: u32) -> Result<(), ManageError> {
        self.change(|exports| exports.remove_namespace(nqn, nsid))
    }

    /// Lets a host in.
    ///
    /// # Errors
    /// If the subsystem lets everyone in.
    pub fn add_host(&mut self, nqn: &Nqn, host: Nqn) -> Result<(), ManageError> {
        self.change(|exports| exports.add_host(nqn, host).map(drop))
    }

    /// No longer lets a host in, and disconnects it.
    ///
    /// # Errors
    /// If it is not listed.
    pub fn remove_host(&mut self, nqn: &Nqn, host: &Nqn) -> Result<(), ManageError> {
        self.change(|exports| exports.remove_host(nqn, host))
    }

    /// Sets the state of an ANA group; hosts are told.
    ///
    /// # Errors
    /// If there is no such subsystem or group.
    pub fn set_ana(&mut self, nqn: &Nqn, group: u32, state: AnaState) -> Result<(), ManageError> {
        self.change(|exports| exports.set_ana(nqn, group, state).map(drop))
    }

    /// Listens on an address from now on, also after a restart.
    ///
    /// # Errors
    /// If it is not allowed, or taken.
    pub fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, ManageError> {
        if self.listeners.values().any(|listener| listener.address == address) {
            return Err(ExportError::Listening(address).into());
        }
        let mut bound = Listener::bind(address, self.settings.insecure)?;
        bound.added = true;
        let address = bound.address;
        let mut new = self.exports.clone();
        new.add_listener(address)?;
        file::save(&self.settings.data_dir, &new)?;
        self.exports = new;
        self.add_listener(bound)?;
        self.refresh();
        Ok(address)
    }

    /// No longer listens on an address that was added; who is connected stays.
    ///
    /// # Errors
    /// If it was not added.
    pub fn unlisten(&mut self, address: SocketAddr) -> Result<(), ManageError> {
        let mut new = self.exports.clone();
        new.remove_listener(address)?;
        file::save(&self.settings.data_dir, &new)?;
        self.exports = new;
        self.listeners.retain(|_, listener| !(listener.added && listener.address == address));
        self.refresh();
        Ok(())
    }

    /// Refers hosts to another discovery service; they are told.
    ///
    /// # Errors
    /// If they are already.
    pub fn add_referral(&mut self, address: SocketAddr) -> Result<(), ManageError> {
        self.change(|exports| exports.add_referral(address))
    }

    /// No longer refers hosts to a discovery service.
    ///
    /// # Errors
    /// If they are not.
    pub fn remove_referral(&mut self, address: SocketAddr) -> Result<(), ManageError> {
        self.change(|exports| exports.remove_referral(address))
    }

    /// The discovery services that hosts are referred to.
    pub fn referrals(&self) -> Vec<SocketAddr> {
        self.exports.referrals.iter().copied().collect()
    }

    /// The volumes from now on.
    pub fn set_volumes(&mut self, volumes: Volumes) {
        self.volumes = volumes;
        self.refresh();
    }

    /// The subsystems that export a volume.
    pub fn exporting(&self, volume: &[u8; 16]) -> Vec<Nqn> {
        self.exports.exporting(volume).cloned().collect()
    }

    /// Makes the views anew, and tells cores and hosts what is different.
    pub(super) fn refresh(&mut self) {
        let mut gone = std::mem::take(&mut self.missing);
        self.views.clear();
        for (nqn, subsystem) in &self.exports.subsystems {
            let view = SubsystemView::new(nqn, subsystem, &self.volumes, |nsid, volume| {
                if !gone.remove(&(nqn.clone(), nsid)) {
                    let volume = uuid_text(volume);
                    tracing::warn!("NVMe/TCP: {nqn} lacks namespace {nsid}: no volume {volume}");
                }
                self.missing.insert((nqn.clone(), nsid));
            });
            self.views.insert(nqn.clone(), Arc::new(view));
        }
        let all: Vec<AssociationId> = self.associations.keys().copied().collect();
        all.into_iter().for_each(|id| self.refresh_association(id));
    }

    fn refresh_association(&mut self, id: AssociationId) {
        let Some(association) = self.associations.get(&id) else { return };
        if !association.is_io() {
            return self.refresh_discovery(id);
        }
        let nqn = association.controller.identity().subsystem.clone();
        let Some(subsystem) = self.exports.subsystems.get(&nqn) else {
            return self.drop_association(id, "the subsystem was removed");
        };
        if !subsystem.hosts.allow(association.host()) {
            return self.drop_association(id, "the host is no longer allowed");
        }
        let view = Arc::clone(&self.views[&nqn]);
        if *view == *association.view {
            return;
        }
        let association = self.associations.get_mut(&id).expect("just seen");
        let old = std::mem::replace(&mut association.view, Arc::clone(&view));
        association.controller.namespaces_changed(&old.differing(&view));
        let states = |view: &SubsystemView| -> Vec<AnaState> {
            (1..=MAX_ANA_GROUP).map(|group| view.group(group).state).collect()
        };
        if states(&old) != states(&view) {
            association.controller.notify(Event::AnaChanged);
        }
        association.namespaces = Arc::new(namespaces(&view));
        for core in association.cores() {
            let namespaces = Arc::clone(&association.namespaces);
            self.cores.set_namespaces(core, id, namespaces);
        }
        self.tell(id);
    }

    fn refresh_discovery(&mut self, id: AssociationId) {
        let log = self.discovery_log(&self.associations[&id]);
        let association = self.associations.get_mut(&id).expect("just seen");
        let old = std::mem::replace(&mut association.discovery, log);
        if !discovery::same_entries(&old, &association.discovery) {
            association.controller.notify(Event::DiscoveryChanged);
            self.tell(id);
        }
    }

    /// Sends a host the events that it waits for.
    fn tell(&mut self, id: AssociationId) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        let token = association.token;
        // Being worked on elsewhere it tells them itself.
        let Some(mut connection) = self.connections.remove(&token) else { return };
        tell_events(association, &mut connection);
        self.settle(token, connection);
    }

    /// The discovery log of an association's host; empty for an I/O controller.
    pub(super) fn discovery_log(&self, association: &Association) -> Vec<u8> {
        if association.is_io() {
            return Vec::new();
        }
        let port = |(&token, listener): (&u64, &Listener)| Port {
            address: reachable(listener.address, association.local),
            id: u16::try_from(token).unwrap_or(u16::MAX),
            discovery_only: listener.discovery_only,
        };
        let ports: Vec<Port> = self.listeners.iter().map(port).collect();
        discovery::log(&self.exports, association.host(), &ports)
    }
}
