//! What comes from the client: requests, and the data of writes.
//!
//! Headers go through a small buffer; a write's data goes straight into the
//! buffer that the engine will write from, except for what came together with
//! the header. A refused write's data is passed over, so that the stream stays
//! in step.

use std::io::IoSliceMut;

use zerocopy::FromBytes;

use super::RECEIVE_BYTES;
use super::command::{self, Command, Failed, Kind};
use super::handshake::Violation;
use super::session::{Phase, Session};
use super::wire::{self, RequestHeader};
use crate::request::{Buf, Host, buffer_bytes};
use crate::units::BLOCK_BYTES;

/// The receive buffer, and what its next byte is.
pub(super) struct Receiver {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    expect: Expect,
    /// Bytes that ever came.
    total: u64,
}

enum Expect {
    Request,
    /// The data of a write.
    Payload {
        command: u16,
        left: u32,
        filling: Option<Filling>,
    },
    /// The data of a write that has failed.
    Refused {
        command: u16,
        left: u32,
    },
}

/// The piece of a write that is being received.
struct Filling {
    piece: u16,
    buf: Buf,
    /// Position in the buffer of the next byte, and of the end.
    at: usize,
    end: usize,
}

impl Receiver {
    pub(super) fn new(received: &[u8]) -> Receiver {
        let mut bytes = vec![0; RECEIVE_BYTES].into_boxed_slice();
        bytes[..received.len()].copy_from_slice(received);
        Receiver { bytes, start: 0, end: received.len(), expect: Expect::Request, total: 0 }
    }

    fn held(&self) -> usize {
        self.end - self.start
    }

    /// Moves what is held to the front, to make room behind it.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.held());
        &mut self.bytes[self.end..]
    }
}

impl Session {
    /// More bytes from the client can be taken now.
    pub fn wants_input(&self) -> bool {
        self.phase == Phase::Open
            && match &self.receiver.expect {
                Expect::Request => self.receiver.held() < RequestHeader::BYTES,
                Expect::Payload { filling, .. } => filling.as_ref().is_some_and(|f| f.at < f.end),
                Expect::Refused { .. } => true,
            }
    }

    /// Bytes received so far, if the client owes the rest of a write's data.
    pub(super) fn unsent(&self) -> Option<u64> {
        let owed = !matches!(self.receiver.expect, Expect::Request);
        (owed && self.wants_input()).then_some(self.receiver.total)
    }

    /// Where the next bytes from the client go, in this order; `None` if none
    /// can be taken now.
    pub fn space<'a>(&'a mut self, host: &'a mut impl Host) -> Option<[IoSliceMut<'a>; 2]> {
        if !self.wants_input() {
            return None;
        }
        // The rest of a long write belongs into its own next buffer, not here.
        let more_follows = match &self.receiver.expect {
            Expect::Payload { left, filling: Some(f), .. } => *left as usize > f.end - f.at,
            _ => false,
        };
        let receiver = &mut self.receiver;
        receiver.room();
        let Receiver { bytes, end, expect, .. } = receiver;
        let direct: &mut [u8] = match expect {
            Expect::Payload { filling: Some(f), .. } => {
                &mut host.bytes_mut(&mut f.buf)[f.at..f.end]
            }
            _ => &mut [],
        };
        let scratch = if more_follows { &mut [] } else { &mut bytes[*end..] };
        Some([IoSliceMut::new(direct), IoSliceMut::new(scratch)])
    }

    /// Notes that `bytes` were put into [`Session::space`].
    pub fn received(&mut self, bytes: usize) {
        self.receiver.total += bytes as u64;
        let mut direct = 0;
        if let Expect::Payload { left, filling: Some(f), .. } = &mut self.receiver.expect {
            direct = bytes.min(f.end - f.at);
            f.at += direct;
            *left -= u32::try_from(direct).expect("at most left");
        }
        self.receiver.end += bytes - direct;
        assert!(self.receiver.end <= self.receiver.bytes.len(), "no more than there is space");
    }

    /// Takes in what is held, as far as there is room for it.
    pub(super) fn parse(&mut self, host: &mut impl Host) -> Result<(), Violation> {
        while self.phase == Phase::Open {
            let moved = match &self.receiver.expect {
                Expect::Request => self.parse_request()?,
                Expect::Payload { .. } => self.fill(host),
                Expect::Refused { .. } => self.pass_over(),
            };
            if !moved {
                break;
            }
        }
        Ok(())
    }

    fn parse_request(&mut self) -> Result<bool, Violation> {
        let held = &self.receiver.bytes[self.receiver.start..self.receiver.end];
        let Ok((header, _)) = RequestHeader::read_from_prefix(held) else { return Ok(false) };
        if header.magic != wire::REQUEST_MAGIC {
            return Err(Violation::RequestMagic(header.magic.get()));
        }
        if header.command == wire::command::DISC {
            self.phase = Phase::Draining;
            return Ok(false);
        }
        if self.commands.is_full() {
            return Ok(false);
        }
        self.receiver.start += RequestHeader::BYTES;
        match command::admit(&header, &self.export, self.stopping) {
            Ok(command) => self.accept(command),
            Err((errno, message)) => {
                self.refuse(&header, Failed { errno, message, offset: header.offset.get() });
            }
        }
        Ok(true)
    }

    fn accept(&mut self, command: Command) {
        let (kind, length) = (command.kind, command.length);
        let number = self.commands.insert(command);
        if length == 0 && kind != Kind::Flush {
            self.commands.get_mut(number).issued_all = true;
            self.settle(number);
        } else if kind == Kind::Write {
            self.receiver.expect = Expect::Payload { command: number, left: length, filling: None };
        } else {
            self.issue.push(number);
        }
    }

    /// A refused request takes a slot as well, so that its reply is counted.
    fn refuse(&mut self, header: &RequestHeader, failed: Failed) {
        let payload = header.command == wire::command::WRITE && header.length > 0;
        let number = self.commands.insert(Command {
            cookie: header.cookie.get(),
            kind: if payload { Kind::Write } else { Kind::Flush },
            fua: false,
            streamed: false,
            offset: failed.offset,
            length: 0,
            issued: 0,
            issued_all: !payload,
            in_flight: 0,
            failed: Some(failed),
        });
        if payload {
            self.receiver.expect = Expect::Refused { command: number, left: header.length.get() };
        } else {
            self.settle(number);
        }
    }

    /// Takes a write's data that is held, and submits a piece that is whole.
    fn fill(&mut self, host: &mut impl Host) -> bool {
        let Expect::Payload { command: number, left, ref mut filling } = self.receiver.expect
        else {
            return false;
        };
        let Some(mut f) = filling.take() else { return self.start_filling(number, left, host) };
        let held = self.receiver.start..self.receiver.end;
        let n = held.len().min(f.end - f.at);
        host.bytes_mut(&mut f.buf)[f.at..][..n]
            .copy_from_slice(&self.receiver.bytes[held.start..][..n]);
        self.receiver.start += n;
        f.at += n;
        let left = left - u32::try_from(n).expect("at most left");
        let whole = f.at == f.end;
        if whole && host.can_submit() {
            self.submit(f.piece, Some(f.buf), host);
            self.receiver.expect = if left > 0 {
                Expect::Payload { command: number, left, filling: None }
            } else {
                self.commands.get_mut(number).issued_all = true;
                Expect::Request
            };
            return true;
        }
        self.starved |= whole;
        self.receiver.expect = Expect::Payload { command: number, left, filling: Some(f) };
        false
    }

    fn start_filling(&mut self, number: u16, left: u32, host: &mut impl Host) -> bool {
        let command = self.commands.get(number);
        if command.failed.is_some() {
            self.receiver.expect = Expect::Refused { command: number, left };
            return true;
        }
        if self.pieces.is_full() {
            return false;
        }
        let (offset, length) = command.next_piece();
        let bytes = buffer_bytes(offset, length);
        let Some(buf) = self.take_buffer(bytes, host) else { return false };
        let at = usize::try_from(offset % BLOCK_BYTES as u64).expect("below a block");
        let piece = self.insert_piece(number, offset, length, bytes);
        let filling = Some(Filling { piece, buf, at, end: at + length as usize });
        self.receiver.expect = Expect::Payload { command: number, left, filling };
        true
    }

    fn pass_over(&mut self) -> bool {
        let Expect::Refused { command: number, left } = self.receiver.expect else {
            return false;
        };
        let n = self.receiver.held().min(left as usize);
        self.receiver.start += n;
        let left = left - u32::try_from(n).expect("at most left");
        if left > 0 {
            self.receiver.expect = Expect::Refused { command: number, left };
            return false;
        }
        self.receiver.expect = Expect::Request;
        self.commands.get_mut(number).issued_all = true;
        self.settle(number);
        true
    }

    /// The rest of a write will not come: the write fails.
    pub(super) fn abandon_payload(&mut self, host: &mut impl Host) {
        match std::mem::replace(&mut self.receiver.expect, Expect::Request) {
            Expect::Request => {}
            Expect::Payload { command, filling, .. } => {
                if let Some(f) = filling {
                    self.drop_piece(f.piece, Some(f.buf), host);
                }
                self.abandon(command);
            }
            Expect::Refused { command, .. } => self.abandon(command),
        }
    }

    fn abandon(&mut self, number: u16) {
        let command = self.commands.get_mut(number);
        let (errno, message, offset) = (wire::Errno::Inval, "data cut short", command.offset);
        command.failed.get_or_insert(Failed { errno, message, offset });
        command.issued_all = true;
        self.settle(number);
    }
}
