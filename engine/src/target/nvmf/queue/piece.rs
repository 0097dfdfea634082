//! Pieces: engine requests, before, while and after the engine has them.
//!
//! Pieces whose order matters form a list in the order of their offsets. Buffers are charged
//! to the queue from here alone.

use super::command::Kind;
use super::{COMPARE_PIECE_BYTES, NONE, PIECE_BYTES, Queue, RESERVE_BYTES, RESERVE_PIECES};
use crate::planted::{Bug, planted};
use crate::request::{Buf, Host, Op, Request};
use crate::units::{BLOCK_BYTES, VolumeId, VolumeOffset, WINDOW_BYTES};

/// Where a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The host's data are to come, or coming.
    Filling,
    /// They have come; their digest, or the data of the other of a pair, have not.
    Full,
    /// It waits for the engine to have room.
    Ready,
    /// The engine has it.
    InEngine,
    /// The engine has answered.
    Done,
    /// Its data wait to be sent.
    Sending,
}

/// One engine request.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) command: u16,
    /// The next of its command.
    pub(super) next: u16,
    pub(super) state: State,
    pub(super) op: Op,
    pub(super) volume: VolumeId,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// Where the next byte of the host's data goes in its buffer.
    pub(super) at: usize,
    /// Bytes that its buffers take from the arena.
    pub(super) charge: usize,
    pub(super) buf: Option<Buf>,
    /// Of a Compare: the host's data, while `buf` is what is read.
    pub(super) expected: Option<Buf>,
}

/// Where a byte of a volume stands in a buffer.
pub(super) fn position(offset: u64) -> usize {
    usize::try_from(offset % BLOCK_BYTES as u64).expect("below a block")
}

/// Where data of the host begin in a piece's buffer: those that a fused Compare expects
/// stand behind the block that the Write's come to.
fn begin(op: Op, offset: u64) -> usize {
    position(offset) + if op == Op::CompareAndWrite { BLOCK_BYTES } else { 0 }
}

impl Piece {
    /// Where data of the host end in its buffer.
    pub(super) fn end(&self) -> usize {
        begin(self.op, self.offset) + self.length as usize
    }
}

/// What a buffer takes from the arena, which gives powers of two.
fn charge(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.next_power_of_two() }
}

/// The op of a command's pieces.
fn op(kind: Kind) -> Op {
    match kind {
        Kind::Read | Kind::Compare => Op::Read,
        Kind::Write | Kind::FusedWrite => Op::Write,
        Kind::FusedCompare => Op::CompareAndWrite,
        Kind::Flush | Kind::FlushAll => Op::Flush,
        Kind::Zeroes(false) => Op::WriteZeroes,
        Kind::Zeroes(true) | Kind::Deallocate => Op::Discard,
        Kind::Nothing => panic!("a command without pieces"),
    }
}

/// Bytes of the next piece of a transfer or range.
pub(super) fn piece_length(kind: Kind, offset: u64, left: u64) -> u32 {
    let unit = match kind {
        Kind::Read | Kind::Write => PIECE_BYTES,
        Kind::Compare => COMPARE_PIECE_BYTES,
        _ => WINDOW_BYTES,
    };
    u32::try_from(left.min(unit - offset % unit)).expect("at most a window")
}

impl Queue {
    /// A piece for `length` bytes at `offset`, with buffers of `bytes`; `None` if the command
    /// has to wait. `in_capsule`: it may use what is kept for such data.
    #[inline]
    pub(super) fn make_piece(
        &mut self,
        number: u16,
        (offset, length): (u64, u32),
        bytes: usize,
        in_capsule: bool,
        host: &mut impl Host,
    ) -> Option<u16> {
        let command = self.commands.get(number);
        let (kind, volume) = (command.kind, command.volume);
        let kept = if in_capsule { 0 } else { RESERVE_PIECES };
        if command.pieces > 0 && self.pieces.vacant() <= usize::from(self.bare) + kept {
            return None;
        }
        let buffers = if kind == Kind::Compare { 2 } else { 1 };
        let charge = charge(bytes) * buffers;
        let limit = if in_capsule { self.budget } else { self.budget - RESERVE_BYTES };
        if self.buffered + charge > limit {
            return None;
        }
        let (mut buf, mut expected) = (None, None);
        if bytes > 0 {
            buf = Some(self.alloc(bytes, host)?);
        }
        if buffers == 2 {
            expected = self.alloc(bytes, host);
            if expected.is_none() {
                host.free(buf.expect("just allocated"));
                return None;
            }
        }
        self.buffered += charge;
        let op = op(kind);
        let piece = Piece {
            command: number,
            next: NONE,
            state: State::Filling,
            op,
            volume,
            offset,
            length,
            at: begin(op, offset),
            charge,
            buf,
            expected,
        };
        let command = self.commands.get_mut(number);
        if command.pieces == 0 {
            self.bare -= 1;
        }
        command.pieces += 1;
        Some(self.pieces.insert(piece))
    }

    fn alloc(&mut self, bytes: usize, host: &mut impl Host) -> Option<Buf> {
        let buf = host.alloc(bytes);
        self.starved |= buf.is_none();
        buf
    }

    /// Puts a piece at the end of its command's list.
    #[inline]
    pub(super) fn link(&mut self, number: u16, index: u16) {
        let command = self.commands.get_mut(number);
        let last = std::mem::replace(&mut command.last, index);
        if last == NONE {
            command.first = index;
        } else {
            self.pieces.get_mut(last).next = index;
        }
    }

    /// Takes the first piece off its command's list.
    #[inline]
    pub(super) fn unlink_first(&mut self, number: u16) -> u16 {
        let command = self.commands.get_mut(number);
        let index = command.first;
        command.first = self.pieces.get(index).next;
        if command.first == NONE {
            command.last = NONE;
        }
        index
    }

    /// Takes a piece off its command's list, wherever it stands there.
    pub(super) fn unlink(&mut self, number: u16, index: u16) {
        let command = self.commands.get_mut(number);
        if command.first == index {
            self.unlink_first(number);
            return;
        }
        let mut before = command.first;
        while self.pieces.get(before).next != index {
            before = self.pieces.get(before).next;
        }
        let next = self.pieces.get(index).next;
        self.pieces.get_mut(before).next = next;
        if next == NONE {
            self.commands.get_mut(number).last = before;
        }
    }

    /// A piece has ended: its slot and its buffers are free again. It is in no list that goes on.
    #[inline]
    pub(super) fn drop_piece(&mut self, index: u16, host: &mut impl Host) {
        let piece = self.pieces.remove(index);
        assert!(piece.state != State::InEngine, "no piece is dropped under the engine");
        self.buffered -= piece.charge;
        for buf in [piece.buf, piece.expected].into_iter().flatten() {
            host.free(buf);
        }
        let command = self.commands.get_mut(piece.command);
        command.pieces -= 1;
        if command.pieces == 0 {
            self.bare += 1;
        }
    }

    /// Gives a piece to the engine; [`Host::can_submit`] is true.
    #[inline]
    pub(super) fn submit(&mut self, index: u16, host: &mut impl Host) {
        let piece = self.pieces.get_mut(index);
        piece.state = State::InEngine;
        let command = self.commands.get(piece.command);
        let changes = !matches!(piece.op, Op::Read | Op::Flush | Op::Status);
        let request = Request {
            tag: self.setup.tag | u64::from(index),
            client: self.setup.client,
            volume: piece.volume,
            op: piece.op,
            fua: command.fua && changes && !planted(Bug::FuaDropped),
            offset: VolumeOffset::new(piece.offset),
            length: piece.length,
            buf: piece.buf.take(),
        };
        host.submit(request);
    }
}
