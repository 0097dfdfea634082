//! The server's end of the admin socket.
//!
//! [`serve_connection`] blocks, so a connection gets a thread of its own, off
//! the executors. A client that is silent or does not read for
//! [`IDLE_LIMIT`] is dropped.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::line::{Line, read_line};
use super::protocol::{
    AdminError, AdminRequest, AdminResponse, ErrorCode, MAX_REPLY_BYTES, MAX_REQUEST_BYTES,
    Progress, Reply, SOCKET_NAME,
};

/// Longest pause of a client within or between its requests.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A server is already there.
    #[error("{}: another server is running on this data directory", .0.display())]
    InUse(PathBuf),
    /// The file system said no.
    #[error("{}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Makes `data_dir/admin.sock`, mode 0600, in place of a dead server's.
///
/// The socket is made in a private directory and moved in place, so that it is
/// at no moment reachable by others. The caller holds the pool's lock: this
/// check for a live server is for the message, not for safety.
pub fn listen(data_dir: &Path) -> Result<UnixListener, ListenError> {
    let path = data_dir.join(SOCKET_NAME);
    if UnixStream::connect(&path).is_ok() {
        return Err(ListenError::InUse(path));
    }
    // Short names: a socket's path is at most 107 bytes.
    let private = data_dir.join(".s");
    let made = (|| {
        if private.exists() {
            fs::remove_dir_all(&private)?;
        }
        DirBuilder::new().mode(0o700).create(&private)?;
        let fresh = private.join("a");
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        fs::rename(&fresh, &path)?;
        fs::remove_dir(&private)?;
        Ok(listener)
    })();
    made.map_err(|source| ListenError::Socket { path, source })
}

/// Serves one client until it closes; `handler` carries requests out.
///
/// A line that is no request is answered with `bad-request` and the connection
/// goes on; a line over the limit ends it. Returns an error only if the socket
/// fails, which concerns this client alone.
pub fn serve_connection(
    stream: UnixStream,
    mut handler: impl FnMut(AdminRequest) -> Result<AdminResponse, AdminError>,
) -> io::Result<()> {
    serve_with_progress(stream, |request, _| handler(request))
}

/// [`serve_connection`] with a handler that can report its progress.
pub fn serve_with_progress(
    stream: UnixStream,
    mut handler: impl FnMut(AdminRequest, &mut dyn FnMut(Progress)) -> Result<AdminResponse, AdminError>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    stream.set_write_timeout(Some(IDLE_LIMIT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let line = match read_line(&mut reader, MAX_REQUEST_BYTES)? {
            Line::Text(line) => line,
            Line::End => return Ok(()),
            Line::TooLong => {
                let message = format!("a request line is at most {MAX_REQUEST_BYTES} bytes");
                return send(
                    &mut writer,
                    &Reply::Error(AdminError::new(ErrorCode::BadRequest, message)),
                );
            }
        };
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => {
                // A client that does not read its progress is found out by the result line.
                let mut report = |step| drop(send(&mut writer, &Reply::Progress(step)));
                handler(request, &mut report).map_or_else(Reply::Error, Reply::Ok)
            }
            Err(e) => Reply::Error(AdminError::new(ErrorCode::BadRequest, e.to_string())),
        };
        send(&mut writer, &reply)?;
    }
}

fn send(writer: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).expect("replies have string keys only");
    line.push(b'\n');
    assert!(line.len() <= MAX_REPLY_BYTES, "a reply of {} bytes", line.len());
    writer.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read};
    use std::thread;

    use super::super::client::{AdminClient, ClientError};
    use super::super::report::VolumeReport;
    use super::*;

    fn handle(
        request: AdminRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<AdminResponse, AdminError> {
        match request {
            AdminRequest::VolumeShow { name } if name == "vm1" => {
                Ok(AdminResponse::Volume(VolumeReport { name, ..Default::default() }))
            }
            AdminRequest::VolumeShow { name } => {
                Err(AdminError::new(ErrorCode::VolumeNotFound, format!("no volume `{name}`")))
            }
            AdminRequest::VolumeSpill { .. } => {
                for done in 1..=3 {
                    progress(Progress { what: "fragments".into(), done, total: 3 });
                }
                Ok(AdminResponse::Done)
            }
            _ => Ok(AdminResponse::Done),
        }
    }

    #[test]
    fn calls_reach_the_handler_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let listener = listen(dir.path()).unwrap();
        let server = thread::spawn(move || {
            serve_with_progress(listener.accept().unwrap().0, handle).unwrap();
        });
        let mut client = AdminClient::connect(dir.path()).unwrap();
        let got = client.call(&AdminRequest::VolumeShow { name: "vm1".into() }).unwrap();
        assert!(matches!(got, AdminResponse::Volume(v) if v.name == "vm1"));
        let got = client.call(&AdminRequest::VolumeShow { name: "vm2".into() });
        let Err(ClientError::Refused(e)) = got else { panic!("{got:?}") };
        assert_eq!((e.code, e.message.as_str()), (ErrorCode::VolumeNotFound, "no volume `vm2`"));
        let mut steps = Vec::new();
        let spill = AdminRequest::VolumeSpill { name: "vm1".into() };
        client.call_with_progress(&spill, |step| steps.push(step.done)).unwrap();
        assert_eq!(steps, [1, 2, 3]);
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn garbage_gets_an_error_line_and_the_connection_lives() {
        let (mut client, served) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve_connection(served, |_| Ok(AdminResponse::Done)));
        client.write_all(b"\xff\x00{}\n\n{\"op\":\"flush\"\n[1]\n{\"op\":\"flush\"}\n").unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        for _ in 0..4 {
            assert!(lines.next().unwrap().unwrap().contains("bad-request"));
        }
        assert_eq!(lines.next().unwrap().unwrap(), r#"{"ok":{"kind":"done"}}"#);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        server.join().unwrap().unwrap();
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (mut client, served) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve_connection(served, |_| Ok(AdminResponse::Done)));
        client.write_all(&vec![b'x'; MAX_REQUEST_BYTES]).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("bad-request"), "{answer}");
        server.join().unwrap().unwrap();
    }

    #[test]
    fn the_socket_is_private_and_replaces_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let Err(ClientError::NotRunning { .. }) = AdminClient::connect(dir.path()) else {
            panic!("no socket yet");
        };
        let first = listen(dir.path()).unwrap();
        assert!(matches!(listen(dir.path()), Err(ListenError::InUse(_))));
        drop(first);
        let Err(ClientError::NotRunning { .. }) = AdminClient::connect(dir.path()) else {
            panic!("a dead socket");
        };
        let second = listen(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(second);
    }

    #[test]
    fn a_server_that_closes_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let listener = listen(dir.path()).unwrap();
        let mut client = AdminClient::connect(dir.path()).unwrap();
        drop(listener.accept().unwrap());
        let got = client.call(&AdminRequest::Status);
        assert!(matches!(got, Err(ClientError::Closed { .. })), "{got:?}");
    }
}
