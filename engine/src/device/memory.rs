//! A device in anonymous memory: the whole path without a disk.
//!
//! Reads and writes copy at submission and complete with the next poll. As on
//! a disk, what overlapping operations in flight leave behind is undefined:
//! the engine never issues them.

use crate::core::arena::Arenas;
use crate::device::file::OpenError;
use crate::device::{DeviceError, DeviceOp, Kind};
use crate::units::{BLOCK_BYTES, DeviceOffset};
use memmap2::{MmapMut, MmapRaw};

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
        Ok(MemoryStore { map: map.into() })
    }

    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.map.len() as u64
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
                unsafe { std::ptr::copy_nonoverlapping(there, here, len) }
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
