//! The NBD connections of one core.
//!
//! The reactor adds accepted sockets, marks connections whose sockets are ready,
//! routes completions here and calls [`Server::run`] once per turn. A connection
//! that is neither marked nor got a completion costs nothing.
//!
//! Except the **hot** ones: for [`HOT_NS`] after something moved on it, a connection is
//! polled in every run, at most [`MAX_HOT`] at a time, and its socket need not be
//! watched. Telling a running core of a ready socket interrupts it, which costs the
//! client and the core more than looking. Only a run that moved something makes a
//! connection hot; before it sleeps the reactor ends that ([`Server::cool_all`]) and
//! watches all.

use super::connection::{Connection, Progress};
use super::{BUFFER_BYTES, LEAST_BUFFER_BYTES, TOTAL_BUFFER_BYTES};
use crate::request::{Completion, Host};
use crate::target::socket::Socket;
use crate::units::Nanos;

/// Nanoseconds that a client may take to negotiate.
pub const NEGOTIATION_NS: u64 = 10_000_000_000;

/// How long a connection is hot after something moved on it: about as long as a core
/// polls before it sleeps.
pub(super) const HOT_NS: u64 = 50_000;
/// Hot connections of a core. Each costs a system call in every turn.
const MAX_HOT: usize = 4;

/// All connections that there may be exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many NBD connections (limit {0})")]
pub struct TooMany(pub u16);

struct Entry {
    connection: Connection,
    marked: bool,
    /// When something moved on it last.
    moved_at: Nanos,
}

/// The connections of one core.
pub struct Server {
    entries: Vec<Option<Entry>>,
    /// Numbers to poll in the next run, each once.
    marked: Vec<u16>,
    /// The list that a run works off, kept for its memory.
    turn: Vec<u16>,
    /// Numbers of the hot connections, each once.
    hot: Vec<u16>,
    live: u16,
    stopping: bool,
}

impl Server {
    /// A server of at most `limit` connections.
    pub fn new(limit: u16) -> Server {
        Server {
            entries: (0..limit).map(|_| None).collect(),
            marked: Vec::with_capacity(limit.into()),
            turn: Vec::with_capacity(limit.into()),
            hot: Vec::with_capacity(MAX_HOT),
            live: 0,
            stopping: false,
        }
    }

    /// Takes an accepted nonblocking socket; returns its number.
    ///
    /// # Errors
    /// If the limit is reached; the socket is closed.
    pub fn add(&mut self, socket: Socket, now: Nanos) -> Result<u16, TooMany> {
        let limit = u16::try_from(self.entries.len()).expect("made from a u16");
        let free = (0..limit).find(|&n| self.entries[usize::from(n)].is_none());
        let conn = free.ok_or(TooMany(limit))?;
        let mut connection = Connection::new(socket, conn, now);
        if self.stopping {
            connection.stop();
        }
        self.entries[usize::from(conn)] = Some(Entry { connection, marked: false, moved_at: now });
        self.live += 1;
        self.share();
        self.mark(conn);
        Ok(conn)
    }

    /// The connection of a number.
    pub fn get(&self, conn: u16) -> Option<&Connection> {
        self.entries.get(usize::from(conn))?.as_ref().map(|entry| &entry.connection)
    }

    /// All connections, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Connection)> {
        (0..).zip(&self.entries).filter_map(|(n, e)| Some((n, &e.as_ref()?.connection)))
    }

    /// Connections there are.
    pub fn len(&self) -> u16 {
        self.live
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// No connection is marked: the next run polls hot ones at most.
    pub fn is_idle(&self) -> bool {
        self.marked.is_empty()
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

    /// Routes a completion by its tag.
    ///
    /// # Panics
    /// If no connection has a request with this tag.
    pub fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        let conn = u16::try_from(completion.tag >> 48).expect("16 bits");
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
        mut closing: impl FnMut(u16, &Connection),
    ) -> bool {
        let mut moved = false;
        self.mark_hot(now);
        let before = self.live;
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
                    self.live -= 1;
                    moved = true;
                }
            }
        }
        self.turn.clear();
        if self.live != before {
            self.share();
        }
        moved
    }

    /// Divides the buffers among the connections.
    fn share(&mut self) {
        let share = TOTAL_BUFFER_BYTES / usize::from(self.live.max(1));
        for entry in self.entries.iter_mut().flatten() {
            entry.connection.set_budget(share.clamp(LEAST_BUFFER_BYTES, BUFFER_BYTES));
        }
    }

    /// Hangs up on clients that take longer than [`NEGOTIATION_NS`] to negotiate,
    /// or keep replies or a write's data waiting for longer than [`crate::target::STALL_NS`].
    /// For a timer of about a second.
    pub fn expire(&mut self, now: Nanos, host: &mut impl Host) {
        for conn in 0..u16::try_from(self.entries.len()).expect("made from a u16") {
            let Some(entry) = &mut self.entries[usize::from(conn)] else { continue };
            let since = entry.connection.negotiating_since();
            if since.is_some_and(|opened| now.since(opened) > NEGOTIATION_NS) {
                tracing::info!(conn, "client disconnected: negotiation took too long");
                entry.connection.close(host);
                self.mark(conn);
            } else if entry.connection.is_stalled(now) {
                tracing::info!(conn, "client disconnected: it neither reads nor sends");
                entry.connection.close(host);
                self.mark(conn);
            }
        }
    }

    /// New requests and negotiations are refused from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
        for entry in self.entries.iter_mut().flatten() {
            entry.connection.stop();
        }
    }

    /// Nothing is under way or unanswered on any connection. After
    /// [`Server::stop`]: the engine has no request of any.
    pub fn is_quiet(&self) -> bool {
        self.entries.iter().flatten().all(|entry| entry.connection.is_quiet())
    }

    /// Hangs up on everyone, after the replies that the sockets take at once. Run until [`Server::is_empty`].
    pub fn close(&mut self, host: &mut impl Host) {
        for conn in 0..u16::try_from(self.entries.len()).expect("made from a u16") {
            if let Some(entry) = &mut self.entries[usize::from(conn)] {
                entry.connection.flush(host);
                entry.connection.close(host);
                self.mark(conn);
            }
        }
    }
}
