//! The transmission phase of one connection, sans-IO.
//!
//! The connection's driver moves bytes, the session decides:
//! [`Session::space`] says where the next bytes from the client go and
//! [`Session::received`] takes note of them, [`Session::pump`] turns them into
//! engine requests, [`Session::complete`] turns completions into replies, and
//! [`Session::slices`] with [`Session::sent`] hands those out.
//!
//! A *command* is one NBD request, a *piece* one engine request of it: a window,
//! or a segment for a block status. Commands that send data take turns, piece by
//! piece, so that a long read does not starve a short one; the last two of a
//! command go together. Replies leave in the order of completion; `stream` has the
//! one exception.
//!
//! Invariants:
//! - a command is in the issue queue exactly while pieces of it are to come
//!   (writes excepted: they come from the socket);
//! - a command that gave up leaves its slot when its last piece has completed;
//! - `buffered` is the sum of the buffers of pieces and replies;
//! - once dead, a session sends nothing and keeps only what the engine has.

use std::io::IoSlice;

use smallvec::SmallVec;

use super::command::{Command, Failed, Kind};
use super::export::Export;
use super::receive::Receiver;
use super::reply::{Body, Head, Output, Reply, SEND_SLICES};
use super::stream::Stream;
use super::{BUFFER_BYTES, COMMANDS, LEAST_BUFFER_BYTES, PIECES};
use crate::request::{Buf, Completion, Host};
use crate::target::slots::{Queue, Slots};
use crate::units::BLOCK_BYTES;

/// One engine request.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) command: u16,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// Bytes that its buffer takes from the arena, 0 for none.
    pub(super) buffer_bytes: usize,
    pub(super) state: PieceState,
}

#[derive(Debug)]
pub(super) enum PieceState {
    /// Being received, or its reply waits to be sent.
    Ours,
    /// The engine has it.
    InFlight,
    /// Completed ahead of its turn in a stream.
    Waiting(Buf),
}

/// How far a session is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The client sends nothing more; what it asked for is still answered.
    Draining,
    /// The connection is lost or broken; the engine's answers are awaited.
    Dead,
}

/// The transmission phase of one connection.
pub struct Session {
    pub(super) conn: u16,
    pub(super) export: Export,
    pub(super) receiver: Receiver,
    pub(super) commands: Slots<Command>,
    pub(super) pieces: Slots<Piece>,
    pub(super) issue: Queue<u16>,
    pub(super) stream: Option<Stream>,
    /// The stream's pieces, in the order of their offsets.
    pub(super) stream_order: Queue<u16>,
    pub(super) output: Output,
    pub(super) buffered: usize,
    /// Most that `buffered` may grow to.
    budget: usize,
    /// Bytes of replies that were ever sent.
    sent_bytes: u64,
    /// Pieces whose data goes to the client, until it is sent.
    pub(super) outbound: u16,
    pub(super) phase: Phase,
    pub(super) stopping: bool,
    /// The host could not take or give something: pump again later.
    pub(super) starved: bool,
}

impl Session {
    /// A session that numbers its engine requests with `conn` in the high 16
    /// bits of the tag; `received` is what the client sent ahead.
    pub fn new(conn: u16, export: Export, received: &[u8]) -> Session {
        Session {
            conn,
            export,
            receiver: Receiver::new(received),
            commands: Slots::new(COMMANDS),
            pieces: Slots::new(PIECES),
            issue: Queue::new(usize::from(COMMANDS)),
            stream: None,
            stream_order: Queue::new(usize::from(PIECES)),
            output: Output::new(),
            buffered: 0,
            budget: BUFFER_BYTES,
            sent_bytes: 0,
            outbound: 0,
            phase: Phase::Open,
            stopping: false,
            starved: false,
        }
    }

    /// What was negotiated.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Turns what was received into engine requests, as far as there is room.
    ///
    /// # Errors
    /// When the client broke the protocol; the session is dead then.
    pub fn pump(&mut self, host: &mut impl Host) -> Result<(), super::handshake::Violation> {
        self.starved = false;
        let parsed = self.parse(host);
        if parsed.is_err() {
            self.abort(host);
        }
        self.issue(host);
        parsed
    }

    /// Takes the completion of a request of this session.
    ///
    /// # Panics
    /// If the tag is not of a request under way.
    pub fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        let index = u16::try_from(completion.tag & 0xffff).expect("masked");
        let piece = self.pieces.get_mut(index);
        assert!(matches!(piece.state, PieceState::InFlight), "completed once");
        piece.state = PieceState::Ours;
        let (number, offset) = (piece.command, piece.offset);
        let command = self.commands.get_mut(number);
        command.in_flight -= 1;
        let (kind, streamed) = (command.kind, command.streamed);
        if self.phase == Phase::Dead {
            self.drop_piece(index, completion.buf, host);
            if self.commands.get(number).in_flight == 0 {
                self.commands.remove(number);
            }
            return;
        }
        let failed = completion.result.err().map(|failure| Failed::of(kind, failure, offset));
        if let Some(failed) = failed {
            command.failed.get_or_insert(failed);
        }
        match (kind, completion.buf) {
            (Kind::Read, Some(buf)) if streamed => {
                self.streamed(index, buf, completion.result, host)
            }
            (Kind::Read, Some(buf)) => self.read_done(index, buf, failed, host),
            (Kind::Status { one }, Some(buf)) if failed.is_none() => {
                self.status_done(index, buf, one, host);
            }
            (_, buf) => {
                self.drop_piece(index, buf, host);
                self.settle(number);
            }
        }
    }

    /// What to send next; empty if there is nothing.
    pub fn slices<'a>(&'a self, host: &'a impl Host) -> SmallVec<[IoSlice<'a>; SEND_SLICES]> {
        self.output.slices(host)
    }

    /// Notes that the first `bytes` of [`Session::slices`] were sent.
    pub fn sent(&mut self, bytes: usize, host: &mut impl Host) {
        self.output.advance(bytes);
        self.sent_bytes += bytes as u64;
        while let Some(reply) = self.output.pop_sent() {
            self.retire(reply, host);
        }
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The last [`Session::pump`] ended for want of the host's room or buffers.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// From now on requests are refused with `ESHUTDOWN`.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// No request is under way or unanswered. When stopping, it is enough that
    /// the engine has none: a client that sends or reads no more holds up no stop.
    pub fn is_quiet(&self) -> bool {
        let with_engine =
            |index| self.commands.contains(index) && self.commands.get(index).in_flight > 0;
        self.commands.is_empty() || self.stopping && !self.commands.indices().any(with_engine)
    }

    /// Bounds the buffers that it takes from now on.
    pub(super) fn set_budget(&mut self, bytes: usize) {
        assert!(bytes >= LEAST_BUFFER_BYTES, "any one piece fits");
        self.budget = bytes;
    }

    /// Bytes sent so far, if more wait for the client to read.
    pub(super) fn unread(&self) -> Option<u64> {
        self.has_output().then_some(self.sent_bytes)
    }

    /// Nothing is left to do: the connection may close.
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Open && self.commands.is_empty()
    }

    /// The client hung up: answers what it asked for, takes nothing more.
    pub fn end_of_input(&mut self, host: &mut impl Host) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.abandon_payload(host);
        }
    }

    /// Gives the connection up: drops what is not with the engine.
    pub fn abort(&mut self, host: &mut impl Host) {
        if self.phase == Phase::Dead {
            return;
        }
        self.abandon_payload(host);
        self.phase = Phase::Dead;
        while let Some(reply) = self.output.discard() {
            if let Some(body) = reply.body {
                host.free(body.buf);
            }
        }
        while self.issue.pop().is_some() {}
        while self.stream_order.pop().is_some() {}
        self.stream = None;
        for index in self.pieces.indices() {
            let in_flight = |piece: &Piece| matches!(piece.state, PieceState::InFlight);
            if !self.pieces.contains(index) || in_flight(self.pieces.get(index)) {
                continue;
            }
            if let PieceState::Waiting(buf) = self.pieces.remove(index).state {
                host.free(buf);
            }
        }
        for index in self.commands.indices() {
            if self.commands.contains(index) && self.commands.get(index).in_flight == 0 {
                self.commands.remove(index);
            }
        }
    }

    /// A buffer within this connection's share.
    pub(super) fn take_buffer(&mut self, bytes: usize, host: &mut impl Host) -> Option<Buf> {
        if self.buffered + charge(bytes) > self.budget {
            return None;
        }
        let buf = host.alloc(bytes);
        match buf {
            Some(_) => self.buffered += charge(bytes),
            None => self.starved = true,
        }
        buf
    }

    /// A piece has ended: its slot and its buffer are free again.
    pub(super) fn drop_piece(&mut self, index: u16, buf: Option<Buf>, host: &mut impl Host) {
        let piece = self.pieces.remove(index);
        assert!(matches!(piece.state, PieceState::Ours), "no piece is dropped under the engine");
        self.buffered -= piece.buffer_bytes;
        // Of a dead session, commands that the engine no longer has are gone.
        if self.commands.get(piece.command).kind.sends_data() {
            self.outbound -= 1;
        }
        if let Some(buf) = buf {
            host.free(buf);
        }
    }

    /// Answers a command that has no data to send, if it has ended.
    pub(super) fn settle(&mut self, number: u16) {
        let command = self.commands.get(number);
        if !command.ended() {
            return;
        }
        let (cookie, structured) = (command.cookie, self.export.structured);
        let head = match command.failed {
            Some(failed) if structured => Head::error(cookie, failed),
            Some(failed) => Head::simple(cookie, failed.errno.get()),
            None if structured && command.kind == Kind::Read => Head::none(cookie),
            None => Head::simple(cookie, 0),
        };
        self.reply(Reply { head, body: None, piece: None, command: Some(number) });
    }

    /// Queues a reply that is no part of a stream.
    pub(super) fn reply(&mut self, reply: Reply) {
        if self.stream.as_ref().is_some_and(|stream| stream.open) {
            self.output.hold(reply);
        } else {
            self.output.push(reply);
        }
    }

    fn retire(&mut self, reply: Reply, host: &mut impl Host) {
        if let Some(piece) = reply.piece {
            self.drop_piece(piece, reply.body.map(|body| body.buf), host);
        }
        if let Some(command) = reply.command {
            self.commands.remove(command);
        }
    }

    /// A piece of a read whose pieces may be answered in any order.
    fn read_done(&mut self, index: u16, buf: Buf, failed: Option<Failed>, host: &mut impl Host) {
        let piece = self.pieces.get(index);
        let (number, offset, length) = (piece.command, piece.offset, piece.length);
        let command = self.commands.get(number);
        let (cookie, done) = (command.cookie, command.ended());
        let (head, body) = match failed {
            None => {
                let head = if self.export.structured {
                    Head::data(cookie, offset, length, done)
                } else {
                    Head::simple(cookie, 0)
                };
                (head, Some(body(buf, offset, length)))
            }
            Some(failed) => {
                host.free(buf);
                let head = if self.export.structured {
                    Head::error_offset(cookie, failed, done)
                } else {
                    Head::simple(cookie, failed.errno.get())
                };
                (head, None)
            }
        };
        self.reply(Reply { head, body, piece: Some(index), command: done.then_some(number) });
    }
}

/// What a buffer takes from the arena, which gives powers of two.
pub(super) fn charge(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.next_power_of_two() }
}

/// A read's data in its buffer.
pub(super) fn body(buf: Buf, offset: u64, length: u32) -> Body {
    let at = usize::try_from(offset % BLOCK_BYTES as u64).expect("below a block");
    Body { buf, at, length: length as usize }
}
