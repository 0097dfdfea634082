//! The fabric thread: everything of the target that several connections share.
//!
//! One unpinned thread owns the listeners, connections before Connect, admin queues with
//! their controllers, and the registry of what is exported. It sleeps in `epoll` when there
//! is nothing to do, and looks at its timers once a second while somebody is connected.
//!
//! ```text
//! accept ─► Fresh ─► ICReq ─► Connect ─┬─ qid 0 ─► Admin: commands ─► controller
//!                                      ├─ qid n ─► Leaving: response sent ─► core
//!                                      ├─ qid n in use ─► Waiting until the old queue has ended
//!                                      └─ refused, or a violation ─► Closing
//! ```
//!
//! Invariants:
//! - an I/O queue is counted at its core from the moment it is granted until its
//!   [`QueueEnd`] has come, so that no core ever gets more than [`QUEUES_PER_CORE`];
//! - a queue identifier of an association is used again only after that;
//! - a change of what is exported is on the disk before it is seen;
//! - connections that are no admin queue, before Connect or after a hang-up, are at most
//!   [`MAX_FRESH`], and the former live [`CONNECT_NS`].
//!
//! Others reach it by [`Handle`], which runs a closure on the thread. It reaches cores by
//! [`Cores`]. No data of a volume ever passes here.
//!
//! [`QUEUES_PER_CORE`]: super::QUEUES_PER_CORE

mod admit;
mod association;
mod complaint;
pub mod connect;
mod connection;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod link;
pub mod listener;
pub mod manage;
pub mod report;
mod service;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::{AssociationId, Namespaces, NewQueue, QueueEnd};
use crate::units::CoreId;

pub use listener::ListenError;
pub use service::{Service, StartError};

/// Connections that there may be beside admin queues.
pub const MAX_FRESH: usize = 1024;
/// Admin queues that there may be.
pub const MAX_ASSOCIATIONS: usize = 4096;
/// Nanoseconds from accept to Connect.
pub const CONNECT_NS: u64 = 10_000_000_000;
/// Nanoseconds that a Connect waits for an earlier queue of its number to end.
pub const DUPLICATE_NS: u64 = 2_000_000_000;
/// Nanoseconds that a host has to read why it was disconnected.
pub const LINGER_NS: u64 = nvme::tcp::TERMINATE_SECONDS * 1_000_000_000;
/// I/O queues of one association at most.
pub const MAX_IO_QUEUES: u16 = 128;

/// The cores, as the fabric thread sees them.
pub trait Cores: Send {
    /// How many there are.
    fn count(&self) -> u8;
    /// Hands a queue over.
    fn add(&self, core: CoreId, queue: NewQueue);
    /// All queues of an association on the core end.
    fn drop_association(&self, core: CoreId, association: AssociationId);
    /// What the queues of an association on the core reach from now on.
    fn set_namespaces(&self, core: CoreId, association: AssociationId, namespaces: Arc<Namespaces>);
}

/// How the thread is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `nvmf.json` is.
    pub data_dir: PathBuf,
    /// Listeners for everything.
    pub listen: Vec<SocketAddr>,
    /// Listeners for discovery alone.
    pub discovery: Vec<SocketAddr>,
    /// Listeners beyond this host are allowed.
    pub insecure: bool,
}

/// What the thread is told.
pub(super) enum Message {
    /// Run this.
    Call(Box<dyn FnOnce(&mut Service) + Send>),
    /// An I/O queue has ended.
    Ended(QueueEnd),
    /// End.
    Stop,
}

/// Reaches the fabric thread.
#[derive(Clone)]
pub struct Handle {
    inbox: Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl Handle {
    fn send(&self, message: Message) {
        // A thread that is gone needs no telling.
        if self.inbox.send(message).is_ok() {
            // A full counter means that the thread has been woken already.
            let _ = rustix::io::write(&*self.wake, &[1; 8]);
        }
    }

    /// Runs `work` on the thread and returns what it returns; `None` if the thread ends.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Service) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = channel();
        self.send(Message::Call(Box::new(move |service| {
            // The caller may have given up.
            let _ = done.send(work(service));
        })));
        result.recv().ok()
    }

    /// An I/O queue has ended. Never blocks.
    pub fn ended(&self, end: QueueEnd) {
        self.send(Message::Ended(end));
    }

    /// Asks the thread to hang up on everyone and to end.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }
}
