//! The two halves of a client: requests out, replies in.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::IntoBytes;

use super::decode::{Decoder, Taken};
use super::{Error, RequestError};
use crate::target::nbd::wire::{self, RequestHeader, command, command_flag};
use crate::target::socket::{Socket, ready};

/// Bytes received at once, and of the longest [`Part::Data`].
const BUFFER_BYTES: usize = 256 << 10;

/// A range of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// [`wire::STATE_HOLE`] | [`wire::STATE_ZERO`].
    pub state: u32,
}

impl Extent {
    /// It reads as zeros.
    pub fn is_zero(&self) -> bool {
        self.state & wire::STATE_ZERO != 0
    }
}

/// A part of the answer to a request.
#[derive(Debug)]
pub enum Part<'a> {
    /// Data of a read.
    Data {
        /// The request.
        cookie: u64,
        /// First byte, in the export.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Zeros of a read.
    Zeros {
        /// The request.
        cookie: u64,
        /// First byte, in the export.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Lengths and states of consecutive extents from the request's offset on.
    Extents {
        /// The request.
        cookie: u64,
        /// The extents.
        extents: &'a [(u32, u32)],
    },
}

/// The end of a request.
#[derive(Debug)]
pub struct Done {
    /// The request.
    pub cookie: u64,
    /// Bytes of data and zeros that came for it: a read is whole when they are
    /// as many as it asked for.
    pub bytes: u64,
    /// How it ended.
    pub result: Result<(), RequestError>,
}

/// Sends requests. Each carries a cookie that no other request under way has.
pub struct Sender {
    socket: Socket,
    /// What a socket that does not block has not taken.
    unsent: Vec<u8>,
}

impl Sender {
    pub(super) fn new(socket: Socket) -> Sender {
        Sender { socket, unsent: Vec::new() }
    }

    /// Bytes of requests that wait for the socket: see [`Sender::push`].
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Hands the socket as much of what waits as it takes.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn push(&mut self) -> Result<(), Error> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match ready(self.socket.write(&self.unsent[sent..]))? {
                Some(n) => sent += n,
                None => break,
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Asks for `length` bytes.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn read(&mut self, cookie: u64, offset: u64, length: u32) -> Result<(), Error> {
        self.send(command::READ, 0, cookie, offset, length, &[])
    }

    /// Writes `data`; durable before the reply if `fua`.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// If `data` has 4 GiB or more.
    pub fn write(&mut self, cookie: u64, offset: u64, data: &[u8], fua: bool) -> Result<(), Error> {
        let flags = if fua { command_flag::FUA } else { 0 };
        let length = u32::try_from(data.len()).expect("less than 4 GiB");
        self.send(command::WRITE, flags, cookie, offset, length, data)
    }

    /// Makes durable what the server has answered so far.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn flush(&mut self, cookie: u64) -> Result<(), Error> {
        self.send(command::FLUSH, 0, cookie, 0, 0, &[])
    }

    /// Drops a range.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn trim(&mut self, cookie: u64, offset: u64, length: u32) -> Result<(), Error> {
        self.send(command::TRIM, 0, cookie, offset, length, &[])
    }

    /// Makes a range zero; it stays allocated if `no_hole`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn write_zeroes(
        &mut self,
        cookie: u64,
        offset: u64,
        length: u32,
        no_hole: bool,
    ) -> Result<(), Error> {
        let flags = if no_hole { command_flag::NO_HOLE } else { 0 };
        self.send(command::WRITE_ZEROES, flags, cookie, offset, length, &[])
    }

    /// Asks for the extents of a range.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn block_status(&mut self, cookie: u64, offset: u64, length: u32) -> Result<(), Error> {
        self.send(command::BLOCK_STATUS, 0, cookie, offset, length, &[])
    }

    /// Takes leave: the server answers what is under way and closes.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn disconnect(&mut self) -> Result<(), Error> {
        self.send(command::DISC, 0, 0, 0, 0, &[])
    }

    /// Any request, as it is: for tests of what a server refuses.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn send(
        &mut self,
        command: u16,
        flags: u16,
        cookie: u64,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Result<(), Error> {
        let header = RequestHeader {
            magic: wire::REQUEST_MAGIC.into(),
            flags: flags.into(),
            command: command.into(),
            cookie: cookie.into(),
            offset: offset.into(),
            length: length.into(),
        };
        let mut slices = [IoSlice::new(header.as_bytes()), IoSlice::new(data)];
        let mut left = &mut slices[..];
        while self.unsent.is_empty() && left.iter().any(|slice| !slice.is_empty()) {
            match self.socket.write_vectored(left) {
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        left.iter().for_each(|slice| self.unsent.extend_from_slice(slice));
        Ok(())
    }
}

/// Receives replies.
pub struct Receiver {
    socket: Socket,
    decoder: Decoder,
    /// Bytes received are `parsed..filled`; the rest is room.
    input: Vec<u8>,
    parsed: usize,
    filled: usize,
}

impl Receiver {
    pub(super) fn new(socket: Socket) -> Receiver {
        let (decoder, input) = (Decoder::default(), vec![0; BUFFER_BYTES]);
        Receiver { socket, decoder, input, parsed: 0, filled: 0 }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Waits until a request is done; `part` sees the data of all requests on
    /// the way there. For a socket that blocks.
    ///
    /// # Errors
    /// If the connection is lost or the server breaks the protocol. A request
    /// that failed is no such error: see [`Done::result`].
    pub fn receive(&mut self, mut part: impl FnMut(Part<'_>)) -> Result<Done, Error> {
        loop {
            if let Some(done) = self.try_receive(&mut part)? {
                return Ok(done);
            }
        }
    }

    /// As [`Receiver::receive`], but `None` when the socket has nothing more now.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub fn try_receive(&mut self, mut part: impl FnMut(Part<'_>)) -> Result<Option<Done>, Error> {
        loop {
            let input = &self.input[self.parsed..self.filled];
            match self.decoder.take(input, &mut part)? {
                Taken::Bytes(n, None) => self.parsed += n,
                Taken::Bytes(n, Some(done)) => {
                    self.parsed += n;
                    return Ok(Some(done));
                }
                Taken::Needs(bytes) if !self.fill(bytes)? => return Ok(None),
                Taken::Needs(_) => {}
            }
        }
    }

    /// Makes room for `bytes` in all and reads once; false if nothing came.
    fn fill(&mut self, bytes: usize) -> Result<bool, Error> {
        self.input.copy_within(self.parsed..self.filled, 0);
        self.filled -= self.parsed;
        self.parsed = 0;
        if self.input.len() < bytes {
            self.input.resize(bytes, 0);
        }
        match ready(self.socket.read(&mut self.input[self.filled..]))? {
            Some(0) => Err(Error::Closed),
            Some(n) => {
                self.filled += n;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
