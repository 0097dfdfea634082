//! The NBD connections of one core.

use super::connection::Connection;
use super::{BUFFER_BYTES, LEAST_BUFFER_BYTES, TOTAL_BUFFER_BYTES};
use crate::request::{Completion, Host};
use crate::target::roster::{Limits, Roster};
use crate::target::socket::Socket;
use crate::units::Nanos;

/// Nanoseconds that a client may take to negotiate.
pub const NEGOTIATION_NS: u64 = 10_000_000_000;

/// All connections that there may be exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many NBD connections (limit {0})")]
pub struct TooMany(pub u16);

/// The NBD connections of one core.
pub type Server = Roster<Connection>;

impl Server {
    /// A server of at most `limit` connections.
    pub fn new(limit: u16) -> Server {
        let (total, most, least) = (TOTAL_BUFFER_BYTES, BUFFER_BYTES, LEAST_BUFFER_BYTES);
        Roster::with_limits(limit, Limits { total, most, least })
    }

    /// Takes an accepted nonblocking socket; returns its number.
    ///
    /// # Errors
    /// If the limit is reached; the socket is closed.
    pub fn add(&mut self, socket: Socket, now: Nanos) -> Result<u16, TooMany> {
        let conn = self.vacant().ok_or(TooMany(self.limit()))?;
        self.insert(conn, Connection::new(socket, conn, now), now);
        Ok(conn)
    }

    /// Routes a completion by its tag.
    ///
    /// # Panics
    /// If no connection has a request with this tag.
    pub fn route(&mut self, completion: Completion, host: &mut impl Host) {
        let conn = u16::try_from(completion.tag >> 48).expect("16 bits");
        self.complete(conn, completion, host);
    }
}
