//! Synchronous access to a store: opening, recovery, `check`, the control thread.
//!
//! Never on a core's data path: each call blocks in the kernel and copies
//! through an aligned buffer of its own.

use crate::device::{Backing, DeviceError, Store};
use crate::units::{BLOCK_BYTES, DeviceOffset};
use memmap2::MmapMut;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes moved per system call.
const BOUNCE_BYTES: usize = 1 << 20;

/// Blocking reads and writes of whole, aligned blocks.
pub trait BlockIo {
    /// Fills `buf` from `offset`; both offset and length are multiples of 4096.
    fn read_at(&mut self, offset: DeviceOffset, buf: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes `buf` at `offset`; both offset and length are multiples of 4096.
    fn write_at(&mut self, offset: DeviceOffset, buf: &[u8]) -> Result<(), DeviceError>;
    /// Makes everything written before it durable.
    fn flush(&mut self) -> Result<(), DeviceError>;
    /// The device's size in bytes: whole blocks.
    fn size_bytes(&self) -> u64;
}

/// [`BlockIo`] on a [`Store`]. An emulated device is not slowed down here.
pub struct StoreIo {
    store: Arc<Store>,
    bounce: MmapMut,
}

impl StoreIo {
    /// Fails only for want of memory.
    pub fn new(store: Arc<Store>) -> io::Result<StoreIo> {
        Ok(StoreIo { store, bounce: MmapMut::map_anon(BOUNCE_BYTES)? })
    }

    fn check(&self, offset: DeviceOffset, len: usize) -> Result<(), DeviceError> {
        assert!(
            offset.get().is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES),
            "block I/O is made of whole, aligned blocks"
        );
        match offset.get().checked_add(len as u64) {
            Some(end) if end <= self.store.size_bytes() => Ok(()),
            _ => Err(DeviceError::OutOfRange),
        }
    }
}

impl BlockIo for StoreIo {
    fn read_at(&mut self, offset: DeviceOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, buf.len())?;
        let file = match self.store.backing() {
            Backing::Memory(memory) => return memory.read_at(offset, buf),
            Backing::File(file) => file.file(),
        };
        let mut at = offset.get();
        for piece in buf.chunks_mut(BOUNCE_BYTES) {
            let bounce = &mut self.bounce[..piece.len()];
            file.read_exact_at(bounce, at).map_err(|e| sorted(&e))?;
            piece.copy_from_slice(bounce);
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: DeviceOffset, buf: &[u8]) -> Result<(), DeviceError> {
        self.check(offset, buf.len())?;
        let file = match self.store.backing() {
            Backing::Memory(memory) => return memory.write_at(offset, buf),
            Backing::File(file) => file.file(),
        };
        let mut at = offset.get();
        for piece in buf.chunks(BOUNCE_BYTES) {
            let bounce = &mut self.bounce[..piece.len()];
            bounce.copy_from_slice(piece);
            file.write_all_at(bounce, at).map_err(|e| sorted(&e))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        match self.store.backing() {
            Backing::Memory(_) => Ok(()),
            Backing::File(file) => file.file().sync_data().map_err(|e| sorted(&e)),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

fn sorted(error: &io::Error) -> DeviceError {
    match (error.raw_os_error(), error.kind()) {
        (Some(errno), _) => DeviceError::from_errno(errno),
        // A file that was cut while open.
        (None, io::ErrorKind::UnexpectedEof) => DeviceError::OutOfRange,
        (None, _) => DeviceError::Media,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(store: Store) {
        let mut io = StoreIo::new(Arc::new(store)).expect("1 MiB");
        assert_eq!(io.size_bytes(), 4 << 20);
        let data: Vec<u8> =
            (0..(2 << 20) + 4096u32).map(|n| u8::try_from(n % 251).expect("a byte")).collect();
        io.write_at(DeviceOffset::new(8192), &data).expect("writes");
        io.flush().expect("flushes");
        let mut back = vec![1; data.len() + 4096];
        io.read_at(DeviceOffset::new(4096), &mut back).expect("reads");
        assert!(back[..4096].iter().all(|&b| b == 0) && back[4096..] == data);
        let past = io.read_at(DeviceOffset::new(4 << 20), &mut [0; 4096]);
        assert_eq!(past, Err(DeviceError::OutOfRange));
    }

    #[test]
    fn memory_round_trip() {
        round_trip(Store::memory(4 << 20).expect("4 MiB"));
    }

    #[cfg(not(loom))]
    #[test]
    fn file_round_trip_and_a_file_that_was_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        round_trip(Store::create(&path, 4 << 20).expect("made"));
        let mut io = StoreIo::new(Arc::new(Store::open(&path, 0).expect("opens"))).expect("1 MiB");
        let cut = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
        cut.set_len(1 << 20).expect("cut");
        let gone = io.read_at(DeviceOffset::new(2 << 20), &mut [0; 4096]);
        assert_eq!(gone, Err(DeviceError::OutOfRange));
    }
}
