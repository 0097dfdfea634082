//! Listening for hosts.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use super::super::exports::ExportError;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Hosts are not authenticated.
    #[error(
        "{0} is reachable beyond this host and hosts are not authenticated: \
         set insecure_listen = true (or give --insecure-listen) if that is wanted"
    )]
    Insecure(SocketAddr),
    /// The system refused.
    #[error("NVMe/TCP cannot listen on {address}: {source}")]
    System {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The registry refuses it.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The address in use.
    pub address: SocketAddr,
    /// Discovery alone is served here.
    pub discovery_only: bool,
    /// It was added at run time.
    pub added: bool,
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// If the address is not allowed, or taken, or none of this machine's.
    pub fn bind(address: SocketAddr, insecure: bool) -> Result<Listener, ListenError> {
        if !insecure && !address.ip().is_loopback() {
            return Err(ListenError::Insecure(address));
        }
        let system = |source| ListenError::System { address, source };
        let socket = TcpListener::bind(address).map_err(system)?;
        socket.set_nonblocking(true).map_err(system)?;
        let address = socket.local_addr().map_err(system)?;
        Ok(Listener { socket, address, discovery_only: false, added: false })
    }

    /// The next host, its socket nonblocking; `None` if nobody waits.
    ///
    /// # Errors
    /// If the system has no room for another socket: try again later.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            let accepted = self.socket.accept().and_then(|(socket, peer)| {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                Ok((socket, peer))
            });
            match accepted {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    // The host is gone again; the next may be there.
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::InvalidInput => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_and_free_is_bound() {
        let any = "0.0.0.0:0".parse().unwrap();
        assert!(matches!(Listener::bind(any, false), Err(ListenError::Insecure(_))));
        assert!(Listener::bind(any, true).is_ok());
        let bound = Listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert_ne!(bound.address.port(), 0);
        let again = Listener::bind(bound.address, false).map(|_| ()).unwrap_err();
        assert!(again.to_string().contains(&bound.address.to_string()), "{again}");
        assert!(bound.accept().unwrap().is_none());
        let _host = TcpStream::connect(bound.address).unwrap();
        let mut accepted = None;
        while accepted.is_none() {
            accepted = bound.accept().unwrap();
        }
    }
}
