//! The I/O commands of one queue, sans-IO.
//!
//! The connection's driver moves bytes into [`Queue::receiver`] and out of [`Queue::sender`];
//! [`Queue::pump`] turns what was received into engine requests, [`Queue::complete`] turns
//! completions into responses, [`Queue::retire`] frees what was sent.
//!
//! A *command* is one submission entry, a *piece* one engine request of it: at most
//! [`PIECE_BYTES`] of a transfer, a window of a range to be zeroed or freed. A write's data
//! are asked for with one R2T at a time, for as many pieces as there are buffers; a read's
//! data leave piece by piece in the order of their offsets. Responses leave in the order of
//! completion.
//!
//! Fused Compare and Write: the pair becomes one engine request, so that the owner of the
//! block compares and writes with no other writer of that block in between, whatever target
//! that comes from ([`crate::request::Op::CompareAndWrite`]).
//!
//! Invariants:
//! - nothing grows: commands, pieces and buffers come from pools made with the queue; where
//!   one is used up, the command waits, and if it is one whose data stand in the receive
//!   buffer, so does the stream;
//! - every live command can get one piece, whatever the others have;
//! - reads and R2Ts leave [`RESERVE_BYTES`] of the queue's buffers, and [`RESERVE_PIECES`], to
//!   in-capsule data: behind those may stand the data that the R2Ts have asked for;
//! - a buffer that the host's data still go into is known to nobody else;
//! - a queue that is dead sends nothing and keeps only what the engine has.

mod command;
mod fused;
mod issue;
mod piece;
mod receive;
mod respond;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use nvme::tcp::{Digests, Fatal};

use super::transport::{Receiver, Sender};
use super::{MAX_QUEUE_ENTRIES, Namespaces, NewQueue, QueueCounters};
use crate::request::{Buf, Completion, Host};
use crate::target::slots::{Queue as Fifo, Slots};
use crate::units::ClientId;
use command::Command;
use piece::{Piece, State};

/// Bytes of an engine request with data: no aligned boundary of this size is crossed.
const PIECE_BYTES: u64 = 128 << 10;
/// The same of a Compare, which needs two buffers.
const COMPARE_PIECE_BYTES: u64 = 64 << 10;
/// Bytes of buffers that only in-capsule data may use: those of one command.
const RESERVE_BYTES: usize = 32 << 10;
/// The same for pieces: in-capsule data may lie in two.
const RESERVE_PIECES: usize = 1;
/// Bytes of engine buffers that a queue may hold.
pub const BUFFER_BYTES: usize = 8 << 20;
/// Bytes that a queue may hold however many there are: any one piece, and the reserve.
pub const LEAST_BUFFER_BYTES: usize = 256 << 10;
/// Pieces beyond one for each command.
const MORE_PIECES: u16 = 64;
/// Bytes of a queue's receive buffer; memory only as far as it is used.
const RECEIVE_BYTES: usize = 256 << 10;
/// Data that an R2T asks for, from which on they had better come straight into their buffers
/// than be copied there: then little else is received at once.
const LONG_BYTES: u32 = 32 << 10;
/// What little is.
const LITTLE_BYTES: usize = 4096;
/// No command, no piece.
const NONE: u16 = u16::MAX;

const _: () = assert!(LEAST_BUFFER_BYTES as u64 >= PIECE_BYTES + RESERVE_BYTES as u64);
const _: () = assert!(RESERVE_BYTES >= 4 * super::IN_CAPSULE_BYTES as usize);

/// How far a queue is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The connection is lost or given up; the engine's answers are awaited.
    Dead,
}

/// Whether the command before was the first of a fused pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fusing {
    No,
    First(u16),
    /// It was, and has its answer already.
    Failed,
}

/// What a queue is made for.
pub struct Setup {
    /// Set in the tags of its engine requests; the low 16 bits are its own.
    pub tag: u64,
    /// Entries of the submission queue.
    pub entries: u16,
    /// Digests in use.
    pub digests: Digests,
    /// No SQHD; reads may end with SUCCESS.
    pub flow_control_off: bool,
    /// Whose access pattern its commands are.
    pub client: ClientId,
    /// What it may reach.
    pub namespaces: Arc<Namespaces>,
    /// What it does.
    pub counters: Arc<QueueCounters>,
}

impl Setup {
    /// Of a queue that has come from the fabric thread.
    pub fn of(new: &NewQueue, tag: u64) -> Setup {
        Setup {
            tag,
            entries: new.entries,
            digests: new.digests,
            flow_control_off: new.flow_control_off,
            client: new.client,
            namespaces: Arc::clone(&new.namespaces),
            counters: Arc::clone(&new.counters),
        }
    }
}

/// The I/O commands of one connection.
pub struct Queue {
    setup: Setup,
    /// Bytes from the host.
    pub receiver: Receiver<Buf>,
    /// Bytes to the host.
    pub sender: Sender<Buf>,
    commands: Slots<Command>,
    pieces: Slots<Piece>,
    /// Commands without a piece: each is sure to get one.
    bare: u16,
    /// Commands that want pieces, each once.
    wanting: Fifo<u16>,
    /// Pieces whose data have come, for the engine.
    ready: Fifo<u16>,
    /// Command identifiers in use, a bit each.
    cids: Box<[u64]>,
    /// The command whose in-capsule data have no place yet.
    held_up: Option<u16>,
    /// The command whose data the receiver is taking.
    taking: Option<u16>,
    fuse: Fusing,
    /// Commands that ever came.
    received_commands: u64,
    /// The host has terminated the connection, for this.
    terminated: Option<Fatal>,
    /// R2Ts of [`LONG_BYTES`] and more whose data have not all come.
    long_r2ts: u16,
    /// Entries that were answered, modulo the queue's size.
    sq_head: u16,
    buffered: usize,
    budget: usize,
    phase: Phase,
    stopping: bool,
    starved: bool,
}

impl Queue {
    /// The token of what is sent after a queue was given up.
    pub const LAST_WORD: u32 = u32::MAX;

    /// A queue; `received` is what the host sent behind its Connect.
    ///
    /// # Panics
    /// If it has fewer than two entries or more than [`MAX_QUEUE_ENTRIES`].
    pub fn new(setup: Setup, received: &[u8]) -> Queue {
        let commands = setup.entries;
        assert!((2..=MAX_QUEUE_ENTRIES).contains(&commands), "checked at Connect");
        let pieces = commands + MORE_PIECES;
        // Per piece its data, per command an R2T and a response, and one last word.
        let entries = usize::from(pieces) + 2 * usize::from(commands) + 1;
        Queue {
            receiver: Receiver::resume(RECEIVE_BYTES, setup.digests, received),
            sender: Sender::new(entries, setup.digests),
            commands: Slots::new(commands),
            pieces: Slots::new(pieces),
            bare: commands,
            wanting: Fifo::new(commands.into()),
            ready: Fifo::new(pieces.into()),
            cids: vec![0; 1 << 10].into_boxed_slice(),
            held_up: None,
            taking: None,
            fuse: Fusing::No,
            received_commands: 0,
            terminated: None,
            long_r2ts: 0,
            // Connect was the first entry.
            sq_head: 1 % setup.entries,
            buffered: 0,
            budget: BUFFER_BYTES,
            phase: Phase::Open,
            stopping: false,
            starved: false,
            setup,
        }
    }

    /// Turns what was received into engine requests, as far as there is room.
    ///
    /// # Errors
    /// When the host broke the protocol; give the queue up then.
    pub fn pump(&mut self, host: &mut impl Host) -> Result<(), Fatal> {
        self.starved = false;
        if self.phase == Phase::Dead {
            return Ok(());
        }
        let taken = self.take_input(host);
        self.issue(host);
        self.submit_ready(host);
        taken
    }

    /// Takes the completion of a request of this queue.
    ///
    /// # Panics
    /// If the tag is not of a request under way.
    pub fn complete(&mut self, completion: Completion, host: &mut impl Host) {
        let index = u16::try_from(completion.tag & 0xffff).expect("masked");
        let Completion { buf, result, .. } = completion;
        let piece = self.pieces.get_mut(index);
        assert_eq!(piece.state, State::InEngine, "completed once");
        piece.state = State::Done;
        piece.buf = buf;
        let number = piece.command;
        if self.phase == Phase::Dead {
            self.drop_piece(index, host);
            if self.commands.get(number).pieces == 0 {
                self.commands.remove(number);
            }
            return;
        }
        self.piece_done(number, index, result, host);
    }

    /// Frees what was sent.
    pub fn retire(&mut self, host: &mut impl Host) {
        while let Some(sent) = self.sender.pop_sent() {
            self.sent(sent, host);
        }
    }

    /// What the host has terminated the connection for.
    pub fn terminated(&self) -> Option<Fatal> {
        self.terminated
    }

    /// The last [`Queue::pump`] ended for want of the host's room or buffers.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Nothing is under way or unanswered. When stopping, it is enough that the engine has
    /// nothing: a host that sends or reads no more holds up no stop.
    pub fn is_quiet(&self) -> bool {
        let in_engine =
            |index| self.pieces.contains(index) && self.pieces.get(index).state == State::InEngine;
        self.commands.is_empty() || self.stopping && !self.pieces.indices().any(in_engine)
    }

    /// Nothing is left that the engine has.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Dead && self.commands.is_empty()
    }

    /// No new commands are taken from now on. What the engine has is answered.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Bounds the buffers that it takes from now on.
    pub fn set_budget(&mut self, bytes: usize) {
        assert!(bytes >= LEAST_BUFFER_BYTES, "any one piece fits");
        self.budget = bytes;
    }

    /// What it may reach from now on. Commands under way end as they began.
    pub fn set_namespaces(&mut self, namespaces: Arc<Namespaces>) {
        self.setup.namespaces = namespaces;
    }

    /// Bytes sent so far, if more wait for the host to read.
    pub fn unread(&self) -> Option<u64> {
        self.sender.has_output().then(|| self.sender.total())
    }

    /// Bytes received so far, if the host owes more: the rest of a PDU, or data that an R2T
    /// has asked for.
    pub fn unsent(&self) -> Option<u64> {
        let owes = |number| {
            self.commands.contains(number) && {
                let command = self.commands.get(number);
                command.received < command.granted
            }
        };
        let owed = self.held_up.is_none()
            && (self.receiver.is_inside_pdu() || self.commands.indices().any(owes));
        owed.then(|| self.receiver.total())
    }

    /// Gives the connection up: drops what is not with the engine.
    pub fn abort(&mut self, host: &mut impl Host) {
        if self.phase == Phase::Dead {
            return;
        }
        self.phase = Phase::Dead;
        (self.held_up, self.fuse) = (None, Fusing::No);
        self.take_back_target();
        while let Some(sent) = self.sender.discard() {
            // Its piece is dropped below, so only the buffer matters.
            if let Some(buf) = sent.buf {
                host.free(buf);
            }
        }
        while self.wanting.pop().is_some() {}
        while self.ready.pop().is_some() {}
        for index in self.pieces.indices() {
            let live = self.pieces.contains(index);
            if live && self.pieces.get(index).state != State::InEngine {
                self.drop_piece(index, host);
            }
        }
        for number in self.commands.indices() {
            if self.commands.contains(number) && self.commands.get(number).pieces == 0 {
                self.commands.remove(number);
            }
        }
        assert!(!self.commands.is_empty() || self.buffered == 0, "all buffers are given back");
    }
}
