//! The NVMe/TCP I/O queues of one core.

use std::sync::Arc;

use super::connection::Connection;
use super::queue::{BUFFER_BYTES, LEAST_BUFFER_BYTES};
use super::{AssociationId, EndReason, Namespaces, NewQueue, QueueEnd};
use crate::request::{Completion, Host};
use crate::target::roster::{Limits, Member, Roster};
use crate::target::socket::Socket;
use crate::units::Nanos;

/// Bytes of engine buffers that the queues of a core share evenly.
const TOTAL_BUFFER_BYTES: usize = 64 << 20;
/// The high bits of the tags of all requests of this target. NBD's have the top bit clear;
/// those of a load have all of the high 16 bits set.
const TAG: u64 = 0b10 << 62;
/// Where the connection's number stands in a tag.
const CONN_SHIFT: u32 = 48;

/// The I/O queues of one core.
pub type Server = Roster<Connection<Socket>>;

impl Server {
    /// A server of at most `limit` queues.
    ///
    /// # Panics
    /// If tags cannot number so many.
    pub fn new(limit: u16) -> Server {
        assert!(limit < 1 << 14, "a connection's number has 14 bits");
        let (total, most, least) = (TOTAL_BUFFER_BYTES, BUFFER_BYTES, LEAST_BUFFER_BYTES);
        Roster::with_limits(limit, Limits { total, most, least })
    }

    /// True if the tag is of a request of this target.
    pub fn is_tag(tag: u64) -> bool {
        tag >> 62 == TAG >> 62
    }

    /// Takes a queue. One too many ends at once, which its owner hears.
    pub fn add(&mut self, new: NewQueue, now: Nanos) {
        match self.vacant() {
            Some(conn) => {
                let tag = TAG | u64::from(conn) << CONN_SHIFT;
                self.insert(conn, Connection::new(new, tag), now);
            }
            None => {
                let (association, qid, reason) = (new.association, new.qid, EndReason::TooMany);
                (new.on_end)(QueueEnd { association, qid, reason });
            }
        }
    }

    /// Hangs up on the queues of an association.
    pub fn drop_association(&mut self, association: AssociationId, host: &mut impl Host) {
        for conn in self.of(association) {
            let connection = self.get_mut(conn).expect("just found");
            connection.flush(host);
            connection.end(EndReason::Dropped, host);
            self.mark(conn);
        }
    }

    /// Replaces what the queues of an association may reach.
    pub fn set_namespaces(&mut self, association: AssociationId, namespaces: &Arc<Namespaces>) {
        for conn in self.of(association) {
            let connection = self.get_mut(conn).expect("just found");
            connection.set_namespaces(Arc::clone(namespaces));
        }
    }

    fn of(&self, association: AssociationId) -> Vec<u16> {
        let of = self.iter().filter(|(_, connection)| connection.association() == association);
        of.map(|(conn, _)| conn).collect()
    }

    /// Routes a completion by its tag.
    ///
    /// # Panics
    /// If no queue has a request with this tag.
    pub fn route(&mut self, completion: Completion, host: &mut impl Host) {
        let conn = u16::try_from(completion.tag >> CONN_SHIFT & 0x3fff).expect("14 bits");
        self.complete(conn, completion, host);
    }
}
