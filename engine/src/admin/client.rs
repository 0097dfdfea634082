//! The blocking client of the admin socket, for command-line tools.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::line::{Line, read_line};
use super::protocol::{
    AdminError, AdminRequest, AdminResponse, MAX_REPLY_BYTES, Progress, Reply, SOCKET_NAME,
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no server runs on {}: start one with `tessera --data {} serve`", .data_dir.display(), .data_dir.display())]
    NotRunning {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The socket failed.
    #[error("{}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The server went away before it answered.
    #[error("{}: the server closed the connection before it answered", .path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is no line of the protocol.
    #[error("{}: the answer is not of this protocol; is the server of the same version?", .path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
    },
    /// The server answered, and the answer is no.
    #[error(transparent)]
    Refused(#[from] AdminError),
}

/// One connection to a running server. Calls have no time limit: the server
/// either answers or closes.
#[derive(Debug)]
pub struct AdminClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl AdminClient {
    /// Connects to the server of a data directory.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let path = data_dir.join(SOCKET_NAME);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { path, stream: BufReader::new(stream) }),
            Err(e) if matches!(e.kind(), NotFound | ConnectionRefused) => {
                Err(ClientError::NotRunning { data_dir: data_dir.to_path_buf() })
            }
            Err(source) => Err(ClientError::Socket { path, source }),
        }
    }

    /// Sends a request and waits for its result, without a look at progress.
    pub fn call(&mut self, request: &AdminRequest) -> Result<AdminResponse, ClientError> {
        self.call_with_progress(request, |_| ())
    }

    /// Sends a request, reports its progress lines and waits for its result.
    pub fn call_with_progress(
        &mut self,
        request: &AdminRequest,
        mut progress: impl FnMut(&Progress),
    ) -> Result<AdminResponse, ClientError> {
        let mut line = serde_json::to_vec(request).expect("requests have string keys only");
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|e| self.failed(e))?;
        loop {
            match self.reply()? {
                Reply::Progress(step) => progress(&step),
                Reply::Ok(response) => return Ok(response),
                Reply::Error(error) => return Err(error.into()),
            }
        }
    }

    fn reply(&mut self) -> Result<Reply, ClientError> {
        let path = || self.path.clone();
        match read_line(&mut self.stream, MAX_REPLY_BYTES) {
            Ok(Line::Text(line)) => {
                serde_json::from_slice(&line).map_err(|_| ClientError::Garbled { path: path() })
            }
            Ok(Line::TooLong) => Err(ClientError::Garbled { path: path() }),
            Ok(Line::End) => Err(ClientError::Closed { path: path() }),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: std::io::Error) -> ClientError {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        let path = self.path.clone();
        match source.kind() {
            BrokenPipe | ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Socket { path, source },
        }
    }
}
