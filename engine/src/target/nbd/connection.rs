//! One client's socket, from accept to close.
//!
//! Nonblocking, and driven by the reactor: [`Member::poll`] when the socket
//! is ready or something else changed, [`Member::complete`] for the engine's
//! answers (the connection's number is in the tag's high 16 bits). One `readv`
//! takes what there is, one `writev` sends many replies straight from engine
//! buffers; partial sends go on later.
//!
//! A connection whose client is gone lingers until the engine has answered all
//! that it asked.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::handshake::{Handshake, Step, Violation};
use super::server::NEGOTIATION_NS;
use super::session::Session;
use super::{BUFFER_BYTES, RECEIVE_BYTES};
use crate::request::{Completion, Host};
use crate::target::roster::{Member, Progress};
use crate::target::socket::{Socket, ready};
use crate::target::stall::Stall;
use crate::units::{Nanos, VolumeId};

/// Reads of the socket in one [`Member::poll`]: others want their turn.
const READS_PER_POLL: usize = 4;

/// Writes, messages and reads of a negotiation in one [`Member::poll`].
const STEPS_PER_POLL: usize = 16;
/// Messages of a negotiation; clients need a handful.
const MESSAGES: u32 = 1000;

/// Why a client was disconnected.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Protocol(#[from] Violation),
    #[error("more than {MESSAGES} messages in the negotiation")]
    Endless,
    #[error(transparent)]
    Socket(#[from] io::Error),
}

enum State {
    Negotiating(Box<Negotiation>),
    Transmitting(Box<Session>),
    Closed,
}

struct Negotiation {
    handshake: Handshake,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Messages that were answered.
    messages: u32,
    /// Where to go when the output is sent.
    next: Option<Step>,
}

/// One client's connection.
pub struct Connection {
    socket: Socket,
    conn: u16,
    opened: Nanos,
    state: State,
    send_blocked: bool,
    stopping: bool,
    budget: usize,
    unread: Stall,
    unsent: Stall,
}

impl Connection {
    /// Serves a nonblocking socket accepted at `now`, under the number `conn`.
    pub fn new(socket: Socket, conn: u16, now: Nanos) -> Connection {
        let mut output = Vec::new();
        let handshake = Handshake::start(&mut output);
        let input = Vec::with_capacity(RECEIVE_BYTES);
        let negotiation =
            Negotiation { handshake, input, output, sent: 0, messages: 0, next: None };
        Connection {
            socket,
            conn,
            opened: now,
            state: State::Negotiating(Box::new(negotiation)),
            send_blocked: false,
            stopping: false,
            budget: BUFFER_BYTES,
            unread: Stall::default(),
            unsent: Stall::default(),
        }
    }

    /// The volume it has open; `None` before and after.
    pub fn volume(&self) -> Option<VolumeId> {
        match &self.state {
            State::Transmitting(session) => Some(session.export.volume.id),
            State::Negotiating(_) | State::Closed => None,
        }
    }

    fn progress(&mut self, moved: bool) -> Progress {
        match &self.state {
            State::Transmitting(session) if session.is_finished() => Progress::Finished,
            State::Transmitting(session) => {
                self.send_blocked = session.has_output();
                if moved {
                    Progress::Moved
                } else if session.is_starved() {
                    Progress::Starved
                } else {
                    Progress::Waiting
                }
            }
            State::Closed => Progress::Finished,
            State::Negotiating(_) => Progress::Waiting,
        }
    }

    /// It makes sense to wait until the socket can be read.
    pub fn wants_read(&self) -> bool {
        match &self.state {
            State::Negotiating(negotiation) => negotiation.sent == negotiation.output.len(),
            State::Transmitting(session) => session.wants_input(),
            State::Closed => false,
        }
    }

    /// When it was accepted, if it still negotiates.
    pub fn negotiating_since(&self) -> Option<Nanos> {
        matches!(self.state, State::Negotiating(_)).then_some(self.opened)
    }

    /// The client has left its replies unread or a write half sent
    /// for [`crate::target::STALL_NS`], as seen from calls of about one a second.
    pub fn is_stalled(&mut self, now: Nanos) -> bool {
        let State::Transmitting(session) = &self.state else { return false };
        let unread = self.unread.too_long(session.unread(), now);
        let unsent = self.unsent.too_long(session.unsent(), now);
        unread || unsent
    }

    fn hang_up(&mut self, broken: &Broken, host: &mut impl Host) {
        tracing::info!(conn = self.conn, "client disconnected: {broken}");
        self.close(host);
    }
}

impl Member for Connection {
    fn poll(&mut self, host: &mut impl Host) -> Progress {
        self.send_blocked = false;
        let mut moved = false;
        if let State::Negotiating(negotiation) = &mut self.state {
            match negotiation.run(&mut self.socket, host, self.stopping) {
                Ok(None) => {
                    self.send_blocked = negotiation.sent < negotiation.output.len();
                    return Progress::Waiting;
                }
                Ok(Some(Step::Continue)) => return Progress::Moved,
                Ok(Some(Step::Ready(export))) => {
                    tracing::debug!(conn = self.conn, volume = %export.volume.name, "connected");
                    let mut session = Session::new(self.conn, export, &negotiation.input);
                    session.set_budget(self.budget);
                    if self.stopping {
                        session.stop();
                    }
                    self.state = State::Transmitting(Box::new(session));
                    moved = true;
                }
                Ok(Some(_)) => self.state = State::Closed,
                Err(broken) => self.hang_up(&broken, host),
            }
        }
        if let State::Transmitting(session) = &mut self.state {
            match transmit(session, &mut self.socket, host) {
                Ok(more) => moved |= more,
                Err(broken) => self.hang_up(&broken, host),
            }
        }
        self.progress(moved)
    }

    fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        match &mut self.state {
            State::Transmitting(session) => session.complete(completion, host),
            _ => panic!("only a session has requests under way"),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn wants_write(&self) -> bool {
        self.send_blocked
    }

    fn has_deadline(&self) -> bool {
        self.negotiating_since().is_some()
    }

    fn overdue(&mut self, now: Nanos) -> Option<&'static str> {
        let since = self.negotiating_since();
        if since.is_some_and(|opened| now.since(opened) > NEGOTIATION_NS) {
            Some("negotiation took too long")
        } else if self.is_stalled(now) {
            Some("it neither reads nor sends")
        } else {
            None
        }
    }

    fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
        if let State::Transmitting(session) = &mut self.state {
            session.set_budget(bytes);
        }
    }

    fn flush(&mut self, host: &mut impl Host) {
        let State::Transmitting(session) = &mut self.state else { return };
        // The caller closes the connection next: an error changes nothing.
        let _ = send(session, &mut self.socket, host);
    }

    fn stop(&mut self) {
        self.stopping = true;
        if let State::Transmitting(session) = &mut self.state {
            session.stop();
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.state {
            State::Transmitting(session) => session.is_quiet(),
            _ => true,
        }
    }

    fn close(&mut self, host: &mut impl Host) {
        self.socket.shutdown();
        match &mut self.state {
            State::Transmitting(session) => session.abort(host),
            state => *state = State::Closed,
        }
    }
}

impl Negotiation {
    /// `None`: the socket is not ready. [`Step::Continue`]: it is, but others
    /// want their turn. Otherwise the end of the negotiation.
    fn run(
        &mut self,
        socket: &mut Socket,
        host: &impl Host,
        stopping: bool,
    ) -> Result<Option<Step>, Broken> {
        for _ in 0..STEPS_PER_POLL {
            while self.sent < self.output.len() {
                match ready(socket.write(&self.output[self.sent..]))? {
                    Some(n) => self.sent += n,
                    None => return Ok(None),
                }
            }
            self.output.clear();
            self.sent = 0;
            if let Some(next) = self.next.take() {
                return Ok(Some(next));
            }
            let (consumed, step) =
                self.handshake.step(&self.input, host.volumes(), stopping, &mut self.output)?;
            self.input.drain(..consumed);
            match step {
                Step::Continue => {
                    self.messages += 1;
                    if self.messages > MESSAGES {
                        return Err(Broken::Endless);
                    }
                }
                Step::NeedMore => {
                    let held = self.input.len();
                    self.input.resize(RECEIVE_BYTES, 0);
                    let got = ready(socket.read(&mut self.input[held..]));
                    self.input.truncate(held + got.as_ref().map_or(0, |n| n.unwrap_or(0)));
                    match got? {
                        Some(0) => return Ok(Some(Step::Closed)),
                        Some(_) => {}
                        None => return Ok(None),
                    }
                }
                end => self.next = Some(end),
            }
        }
        Ok(Some(Step::Continue))
    }
}

/// Receives, has it worked on, sends; true if anything moved.
fn transmit(
    session: &mut Session,
    socket: &mut Socket,
    host: &mut impl Host,
) -> Result<bool, Broken> {
    session.pump(host)?;
    let mut moved = false;
    for _ in 0..READS_PER_POLL {
        let Some(mut space) = session.space(host) else { break };
        let room = space[0].len() + space[1].len();
        let Some(n) = ready(socket.read_vectored(&mut space))? else { break };
        if n == 0 {
            session.end_of_input(host);
            break;
        }
        moved = true;
        session.received(n);
        session.pump(host)?;
        if n < room {
            break;
        }
    }
    moved |= send(session, socket, host)?;
    if moved {
        session.pump(host)?;
    }
    Ok(moved)
}

/// Sends what the socket takes; true if anything moved.
fn send(
    session: &mut Session,
    socket: &mut Socket,
    host: &mut impl Host,
) -> Result<bool, io::Error> {
    let mut moved = false;
    while session.has_output() {
        let Some(n) = ready(socket.write_vectored(&session.slices(host)))? else { break };
        session.sent(n, host);
        moved = true;
    }
    Ok(moved)
}
