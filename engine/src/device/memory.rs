//! A device in anonymous memory: the whole path without a disk.
//!
//! Bytes are copied when the operation is reported as ended. As on a disk, what overlapping operations in flight leave behind is undefined:
//! the engine never issues them.

use crate::core::arena::Arenas;
use crate::core::prefetch::{LINE_BYTES, prefetch};
use crate::device::file::OpenError;
use crate::device::{DeviceError, DeviceOp, Kind};
use crate::units::{BLOCK_BYTES, DeviceOffset};
use memmap2::{Advice, MmapMut, MmapRaw};

/// What is brought near at once: a core has only so many misses under way, so the two halves
/// are asked for at different times.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half {
    First,
    Second,
}

/// Memory that all cores read and write as a device.
#[derive(Debug)]
pub struct MemoryStore {
    map: MmapRaw,
}

impl MemoryStore {
    /// `bytes` of zeros, a multiple of 4096; pages are taken when first used.
    pub fn new(bytes: u64) -> Result<MemoryStore, OpenError> {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES as u64), "whole blocks");
        let len = usize::try_from(bytes).expect("64-bit platform");
        let map = MmapMut::map_anon(len).map_err(|source| OpenError::Memory { bytes, source })?;
        // Huge pages where the system grants them: with small ones every access misses the TLB.
        let _ = map.advise(Advice::HugePage);
        Ok(MemoryStore { map: map.into() })
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Brings the first or the second half of a block-sized range near: it will be copied soon.
    /// The rest of a longer one is left to the hardware.
    pub(super) fn expect(&self, offset: DeviceOffset, half: Half) {
        let bytes = match half {
            Half::First => 0..BLOCK_BYTES / 2,
            Half::Second => BLOCK_BYTES / 2..BLOCK_BYTES,
        };
        if let Ok(here) = self.ptr(offset, BLOCK_BYTES) {
            for line in bytes.step_by(LINE_BYTES) {
                prefetch(here.wrapping_add(line).cast_const());
            }
        }
    }

    pub(super) fn perform(&self, arenas: &Arenas, op: &DeviceOp) -> Result<(), DeviceError> {
        let len = op.len as usize;
        let here = self.ptr(op.offset, len)?;
        match op.kind {
            Kind::Flush => {}
            Kind::Read => {
                let there = arenas.ptr(op.addr, op.len);
                // SAFETY: both ranges were checked against their mappings, which
                // are distinct; nobody else uses either (contract of `DeviceOp`).
                unsafe { std::ptr::copy_nonoverlapping(here, there, len) }
            }
            Kind::Write { .. } => {
                let there = arenas.ptr(op.addr, op.len);
                // SAFETY: as above.
                unsafe { stream(there, here, len) }
            }
        }
        Ok(())
    }

    pub(super) fn read_at(&self, offset: DeviceOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        let here = self.ptr(offset, buf.len())?;
        // SAFETY: the range was checked; `buf` is memory of the caller's.
        unsafe { std::ptr::copy_nonoverlapping(here, buf.as_mut_ptr(), buf.len()) }
        Ok(())
    }

    pub(super) fn write_at(&self, offset: DeviceOffset, buf: &[u8]) -> Result<(), DeviceError> {
        let here = self.ptr(offset, buf.len())?;
        // SAFETY: the range was checked; `buf` is memory of the caller's.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), here, buf.len()) }
        Ok(())
    }

    fn ptr(&self, offset: DeviceOffset, len: usize) -> Result<*mut u8, DeviceError> {
        let at = usize::try_from(offset.get()).expect("64-bit platform");
        match at.checked_add(len) {
            Some(end) if end <= self.map.len() => Ok(self.map.as_mut_ptr().wrapping_add(at)),
            _ => Err(DeviceError::OutOfRange),
        }
    }
}

/// Copies past the caches: what is written to a device is not soon read, and a line that is
/// overwritten whole need not be fetched first.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, which do not overlap.
unsafe fn stream(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if to.addr().is_multiple_of(LINE_BYTES) && len.is_multiple_of(LINE_BYTES) {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        for at in (0..len).step_by(LINE_BYTES) {
            let source = from.wrapping_add(at).cast::<__m128i>();
            let target = to.wrapping_add(at).cast::<__m128i>();
            // SAFETY: the line is in the ranges of the contract; `to` is aligned to lines.
            unsafe {
                let line: [__m128i; 4] = std::array::from_fn(|n| _mm_loadu_si128(source.add(n)));
                for (n, part) in line.into_iter().enumerate() {
                    _mm_stream_si128(target.add(n), part);
                }
            }
        }
        // SAFETY: no memory is touched. Who hears of the end sees what was written.
        unsafe { _mm_sfence() };
        return;
    }
    // SAFETY: the contract.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}
