//! What becomes of commands: data for the host, and responses.

use nvme::tcp::pdu::flags;
use nvme::{CompletionEntry, Status};

use super::command::Kind;
use super::piece::{State, position};
use super::{Fusing, NONE, Queue, status};
use crate::request::{Buf, Failure, Host};
use crate::target::nvmf::bump;
use crate::target::nvmf::transport::{Body, Sent};

/// What ends when something is sent; [`NONE`] for nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) piece: u16,
    /// A command.
    pub(super) ends: u16,
}

impl Token {
    pub(super) fn pack(self) -> u32 {
        u32::from(self.ends) << 16 | u32::from(self.piece)
    }

    fn unpack(word: u32) -> Token {
        let [piece0, piece1, ends0, ends1] = word.to_le_bytes();
        Token {
            piece: u16::from_le_bytes([piece0, piece1]),
            ends: u16::from_le_bytes([ends0, ends1]),
        }
    }
}

impl Queue {
    /// The engine has answered.
    #[inline]
    pub(super) fn piece_done(
        &mut self,
        number: u16,
        index: u16,
        result: Result<(), Failure>,
        host: &mut impl Host,
    ) {
        let kind = self.commands.get(number).kind;
        if kind == Kind::FusedCompare {
            return self.pair_done(number, index, result, host);
        }
        if let Err(failure) = result {
            self.note_failure(number, kind, failure);
        }
        match kind {
            Kind::Read => return self.advance_read(number, host),
            Kind::Compare => {
                if result.is_ok() && !self.is_equal(index, host) {
                    let command = self.commands.get_mut(number);
                    command.failed.get_or_insert(Status::COMPARE_FAILURE.with_dnr());
                }
                self.unlink(number, index);
            }
            Kind::Write => self.unlink(number, index),
            _ => {}
        }
        self.drop_piece(index, host);
        self.settle(number, host);
    }

    pub(super) fn note_failure(&mut self, number: u16, kind: Kind, failure: Failure) {
        let command = self.commands.get_mut(number);
        match status::of(kind, failure) {
            Some(status) => drop(command.failed.get_or_insert(status)),
            None => {
                command.silent = true;
                command.failed.get_or_insert(Status::INTERNAL);
            }
        }
    }

    /// What was read is what the host expects.
    fn is_equal(&self, index: u16, host: &impl Host) -> bool {
        let piece = self.pieces.get(index);
        let at = position(piece.offset);
        let (Some(read), Some(expected)) = (&piece.buf, &piece.expected) else {
            panic!("a piece of a Compare has two buffers");
        };
        let range = at..at + piece.length as usize;
        host.bytes(read)[range.clone()] == host.bytes(expected)[range]
    }

    /// Sends what has been read, in order.
    #[inline]
    fn advance_read(&mut self, number: u16, host: &mut impl Host) {
        loop {
            let command = self.commands.get(number);
            if command.first == NONE || self.pieces.get(command.first).state != State::Done {
                break;
            }
            let index = self.unlink_first(number);
            if self.commands.get(number).failed.is_some() {
                self.drop_piece(index, host);
            } else {
                self.send_piece(number, index, host);
            }
        }
        self.settle(number, host);
    }

    #[inline]
    fn send_piece(&mut self, number: u16, index: u16, host: &mut impl Host) {
        let command = self.commands.get(number);
        let piece = self.pieces.get_mut(index);
        piece.state = State::Sending;
        let buf = piece.buf.take().expect("a read brings its buffer back");
        let (at, length) = (position(piece.offset), piece.length as usize);
        let offset = u32::try_from(piece.offset - command.offset).expect("within a transfer");
        let last = offset + piece.length == command.transfer;
        let success = last && self.setup.flow_control_off;
        let data_flags = match (last, success) {
            (false, _) => 0,
            (true, false) => flags::LAST,
            (true, true) => flags::LAST | flags::SUCCESS,
        };
        let token = Token { piece: index, ends: if success { number } else { NONE } };
        let body = Body { buf, at, length };
        self.sender.data(command.cid, offset, data_flags, body, token.pack(), host);
        if success {
            self.answered(number);
        } else if last {
            self.respond(number);
        }
    }

    /// Fails a command: what has not gone to the engine does not go there any more.
    pub(super) fn fail(&mut self, number: u16, status: Status, host: &mut impl Host) {
        self.commands.get_mut(number).failed.get_or_insert(status);
        self.wind_up(number, host);
    }

    /// A failed command asks for nothing more; it ends when what it has asked for has come.
    pub(super) fn wind_up(&mut self, number: u16, host: &mut impl Host) {
        self.drop_full(number, host);
        let command = self.commands.get_mut(number);
        assert!(command.failed.is_some(), "only failed commands are given up");
        if !command.queued && command.received == command.granted {
            command.issued_all = true;
        }
        self.settle(number, host);
    }

    /// Drops the pieces that would go to the engine.
    fn drop_full(&mut self, number: u16, host: &mut impl Host) {
        let mut index = self.commands.get(number).first;
        while index != NONE {
            let piece = self.pieces.get(index);
            let (next, state) = (piece.next, piece.state);
            if state == State::Full {
                self.unlink(number, index);
                self.drop_piece(index, host);
            }
            index = next;
        }
    }

    /// Answers a command that has ended.
    #[inline]
    pub(super) fn settle(&mut self, number: u16, host: &mut impl Host) {
        let command = self.commands.get(number);
        if command.answered || !command.ended() {
            return;
        }
        let partner = command.partner;
        if command.failed.is_some() && partner != NONE {
            self.part(number, host);
        }
        self.respond(number);
    }

    /// Queues the response.
    #[inline]
    fn respond(&mut self, number: u16) {
        self.answered(number);
        let command = self.commands.get(number);
        if command.silent {
            self.commands.remove(number);
            return;
        }
        let status = command.failed.unwrap_or(Status::SUCCESS);
        // As many as the host may send again: what was answered, not what was fetched.
        let head = if self.setup.flow_control_off { u16::MAX } else { self.sq_head };
        let entry = CompletionEntry::new(command.cid, head, status);
        self.sender.respond(entry, Token { piece: NONE, ends: number }.pack());
    }

    /// Notes and counts that the command has its answer.
    #[inline]
    fn answered(&mut self, number: u16) {
        let command = self.commands.get_mut(number);
        command.answered = true;
        let counters = &self.setup.counters;
        let bytes = u64::from(command.transfer);
        match (command.failed, command.kind) {
            (Some(_), _) => bump(&counters.errors, 1),
            (None, Kind::Read) => {
                bump(&counters.reads, 1);
                bump(&counters.read_bytes, bytes);
            }
            (None, Kind::Write | Kind::FusedWrite) => {
                bump(&counters.writes, 1);
                bump(&counters.written_bytes, bytes);
            }
            _ => {}
        }
        if self.fuse == Fusing::First(number) {
            self.fuse = Fusing::Failed;
        }
        self.sq_head = (self.sq_head + 1) % self.setup.entries;
    }

    /// Something was sent whole.
    #[inline]
    pub(super) fn sent(&mut self, sent: Sent<Buf>, host: &mut impl Host) {
        let token = Token::unpack(sent.token);
        if let Some(buf) = sent.buf {
            host.free(buf);
        }
        if token.piece != NONE {
            let number = self.pieces.get(token.piece).command;
            self.drop_piece(token.piece, host);
            self.settle(number, host);
        }
        if token.ends != NONE {
            let command = self.commands.remove(token.ends);
            assert!(command.pieces == 0, "a command outlives its pieces");
            if command.owns_cid {
                self.release_cid(command.cid);
            }
        }
    }
}
