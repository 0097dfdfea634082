//! Replies: their headers, their data in engine buffers, and their queue.
//!
//! Invariant: a reply holds the piece slot or the command slot that produced it
//! until it is sent, so that the queues are bounded by the slots.

use std::io::IoSlice;

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::command::Failed;
use super::wire::{self, ChunkHeader, ErrorHead, SimpleReply, chunk};
use super::{COMMANDS, CONTEXT_ID, PIECES};
use crate::request::{Buf, Host};
use crate::target::slots::Queue;

/// Slices handed to one `writev`.
pub const SEND_SLICES: usize = 128;
/// Bytes of the longest head: an error chunk with its message and offset.
const HEAD_BYTES: usize = 96;

/// The bytes of a reply that are not data.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES],
    length: usize,
}

impl Head {
    pub(super) fn empty() -> Head {
        Head { bytes: [0; HEAD_BYTES], length: 0 }
    }

    fn with(mut self, part: &[u8]) -> Head {
        self.bytes[self.length..][..part.len()].copy_from_slice(part);
        self.length += part.len();
        self
    }

    /// A simple reply's header; a read's data follows.
    pub(super) fn simple(cookie: u64, error: u32) -> Head {
        let reply = SimpleReply {
            magic: wire::SIMPLE_REPLY_MAGIC.into(),
            error: error.into(),
            cookie: cookie.into(),
        };
        Head::empty().with(reply.as_bytes())
    }

    fn chunk(cookie: u64, kind: u16, done: bool, length: usize) -> Head {
        let header = ChunkHeader {
            magic: wire::CHUNK_MAGIC.into(),
            flags: if done { wire::CHUNK_DONE } else { 0 }.into(),
            kind: kind.into(),
            cookie: cookie.into(),
            length: u32::try_from(length).expect("at most the longest read").into(),
        };
        Head::empty().with(header.as_bytes())
    }

    /// The last chunk of a reply that succeeded.
    pub(super) fn none(cookie: u64) -> Head {
        Head::chunk(cookie, chunk::NONE, true, 0)
    }

    /// `length` bytes of data at `offset` follow.
    pub(super) fn data(cookie: u64, offset: u64, length: u32, done: bool) -> Head {
        let payload = length as usize + size_of::<u64>();
        Head::chunk(cookie, chunk::OFFSET_DATA, done, payload).with(&offset.to_be_bytes())
    }

    /// `count` descriptors follow.
    pub(super) fn status(cookie: u64, count: usize) -> Head {
        let payload = size_of::<u32>() + count * wire::Descriptor::BYTES;
        Head::chunk(cookie, chunk::BLOCK_STATUS, true, payload).with(&CONTEXT_ID.to_be_bytes())
    }

    /// The last chunk of a request that failed as a whole.
    pub(super) fn error(cookie: u64, failed: Failed) -> Head {
        let payload = ErrorHead::BYTES + failed.message.len();
        Head::chunk(cookie, chunk::ERROR, true, payload).with_error(failed)
    }

    /// A read failed at an offset; other parts of it may have been sent.
    pub(super) fn error_offset(cookie: u64, failed: Failed, done: bool) -> Head {
        let payload = ErrorHead::BYTES + failed.message.len() + size_of::<u64>();
        Head::chunk(cookie, chunk::ERROR_OFFSET, done, payload)
            .with_error(failed)
            .with(&failed.offset.to_be_bytes())
    }

    fn with_error(self, failed: Failed) -> Head {
        let message_length = u16::try_from(failed.message.len()).expect("a short message");
        let head =
            ErrorHead { error: failed.errno.get().into(), message_length: message_length.into() };
        self.with(head.as_bytes()).with(failed.message.as_bytes())
    }
}

/// Data of a reply: `length` bytes of a buffer from `at`.
pub(super) struct Body {
    pub(super) buf: Buf,
    pub(super) at: usize,
    pub(super) length: usize,
}

/// Something to send.
pub(super) struct Reply {
    pub(super) head: Head,
    pub(super) body: Option<Body>,
    /// The piece that ends when this is sent.
    pub(super) piece: Option<u16>,
    /// The command that ends when this is sent.
    pub(super) command: Option<u16>,
}

impl Reply {
    fn length(&self) -> usize {
        self.head.length + self.body.as_ref().map_or(0, |body| body.length)
    }
}

/// What waits to be sent, in order.
pub(super) struct Output {
    ready: Queue<Reply>,
    /// What waits for the end of a run of data that may not be interrupted.
    held: Queue<Reply>,
    /// Bytes of the first ready reply that are gone.
    sent: usize,
}

impl Output {
    pub(super) fn new() -> Output {
        let capacity = usize::from(PIECES) + usize::from(COMMANDS);
        Output { ready: Queue::new(capacity), held: Queue::new(capacity), sent: 0 }
    }

    pub(super) fn push(&mut self, reply: Reply) {
        self.ready.push(reply);
    }

    pub(super) fn hold(&mut self, reply: Reply) {
        self.held.push(reply);
    }

    /// The run of data has ended.
    pub(super) fn release_held(&mut self) {
        while let Some(reply) = self.held.pop() {
            self.ready.push(reply);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Any reply, sent or not: for a connection that gives up.
    pub(super) fn discard(&mut self) -> Option<Reply> {
        self.ready.pop().or_else(|| self.held.pop())
    }

    /// The front of the queue, as far as one send reaches.
    pub(super) fn slices<'a>(
        &'a self,
        host: &'a impl Host,
    ) -> SmallVec<[IoSlice<'a>; SEND_SLICES]> {
        let mut slices = SmallVec::new();
        let mut skip = self.sent;
        for reply in self.ready.iter() {
            let body: &[u8] = match &reply.body {
                Some(body) => &host.bytes(&body.buf)[body.at..][..body.length],
                None => &[],
            };
            for part in [&reply.head.bytes[..reply.head.length], body] {
                let gone = skip.min(part.len());
                skip -= gone;
                if gone < part.len() {
                    slices.push(IoSlice::new(&part[gone..]));
                }
            }
            if slices.len() + 2 > SEND_SLICES {
                break;
            }
        }
        slices
    }

    /// Notes that `bytes` more were sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// The first reply, once it is sent whole.
    pub(super) fn pop_sent(&mut self) -> Option<Reply> {
        let length = self.ready.front()?.length();
        if self.sent < length {
            return None;
        }
        self.sent -= length;
        self.ready.pop()
    }
}
