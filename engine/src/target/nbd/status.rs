//! Block status: which blocks of a range are allocated (`base:allocation`).
//!
//! The engine answers with a byte per block, for one segment at most; the
//! descriptors for the client are written behind that answer, in the same
//! buffer. A reply may end before its range does: the client asks again.

use zerocopy::IntoBytes;

use super::reply::{Body, Head, Reply};
use super::session::Session;
use super::wire::{Descriptor, STATE_HOLE, STATE_ZERO};
use crate::request::{Buf, Host};
use crate::units::{BLOCK_BYTES, SEGMENT_BLOCKS};

/// Bytes of the engine's answer.
const STATUS_BYTES: usize = SEGMENT_BLOCKS as usize;
/// Bytes of a block status' buffer: the answer, then the descriptors.
pub(super) const STATUS_BUFFER_BYTES: usize = STATUS_BYTES + BLOCK_BYTES;

impl Session {
    /// The engine has answered.
    pub(super) fn status_done(
        &mut self,
        index: u16,
        mut buf: Buf,
        one: bool,
        host: &mut impl Host,
    ) {
        let piece = self.pieces.get(index);
        let (number, offset, length) = (piece.command, piece.offset, piece.length);
        let count = describe(host.bytes_mut(&mut buf), offset, length, one);
        let body = Body { buf, at: STATUS_BYTES, length: count * Descriptor::BYTES };
        let head = Head::status(self.commands.get(number).cookie, count);
        self.reply(Reply { head, body: Some(body), piece: Some(index), command: Some(number) });
    }
}

/// Writes descriptors of the range behind the engine's answer, which has one
/// byte per block from the block of `offset` on; returns how many.
///
/// Neighbours differ in state. At most as many as there is room for, so that
/// they may end before the range does.
fn describe(buffer: &mut [u8], offset: u64, length: u32, one: bool) -> usize {
    let (blocks, out) = buffer.split_at_mut(STATUS_BYTES);
    let limit = if one { 1 } else { BLOCK_BYTES / Descriptor::BYTES };
    let end = offset + u64::from(length);
    let block_end = |at: u64| end.min((at / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64);
    let allocated = |at: u64| {
        let block = at / BLOCK_BYTES as u64 - offset / BLOCK_BYTES as u64;
        blocks[usize::try_from(block).expect("inside a segment")] != 0
    };
    let (mut at, mut count) = (offset, 0);
    while at < end && count < limit {
        let state = allocated(at);
        let mut stop = block_end(at);
        while stop < end && allocated(stop) == state {
            stop = block_end(stop);
        }
        let descriptor = Descriptor {
            length: u32::try_from(stop - at).expect("at most a segment").into(),
            state: if state { 0 } else { STATE_HOLE | STATE_ZERO }.into(),
        };
        out[count * Descriptor::BYTES..][..Descriptor::BYTES]
            .copy_from_slice(descriptor.as_bytes());
        (at, count) = (stop, count + 1);
    }
    count
}
