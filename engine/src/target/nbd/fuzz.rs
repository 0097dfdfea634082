//! Drives handshake and session without a socket: fuzz targets (see
//! [`crate::fuzz`]), and tests.
//!
//! Nothing may panic, and what a connection holds stays bounded.

use super::export::Export;
use super::handshake::{Handshake, Step, Violation};
use super::session::Session;
use super::{BUFFER_BYTES, RECEIVE_BYTES};
use crate::request::Host;
use crate::target::fake::{Fake, volume};
use crate::units::ClientId;

/// A session, its host, and what it has sent.
pub struct Harness {
    /// The session.
    pub session: Session,
    /// Its host.
    pub host: Fake,
    /// Everything sent so far.
    pub sent: Vec<u8>,
}

impl Harness {
    /// A session on the first volume of `host`.
    pub fn new(host: Fake, structured: bool) -> Harness {
        let volume = host.volumes()[0].clone();
        let client = ClientId::of(&volume.name);
        let export = Export { volume, client, structured, allocation: structured };
        Harness { session: Session::new(3, export, &[]), host, sent: Vec::new() }
    }

    /// Receives `bytes`, `step` at a time, completing requests when there is no
    /// room. Ends early when the session takes no more.
    ///
    /// # Errors
    /// When the bytes break the protocol.
    pub fn feed(&mut self, bytes: &[u8], step: usize) -> Result<(), Violation> {
        let mut left = bytes;
        while !left.is_empty() {
            let mut n = 0;
            if let Some(space) = self.session.space(&mut self.host) {
                for mut slice in space {
                    let part = slice.len().min(left.len()).min(step.max(1) - n);
                    slice[..part].copy_from_slice(&left[..part]);
                    left = &left[part..];
                    n += part;
                }
                self.session.received(n);
            }
            self.session.pump(&mut self.host)?;
            assert!(self.host.held_bytes() <= BUFFER_BYTES, "buffers are bounded");
            if n == 0 && !self.turn() {
                break;
            }
        }
        Ok(())
    }

    /// Completes one request and sends what is ready; false if nothing happened.
    pub fn turn(&mut self) -> bool {
        let completion = self.host.step();
        let mut moved = completion.is_some();
        if let Some(completion) = completion {
            self.session.complete(completion, &mut self.host);
        }
        moved |= self.send(usize::MAX);
        let pumped = self.session.pump(&mut self.host);
        moved || pumped.is_err()
    }

    /// Sends up to `limit` bytes; true if there were any.
    pub fn send(&mut self, limit: usize) -> bool {
        let before = self.sent.len();
        for slice in self.session.slices(&self.host) {
            let room = limit - (self.sent.len() - before).min(limit);
            self.sent.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let n = self.sent.len() - before;
        self.session.sent(n, &mut self.host);
        n > 0
    }

    /// Turns until nothing happens any more; returns what was sent.
    pub fn settle(&mut self) -> Vec<u8> {
        while self.turn() {}
        assert!(!self.session.has_output());
        std::mem::take(&mut self.sent)
    }
}

/// The server's side of a negotiation; the first byte says how the bytes are cut.
pub fn nbd_negotiation(bytes: &[u8]) {
    let Some((&split, bytes)) = bytes.split_first() else { return };
    let volumes = [volume(1, "a", 1 << 20, 512), volume(2, "b@c", 4096, 4096)];
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut handshake = Handshake::start(&mut output);
    for part in bytes.chunks(usize::from(split) + 1) {
        input.extend_from_slice(part);
        loop {
            output.clear();
            match handshake.step(&input, &volumes, false, &mut output) {
                Ok((consumed, Step::Continue)) => drop(input.drain(..consumed)),
                Ok((consumed, Step::NeedMore)) => {
                    input.drain(..consumed);
                    break;
                }
                Ok((_, Step::Ready(_) | Step::Closed)) | Err(_) => return,
            }
            assert!(output.len() < 4096, "replies are bounded");
        }
        assert!(input.len() < RECEIVE_BYTES, "one whole option fits");
    }
}

/// Requests of a client; the first two bytes say how they are cut, and choose the session.
pub fn nbd_requests(bytes: &[u8]) {
    let Some((&[split, phase], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let mut host = Fake::new(vec![volume(1, "a", 2 << 20, 512)], u64::from(phase));
    host.depth = 1 + usize::from(phase >> 4);
    let mut harness = Harness::new(host, phase & 2 != 0);
    if harness.feed(bytes, usize::from(split) + 1).is_ok() {
        harness.settle();
    }
    if phase & 4 != 0 {
        harness.session.end_of_input(&mut harness.host);
    } else {
        harness.session.abort(&mut harness.host);
    }
    harness.settle();
    assert!(harness.session.is_finished(), "a session ends when its requests have");
    assert_eq!(harness.host.held_bytes(), 0, "every buffer is given back");
}
