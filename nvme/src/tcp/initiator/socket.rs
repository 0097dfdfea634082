//! A queue pair on a non-blocking TCP socket.
//!
//! [`Connection::poll`] sends what waits in one vectored write and receives what is there;
//! it never waits. Small data arrive behind their headers in a buffer and are copied to
//! their place; a long remainder is received straight into it, together with what follows.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::error::Error;
use super::memory::Memory;
use super::outbox::Batch;
use super::queue::QueuePair;

/// Received at once.
const BUFFER_BYTES: usize = 256 << 10;
/// From so many bytes on, data that are still to come are received into their place: a call
/// costs as much as copying about so much.
const DIRECT_BYTES: usize = 16 << 10;
/// Receive calls of one poll: the caller has other queues, too.
const ROUNDS: usize = 64;

/// See the module.
pub struct Connection {
    socket: TcpStream,
    queue: QueuePair,
    buffer: Box<[u8]>,
    /// Bytes received and not taken.
    parsed: usize,
    filled: usize,
    connected: bool,
    since: Instant,
    heard: Instant,
    syscalls: u64,
}

impl Connection {
    /// Begins to connect; [`Connection::poll`] ends it.
    ///
    /// # Errors
    /// If the system refuses at once.
    pub fn begin(now: Instant, address: SocketAddr, queue: QueuePair) -> Result<Connection, Error> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(Connection {
            socket,
            queue,
            buffer: vec![0; BUFFER_BYTES].into(),
            parsed: 0,
            filled: 0,
            connected: false,
            since: now,
            heard: now,
            syscalls: 0,
        })
    }

    /// The queue.
    pub fn queue(&mut self) -> &mut QueuePair {
        &mut self.queue
    }

    /// The queue, to look at.
    pub fn queue_ref(&self) -> &QueuePair {
        &self.queue
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }

    /// Sends and receives what goes without waiting.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn poll(&mut self, now: Instant, memory: &mut impl Memory) -> Result<(), Error> {
        if !self.connected && !self.is_connected()? {
            return Ok(());
        }
        self.flush(memory)?;
        let result = self.receive(now, memory);
        if result.is_err() {
            // The request to terminate, if there is one; the first error is the one to tell.
            let _ = self.flush(memory);
        }
        result?;
        self.flush(memory)
    }

    /// Fails if the connection is not ready, or the oldest command not answered, within
    /// `limit`.
    ///
    /// # Errors
    /// [`Error::Silent`].
    pub fn check_time(&self, now: Instant, limit: Duration) -> Result<(), Error> {
        let since = if self.queue.is_ready() { self.queue.oldest() } else { Some(self.since) };
        match since {
            Some(since) if now.saturating_duration_since(since) > limit => Err(Error::Silent),
            _ => Ok(()),
        }
    }

    /// When something was last received.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    fn is_connected(&mut self) -> Result<bool, Error> {
        self.syscalls += 1;
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&zero)).map_err(io::Error::from)?;
        if fds[0].revents().is_empty() {
            return Ok(false);
        }
        if let Some(error) = self.socket.take_error()? {
            return Err(error.into());
        }
        self.connected = true;
        Ok(true)
    }

    fn flush(&mut self, memory: &mut impl Memory) -> Result<(), Error> {
        while self.queue.wants_to_send() {
            let mut batch = Batch::new();
            self.queue.gather(memory, &mut batch);
            self.syscalls += 1;
            match (&self.socket).write_vectored(&batch) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => {
                    drop(batch);
                    self.queue.sent(n, memory);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives until the socket has nothing more.
    fn receive(&mut self, now: Instant, memory: &mut impl Memory) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let (n, wanted) = match self.receive_once(memory) {
                // A target may hang up behind its answer: what has ended is told first.
                Ok((0, _)) if self.queue.has_ended() => return Ok(()),
                Ok((0, _)) => return Err(Error::Closed),
                Ok(counts) => counts,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.heard = now;
            self.parsed += self.queue.take(&self.buffer[self.parsed..self.filled], memory)?;
            // What is left is the beginning of a header.
            self.buffer.copy_within(self.parsed..self.filled, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
            // What is not asked for does not come.
            if n < wanted || self.queue.under_way() == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One call: bytes received, and bytes there was room for.
    fn receive_once(&mut self, memory: &mut impl Memory) -> io::Result<(usize, usize)> {
        self.syscalls += 1;
        let direct = self.queue.direct();
        match direct {
            Some((tag, at, left)) if left >= DIRECT_BYTES => {
                let place = memory.target(tag, at, left);
                let wanted = place.len();
                let room = self.buffer.len() - self.filled;
                let mut slices =
                    [IoSliceMut::new(place), IoSliceMut::new(&mut self.buffer[self.filled..])];
                // Bytes behind a place that is not all of the data belong to the next place.
                let slices = if wanted == left { &mut slices[..] } else { &mut slices[..1] };
                let n = (&self.socket).read_vectored(slices)?;
                let placed = n.min(wanted);
                if placed > 0 {
                    self.queue.received(placed, memory);
                }
                self.filled += n - placed;
                Ok((n, if wanted == left { wanted + room } else { wanted }))
            }
            _ => {
                let n = (&self.socket).read(&mut self.buffer[self.filled..])?;
                self.filled += n;
                Ok((n, self.buffer.len()))
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
