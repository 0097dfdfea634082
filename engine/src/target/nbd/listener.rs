//! Where clients connect: a unix socket or a TCP address.
//!
//! A unix socket has mode 0600 from its first moment under its name. A socket
//! file that is left over is replaced only when nobody answers on it; no other
//! kind of file is ever replaced. TCP carries no authentication, so an address
//! beyond loopback is refused unless it is asked for by name.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::target::socket::Socket;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp {
        /// The address; port 0 takes a free one.
        address: SocketAddr,
        /// Beyond loopback, without authentication, is what the user wants.
        insecure: bool,
    },
}

/// Why a listener cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another server answers on the socket.
    #[error("{0}: another server is listening on this socket")]
    InUse(PathBuf),
    /// The path is taken by something that is not a socket.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// An unauthenticated listener beyond loopback.
    #[error(
        "{0}: not a loopback address; NBD has no authentication, so this needs --insecure-listen"
    )]
    Insecure(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// Path or address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
}

enum Inner {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A listening socket; a unix socket's file goes with it.
pub struct Listener(Inner);

impl Listener {
    /// Listens, nonblocking.
    ///
    /// # Errors
    /// [`ListenError`], naming the address.
    pub fn bind(address: &Address) -> Result<Listener, ListenError> {
        match address {
            Address::Unix(path) => bind_unix(path),
            Address::Tcp { address, insecure } => {
                if !address.ip().is_loopback() && !insecure {
                    return Err(ListenError::Insecure(*address));
                }
                let bound = TcpListener::bind(address)
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
                let system = |source| ListenError::System { address: address.to_string(), source };
                Ok(Listener(Inner::Tcp(bound.map_err(system)?)))
            }
        }
    }

    /// The next client, its socket nonblocking; `None` if nobody waits.
    ///
    /// # Errors
    /// If the system has no room for another socket: try again later.
    pub fn accept(&self) -> io::Result<Option<Socket>> {
        loop {
            let socket = match &self.0 {
                Inner::Unix(listener, _) => listener.accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(true)?;
                    Ok(Socket::Unix(socket))
                }),
                Inner::Tcp(listener) => listener.accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    Ok(Socket::Tcp(socket))
                }),
            };
            match socket {
                Ok(socket) => return Ok(Some(socket)),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    // The client is gone again; the next may be there.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(e),
                },
            }
        }
    }

    /// The TCP address in use.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Inner::Unix(..) => None,
            Inner::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Inner::Unix(listener, _) => listener.as_fd(),
            Inner::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Inner::Unix(_, path) = &self.0 {
            // A file that is left over is replaced by the next server.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    let system = |source| ListenError::System { address: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(ListenError::InUse(path.to_owned())),
            Err(e) => return Err(system(e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(system(e)),
    }
    // Bound under another name, so that the socket gets its mode before anyone finds it.
    let hidden = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(system)?;
    let placed = listener
        .set_nonblocking(true)
        .and_then(|()| std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)))
        .and_then(|()| std::fs::rename(&hidden, path));
    if let Err(e) = placed {
        let _ = std::fs::remove_file(&hidden);
        return Err(system(e));
    }
    Ok(Listener(Inner::Unix(listener, path.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let address = Address::Unix(path.clone());
        let listener = Listener::bind(&address).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listener.accept().unwrap().is_none());
        assert!(matches!(Listener::bind(&address), Err(ListenError::InUse(_))));
        // The probe above is a client like any other.
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_files_are_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let bound = Listener::bind(&Address::Unix(path.clone()));
        assert!(matches!(bound, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn beyond_loopback_needs_to_be_asked_for() {
        let bind = |address: &str, insecure| {
            Listener::bind(&Address::Tcp { address: address.parse().unwrap(), insecure })
        };
        assert!(matches!(bind("0.0.0.0:0", false), Err(ListenError::Insecure(_))));
        assert!(matches!(bind("[::]:0", false), Err(ListenError::Insecure(_))));
        assert!(bind("0.0.0.0:0", true).is_ok());
        assert!(bind("127.0.0.1:0", false).unwrap().tcp_address().is_some());
    }
}
