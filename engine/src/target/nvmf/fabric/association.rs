//! Associations: an admin queue's controller with its I/O queues, and where queues go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use nvme::Nqn;

use crate::target::nvmf::controller::{Controller, Kind};
use crate::target::nvmf::exports::SubsystemView;
use crate::target::nvmf::{AssociationId, Namespace, Namespaces, QUEUES_PER_CORE, QueueCounters};
use crate::units::{CoreId, Nanos};

/// An I/O queue that a core has, or is about to have.
#[derive(Debug)]
pub struct Queue {
    /// Where.
    pub core: CoreId,
    /// Entries of its submission queue.
    pub entries: u16,
    /// The host's address.
    pub peer: SocketAddr,
    /// What it does.
    pub counters: Arc<QueueCounters>,
}

/// One admin queue with its controller.
#[derive(Debug)]
pub struct Association {
    /// Its name.
    pub id: AssociationId,
    /// The controller.
    pub controller: Controller,
    /// The admin connection.
    pub token: u64,
    /// The host's address.
    pub peer: SocketAddr,
    /// Our address that the host knows.
    pub local: SocketAddr,
    /// Entries of the admin queue.
    pub entries: u16,
    /// What the controller works by.
    pub view: Arc<SubsystemView>,
    /// What its queues reach.
    pub namespaces: Arc<Namespaces>,
    /// The discovery log of its host, for discovery.
    pub discovery: Vec<u8>,
    /// By identifier, until each has ended.
    pub queues: BTreeMap<u16, Queue>,
    /// Commands of all queues when they were last looked at.
    seen: u64,
    /// The core of the last queue placed.
    pub last_core: Option<CoreId>,
}

impl Association {
    /// Of a controller that was just connected.
    pub fn new(
        id: AssociationId,
        controller: Controller,
        token: u64,
        addresses: (SocketAddr, SocketAddr),
        entries: u16,
        view: Arc<SubsystemView>,
    ) -> Self {
        Self {
            id,
            controller,
            token,
            peer: addresses.0,
            local: addresses.1,
            entries,
            namespaces: Arc::new(namespaces(&view)),
            view,
            discovery: Vec::new(),
            queues: BTreeMap::new(),
            seen: 0,
            last_core: None,
        }
    }

    /// The host's name.
    pub fn host(&self) -> &Nqn {
        &self.controller.identity().host
    }

    /// It serves namespaces.
    pub fn is_io(&self) -> bool {
        self.controller.identity().kind == Kind::Io
    }

    /// Cores that have queues of it, each once.
    pub fn cores(&self) -> Vec<CoreId> {
        let mut cores: Vec<CoreId> = self.queues.values().map(|queue| queue.core).collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    }

    /// Tells the controller if its queues have got commands since the last look (TBKAS).
    pub fn look_for_traffic(&mut self, now: Nanos) {
        let commands = self.queues.values().map(|queue| queue.counters.commands()).sum();
        if std::mem::replace(&mut self.seen, commands) < commands {
            self.controller.traffic(now);
        }
    }
}

/// The namespaces of a subsystem as I/O commands see them.
pub fn namespaces(view: &SubsystemView) -> Namespaces {
    let of = |found: &crate::target::nvmf::exports::NamespaceInfo| Namespace {
        nsid: found.nsid,
        volume: found.volume,
        block_bytes: 1 << found.block_shift,
        size_bytes: found.blocks << found.block_shift,
        read_only: found.read_only,
        ana_state: view.state(found),
        ana_group: found.group,
    };
    Namespaces::new(view.namespaces.iter().map(of).collect())
}

/// How many queues each core has.
#[derive(Debug)]
pub struct Placement {
    queues: Vec<u16>,
}

impl Placement {
    /// Of cores that have none.
    pub fn new(cores: u8) -> Self {
        Self { queues: vec![0; cores.into()] }
    }

    /// The core of an association's next queue: the first goes to the least loaded core, the
    /// others go round from there, past those that are full. `None`: all are.
    pub fn place(&mut self, last: &mut Option<CoreId>) -> Option<CoreId> {
        let cores = self.queues.len();
        let first = match last {
            Some(last) => usize::from(last.get()) + 1,
            None => (0..cores).min_by_key(|core| self.queues[*core]).expect("there are cores"),
        };
        let round = (0..cores).map(|step| (first + step) % cores);
        let free = round.into_iter().find(|core| self.queues[*core] < QUEUES_PER_CORE)?;
        self.queues[free] += 1;
        let core = CoreId::new(u8::try_from(free).expect("at most 64 cores"));
        *last = Some(core);
        Some(core)
    }

    /// A queue of a core has ended.
    pub fn ended(&mut self, core: CoreId) {
        let queues = &mut self.queues[usize::from(core.get())];
        *queues = queues.checked_sub(1).expect("a queue ends once");
    }

    /// Queues of all cores.
    #[cfg(test)]
    pub fn total(&self) -> u32 {
        self.queues.iter().copied().map(u32::from).sum()
    }
}
