//! The connections of one target on one core.
//!
//! The reactor adds connections, marks those whose sockets are ready, routes completions
//! here and calls [`Roster::run`] once per turn. A connection that is neither marked nor got
//! a completion costs nothing.
//!
//! Except the **hot** ones: for [`HOT_NS`] after something moved on it, a connection is
//! polled in every run, at most [`MAX_HOT`] at a time, and its socket need not be
//! watched. Telling a running core of a ready socket interrupts it, which costs the
//! client and the core more than looking. Only a run that moved something makes a
//! connection hot; before it sleeps the reactor ends that ([`Roster::cool_all`]) and
//! watches all.
//!
//! Each connection may hold an even share of the target's buffers ([`Limits`]).

use std::os::fd::BorrowedFd;

use crate::request::{Completion, Host};
use crate::units::Nanos;

/// How long a connection is hot after something moved on it: about as long as a core
/// polls before it sleeps.
pub(in crate::target) const HOT_NS: u64 = 50_000;
/// Hot connections of a core. Each costs a system call in every turn.
const MAX_HOT: usize = 32;

/// What a connection's poll achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something moved, there may be more: poll again.
    Moved,
    /// Poll when the socket is ready or a completion has come.
    Waiting,
    /// The host lacks a buffer or room for a request: poll when it may have.
    Starved,
    /// All is over: drop the connection.
    Finished,
}

/// A connection of a roster.
pub trait Member {
    /// Moves what can be moved without blocking.
    fn poll(&mut self, host: &mut impl Host) -> Progress;
    /// Takes the answer to a request of this connection. Polled afterwards, once for a batch.
    ///
    /// # Panics
    /// If no request of this connection has the completion's tag.
    fn complete(&mut self, completion: Completion, host: &mut impl Host);
    /// The socket, to wait on.
    fn fd(&self) -> BorrowedFd<'_>;
    /// It makes sense to wait until the socket can be written.
    fn wants_write(&self) -> bool;
    /// Somebody waits closely for a look at the clock.
    fn has_deadline(&self) -> bool;
    /// Why the client is to be hung up on for its slowness, as seen from calls of about one
    /// a second.
    fn overdue(&mut self, now: Nanos) -> Option<&'static str>;
    /// Bytes of engine buffers that it may hold; what it holds beyond them it may keep.
    fn set_budget(&mut self, bytes: usize);
    /// Sends the replies that the socket takes now; what fails will be closed.
    fn flush(&mut self, host: &mut impl Host);
    /// From now on nothing new is begun; what is under way is answered.
    fn stop(&mut self);
    /// Nothing is under way or unanswered; when stopping, the engine has nothing.
    fn is_quiet(&self) -> bool;
    /// Hangs up. Poll until [`Progress::Finished`]: the engine may still have requests.
    fn close(&mut self, host: &mut impl Host);
}

/// Buffers of a target on one core.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that its connections share evenly.
    pub total: usize,
    /// Most of one.
    pub most: usize,
    /// Least of one, however many there are.
    pub least: usize,
}

struct Entry<C> {
    connection: C,
    marked: bool,
    /// When something moved on it last.
    moved_at: Nanos,
}

/// The connections of one target on one core, by number.
pub struct Roster<C> {
    entries: Vec<Option<Entry<C>>>,
    /// Numbers of those that there are.
    live: Vec<u16>,
    limits: Limits,
    /// Numbers to poll in the next run, each once.
    marked: Vec<u16>,
    /// The list that a run works off, kept for its memory.
    turn: Vec<u16>,
    /// Numbers of the hot connections, each once.
    hot: Vec<u16>,
    stopping: bool,
}

impl<C: Member> Roster<C> {
    /// A roster of at most `limit` connections.
    pub(in crate::target) fn with_limits(limit: u16, limits: Limits) -> Self {
        Roster {
            entries: (0..limit).map(|_| None).collect(),
            live: Vec::with_capacity(limit.into()),
            limits,
            marked: Vec::with_capacity(limit.into()),
            turn: Vec::with_capacity(limit.into()),
            hot: Vec::with_capacity(MAX_HOT),
            stopping: false,
        }
    }

    /// Connections that there may be.
    pub fn limit(&self) -> u16 {
        u16::try_from(self.entries.len()).expect("made from a u16")
    }

    /// The number of the next connection; `None` if there are all that there may be.
    pub(in crate::target) fn vacant(&self) -> Option<u16> {
        (0..self.limit()).find(|&n| self.entries[usize::from(n)].is_none())
    }

    /// Takes a connection under a number that [`Roster::vacant`] gave.
    pub(in crate::target) fn insert(&mut self, conn: u16, mut connection: C, now: Nanos) {
        if self.stopping {
            connection.stop();
        }
        let entry = Entry { connection, marked: false, moved_at: now };
        let before = self.entries[usize::from(conn)].replace(entry);
        assert!(before.is_none(), "a number is of one connection");
        self.live.push(conn);
        self.share();
        self.mark(conn);
    }

    /// The connection of a number.
    pub fn get(&self, conn: u16) -> Option<&C> {
        self.entries.get(usize::from(conn))?.as_ref().map(|entry| &entry.connection)
    }

    /// The same, to change; mark it if it is to be polled.
    pub(in crate::target) fn get_mut(&mut self, conn: u16) -> Option<&mut C> {
        self.entries.get_mut(usize::from(conn))?.as_mut().map(|entry| &mut entry.connection)
    }

    /// All connections, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &C)> {
        self.live.iter().map(|&conn| {
            let entry = self.entries[usize::from(conn)].as_ref();
            (conn, &entry.expect("a live connection").connection)
        })
    }

    /// Connections there are.
    pub fn len(&self) -> u16 {
        u16::try_from(self.live.len()).expect("at most the limit")
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// No connection is marked: the next run polls hot ones at most.
    pub fn is_idle(&self) -> bool {
        self.marked.is_empty()
    }

    /// Somebody waits closely for [`Roster::expire`].
    pub fn has_deadline(&self) -> bool {
        self.iter().any(|(_, connection)| connection.has_deadline())
    }

    /// Connections that are polled in every run.
    pub fn hot(&self) -> &[u16] {
        &self.hot
    }

    /// From now on only marked connections are polled.
    pub fn cool_all(&mut self) {
        self.hot.clear();
    }

    /// Marks the hot connections, except those on which nothing moved for long.
    fn mark_hot(&mut self, now: Nanos) {
        for i in (0..self.hot.len()).rev() {
            let conn = self.hot[i];
            let entry = self.entries[usize::from(conn)].as_ref().expect("hot ones are live");
            if now.since(entry.moved_at) < HOT_NS {
                self.mark(conn);
            } else {
                self.hot.swap_remove(i);
            }
        }
    }

    /// The connection's socket is ready: poll it in the next run.
    pub fn mark(&mut self, conn: u16) {
        let Some(Some(entry)) = self.entries.get_mut(usize::from(conn)) else { return };
        if !std::mem::replace(&mut entry.marked, true) {
            self.marked.push(conn);
        }
    }

    /// Gives a completion to the connection that has made the request.
    ///
    /// # Panics
    /// If no connection has a request with this tag.
    pub fn complete(&mut self, conn: u16, completion: Completion, host: &mut impl Host) {
        let entry = self.entries[usize::from(conn)].as_mut();
        entry.expect("a connection outlives its requests").connection.complete(completion, host);
        self.mark(conn);
    }

    /// Polls the marked and the hot connections once; `closing` hears of each one that has
    /// ended just before its socket closes. True if anything moved: run again
    /// before sleeping.
    pub fn run(
        &mut self,
        now: Nanos,
        host: &mut impl Host,
        mut closing: impl FnMut(u16, &C),
    ) -> bool {
        let mut moved = false;
        self.mark_hot(now);
        let before = self.live.len();
        std::mem::swap(&mut self.marked, &mut self.turn);
        for i in 0..self.turn.len() {
            let conn = self.turn[i];
            let slot = &mut self.entries[usize::from(conn)];
            let entry = slot.as_mut().expect("only live connections are marked");
            entry.marked = false;
            match entry.connection.poll(host) {
                Progress::Waiting => {}
                Progress::Starved => self.mark(conn),
                Progress::Moved => {
                    moved = true;
                    entry.moved_at = now;
                    if self.hot.len() < MAX_HOT && !self.hot.contains(&conn) {
                        self.hot.push(conn);
                    }
                    self.mark(conn);
                }
                Progress::Finished => {
                    closing(conn, &entry.connection);
                    *slot = None;
                    self.hot.retain(|hot| *hot != conn);
                    self.live.retain(|live| *live != conn);
                    moved = true;
                }
            }
        }
        self.turn.clear();
        if self.live.len() != before {
            self.share();
        }
        moved
    }

    /// Divides the buffers among the connections.
    fn share(&mut self) {
        let share = self.limits.total / self.live.len().max(1);
        let share = share.clamp(self.limits.least, self.limits.most);
        for entry in self.entries.iter_mut().flatten() {
            entry.connection.set_budget(share);
        }
    }

    /// Hangs up on clients that are too slow. For a timer of about a second.
    pub fn expire(&mut self, now: Nanos, host: &mut impl Host) {
        for conn in 0..self.limit() {
            let Some(entry) = &mut self.entries[usize::from(conn)] else { continue };
            if let Some(why) = entry.connection.overdue(now) {
                tracing::info!(conn, "client disconnected: {why}");
                entry.connection.close(host);
                self.mark(conn);
            }
        }
    }

    /// New requests and connections are refused from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
        for entry in self.entries.iter_mut().flatten() {
            entry.connection.stop();
        }
    }

    /// Nothing is under way or unanswered on any connection. After
    /// [`Roster::stop`]: the engine has no request of any.
    pub fn is_quiet(&self) -> bool {
        self.iter().all(|(_, connection)| connection.is_quiet())
    }

    /// Hangs up on everyone, after the replies that the sockets take at once. Run until
    /// [`Roster::is_empty`].
    pub fn close(&mut self, host: &mut impl Host) {
        for conn in 0..self.limit() {
            if let Some(entry) = &mut self.entries[usize::from(conn)] {
                entry.connection.flush(host);
                entry.connection.close(host);
                self.mark(conn);
            }
        }
    }
}
