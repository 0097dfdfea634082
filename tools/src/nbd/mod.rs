//! A small NBD client: one connection to one export.
//!
//! Fixed newstyle negotiation, structured replies and `base:allocation` where
//! the server has them, simple replies where not (NBD protocol,
//! `doc/proto.md`). Invariants: the socket never blocks, so a server that
//! waits for us to read is always read while we send; a reply never makes more
//! memory grow than its request announced.

mod handshake;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::block::{BlockClient, BlockError, BlockOp, BlockReply, Extent, Payload};
use handshake::Export;
use reply::Pending;

const REQUEST_MAGIC: u32 = 0x2560_9513;
/// `NBD_CMD_FLAG_NO_HOLE` is not set anywhere: a server may free what is zeroed.
const NO_FLAGS: u16 = 0;
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;
/// Longest transfer where the server names none ("the client MUST NOT" exceed it).
const DEFAULT_MAX_BYTES: u32 = 32 << 20;
/// Our own limit on one transfer.
const MAX_BYTES: u32 = 8 << 20;
/// Longest silence of a server that negotiates.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

trait Stream: Read + Write + AsFd + Send {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// An attached export.
pub struct NbdClient {
    stream: Box<dyn Stream>,
    export: Export,
    /// Bytes that the socket has not taken yet.
    out: Vec<u8>,
    /// Bytes received are `parsed..filled`; the rest is room, kept so that it
    /// need not be cleared again.
    input: Vec<u8>,
    parsed: usize,
    filled: usize,
    pending: HashMap<u64, Pending>,
    /// Completions not handed out yet.
    done: Vec<BlockReply>,
}

impl NbdClient {
    /// Attaches to `export` of the server at `uri`: `nbd+unix:///?socket=PATH`
    /// or `nbd://HOST:PORT/` (NBD project, `doc/uri.md`; the path is ignored).
    pub fn connect(uri: &str, export: &str) -> Result<Self, BlockError> {
        if let Some((_, path)) = uri.split_once("?socket=") {
            let stream = UnixStream::connect(percent_decoded(path))?;
            stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
            let shared = handshake::negotiate(&stream, export)?;
            stream.set_nonblocking(true)?;
            return Ok(Self::attached(Box::new(stream), shared));
        }
        let address = uri.strip_prefix("nbd://").map(|rest| rest.trim_end_matches('/'));
        let address = address.ok_or(BlockError::Protocol("an address that is no NBD URI"))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
        let shared = handshake::negotiate(&stream, export)?;
        stream.set_nonblocking(true)?;
        Ok(Self::attached(Box::new(stream), shared))
    }

    fn attached(stream: Box<dyn Stream>, export: Export) -> Self {
        Self {
            stream,
            export,
            out: Vec::new(),
            input: Vec::new(),
            parsed: 0,
            filled: 0,
            pending: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// Waits until the socket can be read (or written, if bytes wait for it),
    /// and does both as far as it goes without waiting.
    fn exchange(&mut self, timeout: Duration) -> Result<(), BlockError> {
        let mut wanted = PollFlags::IN;
        if !self.out.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let time = Timespec::try_from(timeout).map_err(|_| BlockError::Protocol("a timeout"))?;
        let mut fds = [PollFd::from_borrowed_fd(self.stream.as_fd(), wanted)];
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
        let ready = fds[0].revents();
        if ready.contains(PollFlags::OUT) {
            self.write_out()?;
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read_in()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), BlockError> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(bytes) => written += bytes,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.out.drain(..written);
        Ok(())
    }

    fn read_in(&mut self) -> Result<(), BlockError> {
        self.input.copy_within(self.parsed..self.filled, 0);
        self.filled -= self.parsed;
        self.parsed = 0;
        if self.input.len() < self.filled + READ_BYTES {
            self.input.resize(self.filled + READ_BYTES, 0);
        }
        let read = self.stream.read(&mut self.input[self.filled..]);
        self.filled += read.as_ref().map_or(0, |bytes| *bytes);
        match read {
            Ok(0) => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(_) => self.parse(),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes whole replies out of the input.
    fn parse(&mut self) -> Result<(), BlockError> {
        loop {
            let input = &self.input[self.parsed..self.filled];
            let context = self.export.allocation_context;
            let Some(taken) = reply::parse(input, context, &mut self.pending)? else {
                return Ok(());
            };
            self.parsed += taken.bytes;
            if let Some(id) = taken.finished {
                let pending = self.pending.remove(&id).expect("the parser found it");
                self.done.push(BlockReply { id, result: pending.finish() });
            }
        }
    }

    fn request(&mut self, id: u64, command: u16, offset: u64, length: u32, data: &[u8]) {
        self.out.extend(REQUEST_MAGIC.to_be_bytes());
        self.out.extend(NO_FLAGS.to_be_bytes());
        self.out.extend(command.to_be_bytes());
        self.out.extend(id.to_be_bytes());
        self.out.extend(offset.to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.out.extend(data);
    }

    /// Answers a request that the server has no command for.
    fn answer(&mut self, id: u64, result: Result<Payload, BlockError>) {
        self.done.push(BlockReply { id, result });
    }
}

/// Undoes the escapes of a URI; what is no escape stays.
fn percent_decoded(text: &str) -> OsString {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

impl BlockClient for NbdClient {
    fn size_bytes(&self) -> u64 {
        self.export.size_bytes
    }

    fn block_bytes(&self) -> u32 {
        self.export.block_bytes
    }

    fn max_transfer_bytes(&self) -> u32 {
        self.export.max_bytes
    }

    fn send(&mut self, id: u64, op: BlockOp<'_>) -> Result<(), BlockError> {
        assert!(!self.pending.contains_key(&id), "request {id} is in flight");
        let pending = match op {
            BlockOp::Read { offset, length } => {
                self.request(id, 0, offset, length, &[]);
                Pending::read(offset, length)
            }
            BlockOp::Write { offset, data } => {
                let length = u32::try_from(data.len()).expect("at most max_transfer_bytes");
                self.request(id, 1, offset, length, data);
                Pending::plain()
            }
            BlockOp::WriteZeroes { offset, length } if self.export.can_zero => {
                self.request(id, 6, offset, length, &[]);
                Pending::plain()
            }
            BlockOp::WriteZeroes { offset, length } => {
                self.request(id, 1, offset, length, &vec![0; length as usize]);
                Pending::plain()
            }
            BlockOp::Status { offset, length } if self.export.allocation_context.is_some() => {
                self.request(id, 7, offset, length, &[]);
                Pending::status()
            }
            BlockOp::Status { length, .. } => {
                let extent = Extent { length: length.into(), zero: false };
                self.answer(id, Ok(Payload::Extents(vec![extent])));
                return Ok(());
            }
            BlockOp::Flush if self.export.can_flush => {
                self.request(id, 3, 0, 0, &[]);
                Pending::plain()
            }
            BlockOp::Flush => {
                self.answer(id, Ok(Payload::None));
                return Ok(());
            }
        };
        self.pending.insert(id, pending);
        self.write_out()?;
        while !self.out.is_empty() {
            self.exchange(Duration::from_secs(1))?;
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, done: &mut Vec<BlockReply>) -> Result<(), BlockError> {
        if self.done.is_empty() {
            self.exchange(timeout)?;
        }
        done.append(&mut self.done);
        Ok(())
    }
}

impl Drop for NbdClient {
    /// Says goodbye (`NBD_CMD_DISC`), so that the server logs no lost client.
    fn drop(&mut self) {
        self.request(u64::MAX, 2, 0, 0, &[]);
        let _ = self.write_out();
    }
}
