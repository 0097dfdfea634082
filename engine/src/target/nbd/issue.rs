//! Hands the pieces of commands to the engine: all but the data of writes,
//! which come from the socket (`receive`).

use super::command::{Command, Kind};
use super::session::{Phase, Piece, PieceState, Session, charge};
use super::status::STATUS_BUFFER_BYTES;
use super::stream::Stream;
use crate::request::{Buf, Host, Op, Request, buffer_bytes};
use crate::units::{VolumeOffset, WINDOW_BYTES};

impl Session {
    /// Issues pieces of the waiting commands in turn, as far as there is room.
    pub(super) fn issue(&mut self, host: &mut impl Host) {
        while let Some(&number) = self.issue.front() {
            let command = self.commands.get(number);
            // Other reads tell of each failed piece, and an open stream has to be filled up.
            let gives_up = if command.streamed {
                !self.stream.as_ref().is_some_and(|stream| stream.open)
            } else {
                command.kind != Kind::Read
            };
            if command.failed.is_some() && gives_up {
                self.end_issue(number);
                self.settle_any(number, host);
                continue;
            }
            if !self.may_send(number) || !self.issue_piece(number, host) {
                return;
            }
            let command = self.commands.get(number);
            if command.issued == command.length || matches!(command.kind, Kind::Status { .. }) {
                self.end_issue(number);
            } else if !command.streamed && u64::from(command.length - command.issued) > WINDOW_BYTES
            {
                // The last piece follows at once: a disk would have to come back for it.
                self.issue.pop();
                self.issue.push(number);
            }
        }
    }

    fn end_issue(&mut self, number: u16) {
        let popped = self.issue.pop();
        assert_eq!(popped, Some(number), "only the first of the queue is issued");
        self.commands.get_mut(number).issued_all = true;
    }

    fn settle_any(&mut self, number: u16, host: &mut impl Host) {
        if self.commands.get(number).streamed {
            self.advance_stream(host);
        } else {
            self.settle(number);
        }
    }

    /// A streamed read starts when no other data is on its way to the client,
    /// and others wait for its end: then it never waits for a buffer that a
    /// reply behind it holds.
    fn may_send(&mut self, number: u16) -> bool {
        match &self.stream {
            Some(stream) => stream.command == number,
            None if !self.commands.get(number).streamed => true,
            None if self.outbound > 0 => false,
            None => {
                self.stream = Some(Stream::new(number));
                true
            }
        }
    }

    /// Issues the command's next piece; false if there is no room.
    fn issue_piece(&mut self, number: u16, host: &mut impl Host) -> bool {
        if self.pieces.is_full() {
            return false;
        }
        if !host.can_submit() {
            self.starved = true;
            return false;
        }
        let command = self.commands.get(number);
        let (kind, (offset, length)) = (command.kind, command.next_piece());
        let bytes = match kind {
            Kind::Read | Kind::ZeroFill => buffer_bytes(offset, length),
            Kind::Status { .. } => STATUS_BUFFER_BYTES,
            _ => 0,
        };
        let mut buf = None;
        if bytes > 0 {
            let Some(mut taken) = self.take_buffer(bytes, host) else { return false };
            if kind == Kind::ZeroFill {
                host.bytes_mut(&mut taken)[..bytes].fill(0);
            }
            buf = Some(taken);
        }
        let piece = self.insert_piece(number, offset, length, bytes);
        if self.commands.get(number).streamed {
            self.stream_order.push(piece);
        }
        self.submit(piece, buf, host);
        true
    }

    pub(super) fn insert_piece(
        &mut self,
        command: u16,
        offset: u64,
        length: u32,
        buffer_bytes: usize,
    ) -> u16 {
        if self.commands.get(command).kind.sends_data() {
            self.outbound += 1;
        }
        let (buffer_bytes, state) = (charge(buffer_bytes), PieceState::Ours);
        self.pieces.insert(Piece { command, offset, length, buffer_bytes, state })
    }

    /// Gives a piece to the engine.
    pub(super) fn submit(&mut self, index: u16, buf: Option<Buf>, host: &mut impl Host) {
        assert!(self.phase != Phase::Dead, "a dead session asks for nothing");
        let piece = self.pieces.get_mut(index);
        piece.state = PieceState::InFlight;
        let command = self.commands.get_mut(piece.command);
        command.issued += piece.length;
        command.in_flight += 1;
        host.submit(Request {
            tag: u64::from(self.conn) << 48 | u64::from(index),
            client: self.export.client,
            volume: self.export.volume.id,
            op: op(command),
            fua: command.fua
                && !matches!(command.kind, Kind::Read | Kind::Status { .. } | Kind::Flush),
            offset: VolumeOffset::new(piece.offset),
            length: piece.length,
            buf,
        });
    }
}

fn op(command: &Command) -> Op {
    match command.kind {
        Kind::Read => Op::Read,
        Kind::Write | Kind::ZeroFill => Op::Write,
        Kind::Flush => Op::Flush,
        Kind::Trim => Op::Discard,
        Kind::Zeroes => Op::WriteZeroes,
        Kind::Status { .. } => Op::Status,
    }
}
