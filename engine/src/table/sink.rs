//! What the state machines ask of the world around them.
//!
//! Synchronous services act on handles and on pool-wide space; everything else
//! is an action whose outcome comes back as an event. The reactor's sink fills
//! queue entries; the simulator's sink records and delays.

pub use predictor::online::Met;

use crate::request::{Buf, Failure};
use crate::units::{BLOCK_BYTES, CoreId, Crc, DeviceId, DeviceOffset, crc32c};

/// A position in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// The arena, by the core that made it.
    pub arena: u8,
    /// Byte in the arena.
    pub byte: u64,
}

impl Mem {
    /// `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: usize) -> Mem {
        Mem { byte: self.byte + bytes as u64, ..self }
    }
    /// `blocks` blocks further on.
    #[must_use]
    pub fn block(self, blocks: u32) -> Mem {
        self.plus(blocks as usize * BLOCK_BYTES)
    }
}

impl Buf {
    /// Where the buffer starts.
    pub(crate) fn mem(&self) -> Mem {
        Mem { arena: self.arena, byte: u64::from(self.page) * BLOCK_BYTES as u64 }
    }
    /// Its length in bytes.
    pub(crate) fn capacity(&self) -> usize {
        BLOCK_BYTES << self.order
    }
}

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Device to memory.
    Read,
    /// Memory to device; durable at completion if `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Everything completed before becomes durable.
    Flush,
}

/// One device operation.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// Which device.
    pub device: DeviceId,
    /// What.
    pub kind: IoKind,
    /// Where on the device; 0 for flush.
    pub offset: DeviceOffset,
    /// Where in memory; meaningless for flush.
    pub mem: Mem,
    /// Bytes, whole blocks; 0 for flush.
    pub bytes: u32,
    /// Returned with the outcome.
    pub token: u64,
    /// Background work: demand I/O goes first.
    pub background: bool,
}

/// How a device operation ended.
pub type IoResult = Result<(), Failure>;

/// The end of a request at its owner.
#[derive(Debug)]
pub struct Done {
    /// Who asked: the composer's own name for the part.
    pub origin: u64,
    /// What a read has met.
    pub met: Met,
    /// The buffer that came with it.
    pub buf: Option<Buf>,
    /// Outcome.
    pub result: Result<(), Failure>,
}

/// The world around the table.
pub trait Sink {
    /// A buffer of at least `bytes`, contiguous; `None`: try again after a later event.
    fn alloc(&mut self, bytes: usize) -> Option<Buf>;
    /// Gives a buffer of this core back.
    fn free(&mut self, buf: Buf);
    /// Bytes of memory that stages may still take: clients and the table itself go first.
    fn spare_bytes(&self) -> u64;
    /// Bytes of a buffer that the caller owns.
    fn bytes(&self, at: Mem, len: usize) -> &[u8];
    /// The same, to write.
    fn bytes_mut(&mut self, at: Mem, len: usize) -> &mut [u8];
    /// Copies between two ranges that do not overlap.
    fn copy(&mut self, from: Mem, to: Mem, len: usize);
    /// Starts a device operation.
    fn io(&mut self, io: Io);
    /// Somebody waits for a background operation now: it is demand, if it has not begun.
    fn hurry(&mut self, token: u64);
    /// A free chunk of a device. Without `urgent` a reserve stays untouched.
    fn claim_chunk(&mut self, device: DeviceId, urgent: bool) -> Option<u32>;
    /// Gives a chunk back to the pool.
    fn release_chunk(&mut self, device: DeviceId, chunk: u32);
    /// Free and total chunks of a device, now.
    fn chunks(&self, device: DeviceId) -> (u32, u32);
    /// Asks another core for an empty chunk; the answer comes as [`Sink::give_space`] there.
    fn ask_space(&mut self, of: CoreId);
    /// Hands a core that has asked a fast chunk, still claimed, or says that there is none.
    fn give_space(&mut self, to: CoreId, chunk: Option<(DeviceId, u32)>);
    /// Asks the core that flushes a device to do so; its answer comes to
    /// [`super::Table::flushed_elsewhere`].
    fn ask_flush(&mut self, of: CoreId, device: DeviceId);
    /// Answers a core that has asked.
    fn tell_flushed(&mut self, to: CoreId, device: DeviceId, result: IoResult);
    /// A free checkpoint extent.
    fn claim_extent(&mut self) -> Option<u32>;
    /// Gives an extent back.
    fn release_extent(&mut self, extent: u32);
    /// A flush of a device failed: whatever core wrote there may have lost it.
    ///
    /// The system tells of the loss once, to whichever core flushed first. Sinks
    /// of a process with several cores share this and [`Sink::has_failed`].
    fn fail_device(&mut self, device: DeviceId);
    /// True once a flush of the device has failed on any core.
    fn has_failed(&self, device: DeviceId) -> bool;
    /// A request ended.
    fn done(&mut self, done: Done);

    /// Checksum of the block at `at`.
    fn crc(&self, at: Mem) -> Crc {
        crc32c(self.bytes(at, BLOCK_BYTES))
    }
    /// Zeroes `len` bytes.
    fn zero(&mut self, at: Mem, len: usize) {
        self.bytes_mut(at, len).fill(0);
    }
}
