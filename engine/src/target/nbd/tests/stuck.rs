//! Clients that do not do their part: they may harm nobody but themselves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use zerocopy::IntoBytes;

use super::super::connection::Connection;
use super::super::server::Server;
use super::super::wire::{self, OptionHeader, command, handshake_flag, option};
use super::super::{LEAST_BUFFER_BYTES, TOTAL_BUFFER_BYTES};
use super::request;
use crate::target::STALL_NS;
use crate::target::fake::{Fake, volume};
use crate::target::roster::{HOT_NS, Member, Progress};
use crate::target::socket::Socket;
use crate::units::Nanos;

const MIB: u32 = 1 << 20;

fn host() -> Fake {
    Fake::new(vec![volume(1, "a", 64 << 20, 4096)], 3)
}

/// A nonblocking server's end and a client's end.
fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Socket::Unix(ours), theirs)
}

fn asked(option: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().into();
    let header = OptionHeader { magic: wire::OPTION_MAGIC.into(), option: option.into(), length };
    [header.as_bytes(), data].concat()
}

fn flags() -> [u8; 4] {
    let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    u32::from(flags).to_be_bytes()
}

/// Runs until nothing moves, completing requests.
fn settle(server: &mut Server, host: &mut Fake) {
    loop {
        let mut moved = server.run(Nanos::new(0), host, |_, _| {});
        while let Some(completion) = host.step() {
            server.route(completion, host);
            moved = true;
        }
        if !moved {
            break;
        }
    }
}

/// A client in transmission that has sent `bytes`; the server has acted on them.
fn client(server: &mut Server, host: &mut Fake, bytes: &[u8]) -> UnixStream {
    let (ours, mut theirs) = pair();
    theirs.write_all(&flags()).unwrap();
    theirs.write_all(&asked(option::EXPORT_NAME, b"a")).unwrap();
    theirs.write_all(bytes).unwrap();
    server.add(ours, Nanos::new(0)).unwrap();
    settle(server, host);
    theirs
}

fn half_a_write() -> Vec<u8> {
    [request(command::WRITE, 0, 1, 0, MIB), vec![1; 5000]].concat()
}

/// More than a socket takes, so that replies stay unsent.
fn long_reads() -> Vec<u8> {
    (0..8).flat_map(|n| request(command::READ, 0, n, 0, 4 * MIB)).collect()
}

#[test]
fn a_chatty_negotiation_lets_others_have_their_turn_and_ends() {
    let mut host = host();
    let (ours, mut theirs) = pair();
    theirs.write_all(&flags()).unwrap();
    let many = asked(99, &[]).repeat(400);
    theirs.write_all(&many).unwrap();
    let mut connection = Connection::new(ours, 0, Nanos::new(0));
    assert_eq!(connection.poll(&mut host), Progress::Moved, "there is more than one turn's worth");
    assert!(connection.negotiating_since().is_some());
    let mut answers = vec![0; 1 << 16];
    let mut sent = 400;
    let mut polls = 0;
    loop {
        polls += 1;
        assert!(polls < 10_000);
        match connection.poll(&mut host) {
            Progress::Moved => assert!(theirs.read(&mut answers).unwrap() > 0),
            Progress::Waiting => {
                theirs.write_all(&many).unwrap();
                sent += 400;
            }
            progress => {
                assert_eq!(progress, Progress::Finished);
                break;
            }
        }
    }
    assert_eq!(sent, 1200, "hung up on after 1,000 messages");
}

#[test]
fn stuck_clients_hold_up_no_stop() {
    for bytes in [half_a_write(), long_reads()] {
        let mut host = host();
        let mut server = Server::new(2);
        let mut theirs = client(&mut server, &mut host, &bytes);
        assert!(host.held_bytes() > 0 && !server.is_quiet());
        server.stop();
        assert!(server.is_quiet(), "the engine has nothing");
        server.close(&mut host);
        settle(&mut server, &mut host);
        assert!(server.is_empty());
        assert_eq!(host.held_bytes(), 0, "every buffer is given back");
        let mut rest = Vec::new();
        let _ = theirs.read_to_end(&mut rest);
    }
}

#[test]
fn a_stop_waits_for_the_engine_and_closing_sends_its_answers() {
    let mut host = host();
    let mut server = Server::new(1);
    let mut theirs = client(&mut server, &mut host, &[]);
    theirs.write_all(&request(command::READ, 0, 1, 0, 4096)).unwrap();
    server.mark(0);
    while server.run(Nanos::new(0), &mut host, |_, _| {}) {}
    server.stop();
    assert!(host.in_flight() == 1 && !server.is_quiet());
    let completion = host.step().unwrap();
    server.route(completion, &mut host);
    assert!(server.is_quiet());
    server.close(&mut host);
    settle(&mut server, &mut host);
    assert!(server.is_empty() && host.held_bytes() == 0);
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    // Greeting, export (size and flags), simple reply, data.
    assert_eq!(got.len(), 18 + 10 + 16 + 4096);
}

#[test]
fn stalled_clients_are_hung_up_on_and_idle_ones_are_not() {
    let mut host = host();
    let mut server = Server::new(3);
    let _writer = client(&mut server, &mut host, &half_a_write());
    let mut reader = client(&mut server, &mut host, &long_reads());
    let _idle = client(&mut server, &mut host, &[]);
    server.expire(Nanos::new(0), &mut host);
    server.expire(Nanos::new(STALL_NS), &mut host);
    settle(&mut server, &mut host);
    assert_eq!(server.len(), 3);
    let mut some = vec![0; 1 << 16];
    reader.read_exact(&mut some).unwrap();
    server.mark(1);
    settle(&mut server, &mut host);
    server.expire(Nanos::new(STALL_NS + 1), &mut host);
    settle(&mut server, &mut host);
    let live: Vec<u16> = server.iter().map(|(conn, _)| conn).collect();
    assert_eq!(live, [1, 2], "the reader read");
    server.expire(Nanos::new(2 * STALL_NS + 2), &mut host);
    settle(&mut server, &mut host);
    let live: Vec<u16> = server.iter().map(|(conn, _)| conn).collect();
    assert_eq!(live, [2]);
    assert_eq!(host.held_bytes(), 0);
}

#[test]
fn many_clients_share_the_buffers() {
    const CLIENTS: u16 = 128;
    let mut host = host();
    host.arena_bytes = 256 << 20;
    let mut server = Server::new(CLIENTS);
    let mut peers: Vec<_> = (0..CLIENTS).map(|_| client(&mut server, &mut host, &[])).collect();
    for (peer, conn) in peers.iter_mut().zip(0..) {
        peer.write_all(&long_reads()).unwrap();
        server.mark(conn);
        settle(&mut server, &mut host);
    }
    let share = TOTAL_BUFFER_BYTES / usize::from(CLIENTS);
    assert!(share > LEAST_BUFFER_BYTES);
    assert!(host.peak_bytes <= TOTAL_BUFFER_BYTES);
    let held = host.held_bytes();
    assert!(held > TOTAL_BUFFER_BYTES / 2, "{held}: the clients did take their shares");
    server.close(&mut host);
    settle(&mut server, &mut host);
    assert_eq!(host.held_bytes(), 0);
}

#[test]
fn a_connection_is_hot_for_a_while_and_needs_no_mark() {
    let mut host = host();
    let mut server = Server::new(1);
    let mut theirs = client(&mut server, &mut host, &[]);
    assert!(server.is_idle() && server.hot() == [0]);
    let mut ask = |server: &mut Server, now| {
        theirs.write_all(&request(command::READ, 0, 1, 0, 4096)).unwrap();
        let moved = server.run(Nanos::new(now), &mut host, |_, _| {});
        while moved && server.run(Nanos::new(now), &mut host, |_, _| {}) {}
        moved
    };
    assert!(ask(&mut server, HOT_NS - 1), "it is polled without a mark");
    assert!(ask(&mut server, 2 * HOT_NS - 2), "what moves keeps it hot");
    assert!(!ask(&mut server, 3 * HOT_NS - 2) && server.hot().is_empty(), "it has cooled");
    server.mark(0);
    assert!(ask(&mut server, 3 * HOT_NS) && server.hot() == [0], "it is hot again");
    server.cool_all();
    assert!(!ask(&mut server, 3 * HOT_NS), "it waits for a mark");
}
