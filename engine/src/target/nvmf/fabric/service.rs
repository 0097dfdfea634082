//! The thread's loop: sockets, messages, timers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use nvme::Nqn;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::association::{Association, Placement};
use super::complaint::Complaints;
use super::connection::{Connection, Got, State};
use super::listener::{ListenError, Listener};
use super::{CONNECT_NS, Cores, Handle, LINGER_NS, MAX_FRESH, Message, Settings};
use crate::core::clock;
use crate::target::nvmf::controller::{Served, World};
use crate::target::nvmf::exports::file::FileError;
use crate::target::nvmf::exports::{Exports, SubsystemView};
use crate::target::nvmf::{AssociationId, QueueEnd};
use crate::units::{CoreId, Nanos};
use crate::volume::Volumes;

/// The wake's token; listeners follow, then connections from [`FIRST_CONNECTION`].
const WAKE: u64 = 0;
const FIRST_CONNECTION: u64 = 1 << 32;
/// Events taken at once.
const EVENTS: usize = 256;
/// How often timers are looked at while there is anyone.
const TICK_NS: u64 = 1_000_000_000;
/// Reads of one socket before others have their turn.
const READS: usize = 4;

/// Why the thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is exported cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused something else.
    #[error("starting the NVMe/TCP target: {0}")]
    System(#[from] io::Error),
}

/// The thread's state.
pub struct Service {
    pub(super) settings: Settings,
    epoll: OwnedFd,
    inbox: Receiver<Message>,
    wake: Arc<OwnedFd>,
    pub(super) handle: Handle,
    pub(super) cores: Box<dyn Cores>,
    pub(super) exports: Exports,
    pub(super) volumes: Volumes,
    pub(super) views: BTreeMap<Nqn, Arc<SubsystemView>>,
    /// Namespaces whose volume is gone, as the log knows.
    pub(super) missing: BTreeSet<(Nqn, u32)>,
    pub(super) listeners: BTreeMap<u64, Listener>,
    /// Listeners are not looked at before, for want of room for sockets.
    pub(super) pause: Option<Nanos>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) associations: BTreeMap<AssociationId, Association>,
    /// Associations that are over, until their queues have ended.
    pub(super) ending: BTreeMap<AssociationId, BTreeMap<u16, CoreId>>,
    pub(super) placement: Placement,
    pub(super) complaints: Complaints,
    pub(super) next_token: u64,
    pub(super) next_association: u64,
    pub(super) next_cntlid: u16,
    pub(super) since: Nanos,
    pub(super) now: Nanos,
    next_tick: Nanos,
    stopping: bool,
}

impl Service {
    /// Reads what is exported and binds the listeners. [`Service::run`] serves.
    ///
    /// # Errors
    /// If the file is bad or an address cannot be bound.
    pub fn new(
        settings: Settings,
        volumes: Volumes,
        cores: Box<dyn Cores>,
    ) -> Result<(Service, Handle), StartError> {
        let exports = crate::target::nvmf::exports::file::load(&settings.data_dir)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(io::Error::from)?);
        let (sender, inbox) = channel();
        let handle = Handle { inbox: sender, wake: Arc::clone(&wake) };
        let now = clock::now();
        let mut service = Service {
            epoll,
            inbox,
            wake,
            handle: handle.clone(),
            placement: Placement::new(cores.count()),
            cores,
            exports,
            volumes,
            views: BTreeMap::new(),
            missing: BTreeSet::new(),
            listeners: BTreeMap::new(),
            pause: None,
            connections: BTreeMap::new(),
            associations: BTreeMap::new(),
            ending: BTreeMap::new(),
            complaints: Complaints::default(),
            next_token: FIRST_CONNECTION,
            next_association: 1,
            next_cntlid: 1,
            since: now,
            now,
            next_tick: now,
            stopping: false,
            settings,
        };
        service.watch(WAKE, service.wake.as_fd(), epoll::EventFlags::IN)?;
        service.bind_all()?;
        service.refresh();
        Ok((service, handle))
    }

    fn bind_all(&mut self) -> Result<(), StartError> {
        let Settings { listen, discovery, .. } = self.settings.clone();
        let added: Vec<_> = self.exports.listeners.iter().copied().collect();
        let all = listen.iter().map(|address| (*address, false, false));
        let all = all.chain(discovery.iter().map(|address| (*address, true, false)));
        for (address, discovery_only, added) in all.chain(added.iter().map(|a| (*a, false, true))) {
            let mut listener = Listener::bind(address, self.settings.insecure)?;
            (listener.discovery_only, listener.added) = (discovery_only, added);
            self.add_listener(listener)?;
        }
        Ok(())
    }

    /// Watches a bound listener.
    pub(super) fn add_listener(&mut self, listener: Listener) -> io::Result<()> {
        let token = (1..FIRST_CONNECTION).find(|token| !self.listeners.contains_key(token));
        let token = token.expect("listeners are few");
        self.watch(token, listener.as_fd(), epoll::EventFlags::IN)?;
        tracing::info!("NVMe/TCP: listening on {}", listener.address);
        self.listeners.insert(token, listener);
        Ok(())
    }

    fn watch(&self, token: u64, fd: BorrowedFd<'_>, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    /// Serves until [`Handle::stop`]; then everyone is hung up on.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.stopping {
            let timeout = self.timeout();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "NVMe/TCP: the fabric thread cannot wait");
                    return;
                }
            }
            self.now = clock::now();
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => self.take_messages(),
                    token if token < FIRST_CONNECTION => self.accept(token),
                    token => self.serve(token, event.flags),
                }
            }
            if self.now >= self.next_tick {
                self.next_tick = self.now.after(TICK_NS);
                self.tick();
            }
        }
    }

    /// Until the next tick if anyone is there, else forever.
    fn timeout(&self) -> Option<Timespec> {
        let anyone = !self.connections.is_empty() || self.pause.is_some();
        let left = self.next_tick.since(clock::now());
        anyone.then(|| Timespec {
            tv_sec: (left / 1_000_000_000).cast_signed(),
            tv_nsec: (left % 1_000_000_000).cast_signed(),
        })
    }

    fn take_messages(&mut self) {
        // First the counter, then the messages: one that comes between them wakes again.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        loop {
            match self.inbox.try_recv() {
                Ok(Message::Call(work)) => work(self),
                Ok(Message::Ended(end)) => self.queue_ended(end),
                Ok(Message::Stop) => self.stopping = true,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn accept(&mut self, token: u64) {
        loop {
            // A message of the same round may have removed it.
            let Some(listener) = self.listeners.get(&token) else { return };
            let discovery_only = listener.discovery_only;
            let (socket, peer) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "NVMe/TCP: cannot take a host");
                    return self.pause_listeners();
                }
            };
            let admin = |c: &&Connection| matches!(c.state, State::Admin(_));
            if self.connections.values().filter(|c| !admin(c)).count() >= MAX_FRESH {
                let why = "too many connections have no queue";
                self.complaints.line(self.now, "is turned away", &peer, &why);
                continue;
            }
            let Ok(connection) = Connection::new(socket, peer, discovery_only, self.now) else {
                continue;
            };
            let token = self.next_token;
            if let Err(error) = self.watch(token, connection.as_fd(), connection.watched) {
                self.complaints.line(self.now, "is turned away", &peer, &error);
                continue;
            }
            self.next_token += 1;
            self.connections.insert(token, connection);
        }
    }

    /// Looks away from the listeners for a moment: they stay readable and would spin.
    fn pause_listeners(&mut self) {
        for listener in self.listeners.values() {
            // It is watched, unless it is paused already.
            let _ = epoll::delete(&self.epoll, listener.as_fd());
        }
        self.pause = Some(self.now.after(TICK_NS / 10));
        self.next_tick = self.now.after(TICK_NS / 10);
    }

    fn resume_listeners(&mut self) {
        if self.pause.take_if(|until| *until <= self.now).is_none() {
            return;
        }
        for (&token, listener) in &self.listeners {
            if let Err(error) = self.watch(token, listener.as_fd(), epoll::EventFlags::IN) {
                tracing::error!(%error, "NVMe/TCP: {} is no longer watched", listener.address);
            }
        }
    }

    /// Moves what can be moved on a connection.
    pub(super) fn serve(&mut self, token: u64, ready: epoll::EventFlags) {
        // Out of the map while it is worked on; back in it unless it has ended.
        let Some(mut connection) = self.connections.remove(&token) else { return };
        let readable = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let mut outcome = Ok(Got::Some);
        if ready.intersects(readable) {
            for _ in 0..READS {
                outcome = connection.receive();
                if !matches!(outcome, Ok(Got::Some)) {
                    break;
                }
                self.work(token, &mut connection);
                // What comes behind a Connect is for who takes the connection over.
                if !connection.is_served() {
                    break;
                }
            }
        } else {
            self.work(token, &mut connection);
        }
        // What has stopped for want of room for answers goes on when they are sent.
        while connection.is_served() && connection.link.is_full() {
            if let Err(error) = connection.send() {
                return self.lost(connection, &error.kind().to_string());
            }
            if connection.link.is_full() {
                break;
            }
            self.work(token, &mut connection);
        }
        match outcome {
            Ok(Got::End) => return self.lost(connection, "the host closed the connection"),
            Err(error) => return self.lost(connection, &error.kind().to_string()),
            Ok(Got::Some | Got::Nothing) => {}
        }
        self.settle(token, connection);
    }

    /// Takes commands as long as there are any.
    fn work(&mut self, token: u64, connection: &mut Connection) {
        while connection.is_served() {
            match connection.link.command() {
                Ok(Some(command)) => match connection.state {
                    State::Admin(id) => self.admin_command(id, connection, &command),
                    _ => self.connect(token, connection, &command),
                },
                Ok(None) => return,
                Err(broken) => return self.hang_up(connection, &broken.to_string()),
            }
        }
    }

    /// Sends, and puts the connection where it belongs now.
    pub(super) fn settle(&mut self, token: u64, mut connection: Connection) {
        if let Err(error) = connection.send() {
            return self.lost(connection, &error.kind().to_string());
        }
        let sent = connection.link.output().is_empty();
        if sent && matches!(connection.state, State::Leaving(..)) {
            return self.hand_over(connection);
        }
        let interest = connection.interest();
        if interest != connection.watched {
            let data = epoll::EventData::new_u64(token);
            if let Err(error) = epoll::modify(&self.epoll, connection.as_fd(), data, interest) {
                return self.lost(connection, &error.to_string());
            }
            connection.watched = interest;
        }
        self.connections.insert(token, connection);
    }

    /// Stops watching a socket that goes on elsewhere.
    pub(super) fn unwatch(&self, connection: &Connection) {
        // It is watched; should the kernel disagree there is nothing left to undo.
        let _ = epoll::delete(&self.epoll, connection.as_fd());
    }

    /// The world of an association's controller.
    pub(super) fn with_world<T>(
        &mut self,
        id: AssociationId,
        work: impl FnOnce(&mut Association, &World<'_>) -> T,
    ) -> Option<T> {
        let name = self.associations.get(&id)?.controller.identity().subsystem.clone();
        let controllers = self.controllers(&name);
        let since = self.since;
        let association = self.associations.get_mut(&id)?;
        let mut served =
            Served { hours: self.now.since(since) / 3_600_000_000_000, ..Served::default() };
        for queue in association.queues.values() {
            let load = |counter: &std::sync::atomic::AtomicU64| {
                counter.load(std::sync::atomic::Ordering::Relaxed)
            };
            served.reads += load(&queue.counters.reads);
            served.writes += load(&queue.counters.writes);
            served.read_bytes += load(&queue.counters.read_bytes);
            served.write_bytes += load(&queue.counters.written_bytes);
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let view = Arc::clone(&association.view);
        let discovery = std::mem::take(&mut association.discovery);
        let world = World {
            now: self.now,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            subsystem: &view,
            controllers: &controllers,
            io_queues: u16::try_from(association.queues.len()).expect("at most MAX_IO_QUEUES"),
            discovery: &discovery,
            served,
        };
        let result = work(association, &world);
        association.discovery = discovery;
        Some(result)
    }

    /// Controllers of a subsystem, ascending.
    pub(super) fn controllers(&self, subsystem: &Nqn) -> Vec<u16> {
        let identities = self.associations.values().map(|a| a.controller.identity());
        let of = identities.filter(|identity| identity.subsystem == *subsystem);
        let mut found: Vec<u16> = of.map(|identity| identity.cntlid).collect();
        found.sort_unstable();
        found
    }

    /// Timers.
    pub(super) fn tick(&mut self) {
        self.resume_listeners();
        let now = self.now;
        let mut over = Vec::new();
        for (&token, connection) in &self.connections {
            match &connection.state {
                State::Fresh if now.since(connection.opened) > CONNECT_NS => over.push(token),
                State::Waiting(_, until) | State::Closing(until) if now > *until => {
                    over.push(token);
                }
                _ => {}
            }
        }
        over.into_iter().for_each(|token| self.expire(token));
        let mut expired = Vec::new();
        for association in self.associations.values_mut() {
            association.look_for_traffic(now);
            if let Some(why) = association.controller.tick(now) {
                expired.push((association.id, why));
            }
        }
        expired.into_iter().for_each(|(id, why)| self.drop_association(id, why));
    }

    /// A connection's time is over.
    fn expire(&mut self, token: u64) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        match connection.state {
            State::Fresh => {
                let why = format!("no Connect within {} s", CONNECT_NS / 1_000_000_000);
                self.complaints.line(self.now, "is disconnected", &connection.peer, &why);
            }
            State::Waiting(..) => {
                self.refuse_waiting(&mut connection);
                self.settle(token, connection);
            }
            _ => {}
        }
    }

    /// Tells the log why, sends what is queued, and waits for the host to hang up.
    pub(super) fn hang_up(&mut self, connection: &mut Connection, why: &str) {
        let state = std::mem::replace(&mut connection.state, State::Closing(self.linger()));
        match state {
            State::Admin(id) => self.end_association(id, why),
            _ => self.complaints.line(self.now, "is disconnected", &connection.peer, &why),
        }
    }

    pub(super) fn linger(&self) -> Nanos {
        self.now.after(LINGER_NS)
    }

    /// A connection is gone.
    fn lost(&mut self, connection: Connection, why: &str) {
        match connection.state {
            State::Admin(id) => self.end_association(id, why),
            State::Leaving(id, core, connect) => self.never_left(id, core, connect.qid),
            // Before Connect, or after we have hung up: nobody of whom there is anything to say.
            State::Fresh | State::Waiting(..) | State::Closing(_) => {}
        }
    }

    /// Ends an association whose admin connection stays to be hung up on.
    pub(super) fn drop_association(&mut self, id: AssociationId, why: &str) {
        let Some(association) = self.associations.get(&id) else { return };
        let token = association.token;
        self.end_association(id, why);
        // Its socket closes at once: nothing that could still be said would help the host.
        self.connections.remove(&token);
    }

    /// No host is taken any more; those that are connected stay.
    pub fn close(&mut self) {
        self.listeners.clear();
        self.connections.retain(|_, connection| !matches!(connection.state, State::Fresh));
    }

    /// An I/O queue has ended: its number and its place are free.
    fn queue_ended(&mut self, end: QueueEnd) {
        let core = match self.associations.get_mut(&end.association) {
            Some(association) => association.queues.remove(&end.qid).map(|queue| queue.core),
            None => self.forget_ending(end.association, end.qid),
        };
        let Some(core) = core else {
            tracing::error!(?end, "NVMe/TCP: a queue that nobody knows has ended");
            return;
        };
        self.placement.ended(core);
        self.log_end(&end, core);
        self.retry_waiting(end.association);
    }

    fn forget_ending(&mut self, id: AssociationId, qid: u16) -> Option<CoreId> {
        let queues = self.ending.get_mut(&id)?;
        let core = queues.remove(&qid);
        if queues.is_empty() {
            self.ending.remove(&id);
        }
        core
    }
}
