//! One arena of I/O memory per core, handed out as [`Buf`]s.
//!
//! [`Arenas::new`] maps all of them before the cores start, so that every core
//! knows every base address and every ring can register every arena. An
//! [`Arena`] (the allocator) then moves to its core.
//!
//! Invariants:
//! - only [`Arena::alloc`] makes a [`Buf`], and a `Buf` cannot be copied: who
//!   holds it, on whatever core, owns its bytes, and only through it are they
//!   reached;
//! - only the arena that made a `Buf` takes it back (asserted), so another
//!   core sends it home by message;
//! - from submitting an operation on a `Buf`'s bytes to a device until its
//!   completion, its holder leaves those bytes alone.
//!
//! After construction nothing here allocates. Memory is zero at start and not
//! cleared between uses.

use crate::core::buddy::{Buddy, MAX_ORDER};
use crate::request::Buf;
use crate::units::{BLOCK_BYTES, CoreId};
use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use std::sync::Arc;

/// Bytes in a huge page; an arena of whole huge pages tries to use them.
const HUGE_BYTES: usize = 2 << 20;
/// log2 of [`HUGE_BYTES`], as mmap wants it.
const HUGE_SHIFT: u8 = 21;
/// Bytes in the largest [`Buf`].
pub const MAX_BUF_BYTES: usize = BLOCK_BYTES << MAX_ORDER;

/// Why the arenas could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The size is not a whole number of pages.
    #[error("buffer memory of {0} bytes per core is not a positive multiple of 4 KiB below 16 TiB")]
    Size(usize),
    /// More cores than a [`Buf`] can name.
    #[error("{0} cores: at most 256 are supported")]
    Cores(usize),
    /// The kernel refused the memory.
    #[error("cannot map {bytes} bytes of buffer memory")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// A byte position in an arena: how device operations name memory.
///
/// Taken from a [`Buf`] with [`Arenas::addr`]; it carries no ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaAddr {
    pub(crate) arena: u8,
    pub(crate) offset: u64,
}

impl ArenaAddr {
    /// The address `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u32) -> ArenaAddr {
        ArenaAddr { offset: self.offset + u64::from(bytes), ..self }
    }
}

/// The memory of all arenas of the process, shared read-only by all cores.
#[derive(Debug)]
pub struct Arenas {
    maps: Vec<MmapRaw>,
}

impl Arenas {
    /// Maps `cores` arenas of `bytes` each, on huge pages where there are enough.
    pub fn new(cores: usize, bytes: usize) -> Result<(Arc<Arenas>, Vec<Arena>), ArenaError> {
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes >= 1 << 44 {
            return Err(ArenaError::Size(bytes));
        }
        if cores == 0 || cores > 256 {
            return Err(ArenaError::Cores(cores));
        }
        let maps = map_all(cores, bytes).map_err(|source| ArenaError::Map { bytes, source })?;
        let shared = Arc::new(Arenas { maps });
        let pages = u32::try_from(bytes / BLOCK_BYTES).expect("below 16 TiB");
        let arenas = (0..cores)
            .map(|core| Arena {
                core: CoreId::new(u8::try_from(core).expect("at most 256 cores")),
                shared: Arc::clone(&shared),
                buddy: Buddy::new(pages),
            })
            .collect();
        Ok((shared, arenas))
    }

    /// How many arenas there are: one per core.
    pub fn count(&self) -> usize {
        self.maps.len()
    }

    /// Start address and length in bytes of an arena, for registration with a ring.
    pub fn region(&self, arena: usize) -> (*mut u8, usize) {
        (self.maps[arena].as_mut_ptr(), self.maps[arena].len())
    }

    /// Where byte `at` of `buf` lies, for a device operation.
    ///
    /// # Panics
    /// If `at` is past the end of `buf`.
    pub fn addr(&self, buf: &Buf, at: usize) -> ArenaAddr {
        assert!(at <= buf_bytes(buf), "past the end of the buffer");
        let offset = buf.page as usize * BLOCK_BYTES + at;
        ArenaAddr { arena: buf.arena, offset: offset as u64 }
    }

    /// The bytes of a buffer that the caller holds, whichever core's arena it came from.
    pub fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        let (ptr, len) = self.run(buf);
        // SAFETY: `run` checked that the range lies in a live mapping; holding
        // the only `Buf` of that range, borrowed shared, forbids writers.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }

    /// The same, to write.
    #[allow(clippy::mut_from_ref, reason = "exclusive through `buf`, the only handle to its bytes")]
    pub fn bytes_mut<'a>(&'a self, buf: &'a mut Buf) -> &'a mut [u8] {
        let (ptr, len) = self.run(buf);
        // SAFETY: `run` checked that the range lies in a live mapping; holding
        // the only `Buf` of that range, borrowed exclusively, forbids all others.
        unsafe { std::slice::from_raw_parts_mut(ptr, len) }
    }

    /// The address of `len` bytes at `addr`.
    ///
    /// # Panics
    /// If the range leaves the arena.
    pub(crate) fn ptr(&self, addr: ArenaAddr, len: u32) -> *mut u8 {
        let map = &self.maps[addr.arena as usize];
        let offset = usize::try_from(addr.offset).expect("64-bit platform");
        assert!(
            offset.checked_add(len as usize).is_some_and(|end| end <= map.len()),
            "outside the arena"
        );
        map.as_mut_ptr().wrapping_add(offset)
    }

    /// Bytes at an address that the calling core may read: of a buffer it was handed, or its own.
    ///
    /// Ownership of a [`Buf`] travels by message; the state machines name only ranges of buffers
    /// that they hold at that moment.
    pub(crate) fn view(&self, addr: ArenaAddr, len: usize) -> &[u8] {
        let ptr = self.ptr(addr, u32::try_from(len).expect("at most 16 MiB"));
        // SAFETY: `ptr` checked the range; by the rule above no other core and no device
        // writes it while the holder of its buffer looks at it.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }

    /// The same, to write.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the ownership of the range's buffer")]
    pub(crate) fn view_mut(&self, addr: ArenaAddr, len: usize) -> &mut [u8] {
        let ptr = self.ptr(addr, u32::try_from(len).expect("at most 16 MiB"));
        // SAFETY: `ptr` checked the range; the caller's core holds its buffer and no device
        // operation on it is under way.
        unsafe { std::slice::from_raw_parts_mut(ptr, len) }
    }

    /// Copies between two ranges of buffers that the calling core holds.
    ///
    /// # Panics
    /// If they overlap.
    pub(crate) fn copy(&self, from: ArenaAddr, to: ArenaAddr, len: usize) {
        let apart = from.arena != to.arena || from.offset.abs_diff(to.offset) >= len as u64;
        assert!(apart, "copied a range onto itself");
        self.view_mut(to, len).copy_from_slice(self.view(from, len));
    }

    fn run(&self, buf: &Buf) -> (*mut u8, usize) {
        let len = u32::try_from(buf_bytes(buf)).expect("at most 16 MiB");
        (self.ptr(self.addr(buf, 0), len), len as usize)
    }
}

/// Bytes of a buffer.
pub fn buf_bytes(buf: &Buf) -> usize {
    BLOCK_BYTES << buf.order
}

/// The allocator of one core's arena. Lives on that core.
#[derive(Debug)]
pub struct Arena {
    core: CoreId,
    shared: Arc<Arenas>,
    buddy: Buddy,
}

impl Arena {
    /// A buffer of at least `bytes`: the next power of two of 4 KiB pages.
    /// `None` when no free run is large enough: wait for one to be freed.
    ///
    /// # Panics
    /// If `bytes` is above [`MAX_BUF_BYTES`].
    pub fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        assert!(bytes <= MAX_BUF_BYTES, "a buffer is at most 16 MiB");
        let pages = bytes.div_ceil(BLOCK_BYTES).max(1).next_power_of_two();
        let order = u8::try_from(pages.trailing_zeros()).expect("at most MAX_ORDER");
        let page = self.buddy.alloc(order)?;
        Some(Buf { arena: self.core.get(), order, page })
    }

    /// Takes a buffer of this arena back.
    ///
    /// # Panics
    /// If it is another core's, or not allocated.
    pub fn free(&mut self, buf: Buf) {
        assert_eq!(buf.arena, self.core.get(), "a buffer goes back to the core that made it");
        self.buddy.free(buf.page, buf.order);
    }

    /// The core this arena belongs to.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// All arenas, to reach the bytes of any buffer.
    pub fn arenas(&self) -> &Arc<Arenas> {
        &self.shared
    }

    /// 4 KiB pages in no buffer.
    pub fn free_pages(&self) -> u32 {
        self.buddy.free_pages()
    }

    /// Bytes of the largest buffer that would be granted now; 0 if none.
    pub fn largest_free(&self) -> usize {
        self.buddy.largest_free_pages() as usize * BLOCK_BYTES
    }
}

fn map_all(cores: usize, bytes: usize) -> std::io::Result<Vec<MmapRaw>> {
    if bytes.is_multiple_of(HUGE_BYTES) {
        let huge: std::io::Result<Vec<MmapRaw>> = (0..cores)
            .map(|_| MmapOptions::new().len(bytes).huge(Some(HUGE_SHIFT)).map_anon())
            .map(|map| map.map(MmapRaw::from))
            .collect();
        if let Ok(maps) = huge {
            return Ok(maps);
        }
    }
    tracing::info!(
        "buffers have no huge pages of their own: {cores} arenas of {} MiB do not fit the free huge pages \
         (vm.nr_hugepages)",
        bytes >> 20
    );
    let plain = |_| {
        let map = MmapMut::map_anon(bytes)?;
        let _ = map.advise(Advice::HugePage);
        Ok(MmapRaw::from(map))
    };
    (0..cores).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_one_core_are_read_by_another() {
        let (arenas, mut cores) = Arenas::new(2, 1 << 20).expect("1 MiB");
        let mut buf = cores[0].alloc(5000).expect("free");
        assert_eq!(buf_bytes(&buf), 8192);
        arenas.bytes_mut(&mut buf).fill(7);
        let other = Arc::clone(cores[1].arenas());
        let back = std::thread::spawn(move || {
            assert!(other.bytes(&buf).iter().all(|&b| b == 7));
            other.bytes_mut(&mut buf)[4096] = 9;
            buf
        })
        .join()
        .expect("the reader is content");
        assert_eq!(arenas.bytes(&back)[4096], 9);
        cores[0].free(back);
        assert_eq!(cores[0].free_pages(), 256);
    }

    #[test]
    #[should_panic(expected = "goes back to the core")]
    fn foreign_free_is_caught() {
        let (_, mut cores) = Arenas::new(2, 1 << 20).expect("1 MiB");
        let buf = cores[0].alloc(1).expect("free");
        cores[1].free(buf);
    }

    #[test]
    fn exhaustion_is_none_and_ends() {
        let (_, mut cores) = Arenas::new(1, 64 << 10).expect("64 KiB");
        let whole = cores[0].alloc(64 << 10).expect("all of it");
        assert_eq!(cores[0].largest_free(), 0);
        assert!(cores[0].alloc(1).is_none());
        cores[0].free(whole);
        assert_eq!(cores[0].largest_free(), 64 << 10);
    }

    #[test]
    fn sizes_are_checked() {
        assert!(matches!(Arenas::new(1, 4097), Err(ArenaError::Size(4097))));
        assert!(matches!(Arenas::new(0, 4096), Err(ArenaError::Cores(0))));
    }
}
