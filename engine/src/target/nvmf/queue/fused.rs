//! Fused Compare and Write: two commands, one engine request (NVM 2.1.4).
//!
//! The Compare's piece has a buffer of two blocks: what is expected comes into the second,
//! the Write's data are copied into the first when both have come. If one of the two fails
//! before that, so does the other.

use nvme::Status;
use nvme::entry::Fuse;

use super::command::Kind;
use super::piece::{State, position};
use super::{Fusing, NONE, Queue};
use crate::request::{Failure, Host};

impl Queue {
    /// A First is followed by its Second, or is alone; a Second has its First before it
    /// (Base 6.2).
    pub(super) fn pair(&mut self, number: u16, fuse: Fuse, host: &mut impl Host) {
        match (std::mem::replace(&mut self.fuse, Fusing::No), fuse) {
            (Fusing::First(first), Fuse::Second) => self.join(first, number, host),
            (Fusing::Failed, Fuse::Second) => {
                let command = self.commands.get_mut(number);
                command.failed.get_or_insert(Status::ABORTED_FAILED_FUSED);
            }
            (Fusing::No, Fuse::Second) => {
                let command = self.commands.get_mut(number);
                command.failed.get_or_insert(Status::ABORTED_MISSING_FUSED);
            }
            (Fusing::First(first), _) => self.fail(first, Status::ABORTED_MISSING_FUSED, host),
            _ => {}
        }
        if fuse == Fuse::First {
            let failed = self.commands.get(number).failed.is_some();
            self.fuse = if failed { Fusing::Failed } else { Fusing::First(number) };
        }
    }

    /// The two become one, if they name the same blocks.
    fn join(&mut self, first: u16, second: u16, host: &mut impl Host) {
        let (a, b) = (self.commands.get(first), self.commands.get(second));
        if b.failed.is_some() {
            return self.fail(first, Status::ABORTED_FAILED_FUSED, host);
        }
        if (a.volume, a.offset, a.length) != (b.volume, b.offset, b.length) {
            let status = Status::INVALID_FIELD.with_dnr();
            self.commands.get_mut(second).failed = Some(status);
            return self.fail(first, status, host);
        }
        let fua = b.fua;
        let a = self.commands.get_mut(first);
        (a.partner, a.fua) = (second, fua);
        self.commands.get_mut(second).partner = first;
    }

    /// The data of one of a pair have come: the engine gets both if the other's have, too.
    pub(super) fn pair_came(&mut self, number: u16, host: &mut impl Host) {
        let command = self.commands.get(number);
        let (kind, partner) = (command.kind, command.partner);
        if partner == NONE {
            return;
        }
        let (first, second) =
            if kind == Kind::FusedCompare { (number, partner) } else { (partner, number) };
        let full = |queue: &Queue, number| {
            let index = queue.commands.get(number).first;
            index != NONE && queue.pieces.get(index).state == State::Full
        };
        if !full(self, first) || !full(self, second) {
            return;
        }
        let (into, from) = (self.commands.get(first).first, self.unlink_first(second));
        let piece = self.pieces.get_mut(from);
        let at = position(piece.offset);
        let length = piece.length as usize;
        let new = piece.buf.take().expect("its data are here");
        let target = self.pieces.get_mut(into).buf.as_mut().expect("its data are here");
        copy(host, &new, target, at..at + length);
        self.pieces.get_mut(from).buf = Some(new);
        self.drop_piece(from, host);
        self.pieces.get_mut(into).state = State::Ready;
        self.ready.push(into);
    }

    /// The engine has answered for both.
    pub(super) fn pair_done(
        &mut self,
        first: u16,
        index: u16,
        result: Result<(), Failure>,
        host: &mut impl Host,
    ) {
        self.unlink(first, index);
        self.drop_piece(index, host);
        let second = self.commands.get(first).partner;
        for number in [first, second] {
            let command = self.commands.get_mut(number);
            (command.issued_all, command.partner) = (true, NONE);
        }
        match result {
            Ok(()) => {}
            Err(failure @ (Failure::Miscompare | Failure::Media | Failure::Stopping)) => {
                self.note_failure(first, Kind::Compare, failure);
                self.note_failure(second, Kind::FusedWrite, failure);
                let second = self.commands.get_mut(second);
                second.failed = Some(Status::ABORTED_FAILED_FUSED);
            }
            Err(failure) => {
                self.commands.get_mut(first).failed = Some(Status::ABORTED_FAILED_FUSED);
                self.note_failure(second, Kind::FusedWrite, failure);
            }
        }
        self.settle(first, host);
        self.settle(second, host);
    }

    /// One of a pair has failed before the engine had it: so does the other.
    pub(super) fn part(&mut self, number: u16, host: &mut impl Host) {
        let partner = std::mem::replace(&mut self.commands.get_mut(number).partner, NONE);
        self.commands.get_mut(partner).partner = NONE;
        self.fail(partner, Status::ABORTED_FAILED_FUSED, host);
    }
}

/// Copies a range between two buffers.
fn copy(
    host: &mut impl Host,
    from: &crate::request::Buf,
    to: &mut crate::request::Buf,
    range: std::ops::Range<usize>,
) {
    let mut bytes = [0; crate::units::BLOCK_BYTES];
    let bytes = &mut bytes[..range.len()];
    bytes.copy_from_slice(&host.bytes(from)[range.clone()]);
    host.bytes_mut(to)[range].copy_from_slice(bytes);
}
