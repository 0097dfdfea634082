//! Client and server over a real socket.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::client::{Client, Error, Part, Transport};
use super::super::handshake::Handshake;
use super::super::server::{NEGOTIATION_NS, Server, TooMany};
use super::super::wire::{Errno, STATE_HOLE, STATE_ZERO, command};
use super::{Served, pattern};
use crate::request::{Failure, Op};
use crate::target::fake::{Fake, Fault, volume};
use crate::target::socket::Socket;
use crate::units::Nanos;

const SIZE: u64 = 64 << 20;

fn host() -> Fake {
    let mut read_only = volume(2, "ro", 1 << 20, 4096);
    read_only.read_only = true;
    let mut host = Fake::new(vec![volume(1, "a", SIZE, 512), read_only], 11);
    let range = SIZE - 4096..SIZE;
    host.faults = vec![Fault { op: Op::Read, range, failure: Failure::Media }];
    host
}

#[test]
fn every_command_works() {
    for served in [Served::new(host()), Served::tcp(host())] {
        every_command(&served);
    }
}

fn every_command(served: &Served) {
    let mut client = Client::connect(&served.uri("a@vm")).unwrap();
    let info = client.info().clone();
    assert_eq!((info.size, info.minimum_block, info.maximum_block), (SIZE, 512, 32 << 20));
    assert!(info.allocation && !info.read_only());
    // Longer than a transfer, and off every boundary.
    let data = pattern(5, (40 << 20) + 512);
    client.write(512, &data, false).unwrap();
    client.flush().unwrap();
    let mut back = vec![0; data.len()];
    client.read(512, &mut back).unwrap();
    assert!(back == data);
    client.write(4096, &pattern(9, 4096), true).unwrap();
    client.trim(8192, 8192).unwrap();
    client.write_zeroes(16384, 4096, false).unwrap();
    client.write_zeroes(20480, 4096, true).unwrap();
    client.read(4096, &mut back[..20480]).unwrap();
    assert!(back[..4096] == pattern(9, 4096));
    assert!(back[4096..20480].iter().all(|&b| b == 0));
    let extents: Vec<_> = client
        .block_status(0, SIZE)
        .unwrap()
        .iter()
        .map(|e| (e.offset, e.length, e.state))
        .collect();
    let (hole, end) = (STATE_HOLE | STATE_ZERO, (40 << 20) + 4096);
    let want =
        [(0, 8192, 0), (8192, 12288, hole), (20480, end - 20480, 0), (end, SIZE - end, hole)];
    assert_eq!(extents, want);
    client.close().unwrap();
}

#[test]
fn errors_are_told() {
    let served = Served::new(host());
    let refused = Client::connect(&served.uri("b")).err().expect("no such volume");
    assert_eq!(refused.to_string(), "the NBD server refuses the export: no such volume");
    let mut client = Client::connect(&served.uri("a")).unwrap();
    let error = client.read(SIZE - 8192, &mut [0; 8192]).unwrap_err();
    let Error::Failed(failed) = &error else { panic!("{error}") };
    assert_eq!((failed.errno, failed.offset), (Errno::Io, Some(SIZE - 8192)));
    assert_eq!(error.to_string(), "EIO: input/output error: stored data fails its checksum");
    let error = client.write(1, &[0; 512], false).unwrap_err();
    assert!(error.to_string().starts_with("EINVAL"), "{error}");
    assert!(matches!(client.read(SIZE, &mut [0]), Err(Error::OutOfRange { .. })));
    let mut client = Client::connect(&served.uri("ro")).unwrap();
    assert!(client.info().read_only());
    let error = client.write(0, &[0; 4096], false).unwrap_err();
    assert!(matches!(error, Error::Failed(e) if e.errno == Errno::Perm));
    let mut uri = served.uri("a");
    uri.transport = Transport::Unix("/nowhere/at/all".into());
    assert!(matches!(Client::connect(&uri), Err(Error::Connect { .. })));
}

#[test]
fn two_halves_keep_many_requests_under_way() {
    const REQUESTS: u64 = 2000;
    let served = Served::new(host());
    let mut client = Client::connect(&served.uri("a")).unwrap();
    let data = pattern(0, 16 << 20);
    client.write(0, &data, false).unwrap();
    let (mut sender, mut receiver) = client.split();
    let offset = |cookie: u64| cookie * 7919 % 4000 * 4096;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for cookie in 0..REQUESTS {
                sender.read(cookie, offset(cookie), 4096).unwrap();
            }
        });
        let mut got: HashMap<u64, Vec<u8>> = HashMap::new();
        for _ in 0..REQUESTS {
            let done = receiver
                .receive(|part| match part {
                    Part::Data { cookie, offset: at, bytes } => {
                        let held = got.entry(cookie).or_default();
                        assert_eq!(at, offset(cookie) + held.len() as u64);
                        held.extend_from_slice(bytes);
                    }
                    part => panic!("{part:?}"),
                })
                .unwrap();
            done.result.unwrap();
            assert_eq!(done.bytes, 4096);
            let start = usize::try_from(offset(done.cookie)).unwrap();
            assert!(got.remove(&done.cookie).unwrap() == data[start..start + 4096]);
        }
        assert!(got.is_empty());
    });
}

#[test]
fn garbage_is_hung_up_on_and_others_go_on() {
    let served = Served::new(host());
    let mut client = Client::connect(&served.uri("a")).unwrap();
    let Transport::Unix(path) = &served.address else { panic!("a unix socket") };
    let mut garbage = UnixStream::connect(path).unwrap();
    garbage.write_all(&[0xee; 4096]).unwrap();
    let mut rest = Vec::new();
    // The unread garbage may turn the end into a reset.
    let _ = garbage.read_to_end(&mut rest);
    assert!(rest.len() <= 18);
    let (mut sender, mut receiver) = Client::connect(&served.uri("a")).unwrap().split();
    sender.send(command::READ, 0, 1, 0, 512, &[0x77; 28]).unwrap();
    while receiver.receive(|_| {}).is_ok() {}
    client.write(0, &[1; 512], true).unwrap();
}

#[test]
fn connections_are_limited_in_number_and_patience() {
    let mut host = Fake::new(vec![volume(1, "a", 4096, 4096)], 1);
    let mut server = Server::new(2);
    let mut peers = Vec::new();
    let mut connect = |server: &mut Server, now| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peers.push(theirs);
        server.add(Socket::Unix(ours), Nanos::new(now))
    };
    assert_eq!(connect(&mut server, 0), Ok(0));
    assert_eq!(connect(&mut server, 5), Ok(1));
    assert_eq!(connect(&mut server, 6), Err(TooMany(2)));
    server.run(Nanos::new(0), &mut host, |_, _| {});
    server.expire(Nanos::new(NEGOTIATION_NS + 1), &mut host);
    let mut closed = Vec::new();
    server.run(Nanos::new(0), &mut host, |conn, _| closed.push(conn));
    assert_eq!((closed, server.len()), (vec![0], 1));
    assert_eq!(connect(&mut server, 7), Ok(0), "the number is free again");
    let mut greeting = Vec::new();
    Handshake::start(&mut greeting);
    let mut got = Vec::new();
    peers[0].read_to_end(&mut got).unwrap();
    assert_eq!(got, greeting);
    server.close(&mut host);
    server.run(Nanos::new(0), &mut host, |_, _| {});
    assert!(server.is_empty());
}
