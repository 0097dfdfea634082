//! Fuzz target of the client: see [`crate::fuzz`].

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::decode::{Decoder, MESSAGE_BYTES, Taken};
use super::{Client, Part, RequestError};
use crate::target::nbd::wire::ChunkHeader;
use crate::target::socket::Socket;

/// What a peer that is no server of ours sends: the first byte chooses between the
/// negotiation and replies, and how replies are cut.
pub fn nbd_client(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, bytes)) => negotiation(bytes),
        Some((step, bytes)) => assert_eq!(replies(bytes, usize::from(*step)), replies(bytes, 4096)),
        None => {}
    }
}

fn negotiation(bytes: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    // More than a socket holds would wait for a reader that does not come.
    theirs.write_all(&bytes[..bytes.len().min(64 << 10)]).expect("the socket has room");
    theirs.shutdown(Shutdown::Write).expect("connected");
    if let Ok(client) = Client::over(Socket::Unix(ours), "export") {
        let info = client.info();
        assert!(info.minimum_block > 0 && info.maximum_block >= info.minimum_block);
        assert_eq!(info.maximum_block % info.minimum_block, 0);
    }
}

/// What was decoded; of data one for each byte, so that the cuts make no difference.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Byte(u64, u64, u8),
    Zeros(u64, u64, u64),
    Extents(u64, Vec<(u32, u32)>),
    Done(u64, u64, Result<(), RequestError>),
    Malformed,
}

fn replies(bytes: &[u8], step: usize) -> Vec<Event> {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    let (mut parsed, mut filled) = (0, 0);
    loop {
        let input = &bytes[parsed..filled];
        let mut part = |part: Part<'_>| match part {
            Part::Data { cookie, offset, bytes } => {
                let places = (0..).map(|at| offset.wrapping_add(at));
                events.extend(places.zip(bytes).map(|(at, byte)| Event::Byte(cookie, at, *byte)));
            }
            Part::Zeros { cookie, offset, length } => {
                events.push(Event::Zeros(cookie, offset, length));
            }
            Part::Extents { cookie, extents } => {
                events.push(Event::Extents(cookie, extents.to_vec()));
            }
        };
        match decoder.take(input, &mut part) {
            Ok(Taken::Bytes(n, done)) => {
                assert!(n > 0 && n <= input.len());
                parsed += n;
                events.extend(done.map(|done| Event::Done(done.cookie, done.bytes, done.result)));
            }
            Ok(Taken::Needs(n)) => {
                assert!(n > input.len(), "else it would wait for ever");
                assert!(n <= size_of::<ChunkHeader>() + MESSAGE_BYTES, "what is kept is bounded");
                if filled == bytes.len() {
                    return events;
                }
                filled = (filled + step).min(bytes.len());
            }
            Err(_) => {
                events.push(Event::Malformed);
                return events;
            }
        }
    }
}
