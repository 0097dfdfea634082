//! What comes from the host: commands, and the data of writes.

use nvme::entry::Fuse;
use nvme::tcp::check::offset;
use nvme::tcp::pdu::Data;
use nvme::tcp::{Fatal, Received};
use nvme::{Status, SubmissionEntry};

use super::command::{self, Command, Kind};
use super::piece::State;
use super::{Fusing, NONE, Queue, RECEIVE_BYTES};
use crate::request::{Buf, Host};
use crate::target::nvmf::transport::{Event, Target};
use crate::target::nvmf::{MAX_H2C_DATA_BYTES, bump};

impl Queue {
    /// More bytes from the host can be taken now.
    pub fn wants_input(&self) -> bool {
        self.phase == super::Phase::Open && self.held_up.is_none() && !self.stopping
    }

    /// Takes in what is held, as far as there is room for it.
    pub(super) fn take_input(&mut self, host: &mut impl Host) -> Result<(), Fatal> {
        let before = self.received_commands;
        let result = self.take_events(host);
        let new = self.received_commands - before;
        if new > 0 {
            bump(&self.setup.counters.commands, new);
        }
        result
    }

    fn take_events(&mut self, host: &mut impl Host) -> Result<(), Fatal> {
        if let Some(number) = self.held_up
            && !self.place_capsule(number, host)
        {
            return Ok(());
        }
        while !self.stopping {
            let Some(event) = self.receiver.next(host)? else { break };
            match event {
                Event::Pdu { header: Received::Command(entry), data } => {
                    self.command(&entry, data, host)?;
                }
                Event::Pdu { header: Received::Data(data), .. } => self.data(&data)?,
                Event::Pdu { header: Received::TermReq(req), .. } => {
                    let (fes, fei) = (req.fes.get(), req.fei.get());
                    self.terminated = Some(Fatal { fes, fei });
                    break;
                }
                Event::Pdu { header, .. } => unreachable!("not of a host: {header:?}"),
                Event::Filled { target, end } => self.filled(target, end, host),
                Event::Skipped => {}
            }
            if self.held_up.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        entry: &SubmissionEntry,
        payload: u32,
        host: &mut impl Host,
    ) -> Result<(), Fatal> {
        self.received_commands += 1;
        command::check_capsule(entry, payload)?;
        if self.commands.is_full() {
            return Err(Fatal::SEQUENCE);
        }
        let mut admitted = command::admit(entry, &self.setup.namespaces);
        let fresh = self.claim_cid(entry.cid.get());
        if !fresh {
            admitted = Err(Status::CID_CONFLICT.with_dnr());
        }
        let number = self.commands.insert(Command::new(entry, admitted));
        self.commands.get_mut(number).owns_cid = fresh;
        if self.fuse != Fusing::No || entry.fuse() != Fuse::Normal {
            self.pair(number, entry.fuse(), host);
        }
        self.start(number, payload, host);
        Ok(())
    }

    /// Sees to it that the command gets what it needs: data, pieces or an answer.
    fn start(&mut self, number: u16, payload: u32, host: &mut impl Host) {
        let command = self.commands.get_mut(number);
        if command.failed.is_some() || command.kind == Kind::Nothing {
            command.issued_all = true;
            if payload > 0 {
                self.receiver.skip();
            }
            return self.settle(number, host);
        }
        if payload > 0 && !command.kind.takes_data() {
            self.receiver.skip();
        } else if payload > 0 {
            command.granted = payload;
            if !self.place_capsule(number, host) {
                self.held_up = Some(number);
            }
            return;
        }
        self.want_pieces(number);
    }

    /// Gives in-capsule data their pieces; false if there is no room yet.
    fn place_capsule(&mut self, number: u16, host: &mut impl Host) -> bool {
        if !self.make_filling_pieces(number, true, host) {
            return false;
        }
        self.held_up = None;
        self.taking = Some(number);
        self.next_target(number);
        true
    }

    /// Data of a command, in the part that an R2T has asked for.
    fn data(&mut self, data: &Data) -> Result<(), Fatal> {
        let number = data.ttag.get();
        let live = self.commands.contains(number);
        let command = live.then(|| self.commands.get(number));
        let command = command.filter(|command| command.received < command.granted);
        let command = command.ok_or(Fatal::field(offset::TTAG))?;
        if command.cid != data.cccid.get() {
            return Err(Fatal::field(offset::CCCID));
        }
        if data.datal.get() > MAX_H2C_DATA_BYTES {
            return Err(Fatal::LIMIT_EXCEEDED);
        }
        let left = command.granted - command.received;
        if data.datao.get() != command.received || data.datal.get() > left {
            return Err(Fatal::OUT_OF_RANGE);
        }
        self.taking = Some(number);
        self.next_target(number);
        Ok(())
    }

    /// Points the receiver at the piece that is to be filled.
    fn next_target(&mut self, number: u16) {
        let index = self.commands.get(number).filling;
        let piece = self.pieces.get_mut(index);
        let buf = match &mut piece.expected {
            Some(_) => piece.expected.take(),
            None => piece.buf.take(),
        };
        let (at, end) = (piece.at, piece.end());
        let buf = buf.expect("a piece that is filled has its buffer");
        self.receiver.fill(Target { buf, at, end });
    }

    /// A target has come back from the receiver.
    fn filled(&mut self, target: Target<Buf>, end: Option<bool>, host: &mut impl Host) {
        let number = self.taking.expect("data are of a command");
        let index = self.put_back(number, target);
        let piece = self.pieces.get_mut(index);
        let command = self.commands.get_mut(number);
        if piece.at == piece.end() {
            piece.state = State::Full;
            command.filling = piece.next;
        }
        if command.received == command.granted && std::mem::take(&mut command.long_r2t) {
            self.long_r2ts -= 1;
            if self.long_r2ts == 0 {
                self.receiver.set_appetite(RECEIVE_BYTES);
            }
        }
        if end == Some(false) {
            command.failed.get_or_insert(Status::TRANSIENT_TRANSPORT_ERROR);
        }
        match end {
            Some(_) => self.taking = None,
            None => self.next_target(number),
        }
        if end.is_some() || !self.setup.digests.data {
            self.data_came(number, host);
        }
    }

    /// Data have come and are good, as far as can be known.
    fn data_came(&mut self, number: u16, host: &mut impl Host) {
        let command = self.commands.get(number);
        if command.failed.is_some() {
            return self.wind_up(number, host);
        }
        let (all, asked) =
            (command.received == command.transfer, command.received == command.granted);
        match command.kind {
            Kind::Write | Kind::Compare => self.ready_full(number),
            Kind::Deallocate if all => return self.ranges_came(number, host),
            Kind::FusedCompare | Kind::FusedWrite if all => {
                return self.pair_came(number, host);
            }
            _ => {}
        }
        if all {
            self.commands.get_mut(number).issued_all = true;
        } else if asked {
            self.want_pieces(number);
        }
    }

    /// The command's pieces that are full wait for the engine.
    fn ready_full(&mut self, number: u16) {
        let mut index = self.commands.get(number).first;
        while index != NONE {
            let piece = self.pieces.get_mut(index);
            if piece.state == State::Full {
                piece.state = State::Ready;
                self.ready.push(index);
            }
            index = piece.next;
        }
    }

    /// The buffer of a target belongs to its piece again.
    fn put_back(&mut self, number: u16, target: Target<Buf>) -> u16 {
        let command = self.commands.get_mut(number);
        let index = command.filling;
        let piece = self.pieces.get_mut(index);
        command.received += u32::try_from(target.at - piece.at).expect("part of a transfer");
        piece.at = target.at;
        if piece.buf.is_none() {
            piece.buf = Some(target.buf);
        } else {
            piece.expected = Some(target.buf);
        }
        index
    }

    /// Of a connection that is given up: what the receiver was filling.
    pub(super) fn take_back_target(&mut self) {
        let target = self.receiver.abandon();
        if let (Some(number), Some(target)) = (self.taking.take(), target) {
            self.put_back(number, target);
        }
    }

    /// Makes the identifier the command's own; false if another under way has it.
    fn claim_cid(&mut self, cid: u16) -> bool {
        let (word, bit) = (&mut self.cids[usize::from(cid >> 6)], 1 << (cid & 63));
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    pub(super) fn release_cid(&mut self, cid: u16) {
        self.cids[usize::from(cid >> 6)] &= !(1 << (cid & 63));
    }
}
