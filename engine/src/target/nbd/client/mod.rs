//! An NBD client, for import, export, replay and tests.
//!
//! It asks for structured replies and `base:allocation`, and works with servers
//! that have the first. [`Client`] does one request at a time;
//! [`Client::split`] gives two halves for two threads, with as many requests
//! under way as wanted. Sending may wait for the server, which may wait for its
//! replies to be received: one thread that does both takes
//! [`Client::split_nonblocking`].
//!
//! Not here: TLS, reconnecting.

mod decode;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod negotiate;
mod pipeline;
mod uri;

use std::io;
use std::time::Duration;

pub use pipeline::{Done, Extent, Part, Receiver, Sender};
pub use uri::{Transport, Uri, UriError};

use super::wire::{self, Errno, export_flag};
use crate::target::socket::Socket;

/// Longest wait for a TCP connection, and for each message of a negotiation.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the address.
    #[error("cannot connect to {uri}: {source}")]
    Connect {
        /// The address.
        uri: Uri,
        /// The system's reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection to the NBD server lost: {0}")]
    Lost(#[from] io::Error),
    /// The server closed the connection.
    #[error("the NBD server closed the connection")]
    Closed,
    /// The server did not answer while the connection was made.
    #[error("the NBD server does not answer")]
    Silent,
    /// The other side speaks something else.
    #[error("not an NBD server with fixed newstyle negotiation")]
    NotNbd,
    /// The server refused an option.
    #[error("the NBD server refuses {option}: {message}")]
    Refused {
        /// What was asked for.
        option: &'static str,
        /// The type of the error reply.
        kind: u32,
        /// The server's message, or the protocol's name for the error.
        message: String,
    },
    /// The server broke the protocol.
    #[error("the NBD server broke the protocol: {0}")]
    Malformed(&'static str),
    /// The request is outside the export.
    #[error("bytes {offset}+{length} are outside the export of {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Bytes of the export.
        size: u64,
    },
    /// A request failed.
    #[error(transparent)]
    Failed(#[from] RequestError),
}

/// The server's error for one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errno}{}{message}", if message.is_empty() { "" } else { ": " })]
pub struct RequestError {
    /// The error.
    pub errno: Errno,
    /// Where, if the server said.
    pub offset: Option<u64>,
    /// The server's message; may be empty.
    pub message: String,
}

/// What the server said of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Bytes.
    pub size: u64,
    /// [`wire::export_flag`].
    pub flags: u16,
    /// Offsets and lengths are multiples of this.
    pub minimum_block: u32,
    /// Longest read or write.
    pub maximum_block: u32,
    /// [`Client::block_status`] tells of holes.
    pub allocation: bool,
}

impl Info {
    /// Writes fail.
    pub fn read_only(&self) -> bool {
        self.flags & export_flag::READ_ONLY != 0
    }
}

/// A connection to an export, one request at a time.
pub struct Client {
    info: Info,
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// If nobody answers, the export does not exist, or the server has no
    /// structured replies.
    pub fn connect(uri: &Uri) -> Result<Client, Error> {
        let socket = uri.connect()?;
        Client::over(socket, &uri.export)
    }

    /// Negotiates over a connected blocking socket.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn over(socket: Socket, export: &str) -> Result<Client, Error> {
        Client::within(socket, export, PATIENCE)
    }

    fn within(mut socket: Socket, export: &str, patience: Duration) -> Result<Client, Error> {
        set_timeout(&socket, Some(patience))?;
        let info = negotiate::negotiate(&mut socket, export)?;
        set_timeout(&socket, None)?;
        let sender = Sender::new(socket.try_clone()?);
        Ok(Client { info, sender, receiver: Receiver::new(socket) })
    }

    /// The export.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Bytes of the export.
    pub fn size(&self) -> u64 {
        self.info.size
    }

    /// Two halves for two threads; requests and replies meet by cookie.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Two halves that never wait, for one thread: [`Sender::send`] keeps what
    /// the socket does not take for [`Sender::push`], and
    /// [`Receiver::try_receive`] ends where the socket does.
    ///
    /// # Errors
    /// If the socket cannot be switched.
    pub fn split_nonblocking(self) -> Result<(Sender, Receiver), Error> {
        // Both halves are handles of one socket.
        match self.receiver.socket() {
            Socket::Unix(socket) => socket.set_nonblocking(true)?,
            Socket::Tcp(socket) => socket.set_nonblocking(true)?,
        }
        Ok(self.split())
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// If the range is outside the export or the server fails.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.check(offset, out.len() as u64)?;
        let step = self.info.maximum_block as usize;
        for (part, at) in out.chunks_mut(step).zip((offset..).step_by(step)) {
            self.sender.read(0, at, length_u32(part.len()))?;
            let wanted = part.len() as u64;
            let mut outside = false;
            let done = self.receiver.receive(|received| match received {
                Part::Data { offset, bytes, .. } => {
                    match target(part, at, offset, bytes.len() as u64) {
                        Some(target) => target.copy_from_slice(bytes),
                        None => outside = true,
                    }
                }
                Part::Zeros { offset, length, .. } => match target(part, at, offset, length) {
                    Some(target) => target.fill(0),
                    None => outside = true,
                },
                Part::Extents { .. } => outside = true,
            })?;
            done.result?;
            if outside || done.bytes != wanted {
                return Err(Error::Malformed("a read's data does not match its request"));
            }
        }
        Ok(())
    }

    /// Writes `data` at `offset`; durable before it returns if `fua`.
    ///
    /// # Errors
    /// If the range is outside the export or the server fails.
    pub fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<(), Error> {
        self.check(offset, data.len() as u64)?;
        let step = self.info.maximum_block as usize;
        for (part, at) in data.chunks(step).zip((offset..).step_by(step)) {
            self.sender.write(0, at, part, fua)?;
            self.finish()?;
        }
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// If the server fails.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.sender.flush(0)?;
        self.finish()
    }

    /// Drops a range.
    ///
    /// # Errors
    /// If the range is outside the export or the server fails.
    pub fn trim(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        self.check(offset, length)?;
        for (at, part) in self.parts(offset, length) {
            self.sender.trim(0, at, part)?;
            self.finish()?;
        }
        Ok(())
    }

    /// Makes a range read as zeros; it stays allocated if `no_hole`.
    ///
    /// # Errors
    /// If the range is outside the export or the server fails.
    pub fn write_zeroes(&mut self, offset: u64, length: u64, no_hole: bool) -> Result<(), Error> {
        self.check(offset, length)?;
        for (at, part) in self.parts(offset, length) {
            self.sender.write_zeroes(0, at, part, no_hole)?;
            self.finish()?;
        }
        Ok(())
    }

    /// The extents of a range, in order and without gaps; all of it counts as
    /// data where the server does not tell.
    ///
    /// # Errors
    /// If the range is outside the export or the server fails.
    pub fn block_status(&mut self, offset: u64, length: u64) -> Result<Vec<Extent>, Error> {
        self.check(offset, length)?;
        if !self.info.allocation {
            return Ok(vec![Extent { offset, length, state: 0 }]);
        }
        let (mut at, end) = (offset, offset + length);
        let mut all: Vec<Extent> = Vec::new();
        while at < end {
            let (start, part) = self.parts(at, end - at).next().expect("bytes are left");
            self.sender.block_status(0, start, part)?;
            let mut got = Vec::new();
            let done = self.receiver.receive(|received| {
                if let Part::Extents { extents, .. } = received {
                    got.extend_from_slice(extents);
                }
            })?;
            done.result?;
            if got.is_empty() {
                return Err(Error::Malformed("a block status without extents"));
            }
            for (length, state) in got {
                let length = u64::from(length).min(end - at);
                match all.last_mut() {
                    Some(last) if last.state == state => last.length += length,
                    _ if length == 0 => {}
                    _ => all.push(Extent { offset: at, length, state }),
                }
                at += length;
            }
        }
        Ok(all)
    }

    /// Takes leave of the server.
    ///
    /// # Errors
    /// If the connection is lost already.
    pub fn close(mut self) -> Result<(), Error> {
        self.sender.disconnect()
    }

    fn finish(&mut self) -> Result<(), Error> {
        let done = self.receiver.receive(|_| {})?;
        Ok(done.result?)
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), Error> {
        let size = self.info.size;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::OutOfRange { offset, length, size }),
        }
    }

    /// A range in pieces of at most 1 GiB: what a request's length can say.
    fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, u32)> + use<> {
        const STEP: u64 = 1 << 30;
        let end = offset + length;
        (0..length.div_ceil(STEP)).map(move |i| {
            let at = offset + i * STEP;
            (at, u32::try_from((end - at).min(STEP)).expect("at most 1 GiB"))
        })
    }
}

fn set_timeout(socket: &Socket, limit: Option<Duration>) -> io::Result<()> {
    match socket {
        Socket::Unix(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
        Socket::Tcp(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
    }
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("at most the export's maximum block size")
}

/// Where `length` bytes of `offset` stand in a buffer that begins with `base`.
fn target(buffer: &mut [u8], base: u64, offset: u64, length: u64) -> Option<&mut [u8]> {
    let from = usize::try_from(offset.checked_sub(base)?).ok()?;
    let to = from.checked_add(usize::try_from(length).ok()?)?;
    buffer.get_mut(from..to)
}

/// A name for an error reply that came without a message.
fn reply_name(kind: u32) -> &'static str {
    match kind {
        wire::reply::ERR_UNSUP => "not supported",
        wire::reply::ERR_POLICY => "forbidden by policy",
        wire::reply::ERR_INVALID => "invalid",
        wire::reply::ERR_UNKNOWN => "no such export",
        wire::reply::ERR_SHUTDOWN => "server is stopping",
        wire::reply::ERR_TOO_BIG => "too long",
        _ => "refused",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let got = Client::within(Socket::Unix(ours), "a", Duration::from_millis(20));
        assert!(matches!(got.err(), Some(Error::Silent)));
        drop(theirs);
    }
}
