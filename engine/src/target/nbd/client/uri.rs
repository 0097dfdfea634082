//! NBD URIs: `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`.
//!
//! Percent-encoding is understood in export and path. An export is a volume,
//! or `VOLUME@VM` (see [`crate::target::nbd::export`]).

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Error, PATIENCE};
use crate::target::nbd::wire;
use crate::target::socket::Socket;

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// An export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The server.
    pub transport: Transport,
    /// The export's name.
    pub export: String,
}

/// Why a URI is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme.
    #[error("an NBD URI begins with nbd:// or nbd+unix://")]
    Scheme,
    /// No socket path.
    #[error("nbd+unix:// needs ?socket=PATH")]
    NoSocket,
    /// A host where none can be.
    #[error("nbd+unix:// has no host: write nbd+unix:///EXPORT?socket=PATH")]
    UnixHost,
    /// No host, or a bad port.
    #[error("nbd:// needs HOST or HOST:PORT")]
    Host,
    /// A parameter that is not known.
    #[error("unknown parameter in the NBD URI")]
    Parameter,
    /// Bad percent-encoding.
    #[error("bad percent-encoding in the NBD URI")]
    Encoding,
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Uri, UriError> {
        let (scheme, rest) = uri.split_once("://").ok_or(UriError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let socket = match query {
            "" => None,
            _ => Some(query.strip_prefix("socket=").ok_or(UriError::Parameter)?),
        };
        let transport = match (scheme, socket) {
            ("nbd+unix", _) if !authority.is_empty() => return Err(UriError::UnixHost),
            ("nbd+unix", None | Some("")) => return Err(UriError::NoSocket),
            ("nbd+unix", Some(path)) => Transport::Unix(decode(path)?.into()),
            ("nbd", Some(_)) => return Err(UriError::Parameter),
            ("nbd", None) => tcp(authority)?,
            _ => return Err(UriError::Scheme),
        };
        Ok(Uri { transport, export: decode(export)? })
    }
}

fn tcp(authority: &str) -> Result<Transport, UriError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(UriError::Host)?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or(UriError::Host)?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| UriError::Host)?,
        None => wire::PORT,
    };
    if host.is_empty() {
        return Err(UriError::Host);
    }
    Ok(Transport::Tcp { host: host.to_owned(), port })
}

fn decode(text: &str) -> Result<String, UriError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(UriError::Encoding)?;
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else {
            return Err(UriError::Encoding);
        };
        out.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(out).map_err(|_| UriError::Encoding)
}

fn encode(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'@' | b'.' | b'_' | b'-' => {
                write!(f, "{}", char::from(byte))?;
            }
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Unix(path) => {
                f.write_str("nbd+unix:///")?;
                encode(&self.export, f)?;
                f.write_str("?socket=")?;
                encode(&path.to_string_lossy(), f)
            }
            Transport::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd://{open}{host}{close}:{port}/")?;
                encode(&self.export, f)
            }
        }
    }
}

impl Uri {
    /// A connected blocking socket.
    pub(super) fn connect(&self) -> Result<Socket, Error> {
        let socket = match &self.transport {
            Transport::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            Transport::Tcp { host, port } => tcp_socket(host, *port),
        };
        socket.map_err(|source| Error::Connect { uri: self.clone(), source })
    }
}

/// Connected to the first address of `host` that answers in time.
fn tcp_socket(host: &str, port: u16) -> io::Result<Socket> {
    let mut failed = io::ErrorKind::NotFound.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(Socket::Tcp(socket));
            }
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_written() {
        let unix = |path: &str| Transport::Unix(path.into());
        let tcp = |host: &str, port| Transport::Tcp { host: host.into(), port };
        for (text, transport, export) in [
            ("nbd+unix:///v?socket=/run/nbd.sock", unix("/run/nbd.sock"), "v"),
            ("nbd+unix:///v@vm?socket=nbd.sock", unix("nbd.sock"), "v@vm"),
            ("nbd+unix:///?socket=/a%20b", unix("/a b"), ""),
            ("nbd://host/v", tcp("host", 10809), "v"),
            ("nbd://127.0.0.1:99/a%2Fb", tcp("127.0.0.1", 99), "a/b"),
            ("nbd://[::1]:99/v", tcp("::1", 99), "v"),
            ("nbd://[::1]", tcp("::1", 10809), ""),
        ] {
            let uri: Uri = text.parse().unwrap();
            assert_eq!(uri, Uri { transport, export: export.into() }, "{text}");
            assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri, "{text}");
        }
        for (text, error) in [
            ("", UriError::Scheme),
            ("http://host/", UriError::Scheme),
            ("nbd+unix:///v", UriError::NoSocket),
            ("nbd+unix:///v?socket=", UriError::NoSocket),
            ("nbd+unix://host/v?socket=s", UriError::UnixHost),
            ("nbd+unix:///v?path=s", UriError::Parameter),
            ("nbd:///v", UriError::Host),
            ("nbd://host:port/v", UriError::Host),
            ("nbd://[::1/v", UriError::Host),
            ("nbd://h/%2", UriError::Encoding),
            ("nbd://h/%zz", UriError::Encoding),
            ("nbd://h/%ff", UriError::Encoding),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
    }
}
