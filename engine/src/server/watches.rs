//! Which sockets of a target are watched, and for what.

use crate::core::watch::{Interest, Watch, WatchId};
use crate::target::roster::{Member, Roster};

/// The watched sockets of one target, by connection.
pub(super) struct Watches {
    /// Its events carry this and the connection's number.
    token: u64,
    list: Vec<Option<(WatchId, Interest)>>,
}

impl Watches {
    /// Of a target with at most `connections`.
    pub(super) fn new(token: u64, connections: u16) -> Watches {
        Watches { token, list: vec![None; connections.into()] }
    }

    /// Watches sockets that are not polled anyway; for writability only where a send is stuck.
    pub(super) fn update<C: Member>(&mut self, roster: &Roster<C>, watch: &mut Watch) {
        for (conn, connection) in roster.iter() {
            let stuck = connection.wants_write();
            let interest = (!roster.hot().contains(&conn)).then_some(if stuck {
                Interest::ReadWrite
            } else {
                Interest::Read
            });
            let slot = &mut self.list[usize::from(conn)];
            if slot.map(|(_, now)| now) == interest {
                continue;
            }
            if let Some((id, _)) = slot.take() {
                drop(watch.remove(id));
            }
            let Some(interest) = interest else { continue };
            match watch.add(connection.fd(), interest, self.token + u64::from(conn)) {
                Ok(id) => *slot = Some((id, interest)),
                Err(error) => tracing::error!(%error, conn, "cannot watch a connection"),
            }
        }
    }

    /// The connection is about to close its socket.
    pub(super) fn forget(&mut self, conn: u16, watch: &mut Watch) {
        if let Some((id, _)) = self.list[usize::from(conn)].take()
            && let Err(error) = watch.remove(id)
        {
            tracing::warn!(%error, conn, "a closed connection stays watched");
        }
    }
}
