//! A connection that is with the fabric thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll::EventFlags;

use super::connect::Connect;
use super::link::Link;
use crate::core::meter::count_syscall;
use crate::target::nvmf::AssociationId;
use crate::units::{CoreId, Nanos};

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// How far a connection is.
#[derive(Debug)]
pub enum State {
    /// Accepted; nothing but ICReq and Connect may come.
    Fresh,
    /// Its Connect waits for an earlier queue of its number to end, until then.
    Waiting(Box<Connect>, Nanos),
    /// An admin queue.
    Admin(AssociationId),
    /// An I/O queue on its way to a core, once the response is sent.
    Leaving(AssociationId, CoreId, Box<Connect>),
    /// Hung up on; what the host still sends is thrown away until it hangs up too, or until
    /// then.
    Closing(Nanos),
}

/// One socket with its PDU layer.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    /// The PDU layer.
    pub link: Link,
    /// How far it is.
    pub state: State,
    /// The host's address.
    pub peer: SocketAddr,
    /// Our address that the host knows.
    pub local: SocketAddr,
    /// When it was accepted.
    pub opened: Nanos,
    /// Discovery alone is served where it was accepted.
    pub discovery_only: bool,
    /// What it is watched for.
    pub watched: EventFlags,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// Bytes, and perhaps more of them.
    Some,
    /// Nothing for now.
    Nothing,
    /// The host has closed its side.
    End,
}

impl Connection {
    /// Of a socket accepted at `now`.
    ///
    /// # Errors
    /// If the host is gone already.
    pub fn new(
        socket: TcpStream,
        peer: SocketAddr,
        discovery_only: bool,
        now: Nanos,
    ) -> io::Result<Self> {
        Ok(Self {
            local: socket.local_addr()?,
            socket,
            link: Link::new(),
            state: State::Fresh,
            peer,
            opened: now,
            discovery_only,
            watched: EventFlags::IN,
        })
    }

    /// Commands are to be taken from it.
    pub fn is_served(&self) -> bool {
        matches!(self.state, State::Fresh | State::Admin(_))
    }

    /// What is to be watched for.
    pub fn interest(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        if matches!(self.state, State::Closing(_)) || self.is_served() && !self.link.is_full() {
            flags |= EventFlags::IN;
        }
        if !self.link.output().is_empty() {
            flags |= EventFlags::OUT;
        }
        flags
    }

    /// Receives once.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn receive(&mut self) -> io::Result<Got> {
        let mut bytes = [0; READ_BYTES];
        count_syscall();
        match self.socket.read(&mut bytes) {
            Ok(0) => Ok(Got::End),
            Ok(n) => {
                if self.is_served() {
                    self.link.received(&bytes[..n]);
                }
                Ok(Got::Some)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Got::Nothing),
                io::ErrorKind::Interrupted => Ok(Got::Some),
                _ => Err(error),
            },
        }
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn send(&mut self) -> io::Result<()> {
        while !self.link.output().is_empty() {
            count_syscall();
            match self.socket.write(self.link.output()) {
                Ok(n) => self.link.sent(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if matches!(self.state, State::Closing(_)) {
            // Reading goes on: closing with unread bytes would discard what was just sent.
            self.socket.shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    }

    /// The socket, for who takes it over.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
