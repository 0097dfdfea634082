//! One I/O queue's stream, from its arrival on the core to its close.
//!
//! Nonblocking, and driven by the roster. One `readv` takes what there is, one `writev` sends
//! many responses and their data straight from engine buffers. A connection that is lost, or
//! whose host broke the protocol, lingers until the engine has answered all that was asked;
//! in the latter case also until the host has read why (TCP 3.5), for at most
//! [`TERMINATE_SECONDS`].

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nvme::tcp::{Fatal, TERMINATE_SECONDS};

use super::queue::{Queue, Setup};
use super::transport::{self, Input};
use super::{AssociationId, EndReason, Namespaces, NewQueue, QueueCounters, QueueEnd};
use crate::request::{Completion, Host};
use crate::target::roster::{Member, Progress};
use crate::target::socket::{Socket, ready};
use crate::target::stall::Stall;
use crate::units::Nanos;

/// Reads of the stream in one poll: others want their turn.
const READS_PER_POLL: usize = 4;
/// Bytes read from a host that is to hang up, in one call.
const DRAIN_BYTES: usize = 4096;

/// A nonblocking stream that can be closed for writing.
pub trait Stream: Read + Write + AsFd {
    /// Sends no more; `both`: and receives no more.
    fn shutdown(&self, both: bool);
}

impl Stream for Socket {
    fn shutdown(&self, both: bool) {
        if both {
            Socket::shutdown(self);
        } else {
            self.shutdown_write();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The host is being told what it did, and then to hang up; since then.
    Terminating(Option<Nanos>),
    /// The stream is shut.
    Closed,
}

/// One I/O queue and its stream.
pub struct Connection<S> {
    stream: S,
    queue: Queue,
    state: State,
    reason: EndReason,
    association: AssociationId,
    qid: u16,
    host_nqn: Arc<str>,
    counters: Arc<QueueCounters>,
    on_end: Option<Box<dyn FnOnce(QueueEnd) + Send>>,
    unread: Stall,
    unsent: Stall,
}

impl Connection<Socket> {
    /// Serves a queue that has come from the fabric thread, with `tag` in its requests.
    pub fn new(new: NewQueue, tag: u64) -> Self {
        let queue = Queue::new(Setup::of(&new, tag), &new.received);
        Connection {
            stream: new.socket,
            queue,
            state: State::Open,
            reason: EndReason::Closed,
            association: new.association,
            qid: new.qid,
            host_nqn: new.host_nqn,
            counters: new.counters,
            on_end: Some(new.on_end),
            unread: Stall::default(),
            unsent: Stall::default(),
        }
    }
}

impl<S: Stream> Connection<S> {
    /// Whose it is.
    pub fn association(&self) -> AssociationId {
        self.association
    }

    /// Its identifier.
    pub fn qid(&self) -> u16 {
        self.qid
    }

    /// The host's name.
    pub fn host_nqn(&self) -> &str {
        &self.host_nqn
    }

    /// What it has done.
    pub fn counters(&self) -> &QueueCounters {
        &self.counters
    }

    /// What it may reach from now on.
    pub fn set_namespaces(&mut self, namespaces: Arc<Namespaces>) {
        self.queue.set_namespaces(namespaces);
    }

    /// Hangs up for a reason of the fabric thread's, or of the server's.
    pub fn end(&mut self, reason: EndReason, host: &mut impl Host) {
        self.give_up(reason, host);
    }

    fn give_up(&mut self, reason: EndReason, host: &mut impl Host) {
        if self.state == State::Open {
            self.reason = reason;
        }
        self.stream.shutdown(true);
        self.queue.abort(host);
        self.state = State::Closed;
    }

    /// Tells the host what it did.
    fn terminate(&mut self, fatal: Fatal, host: &mut impl Host) {
        if self.queue.sender.is_inside_pdu() {
            // What it is to read now would be taken for the rest of another PDU.
            return self.give_up(EndReason::Violation(fatal), host);
        }
        self.reason = EndReason::Violation(fatal);
        self.queue.abort(host);
        let Queue { receiver, sender, .. } = &mut self.queue;
        sender.terminate(fatal, receiver.offender(), Queue::LAST_WORD);
        self.state = State::Terminating(None);
    }

    /// Receives, has it worked on, sends; true if anything moved.
    fn transmit(&mut self, host: &mut impl Host) -> io::Result<bool> {
        let mut moved = self.pump(host);
        // What is answered need not wait for a look at what is asked.
        moved |= self.send(host)?;
        for _ in 0..READS_PER_POLL {
            if self.state != State::Open || !self.queue.wants_input() {
                break;
            }
            match transport::receive(&mut self.stream, &mut self.queue.receiver, host)? {
                Input::Nothing => break,
                Input::End => {
                    self.give_up(EndReason::Closed, host);
                    return Ok(true);
                }
                Input::Bytes { full } => {
                    moved = true;
                    self.pump(host);
                    if !full {
                        break;
                    }
                }
            }
        }
        if self.send(host)? {
            moved = true;
            self.pump(host);
        }
        Ok(moved)
    }

    /// True if the connection goes on in another state.
    fn pump(&mut self, host: &mut impl Host) -> bool {
        if self.state != State::Open {
            return false;
        }
        if let Err(fatal) = self.queue.pump(host) {
            self.terminate(fatal, host);
            return true;
        }
        if let Some(fatal) = self.queue.terminated() {
            self.give_up(EndReason::Terminated(fatal), host);
            return true;
        }
        false
    }

    fn send(&mut self, host: &mut impl Host) -> io::Result<bool> {
        let mut moved = false;
        while transport::send(&mut self.stream, &mut self.queue.sender, host)? {
            self.queue.retire(host);
            moved = true;
        }
        Ok(moved)
    }

    /// Sends the last word, then waits for the host to hang up.
    fn linger(&mut self, host: &mut impl Host) -> io::Result<bool> {
        let moved = self.send(host)?;
        if self.queue.sender.has_output() {
            return Ok(moved);
        }
        self.stream.shutdown(false);
        let mut bytes = [0; DRAIN_BYTES];
        for _ in 0..READS_PER_POLL {
            match ready(self.stream.read(&mut bytes))? {
                None => return Ok(moved),
                Some(0) => {
                    self.stream.shutdown(true);
                    self.state = State::Closed;
                    return Ok(true);
                }
                Some(_) => {}
            }
        }
        Ok(true)
    }
}

impl<S: Stream> Member for Connection<S> {
    fn poll(&mut self, host: &mut impl Host) -> Progress {
        let moved = match self.state {
            State::Open => self.transmit(host),
            State::Terminating(_) => self.linger(host),
            State::Closed => Ok(false),
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                self.give_up(EndReason::Lost(error.kind()), host);
                true
            }
        };
        if self.state == State::Closed && self.queue.is_finished() {
            Progress::Finished
        } else if moved {
            Progress::Moved
        } else if self.queue.is_starved() {
            Progress::Starved
        } else {
            Progress::Waiting
        }
    }

    fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        self.queue.complete(completion, host);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn wants_write(&self) -> bool {
        self.queue.sender.has_output()
    }

    fn has_deadline(&self) -> bool {
        matches!(self.state, State::Terminating(_))
    }

    fn overdue(&mut self, now: Nanos) -> Option<&'static str> {
        match &mut self.state {
            State::Open => {
                let unread = self.unread.too_long(self.queue.unread(), now);
                let unsent = self.unsent.too_long(self.queue.unsent(), now);
                let stalled = unread || unsent;
                if stalled {
                    self.reason = EndReason::Stalled;
                }
                stalled.then_some("it neither reads nor sends")
            }
            State::Terminating(since) => {
                let since = *since.get_or_insert(now);
                let late = now.since(since) > TERMINATE_SECONDS * 1_000_000_000;
                late.then_some("it does not hang up after it broke the protocol")
            }
            State::Closed => None,
        }
    }

    fn set_budget(&mut self, bytes: usize) {
        self.queue.set_budget(bytes);
    }

    fn flush(&mut self, host: &mut impl Host) {
        // The caller closes the connection next: an error changes nothing.
        let _ = self.send(host);
    }

    fn stop(&mut self) {
        self.queue.stop();
    }

    fn is_quiet(&self) -> bool {
        self.queue.is_quiet()
    }

    fn close(&mut self, host: &mut impl Host) {
        let reason = match self.reason {
            EndReason::Closed => EndReason::Stopped,
            reason => reason,
        };
        self.give_up(reason, host);
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let Self { association, qid, reason, .. } = *self;
        let expected = matches!(
            reason,
            EndReason::Closed | EndReason::Dropped | EndReason::Stopped | EndReason::TooMany
        );
        if !expected {
            tracing::info!(host = %self.host_nqn, qid, "I/O queue disconnected: {reason}");
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(QueueEnd { association, qid, reason });
        }
    }
}
