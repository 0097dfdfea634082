//! Where clients attach, as written in the configuration.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A place where NBD clients attach: `unix:PATH` or `tcp:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NbdListener {
    /// A socket, relative to the data directory.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
}

/// Where NVMe/TCP hosts connect: `tcp:HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NvmfListener(pub SocketAddr);

impl NvmfListener {
    /// True if only processes of this host can reach it.
    pub fn is_local(self) -> bool {
        self.0.ip().is_loopback()
    }
}

impl std::fmt::Display for NvmfListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tcp:{}", self.0)
    }
}

impl TryFrom<String> for NvmfListener {
    type Error = NvmfListenerError;

    fn try_from(text: String) -> Result<Self, NvmfListenerError> {
        let address = text.strip_prefix("tcp:").ok_or(NvmfListenerError)?;
        let mut found = address.to_socket_addrs().map_err(|_| NvmfListenerError)?;
        found.next().map(NvmfListener).ok_or(NvmfListenerError)
    }
}

impl From<NvmfListener> for String {
    fn from(listener: NvmfListener) -> String {
        listener.to_string()
    }
}

/// Not a listener of NVMe/TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected tcp:ADDRESS:PORT")]
pub struct NvmfListenerError;

/// Not a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected unix:PATH or tcp:ADDRESS:PORT")]
pub struct ListenerError;

impl NbdListener {
    /// True if only processes of this host can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            NbdListener::Unix(_) => true,
            NbdListener::Tcp(address) => address.ip().is_loopback(),
        }
    }

    /// The NBD URI of an export, or of the server if `export` is empty.
    ///
    /// See the NBD project's `doc/uri.md`: `nbd+unix:///EXPORT?socket=PATH`.
    pub fn uri(&self, data_dir: &Path, export: &str) -> String {
        match self {
            NbdListener::Unix(path) => {
                let socket = data_dir.join(path);
                let socket = percent_encoded(socket.as_os_str().as_bytes());
                format!("nbd+unix:///{}?socket={socket}", percent_encoded(export.as_bytes()))
            }
            NbdListener::Tcp(address) => {
                format!("nbd://{address}/{}", percent_encoded(export.as_bytes()))
            }
        }
    }
}

/// Escapes what cannot stand in the path or query of a URI (RFC 3986, section 2.1).
fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

impl std::fmt::Display for NbdListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NbdListener::Unix(path) => write!(f, "unix:{}", path.display()),
            NbdListener::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl TryFrom<String> for NbdListener {
    type Error = ListenerError;

    fn try_from(text: String) -> Result<Self, ListenerError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(NbdListener::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("tcp:").ok_or(ListenerError)?;
        let mut found = address.to_socket_addrs().map_err(|_| ListenerError)?;
        found.next().map(NbdListener::Tcp).ok_or(ListenerError)
    }
}

impl From<NbdListener> for String {
    fn from(listener: NbdListener) -> String {
        listener.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_parse_and_name_their_uri() {
        let unix = NbdListener::try_from("unix:nbd.sock".to_owned()).unwrap();
        assert_eq!(unix.uri(Path::new("/d"), "vm1"), "nbd+unix:///vm1?socket=/d/nbd.sock");
        assert_eq!(
            unix.uri(Path::new("/a b"), "ü?"),
            "nbd+unix:///%C3%BC%3F?socket=/a%20b/nbd.sock"
        );
        assert!(unix.is_local());
        let tcp = NbdListener::try_from("tcp:[::1]:10809".to_owned()).unwrap();
        assert_eq!(tcp.uri(Path::new("/d"), "vm1"), "nbd://[::1]:10809/vm1");
        assert!(tcp.is_local());
        assert!(!NbdListener::try_from("tcp:0.0.0.0:1".to_owned()).unwrap().is_local());
        for bad in ["", "unix:", "nbd.sock", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:70000"] {
            assert_eq!(NbdListener::try_from(bad.to_owned()), Err(ListenerError), "{bad}");
        }
    }

    #[test]
    fn hosts_connect_by_tcp_alone() {
        let listener = NvmfListener::try_from("tcp:127.0.0.1:4420".to_owned()).unwrap();
        assert_eq!(
            (listener.to_string().as_str(), listener.is_local()),
            ("tcp:127.0.0.1:4420", true)
        );
        assert!(!NvmfListener::try_from("tcp:[::]:4420".to_owned()).unwrap().is_local());
        for bad in ["", "127.0.0.1:4420", "unix:x", "tcp:", "tcp:1.2.3.4", "tcp:127.0.0.1:70000"] {
            assert_eq!(NvmfListener::try_from(bad.to_owned()), Err(NvmfListenerError), "{bad}");
        }
    }
}
