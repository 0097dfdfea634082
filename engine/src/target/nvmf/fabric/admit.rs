//! Connects: granted, refused, or made to wait; and how associations and queues end.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvme::Nqn;
use nvme::code::Status;
use nvme::fabrics::{ConnectResult, RESERVED_CNTLID, connect_offset};

use super::association::{Association, Queue};
use super::connect::{Connect, Refusal};
use super::connection::{Connection, State};
use super::link::Command;
use super::service::Service;
use super::{DUPLICATE_NS, MAX_ASSOCIATIONS, MAX_IO_QUEUES};
use crate::target::nvmf::controller::{Controller, Identity, Kind, Limits, Reply};
use crate::target::nvmf::exports::SubsystemView;
use crate::target::nvmf::{
    AssociationId, EndReason, IN_CAPSULE_BYTES, MAX_QUEUE_ENTRIES, MDTS, NewQueue, QueueCounters,
    QueueEnd,
};
use crate::target::socket::Socket;
use crate::units::{ClientId, CoreId};

/// What every controller offers.
pub(super) const LIMITS: Limits = Limits {
    queue_entries: MAX_QUEUE_ENTRIES,
    io_queues: MAX_IO_QUEUES,
    mdts: MDTS,
    in_capsule: IN_CAPSULE_BYTES,
};

/// What becomes of an I/O Connect.
enum Verdict {
    Granted(AssociationId, CoreId),
    /// An earlier queue of its number has not ended yet.
    Duplicate,
}

impl Service {
    /// The first command of a connection.
    pub(super) fn connect(&mut self, token: u64, connection: &mut Connection, command: &Command) {
        let connect = Connect::parse(&command.entry, &command.data);
        let granted = connect.and_then(|connect| {
            if connect.qid == 0 {
                return self.connect_admin(token, connection, &connect);
            }
            match self.connect_io(connection, &connect)? {
                Verdict::Granted(id, core) => self.grant(connection, id, core, connect),
                Verdict::Duplicate => {
                    let until = self.now.after(DUPLICATE_NS);
                    connection.state = State::Waiting(Box::new(connect), until);
                }
            }
            Ok(())
        });
        if let Err(refusal) = granted {
            self.refuse(connection, &refusal);
        }
    }

    fn refuse(&mut self, connection: &mut Connection, refusal: &Refusal) {
        match &refusal.host {
            Some(host) => {
                let who = format!("{host} ({})", connection.peer);
                self.complaints.line(self.now, "is refused", &who, &refusal.why);
            }
            None => self.complaints.line(self.now, "is refused", &connection.peer, &refusal.why),
        }
        connection.link.reply(&refusal.reply());
        connection.state = State::Closing(self.linger());
    }

    fn connect_admin(
        &mut self,
        token: u64,
        connection: &mut Connection,
        connect: &Connect,
    ) -> Result<(), Refusal> {
        let (kind, view) = self.subsystem_for(connection, connect)?;
        if self.associations.len() + self.ending.len() >= MAX_ASSOCIATIONS {
            return Err(connect.refuse(Status::CONNECT_BUSY, "too many associations"));
        }
        let cntlid = self.free_cntlid(&connect.subsystem);
        let busy = || connect.refuse(Status::CONNECT_BUSY, "no controller identifier is free");
        let cntlid = cntlid.ok_or_else(busy)?;
        let identity = Identity {
            kind,
            cntlid,
            subsystem: connect.subsystem.clone(),
            host: connect.host.clone(),
            host_id: connect.host_id,
        };
        let controller = Controller::new(identity, LIMITS, connect.kato_ms, self.now);
        let id = AssociationId(self.next_association);
        self.next_association += 1;
        let addresses = (connection.peer, connection.local);
        let mut association =
            Association::new(id, controller, token, addresses, connect.entries, view);
        association.discovery = self.discovery_log(&association);
        self.associations.insert(id, association);
        connection.state = State::Admin(id);
        connection.link.set_queue(connect.entries, connect.flow_control_off);
        connection.link.reply(&granted(connect, cntlid));
        tracing::info!(
            "NVMe/TCP: {} ({}) is connected to {} as controller {cntlid}",
            connect.host,
            connection.peer,
            connect.subsystem
        );
        Ok(())
    }

    /// The subsystem of an admin queue, which the host may use.
    fn subsystem_for(
        &self,
        connection: &Connection,
        connect: &Connect,
    ) -> Result<(Kind, Arc<SubsystemView>), Refusal> {
        let nqn = &connect.subsystem;
        if nqn.is_discovery() {
            let empty = SubsystemView {
                nqn: nqn.clone(),
                serial: String::new(),
                namespaces: Vec::new(),
                groups: BTreeMap::new(),
                ana_changes: 0,
            };
            return Ok((Kind::Discovery, Arc::new(empty)));
        }
        let unknown = |why: String| connect.refuse_parameter(connect_offset::SUBNQN, true, why);
        if connection.discovery_only {
            return Err(unknown(format!("{nqn} is not served where discovery alone is")));
        }
        let Some(subsystem) = self.exports.subsystems.get(nqn) else {
            return Err(unknown(format!("there is no subsystem {nqn}")));
        };
        if !subsystem.hosts.allow(&connect.host) {
            let status = Status::CONNECT_HOST.with_dnr();
            return Err(connect.refuse(status, format!("{nqn} does not list it")));
        }
        Ok((Kind::Io, Arc::clone(&self.views[nqn])))
    }

    /// The next identifier that no controller of the subsystem has.
    fn free_cntlid(&mut self, subsystem: &Nqn) -> Option<u16> {
        let taken = self.controllers(subsystem);
        for _ in 1..RESERVED_CNTLID {
            let cntlid = self.next_cntlid;
            self.next_cntlid = if cntlid + 1 == RESERVED_CNTLID { 1 } else { cntlid + 1 };
            if taken.binary_search(&cntlid).is_err() {
                return Some(cntlid);
            }
        }
        None
    }

    fn connect_io(
        &mut self,
        connection: &Connection,
        connect: &Connect,
    ) -> Result<Verdict, Refusal> {
        if connect.subsystem.is_discovery() {
            let why = "discovery has no I/O queues";
            return Err(connect.refuse_parameter(connect_offset::QID, false, why));
        }
        let association = self.associations.values_mut().find(|association| {
            let identity = association.controller.identity();
            identity.cntlid == connect.cntlid && identity.subsystem == connect.subsystem
        });
        let Some(association) = association else {
            let why = format!("{} has no controller {}", connect.subsystem, connect.cntlid);
            return Err(connect.refuse_parameter(connect_offset::CNTLID, true, why));
        };
        let identity = association.controller.identity();
        if identity.host != connect.host {
            let why = format!("controller {} is another host's", connect.cntlid);
            return Err(connect.refuse(Status::CONNECT_HOST.with_dnr(), why));
        }
        if identity.host_id != connect.host_id {
            let why = "its identifier is another than its admin queue's";
            return Err(connect.refuse_parameter(connect_offset::HOST_ID, true, why));
        }
        if connection.discovery_only {
            let why = "an I/O queue where discovery alone is served";
            return Err(connect.refuse_parameter(connect_offset::QID, false, why));
        }
        if !association.controller.is_ready() {
            let status = Status::COMMAND_SEQUENCE.with_dnr();
            return Err(connect.refuse(status, "its controller is not enabled"));
        }
        if connect.qid > association.controller.granted_queues() {
            let why = format!("queue {} was not granted", connect.qid);
            return Err(connect.refuse_parameter(connect_offset::QID, false, why));
        }
        if association.queues.contains_key(&connect.qid) {
            return Ok(Verdict::Duplicate);
        }
        let Some(core) = self.placement.place(&mut association.last_core) else {
            return Err(connect.refuse(Status::CONNECT_BUSY, "all cores are full of queues"));
        };
        Ok(Verdict::Granted(association.id, core))
    }

    /// Answers the Connect; when that is sent the connection moves to its core.
    fn grant(
        &mut self,
        connection: &mut Connection,
        id: AssociationId,
        core: CoreId,
        connect: Connect,
    ) {
        let association = self.associations.get_mut(&id).expect("just found");
        let queue = Queue {
            core,
            entries: connect.entries,
            peer: connection.peer,
            counters: Arc::new(QueueCounters::default()),
        };
        let before = association.queues.insert(connect.qid, queue);
        assert!(before.is_none(), "an identifier is of one queue");
        connection.link.set_queue(connect.entries, connect.flow_control_off);
        connection.link.reply(&granted(&connect, connect.cntlid));
        connection.state = State::Leaving(id, core, Box::new(connect));
    }

    /// Moves a connection whose Connect was answered to its core.
    pub(super) fn hand_over(&mut self, mut connection: Connection) {
        self.unwatch(&connection);
        let State::Leaving(id, core, connect) =
            std::mem::replace(&mut connection.state, State::Fresh)
        else {
            panic!("only a connection that leaves is handed over");
        };
        // Its association may have ended, or been reset, while the response was on its way.
        let association = self.associations.get(&id);
        let Some(association) = association.filter(|found| found.controller.is_ready()) else {
            return self.never_left(id, core, connect.qid);
        };
        let handle = self.handle.clone();
        let digests = connection.link.digests();
        let queue = NewQueue {
            received: connection.link.take_input(),
            socket: Socket::Tcp(connection.into_socket()),
            association: id,
            cntlid: connect.cntlid,
            qid: connect.qid,
            entries: connect.entries,
            digests,
            flow_control_off: connect.flow_control_off,
            host_nqn: connect.host.as_str().into(),
            client: ClientId::of(connect.host.as_str()),
            namespaces: Arc::clone(&association.namespaces),
            counters: Arc::clone(&association.queues[&connect.qid].counters),
            on_end: Box::new(move |end| handle.ended(end)),
        };
        self.cores.add(core, queue);
    }

    /// A queue that was granted is gone before its core has got it.
    pub(super) fn never_left(&mut self, id: AssociationId, core: CoreId, qid: u16) {
        if let Some(association) = self.associations.get_mut(&id) {
            association.queues.remove(&qid);
        } else if let Some(queues) = self.ending.get_mut(&id) {
            queues.remove(&qid);
            if queues.is_empty() {
                self.ending.remove(&id);
            }
        }
        self.placement.ended(core);
        self.retry_waiting(id);
    }

    /// Connects that wait for a queue of an association are looked at again.
    pub(super) fn retry_waiting(&mut self, id: AssociationId) {
        let Some(association) = self.associations.get(&id) else { return };
        let cntlid = association.controller.identity().cntlid;
        let waits = |connection: &Connection| match &connection.state {
            State::Waiting(connect, _) => connect.cntlid == cntlid,
            _ => false,
        };
        let waiting = self.connections.iter().filter(|(_, connection)| waits(connection));
        let waiting: Vec<u64> = waiting.map(|(token, _)| *token).collect();
        for token in waiting {
            let mut connection = self.connections.remove(&token).expect("just seen");
            let State::Waiting(connect, until) =
                std::mem::replace(&mut connection.state, State::Fresh)
            else {
                panic!("just seen");
            };
            match self.connect_io(&connection, &connect) {
                Ok(Verdict::Granted(id, core)) => self.grant(&mut connection, id, core, *connect),
                Ok(Verdict::Duplicate) => connection.state = State::Waiting(connect, until),
                Err(refusal) => self.refuse(&mut connection, &refusal),
            }
            self.settle(token, connection);
        }
    }

    /// A Connect has waited long enough for an earlier queue.
    pub(super) fn refuse_waiting(&mut self, connection: &mut Connection) {
        let state = std::mem::replace(&mut connection.state, State::Fresh);
        let State::Waiting(connect, _) = state else { panic!("only one that waits") };
        let why = format!("queue {} is connected", connect.qid);
        let mut refusal = connect.refuse_parameter(connect_offset::QID, false, why);
        // The earlier one may end yet.
        refusal.status = Status::CONNECT_PARAMETERS;
        self.refuse(connection, &refusal);
    }

    /// A command on an admin queue.
    pub(super) fn admin_command(
        &mut self,
        id: AssociationId,
        connection: &mut Connection,
        command: &Command,
    ) {
        let outcome = self.with_world(id, |association, world| {
            association.controller.command(&command.entry, &command.data, world)
        });
        let Some((reply, effects)) = outcome else {
            // It has ended otherwise; nobody is there to answer for it.
            connection.state = State::Closing(self.linger());
            return;
        };
        if let Some(reply) = reply {
            connection.link.reply(&reply);
        }
        let association = self.associations.get_mut(&id).expect("it has just answered");
        tell_events(association, connection);
        if effects.drop_queues {
            let (id, cores) = (association.id, association.cores());
            cores.into_iter().for_each(|core| self.cores.drop_association(core, id));
        }
    }

    /// Takes an association from its controller's world; its queues end on their cores.
    pub(super) fn end_association(&mut self, id: AssociationId, why: &str) {
        let Some(association) = self.associations.remove(&id) else { return };
        tracing::info!(
            "NVMe/TCP: {} ({}) is disconnected from {}, controller {}: {why}",
            association.host(),
            association.peer,
            association.controller.identity().subsystem,
            association.controller.identity().cntlid
        );
        for core in association.cores() {
            self.cores.drop_association(core, id);
        }
        let queues: BTreeMap<u16, CoreId> =
            association.queues.into_iter().map(|(qid, queue)| (qid, queue.core)).collect();
        if !queues.is_empty() {
            self.ending.insert(id, queues);
        }
    }

    /// One line for a queue that ended by itself; those of an association that ends are told
    /// with it.
    pub(super) fn log_end(&mut self, end: &QueueEnd, core: CoreId) {
        let Some(association) = self.associations.get(&end.association) else { return };
        if matches!(end.reason, EndReason::Dropped | EndReason::Stopped) {
            return;
        }
        let who = format!("{} ({})", association.host(), association.peer);
        let what = format!("has lost queue {} on core {core}", end.qid);
        self.complaints.line(self.now, &what, &who, &end.reason);
    }
}

/// Completes held requests for events that have happened.
pub(super) fn tell_events(association: &mut Association, connection: &mut Connection) {
    while let Some(reply) = association.controller.next_aborted() {
        connection.link.reply(&reply);
    }
    while let Some(reply) = association.controller.next_event() {
        connection.link.reply(&reply);
    }
}

fn granted(connect: &Connect, cntlid: u16) -> Reply {
    Reply {
        cid: connect.cid,
        status: Status::SUCCESS,
        result: ConnectResult::connected(cntlid),
        data: Vec::new(),
    }
}
