//! Gives commands their pieces: asks the host for data, and the engine for everything else.

use nvme::entry::DsmRange;
use zerocopy::FromBytes;

use super::command::{self, Command, Kind};
use super::piece::{State, piece_length, position};
use super::respond::Token;
use super::{LITTLE_BYTES, LONG_BYTES, NONE, Queue};
use crate::request::{Host, buffer_bytes};
use crate::units::BLOCK_BYTES;

/// How far a command got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Issued {
    /// It waits for room; so do those behind it.
    Waits,
    /// It has what it wants for now.
    Done,
}

impl Queue {
    /// The command waits for its turn to get pieces.
    pub(super) fn want_pieces(&mut self, number: u16) {
        let command = self.commands.get_mut(number);
        assert!(!command.queued, "a command waits once");
        command.queued = true;
        self.wanting.push(number);
    }

    /// Gives the waiting commands pieces in turn, as far as there is room.
    pub(super) fn issue(&mut self, host: &mut impl Host) {
        while let Some(&number) = self.wanting.front() {
            let command = self.commands.get(number);
            let done = if command.failed.is_some() {
                self.commands.get_mut(number).issued_all = true;
                Issued::Done
            } else {
                match command.kind {
                    Kind::Deallocate if command.received == command.transfer => {
                        self.issue_ranges(number, host)
                    }
                    kind if kind.takes_data() => self.grant(number, host),
                    Kind::FlushAll => self.issue_flushes(number, host),
                    _ => self.issue_range(number, host),
                }
            };
            if done == Issued::Waits {
                return;
            }
            self.wanting.pop();
            self.commands.get_mut(number).queued = false;
            self.settle(number, host);
        }
    }

    /// Room for one more engine request.
    fn may_submit(&mut self, host: &impl Host) -> bool {
        let may = host.can_submit();
        self.starved |= !may;
        may
    }

    /// Reads, zeroes, and the flush of one namespace.
    fn issue_range(&mut self, number: u16, host: &mut impl Host) -> Issued {
        loop {
            let Command { kind, offset, length, issued, .. } = *self.commands.get(number);
            if !self.may_submit(host) {
                return Issued::Waits;
            }
            let reads = kind == Kind::Read;
            let at = offset + issued;
            let bytes = piece_length(kind, at, length - issued);
            let buffer = if reads { buffer_bytes(at, bytes) } else { 0 };
            let Some(index) = self.make_piece(number, (at, bytes), buffer, false, host) else {
                return Issued::Waits;
            };
            if reads {
                self.link(number, index);
            }
            self.submit(index, host);
            let command = self.commands.get_mut(number);
            command.issued += u64::from(bytes);
            if command.issued == length {
                command.issued_all = true;
                return Issued::Done;
            }
        }
    }

    /// One flush for each namespace; a host flushes rarely, and has few.
    fn issue_flushes(&mut self, number: u16, host: &mut impl Host) -> Issued {
        loop {
            let at = usize::try_from(self.commands.get(number).issued).expect("a small index");
            let Some(namespace) = self.setup.namespaces.list().get(at) else {
                self.commands.get_mut(number).issued_all = true;
                return Issued::Done;
            };
            let volume = namespace.volume;
            if !self.may_submit(host) {
                return Issued::Waits;
            }
            let Some(index) = self.make_piece(number, (0, 0), 0, false, host) else {
                return Issued::Waits;
            };
            self.pieces.get_mut(index).volume = volume;
            self.submit(index, host);
            self.commands.get_mut(number).issued += 1;
        }
    }

    /// Asks the host for the data of as many pieces as there is room for, at least one.
    fn grant(&mut self, number: u16, host: &mut impl Host) -> Issued {
        self.make_filling_pieces(number, false, host);
        let command = self.commands.get_mut(number);
        let Command { cid, granted, issued, .. } = *command;
        let issued = u32::try_from(issued).expect("a transfer");
        if issued == granted {
            return Issued::Waits;
        }
        command.granted = issued;
        if issued - granted >= LONG_BYTES {
            command.long_r2t = true;
            self.long_r2ts += 1;
            self.receiver.set_appetite(LITTLE_BYTES);
        }
        let token = Token { piece: NONE, ends: NONE };
        self.sender.ask(cid, number, granted, issued - granted, token.pack());
        Issued::Done
    }

    /// Makes pieces for data of the host; true if there are for all that was granted, or for
    /// all of the transfer where nothing more was.
    pub(super) fn make_filling_pieces(
        &mut self,
        number: u16,
        in_capsule: bool,
        host: &mut impl Host,
    ) -> bool {
        loop {
            let Command { kind, offset, transfer, issued, .. } = *self.commands.get(number);
            let left = u64::from(transfer) - issued;
            if left == 0 {
                return true;
            }
            let at = offset + issued;
            let bytes = piece_length(kind, at, left);
            let buffer = match kind {
                // New data in the first block, what is expected in the second.
                Kind::FusedCompare => 2 * BLOCK_BYTES,
                _ => buffer_bytes(at, bytes),
            };
            let Some(index) = self.make_piece(number, (at, bytes), buffer, in_capsule, host) else {
                return false;
            };
            self.link(number, index);
            let command = self.commands.get_mut(number);
            command.issued += u64::from(bytes);
            if command.filling == NONE {
                command.filling = index;
            }
        }
    }

    /// The ranges of a Dataset Management have come: are they all good?
    pub(super) fn ranges_came(&mut self, number: u16, host: &mut impl Host) {
        let command = self.commands.get_mut(number);
        (command.issued, command.issued_of_range) = (0, 0);
        let Command { block_shift, length, ranges, .. } = *command;
        let bad = (0..u64::from(ranges)).find_map(|at| {
            command::dsm_range(&self.range(number, at, host), block_shift, length).err()
        });
        if let Some(status) = bad {
            return self.fail(number, status, host);
        }
        self.want_pieces(number);
    }

    /// A range of a Dataset Management whose data have come.
    fn range(&self, number: u16, at: u64, host: &impl Host) -> DsmRange {
        let piece = self.pieces.get(self.commands.get(number).first);
        let bytes = host.bytes(piece.buf.as_ref().expect("its data are here"));
        let at = position(piece.offset)
            + usize::try_from(at).expect("at most 256") * size_of::<DsmRange>();
        DsmRange::read_from_prefix(&bytes[at..]).expect("the transfer holds all ranges").0
    }

    fn issue_ranges(&mut self, number: u16, host: &mut impl Host) -> Issued {
        loop {
            let Command { block_shift, length, ranges, issued, issued_of_range, .. } =
                *self.commands.get(number);
            if issued == u64::from(ranges) {
                self.commands.get_mut(number).issued_all = true;
                let index = self.unlink_first(number);
                assert_eq!(self.pieces.get(index).state, State::Full);
                self.drop_piece(index, host);
                return Issued::Done;
            }
            let range = self.range(number, issued, host);
            let (start, bytes) = command::dsm_range(&range, block_shift, length)
                .expect("looked at when the ranges came");
            if issued_of_range == bytes {
                let command = self.commands.get_mut(number);
                command.issued += 1;
                command.issued_of_range = 0;
                continue;
            }
            if !self.may_submit(host) {
                return Issued::Waits;
            }
            let at = start + issued_of_range;
            let piece = piece_length(Kind::Zeroes(true), at, bytes - issued_of_range);
            let Some(index) = self.make_piece(number, (at, piece), 0, false, host) else {
                return Issued::Waits;
            };
            self.submit(index, host);
            self.commands.get_mut(number).issued_of_range += u64::from(piece);
        }
    }

    /// Hands the engine what has come from the host.
    pub(super) fn submit_ready(&mut self, host: &mut impl Host) {
        while let Some(&index) = self.ready.front() {
            if !self.may_submit(host) {
                return;
            }
            self.ready.pop();
            self.submit(index, host);
        }
    }
}
