//! PDUs in and out of a byte stream, sans-IO.
//!
//! ```text
//! stream ─ readv ─► Receiver ─ events ─► whoever knows what commands mean
//!                      └─ payload ─► buffers                │
//! stream ◄─ writev ── Sender ◄─ responses, data, R2Ts ──────┘
//! ```
//!
//! [`Receiver`] cuts the stream into PDUs, checks their headers and digests, and puts data
//! where it is told; [`Sender`] queues PDUs and shows many of them as one list of slices.
//! Both are generic over the buffers ([`Memory`]): arena buffers on a core, the heap for
//! admin queues. [`receive`] and [`send`] move bytes between them and any nonblocking
//! [`Read`] and [`Write`]: a socket today, TLS later.
//!
//! Not here: what commands mean, how much may be under way, when a connection ends.

mod receiver;
mod sender;

#[cfg(test)]
mod tests;

pub use receiver::{Event, Receiver, Target};
pub use sender::{Body, Sender, Sent};

use std::io::{self, Read, Write};

use crate::request::{Buf, Host};
use crate::target::socket::ready;

/// Where payload lies.
pub trait Memory {
    /// A handle to some bytes; who holds it owns them.
    type Buf;
    /// The bytes of a buffer.
    fn bytes<'a>(&'a self, buf: &'a Self::Buf) -> &'a [u8];
    /// The same, to write.
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Self::Buf) -> &'a mut [u8];
}

impl<H: Host> Memory for H {
    type Buf = Buf;
    fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        Host::bytes(self, buf)
    }
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Buf) -> &'a mut [u8] {
        Host::bytes_mut(self, buf)
    }
}

/// Buffers that are vectors: for queues that are not on the data path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

impl Memory for Heap {
    type Buf = Vec<u8>;
    fn bytes<'a>(&'a self, buf: &'a Vec<u8>) -> &'a [u8] {
        buf
    }
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Vec<u8>) -> &'a mut [u8] {
        buf
    }
}

/// What a look at a stream brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes; `full` if there was no room for more, so that more may wait.
    Bytes {
        /// All the room was used.
        full: bool,
    },
    /// Nothing now.
    Nothing,
    /// The peer sends nothing more.
    End,
}

/// Takes what the stream has and the receiver has room for, in one call.
///
/// # Errors
/// If the stream is broken.
pub fn receive<M: Memory>(
    stream: &mut impl Read,
    receiver: &mut Receiver<M::Buf>,
    memory: &mut M,
) -> io::Result<Input> {
    let Some(mut space) = receiver.space(memory) else { return Ok(Input::Nothing) };
    let room = space[0].len() + space[1].len();
    let got = if space[0].is_empty() {
        stream.read(&mut space[1])
    } else {
        stream.read_vectored(&mut space)
    };
    match ready(got)? {
        None => Ok(Input::Nothing),
        Some(0) => Ok(Input::End),
        Some(n) => {
            receiver.received(n);
            Ok(Input::Bytes { full: n == room })
        }
    }
}

/// Sends what the stream takes in one call; true if anything moved. Then take what was sent
/// from [`Sender::pop_sent`], and come again.
///
/// # Errors
/// If the stream is broken.
pub fn send<M: Memory>(
    stream: &mut impl Write,
    sender: &mut Sender<M::Buf>,
    memory: &M,
) -> io::Result<bool> {
    if !sender.has_output() {
        return Ok(false);
    }
    let Some(n) = ready(stream.write_vectored(&sender.slices(memory)))? else { return Ok(false) };
    sender.advance(n);
    Ok(n > 0)
}
