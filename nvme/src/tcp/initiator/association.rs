//! A host's association with a controller: the admin queue and its I/O queues.

use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use super::admin::AdminQueue;
use super::bringup::{Bringup, Controller, Namespace, connect};
use super::error::Error;
use super::memory::{Memory, Tag};
use super::queue::QueuePair;
use super::settings::Settings;
use super::socket::Connection;
use crate::fabrics::{ConnectData, ConnectResult};

/// Between two looks at the admin queue once everything runs: nothing there is urgent.
const ADMIN_STEP: Duration = Duration::from_millis(1);

/// The data of Connect, and nothing else.
struct ConnectMemory<'a>(&'a ConnectData);

impl Memory for ConnectMemory<'_> {
    fn source(&self, _: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0.as_bytes()[offset..][..len]
    }

    fn target(&mut self, _: Tag, _: usize, _: usize) -> &mut [u8] {
        panic!("Connect receives no data")
    }
}

/// An I/O queue.
struct Link {
    connection: Connection,
    asked: bool,
    live: bool,
}

/// See the module.
pub struct Association {
    settings: Settings,
    admin: AdminQueue,
    bringup: Bringup,
    links: Vec<Link>,
    connect_data: Option<Box<ConnectData>>,
    next_admin: Instant,
    next_check: Instant,
}

impl Association {
    /// Begins to connect; [`Association::poll`] does the rest.
    ///
    /// # Errors
    /// If the system refuses at once.
    ///
    /// # Panics
    /// If the settings ask for no I/O queue, or for one without room.
    pub fn begin(now: Instant, settings: Settings) -> Result<Association, Error> {
        assert!(settings.io_queues > 0 && settings.depth > 0, "without queues there is no I/O");
        let times = (settings.timeout, settings.kato);
        let admin = AdminQueue::begin(now, settings.address, settings.digests, times)?;
        Ok(Association {
            admin,
            bringup: Bringup::new(settings.clone()),
            settings,
            links: Vec::new(),
            connect_data: None,
            next_admin: now,
            next_check: now,
        })
    }

    /// Everything is connected and identified.
    pub fn is_live(&self) -> bool {
        self.bringup.is_done()
    }

    /// What the controller says of itself.
    pub fn controller(&self) -> &Controller {
        &self.bringup.controller
    }

    /// The namespaces found.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.bringup.namespaces
    }

    /// I/O queues.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// An I/O queue.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn link(&mut self, n: usize) -> &mut QueuePair {
        self.links[n].connection.queue()
    }

    /// The sockets of the I/O queues, to sleep on.
    pub fn sockets(&self) -> impl Iterator<Item = &Connection> {
        self.links.iter().map(|link| &link.connection)
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        let links: u64 = self.links.iter().map(|link| link.connection.syscalls()).sum();
        links + self.admin.syscalls()
    }

    /// The result of an asynchronous event since the last call.
    pub fn take_event(&mut self) -> Option<u32> {
        self.admin.take_event()
    }

    /// Tells the controller that the host goes.
    pub fn farewell(&mut self, now: Instant) {
        self.admin.farewell(now);
    }

    /// Sends and receives what goes without waiting.
    ///
    /// # Errors
    /// If the association is over: every queue of it.
    pub fn poll(&mut self, now: Instant, memory: &mut impl Memory) -> Result<(), Error> {
        if !self.is_live() {
            return self.bring_up(now);
        }
        for link in &mut self.links {
            link.connection.poll(now, memory)?;
        }
        if now >= self.next_admin {
            self.next_admin = now + ADMIN_STEP;
            self.admin.poll(now, &mut self.bringup, true)?;
        }
        if now >= self.next_check {
            self.next_check = now + self.settings.timeout / 8;
            let limit = self.settings.timeout;
            self.links.iter().try_for_each(|link| link.connection.check_time(now, limit))?;
        }
        Ok(())
    }

    fn bring_up(&mut self, now: Instant) -> Result<(), Error> {
        let wants_links = self.admin.poll(now, &mut self.bringup, false)?;
        if !wants_links || self.is_live() {
            return Ok(());
        }
        if self.links.is_empty() {
            self.begin_links(now)?;
        }
        let limit = self.settings.timeout;
        for n in 0..self.links.len() {
            self.connect_link(now, n)?;
            self.links[n].connection.check_time(now, limit)?;
        }
        if self.links.iter().all(|link| link.live) {
            self.bringup.io_queues_ready();
        }
        Ok(())
    }

    fn begin_links(&mut self, now: Instant) -> Result<(), Error> {
        let Controller { depth, in_capsule, io_queues, .. } = *self.controller();
        self.connect_data = Some(Box::new(self.bringup.io_connect_data()));
        for _ in 0..io_queues {
            let queue = QueuePair::new(depth, self.settings.digests, in_capsule);
            let connection = Connection::begin(now, self.settings.address, queue)?;
            self.links.push(Link { connection, asked: false, live: false });
        }
        Ok(())
    }

    /// Connects an I/O queue (Base 3.3.2.2).
    fn connect_link(&mut self, now: Instant, n: usize) -> Result<(), Error> {
        let depth = self.controller().depth;
        let cntlid = self.controller().cntlid;
        let link = &mut self.links[n];
        if link.live {
            return Ok(());
        }
        let data = self.connect_data.as_deref().expect("made before the links");
        let mut memory = ConnectMemory(data);
        link.connection.poll(now, &mut memory)?;
        let queue = link.connection.queue();
        if !link.asked && queue.is_ready() {
            let qid = u16::try_from(n + 1).expect("queues are counted in 16 bits");
            link.asked = queue.submit(now, &connect(qid, depth, 0), Tag(0), &memory);
            return link.connection.poll(now, &mut memory);
        }
        let Some(done) = queue.pop() else { return Ok(()) };
        if !done.status.is_success() {
            let (status, result) = (done.status, done.result);
            return Err(Error::Refused { what: "Connect of an I/O queue", status, result });
        }
        if ConnectResult::authentication(done.result) {
            return Err(Error::Authentication);
        }
        if ConnectResult::cntlid(done.result) != cntlid {
            return Err(Error::Unfit("an I/O queue belongs to another controller"));
        }
        link.live = true;
        Ok(())
    }
}
