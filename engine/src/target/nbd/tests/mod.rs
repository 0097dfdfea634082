//! Tests of the target as a whole; see each file.

mod blocking;
mod failures;
mod handshake;
mod messages;
mod random;
mod session;
mod stuck;
mod tools;

use super::client;
use super::listener::{Address, Listener};
use super::server::Server;
use super::wire::RequestHeader;
use crate::target::fake::Fake;
use crate::units::Nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerocopy::IntoBytes;

/// A request's bytes.
fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let header = RequestHeader {
        magic: super::wire::REQUEST_MAGIC.into(),
        flags: flags.into(),
        command: command.into(),
        cookie: cookie.into(),
        offset: offset.into(),
        length: length.into(),
    };
    header.as_bytes().to_vec()
}

/// Bytes that differ everywhere.
fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..).take(length).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0] | 1).collect()
}

/// A server on a real socket in a thread; it ends when this is dropped.
struct Served {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    address: client::Transport,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new(host: Fake) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd.sock");
        let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
        Served::on(listener, client::Transport::Unix(path), dir, host)
    }

    fn tcp(host: Fake) -> Served {
        let address = Address::Tcp { address: ([127, 0, 0, 1], 0).into(), insecure: false };
        let listener = Listener::bind(&address).unwrap();
        let port = listener.tcp_address().unwrap().port();
        let address = client::Transport::Tcp { host: "127.0.0.1".into(), port };
        Served::on(listener, address, tempfile::tempdir().unwrap(), host)
    }

    fn on(
        listener: Listener,
        address: client::Transport,
        dir: tempfile::TempDir,
        mut host: Fake,
    ) -> Served {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut server = Server::new(64);
            let mut numbers = Vec::new();
            loop {
                let mut moved = false;
                if stopped.load(Ordering::Acquire) {
                    server.close(&mut host);
                } else if let Some(socket) = listener.accept().unwrap() {
                    server.add(socket, Nanos::new(0)).unwrap();
                    moved = true;
                }
                while let Some(completion) = host.step() {
                    server.route(completion, &mut host);
                    moved = true;
                }
                numbers.clear();
                numbers.extend(server.iter().map(|(conn, _)| conn));
                numbers.iter().for_each(|&conn| server.mark(conn));
                moved |= server.run(Nanos::new(0), &mut host, |_, _| {});
                if stopped.load(Ordering::Acquire) && server.is_empty() {
                    break;
                }
                if !moved {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
            assert_eq!(host.held_bytes(), 0, "every buffer is given back");
        });
        Served { stop, thread: Some(thread), address, _dir: dir }
    }

    fn uri(&self, export: &str) -> client::Uri {
        client::Uri { transport: self.address.clone(), export: export.into() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().expect("joined once").join();
        if !std::thread::panicking() {
            ended.expect("the server does not panic");
        }
    }
}
