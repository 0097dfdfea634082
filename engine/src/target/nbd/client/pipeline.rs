//! The two halves of a client: requests out, replies in.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Error, RequestError};
use crate::target::nbd::socket::Socket;
use crate::target::nbd::wire::{
    self, ChunkHeader, Descriptor, Errno, ErrorHead, RequestHeader, SimpleReply, chunk, command,
    command_flag,
};

/// Bytes received at once, and of the longest [`Part::Data`].
const BUFFER_BYTES: usize = 256 << 10;
/// Extents that a server may send at once: all blocks of 4 GiB.
const EXTENTS: usize = 1 << 20;

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
}

impl Sender {
    pub(super) fn new(socket: Socket) -> Sender {
        Sender { socket }
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
        while left.iter().any(|slice| !slice.is_empty()) {
            match self.socket.write_vectored(left) {
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// What came for a request that is not done.
#[derive(Default)]
struct Partial {
    bytes: u64,
    failed: Option<RequestError>,
}

/// Receives replies.
pub struct Receiver {
    socket: BufReader<Socket>,
    partial: HashMap<u64, Partial>,
    extents: Vec<(u32, u32)>,
}

impl Receiver {
    pub(super) fn new(socket: Socket) -> Receiver {
        Receiver {
            socket: BufReader::with_capacity(BUFFER_BYTES, socket),
            partial: HashMap::new(),
            extents: Vec::new(),
        }
    }

    /// Waits until a request is done; `part` sees the data of all requests on
    /// the way there.
    ///
    /// # Errors
    /// If the connection is lost or the server breaks the protocol. A request
    /// that failed is no such error: see [`Done::result`].
    pub fn receive(&mut self, mut part: impl FnMut(Part<'_>)) -> Result<Done, Error> {
        loop {
            if let Some(done) = self.message(&mut part)? {
                return Ok(done);
            }
        }
    }

    /// Something was received that [`Receiver::receive`] has not looked at yet.
    pub fn has_buffered(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    /// One simple reply or chunk.
    fn message(&mut self, part: &mut impl FnMut(Part<'_>)) -> Result<Option<Done>, Error> {
        let mut magic = [0; 4];
        self.fill(&mut magic)?;
        match u32::from_be_bytes(magic) {
            wire::SIMPLE_REPLY_MAGIC => {
                let reply: SimpleReply = self.rest(magic)?;
                let error = reply.error.get();
                let failed = (error != 0).then(|| RequestError {
                    errno: Errno::from_wire(error),
                    offset: None,
                    message: String::new(),
                });
                let cookie = reply.cookie.get();
                self.partial.entry(cookie).or_default().failed = failed;
                Ok(Some(self.done(cookie)))
            }
            wire::CHUNK_MAGIC => {
                let header: ChunkHeader = self.rest(magic)?;
                self.chunk(&header, part)?;
                let done = header.flags.get() & wire::CHUNK_DONE != 0;
                Ok(done.then(|| self.done(header.cookie.get())))
            }
            _ => Err(Error::Malformed("not a reply")),
        }
    }

    fn done(&mut self, cookie: u64) -> Done {
        let Partial { bytes, failed } = self.partial.remove(&cookie).unwrap_or_default();
        Done { cookie, bytes, result: failed.map_or(Ok(()), Err) }
    }

    fn chunk(
        &mut self,
        header: &ChunkHeader,
        part: &mut impl FnMut(Part<'_>),
    ) -> Result<(), Error> {
        let (cookie, length) = (header.cookie.get(), header.length.get() as usize);
        match header.kind.get() {
            chunk::NONE if length == 0 => Ok(()),
            chunk::OFFSET_DATA if length > 8 => self.data(cookie, length - 8, part),
            chunk::OFFSET_HOLE if length == 12 => {
                let offset = self.u64()?;
                let mut size = [0; 4];
                self.fill(&mut size)?;
                let length = u64::from(u32::from_be_bytes(size));
                self.partial.entry(cookie).or_default().bytes += length;
                part(Part::Zeros { cookie, offset, length });
                Ok(())
            }
            chunk::BLOCK_STATUS if length > 4 && length % 8 == 4 && length / 8 <= EXTENTS => {
                let mut context = [0; 4];
                self.fill(&mut context)?;
                self.extents.clear();
                for _ in 0..length / 8 {
                    let mut bytes = [0; Descriptor::BYTES];
                    self.fill(&mut bytes)?;
                    let descriptor = Descriptor::read_from_bytes(&bytes).expect("as long");
                    self.extents.push((descriptor.length.get(), descriptor.state.get()));
                }
                part(Part::Extents { cookie, extents: &self.extents });
                Ok(())
            }
            kind if kind & chunk::ERROR_BIT != 0 && length <= BUFFER_BYTES => {
                self.error(cookie, kind, length)
            }
            _ => Err(Error::Malformed("unknown chunk, or of impossible length")),
        }
    }

    fn data(
        &mut self,
        cookie: u64,
        length: usize,
        part: &mut impl FnMut(Part<'_>),
    ) -> Result<(), Error> {
        let mut offset = self.u64()?;
        self.partial.entry(cookie).or_default().bytes += length as u64;
        let mut left = length;
        while left > 0 {
            let held = match self.socket.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if held.is_empty() {
                return Err(Error::Closed);
            }
            let n = held.len().min(left);
            part(Part::Data { cookie, offset, bytes: &held[..n] });
            self.socket.consume(n);
            left -= n;
            offset += n as u64;
        }
        Ok(())
    }

    fn error(&mut self, cookie: u64, kind: u16, length: usize) -> Result<(), Error> {
        const SHORT: Error = Error::Malformed("an error chunk is too short");
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let (head, rest) = ErrorHead::read_from_prefix(&payload).map_err(|_| SHORT)?;
        let (message, rest) =
            rest.split_at_checked(head.message_length.get().into()).ok_or(SHORT)?;
        let offset = match rest.first_chunk() {
            Some(offset) if kind == chunk::ERROR_OFFSET => Some(u64::from_be_bytes(*offset)),
            None if kind == chunk::ERROR_OFFSET => return Err(SHORT),
            _ => None,
        };
        let errno = Errno::from_wire(head.error.get());
        let message = String::from_utf8_lossy(message).into_owned();
        let failed = &mut self.partial.entry(cookie).or_default().failed;
        failed.get_or_insert(RequestError { errno, offset, message });
        Ok(())
    }

    /// The rest of a message whose magic has been read.
    fn rest<T: FromBytes + IntoBytes + Immutable>(&mut self, magic: [u8; 4]) -> Result<T, Error> {
        let mut message = T::new_zeroed();
        let (head, rest) = message.as_mut_bytes().split_at_mut(magic.len());
        head.copy_from_slice(&magic);
        self.fill(rest)?;
        Ok(message)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        match self.socket.read_exact(out) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
            other => Ok(other?),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}
