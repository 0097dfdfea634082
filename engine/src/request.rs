//! The contract between a target and the core it runs on.
//!
//! A target turns protocol bytes into [`Request`]s and completions into
//! replies. It owns buffers of the core's arena by handle ([`Buf`]) and
//! reaches their bytes through its [`Host`]. Invariants:
//! - a request never crosses an aligned [`WINDOW_BYTES`] boundary, so one
//!   slice, hence one core, owns all of it (flush excepted);
//! - the byte of volume offset `o` stands at position `o % BLOCK_BYTES` of the
//!   request's buffer, so that whole blocks reach a device unmoved;
//! - from `submit` to `complete` the buffer belongs to the engine;
//! - every submitted request completes exactly once.

use crate::units::{BLOCK_BYTES, ClientId, VolumeId, VolumeOffset, WINDOW_BYTES};

/// A handle to a power-of-two run of pages of a core's arena.
///
/// Not `Clone`: who holds it owns the pages.
#[derive(Debug, PartialEq, Eq)]
pub struct Buf {
    /// The arena, by the core that made it.
    pub(crate) arena: u8,
    /// log2 of the run's length in pages.
    pub(crate) order: u8,
    /// First page.
    pub(crate) page: u32,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the buffer from the volume.
    Read,
    /// Write the buffer to the volume.
    Write,
    /// Drop the range: it reads as zeros and its space is freed.
    Discard,
    /// The range reads as zeros; the engine may free its space.
    WriteZeroes,
    /// Write the buffer's first block if the range has the bytes of its second, each at
    /// `offset % BLOCK_BYTES` of its block; else fail with [`Failure::Miscompare`]. Within one
    /// block, which no other write comes to in between.
    CompareAndWrite,
    /// Everything completed on the volume before this becomes durable.
    Flush,
    /// Fill the buffer with one byte per block of the range: 1 if the block is
    /// allocated, 0 if it is a hole. May cover up to one whole segment.
    Status,
}

/// One operation on one volume.
#[derive(Debug)]
pub struct Request {
    /// The target's own name for it, returned in the completion.
    pub tag: u64,
    /// Whose access pattern this belongs to.
    pub client: ClientId,
    /// The volume.
    pub volume: VolumeId,
    /// What to do.
    pub op: Op,
    /// Durable before it completes (all that change the volume).
    pub fua: bool,
    /// First byte; a multiple of the volume's block size.
    pub offset: VolumeOffset,
    /// Bytes; 0 for flush.
    pub length: u32,
    /// The data, or where it goes; `None` for flush, discard and write zeroes.
    pub buf: Option<Buf>,
}

/// How a request ended, in terms every protocol can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No such volume any more, or the range is outside it.
    #[error("out of range")]
    OutOfRange,
    /// The volume is read-only.
    #[error("read-only volume")]
    ReadOnly,
    /// The pool has no space for the write.
    #[error("no space left in the pool")]
    NoSpace,
    /// The stored bytes fail their checksum and no good copy exists.
    #[error("media error: stored data fails its checksum")]
    Media,
    /// The volume has other bytes than those that a write depends on.
    #[error("the data differ from what was expected")]
    Miscompare,
    /// A device failed the operation, or failed before and is not trusted.
    #[error("device error")]
    Device,
    /// The server is stopping.
    #[error("server is stopping")]
    Stopping,
}

/// A completed request, with its buffer handed back.
#[derive(Debug)]
pub struct Completion {
    /// [`Request::tag`].
    pub tag: u64,
    /// The request's buffer, if it had one.
    pub buf: Option<Buf>,
    /// Success or the reason of failure.
    pub result: Result<(), Failure>,
}

/// What a target knows of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Its number.
    pub id: VolumeId,
    /// Its unique name.
    pub name: String,
    /// Its size in bytes, a multiple of the block size.
    pub size_bytes: u64,
    /// 512 or 4096.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
}

/// What the core offers to the targets that run on it. Never blocks.
pub trait Host {
    /// A buffer of at least `bytes` (≤ 16 MiB), or `None`: wait and try again.
    fn alloc(&mut self, bytes: usize) -> Option<Buf>;
    /// Gives a buffer back.
    fn free(&mut self, buf: Buf);
    /// The bytes of a buffer that the caller owns.
    fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8];
    /// The same, to write.
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Buf) -> &'a mut [u8];
    /// True if [`Host::submit`] would take another request now.
    fn can_submit(&self) -> bool;
    /// Hands a request to the engine; its completion comes later.
    ///
    /// # Panics
    /// If [`Host::can_submit`] is false or the request breaks the module's invariants.
    fn submit(&mut self, request: Request);
    /// The volumes, sorted by name.
    fn volumes(&self) -> &[VolumeView];
}

/// Splits a byte range at window boundaries: the composer's first step.
///
/// Yields `(offset, length)`, in order, covering the range exactly.
pub fn windows(offset: u64, length: u64) -> impl Iterator<Item = (u64, u32)> {
    let end = offset.checked_add(length).expect("range checked against the volume's size");
    let mut at = offset;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let stop = end.min((at / WINDOW_BYTES + 1) * WINDOW_BYTES);
        let piece = (at, u32::try_from(stop - at).expect("at most a window"));
        at = stop;
        Some(piece)
    })
}

/// Buffer bytes that a range needs: whole blocks, first byte at `offset % BLOCK_BYTES`.
pub fn buffer_bytes(offset: u64, length: u32) -> usize {
    let head = usize::try_from(offset % BLOCK_BYTES as u64).expect("below a block");
    (head + length as usize).next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_exactly() {
        let got: Vec<_> = windows(WINDOW_BYTES - 512, WINDOW_BYTES + 1024).collect();
        assert_eq!(
            got,
            [(WINDOW_BYTES - 512, 512), (WINDOW_BYTES, 1 << 18), (2 * WINDOW_BYTES, 512)]
        );
        assert_eq!(windows(4096, 0).count(), 0);
    }

    #[test]
    fn buffers_keep_the_offset_in_block() {
        assert_eq!(buffer_bytes(512, 3584), 4096);
        assert_eq!(buffer_bytes(512, 4096), 8192);
    }
}
