//! The NVMe/TCP target's fabric thread within the server: starting and ending it, telling it
//! of volumes, and admin requests about it.
//!
//! The fabric thread never waits for the state's lock, so requests may wait for the thread
//! while they hold it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use nvme::Nqn;

use super::admin::catalog_error;
use super::command::Command;
use super::control::Server;
use super::open::uuid_text;
use crate::admin::nvmf::{
    NvmfConnectionReport, NvmfListenerReport, NvmfNamespaceReport, NvmfSubsystemReport,
};
use crate::admin::protocol::{AdminError, AdminRequest, AdminResponse, ErrorCode};
use crate::target::nvmf::exports::file::ana_state;
use crate::target::nvmf::exports::{
    DEFAULT_GROUP, ExportError, Exports, Hosts, Namespace, Subsystem,
};
use crate::target::nvmf::fabric::manage::ManageError;
use crate::target::nvmf::fabric::report::SubsystemState;
use crate::target::nvmf::fabric::{Cores, Handle, ListenError, Service, Settings, StartError};
use crate::target::nvmf::{AssociationId, Namespaces, NewQueue};
use crate::units::CoreId;
use crate::volume::Volumes;

type Answer = Result<AdminResponse, AdminError>;

/// The cores of a running server.
struct ServerCores {
    server: Weak<Server>,
    count: u8,
}

impl ServerCores {
    fn send(&self, core: CoreId, command: Command) {
        if let Some(server) = self.server.upgrade() {
            server.send(core, command);
        }
    }
}

impl Cores for ServerCores {
    fn count(&self) -> u8 {
        self.count
    }
    fn add(&self, core: CoreId, queue: NewQueue) {
        self.send(core, Command::NvmfQueue(Box::new(queue)));
    }
    fn drop_association(&self, core: CoreId, association: AssociationId) {
        self.send(core, Command::NvmfDrop(association));
    }
    fn set_namespaces(
        &self,
        core: CoreId,
        association: AssociationId,
        namespaces: Arc<Namespaces>,
    ) {
        self.send(core, Command::NvmfNamespaces(association, namespaces));
    }
}

/// The fabric thread of a server.
pub struct Fabric {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Fabric {
    /// Binds the listeners and starts the thread.
    ///
    /// # Errors
    /// If `nvmf.json` is bad, an address cannot be bound, or the system refuses.
    pub fn start(server: &Arc<Server>) -> Result<Fabric, StartError> {
        let config = &server.config;
        let settings = Settings {
            data_dir: server.data_dir.clone(),
            listen: config.nvmf.iter().map(|listener| listener.0).collect(),
            discovery: config.nvmf_discovery.iter().map(|listener| listener.0).collect(),
            insecure: config.insecure_listen,
        };
        let cores = ServerCores { server: Arc::downgrade(server), count: server.cores() };
        let volumes = server.state().catalog.serving();
        let (service, handle) = Service::new(settings, volumes, Box::new(cores))?;
        let thread = std::thread::Builder::new().name("fabric".to_owned());
        let thread = thread.spawn(move || service.run())?;
        let set = server.fabric.set(handle.clone());
        assert!(set.is_ok(), "a server has one fabric thread");
        Ok(Fabric { handle, thread })
    }

    /// No host is taken any more; those that are connected stay.
    pub fn close(&self) {
        let _ = self.handle.call(Service::close);
    }

    /// Hangs up on everyone and ends the thread.
    pub fn stop(self) {
        self.handle.stop();
        // A thread that panics ends the process.
        let _ = self.thread.join();
    }
}

/// Tells the fabric thread of the volumes as they are now.
pub fn set_volumes(server: &Server, volumes: Volumes) {
    if let Some(handle) = server.fabric.get() {
        let _ = handle.call(move |service| service.set_volumes(volumes));
    }
}

/// The subsystems that export a volume.
pub fn exporting(server: &Server, uuid: [u8; 16]) -> Vec<Nqn> {
    let handle = server.fabric.get();
    handle.and_then(|handle| handle.call(move |s| s.exporting(&uuid))).unwrap_or_default()
}

/// Carries out a request about the target; every other is handed back.
pub fn handle(server: &Server, request: AdminRequest) -> Result<Answer, AdminRequest> {
    use AdminRequest as R;
    Ok(match request {
        R::NvmfListen { address } => listen(server, address),
        R::NvmfUnlisten { address } => {
            manage(server, move |s| s.unlisten(address)).and_then(|()| listeners(server))
        }
        R::NvmfSubsystemAdd { nqn, volumes, hosts, read_only, serial } => {
            add_subsystem(server, &nqn, &volumes, hosts, read_only, serial)
        }
        R::NvmfSubsystemRemove { nqn } => remove_subsystem(server, &nqn),
        R::NvmfSubsystemList => list(server),
        R::NvmfSubsystemShow { nqn } => named(&nqn).and_then(|nqn| show(server, nqn)),
        R::NvmfNamespaceAdd { nqn, volume, nsid, read_only, group } => {
            let new = (read_only, group.unwrap_or(DEFAULT_GROUP));
            add_namespace(server, &nqn, &volume, nsid, new)
        }
        R::NvmfNamespaceRemove { nqn, nsid } => {
            changed(server, &nqn, move |s, nqn| s.remove_namespace(nqn, nsid))
        }
        R::NvmfHostAdd { nqn, host } => {
            named(&host).and_then(|host| changed(server, &nqn, move |s, nqn| s.add_host(nqn, host)))
        }
        R::NvmfHostRemove { nqn, host } => named(&host)
            .and_then(|host| changed(server, &nqn, move |s, nqn| s.remove_host(nqn, &host))),
        R::NvmfAnaSet { nqn, group, state } => set_ana(server, &nqn, group, &state),
        R::NvmfReferralAdd { address } => {
            manage(server, move |s| s.add_referral(address)).and_then(|()| referrals(server))
        }
        R::NvmfReferralRemove { address } => {
            manage(server, move |s| s.remove_referral(address)).and_then(|()| referrals(server))
        }
        R::NvmfReferralList => referrals(server),
        R::NvmfConnections => connections(server),
        other => return Err(other),
    })
}

fn bad(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::BadRequest, message)
}

fn named(text: &str) -> Result<Nqn, AdminError> {
    Nqn::new(text).map_err(|error| bad(format!("{text:?}: {error}")))
}

fn refused(error: &ManageError) -> AdminError {
    let code = match error {
        ManageError::Export(
            ExportError::Exists(_)
            | ExportError::NsidTaken { .. }
            | ExportError::VolumeTaken { .. }
            | ExportError::Listening(_)
            | ExportError::Referring(_),
        ) => ErrorCode::NvmfExists,
        ManageError::Export(
            ExportError::NotFound(_)
            | ExportError::NoNamespace { .. }
            | ExportError::NoHost { .. }
            | ExportError::NotListening(_)
            | ExportError::NotReferring(_),
        ) => ErrorCode::NvmfNotFound,
        ManageError::Listen(ListenError::Insecure(_) | ListenError::System { .. }) => {
            ErrorCode::Listen
        }
        ManageError::Export(_) | ManageError::Listen(ListenError::Export(_)) => {
            ErrorCode::BadRequest
        }
        ManageError::File(_) | ManageError::System(_) => ErrorCode::Io,
    };
    AdminError::new(code, error.to_string())
}

/// Runs `work` on the fabric thread.
fn ask<T: Send + 'static>(
    server: &Server,
    work: impl FnOnce(&mut Service) -> T + Send + 'static,
) -> Result<T, AdminError> {
    let answer = server.fabric.get().and_then(|handle| handle.call(work));
    answer.ok_or_else(|| AdminError::new(ErrorCode::Stopping, "the NVMe/TCP target does not run"))
}

fn manage<T: Send + 'static>(
    server: &Server,
    work: impl FnOnce(&mut Service) -> Result<T, ManageError> + Send + 'static,
) -> Result<T, AdminError> {
    ask(server, work)?.map_err(|error| refused(&error))
}

/// Makes a change of a subsystem and shows it.
fn changed(
    server: &Server,
    nqn: &str,
    work: impl FnOnce(&mut Service, &Nqn) -> Result<(), ManageError> + Send + 'static,
) -> Answer {
    let nqn = named(nqn)?;
    let changed = nqn.clone();
    manage(server, move |service| work(service, &changed))?;
    show(server, nqn)
}

fn listen(server: &Server, address: SocketAddr) -> Answer {
    manage(server, move |service| service.listen(address))?;
    listeners(server)
}

fn referrals(server: &Server) -> Answer {
    let referrals = ask(server, |service| service.referrals())?;
    Ok(AdminResponse::NvmfReferrals { referrals })
}

fn listeners(server: &Server) -> Answer {
    let all = ask(server, |service| service.listening())?;
    let report = |(address, discovery_only)| NvmfListenerReport { address, discovery_only };
    Ok(AdminResponse::NvmfListeners { listeners: all.into_iter().map(report).collect() })
}

/// Where NVMe/TCP is listened for, as the NVM Express boot specification writes it.
pub fn addresses(server: &Server) -> Vec<String> {
    let all = ask(server, |service| service.listening()).unwrap_or_default();
    all.into_iter().map(|(address, _)| format!("nvme+tcp://{address}")).collect()
}

/// A serial number that stays the same for a name: hosts know subsystems by it.
fn serial_of(nqn: &Nqn) -> String {
    format!("{:016X}", crate::units::ClientId::of(nqn.as_str()).get())
}

fn add_subsystem(
    server: &Server,
    nqn: &str,
    volumes: &[String],
    hosts: Option<Vec<String>>,
    read_only: bool,
    serial: Option<String>,
) -> Answer {
    let nqn = named(nqn)?;
    let hosts = match hosts {
        None => Hosts::Any,
        Some(hosts) => {
            let hosts = hosts.iter().map(|host| named(host)).collect::<Result<Vec<_>, _>>()?;
            Exports::listed(hosts)
        }
    };
    let serial = serial.unwrap_or_else(|| serial_of(&nqn));
    let subsystem = Subsystem::new(&serial, hosts).map_err(|error| bad(error.to_string()))?;
    // While the lock is held no volume is deleted.
    let state = server.state();
    let mut new = Vec::new();
    for volume in volumes {
        let id = state.catalog.find(volume).map_err(catalog_error)?;
        let volume = state.catalog.get(id).expect("just found").uuid;
        new.push(Namespace { volume, read_only, group: DEFAULT_GROUP });
    }
    let added = nqn.clone();
    manage(server, move |service| service.add_subsystem(added, subsystem, new))?;
    drop(state);
    show(server, nqn)
}

fn remove_subsystem(server: &Server, nqn: &str) -> Answer {
    let nqn = named(nqn)?;
    manage(server, move |service| service.remove_subsystem(&nqn))?;
    Ok(AdminResponse::Done)
}

fn add_namespace(
    server: &Server,
    nqn: &str,
    volume: &str,
    nsid: Option<u32>,
    (read_only, group): (bool, u32),
) -> Answer {
    let nqn = named(nqn)?;
    // While the lock is held the volume is not deleted.
    let state = server.state();
    let id = state.catalog.find(volume).map_err(catalog_error)?;
    let volume = state.catalog.get(id).expect("just found").uuid;
    let new = Namespace { volume, read_only, group };
    let to = nqn.clone();
    manage(server, move |service| service.add_namespace(&to, nsid, new))?;
    drop(state);
    show(server, nqn)
}

fn set_ana(server: &Server, nqn: &str, group: u32, state: &str) -> Answer {
    let state = ana_state(state).ok_or_else(|| bad(format!("{state:?} is no ANA state")))?;
    changed(server, nqn, move |service, nqn| service.set_ana(nqn, group, state))
}

fn list(server: &Server) -> Answer {
    let all = ask(server, |service| service.subsystems())?;
    let subsystems = all.iter().map(|found| report(server, found)).collect();
    Ok(AdminResponse::NvmfSubsystems { subsystems })
}

fn show(server: &Server, nqn: Nqn) -> Answer {
    let asked = nqn.clone();
    let found = ask(server, move |service| service.subsystem(&asked))?;
    let found = found.ok_or_else(|| refused(&ExportError::NotFound(nqn).into()))?;
    Ok(AdminResponse::NvmfSubsystem(report(server, &found)))
}

fn report(server: &Server, found: &SubsystemState) -> NvmfSubsystemReport {
    let state = server.state();
    let namespaces = found.subsystem.namespaces.iter().map(|(&nsid, namespace)| {
        let served = found.view.get(nsid);
        let volume = served.and_then(|served| state.catalog.get(served.volume));
        NvmfNamespaceReport {
            nsid,
            volume: volume.map(|volume| volume.name.clone()),
            uuid: uuid_text(&namespace.volume),
            size_bytes: served.map_or(0, |served| served.blocks << served.block_shift),
            block_bytes: served.map_or(0, |served| 1 << served.block_shift),
            read_only: served.map_or(namespace.read_only, |served| served.read_only),
            group: namespace.group,
            ana_state: found.ana(namespace.group).to_owned(),
        }
    });
    NvmfSubsystemReport {
        nqn: found.nqn.to_string(),
        serial: found.subsystem.serial.clone(),
        hosts: found.hosts(),
        controllers: found.controllers,
        namespaces: namespaces.collect(),
    }
}

fn connections(server: &Server) -> Answer {
    let mut all = ask(server, |service| service.connected())?;
    all.sort_by(|a, b| {
        let key = |c: &NvmfConnectionReport| (c.host.clone(), c.subsystem.clone(), c.cntlid, c.qid);
        key(a).cmp(&key(b))
    });
    Ok(AdminResponse::NvmfConnections { connections: all })
}
