//! Devices: block storage of a pool, reached by every core.
//!
//! A [`Store`] is opened once per process (a file, a block device, or memory)
//! and shared. Each core then has a [`Devices`]: one device per store,
//! chosen by a match, not by a pointer. Operations name arena memory; bytes
//! never pass through here by value.
//!
//! On the data path: [`Devices::submit`] during a reactor pass, and at its end
//! [`Devices::poll`] once, which enters the kernel at most once, and
//! [`Devices::next_ended`] until nothing is left.
//! Operations beyond the ring's depth wait in a queue made at start.
//!
//! Guarantees: every submitted operation completes exactly once; short reads
//! and writes are continued. Operations in flight are not ordered among each
//! other: a flush covers the writes **completed** before it was submitted, and
//! a write is durable after such a flush or, with FUA, at its completion.
//! Nothing here retries an error, knows a checksum, or knows what it stores.

pub mod blockio;
mod devices;
pub mod emulate;
pub mod file;
pub mod memory;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod uring;

pub use devices::Devices;

use crate::core::arena::{ArenaAddr, Arenas};
use crate::core::ring::Ring;
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset};
use emulate::{Emulated, Head, Model};
use file::{FileStore, OpenError};
use memory::MemoryStore;
use std::path::Path;
use std::sync::Arc;
use uring::Uring;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Device to memory.
    Read,
    /// Memory to device; durable at completion if `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Makes completed writes durable.
    Flush,
}

/// One operation on one device.
///
/// From [`Devices::submit`] to its completion the holder of the memory's
/// [`crate::request::Buf`] keeps it and leaves its bytes alone.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOp {
    /// The device: an index into the stores given to [`Devices::new`].
    pub device: DeviceId,
    /// What to do.
    pub kind: Kind,
    /// First byte on the device: a multiple of 4096. 0 for flush.
    pub offset: DeviceOffset,
    /// First byte in memory: block-aligned. Ignored for flush.
    pub addr: ArenaAddr,
    /// Bytes: a multiple of 4096. 0 for flush.
    pub len: u32,
    /// The caller's name for it, returned in the [`Completion`].
    pub token: u64,
}

/// The end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// [`DeviceOp::token`].
    pub token: u64,
    /// How it ended. After an error a read's memory, or a write's place, holds
    /// anything.
    pub result: Result<(), DeviceError>,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device is gone (`ENODEV`, `ENXIO`): it will not come back by itself.
    #[error("device has vanished")]
    Vanished,
    /// The medium failed (`EIO`, `EILSEQ`, `ENODATA`, `EREMOTEIO`).
    #[error("device reports an I/O error")]
    Media,
    /// The file system below a sparse file is full (`ENOSPC`, `EDQUOT`).
    #[error("no space below the device")]
    NoSpace,
    /// Past the end, also of a file that was cut while open.
    #[error("outside the device")]
    OutOfRange,
    /// Anything else, by its errno.
    #[error("device error: {}", std::io::Error::from_raw_os_error(*.0))]
    Errno(i32),
}

impl DeviceError {
    /// Sorts a positive errno.
    pub fn from_errno(errno: i32) -> DeviceError {
        match errno {
            libc::ENODEV | libc::ENXIO => DeviceError::Vanished,
            libc::EIO | libc::EILSEQ | libc::ENODATA | libc::EREMOTEIO => DeviceError::Media,
            libc::ENOSPC | libc::EDQUOT => DeviceError::NoSpace,
            libc::EFBIG => DeviceError::OutOfRange,
            other => DeviceError::Errno(other),
        }
    }
}

/// What holds a store's bytes.
#[derive(Debug)]
pub enum Backing {
    /// A file or block device.
    File(FileStore),
    /// Anonymous memory.
    Memory(Arc<MemoryStore>),
}

/// One open device of the pool, shared by all cores.
#[derive(Debug)]
pub struct Store {
    backing: Backing,
    head: Option<Arc<Head>>,
}

impl Store {
    /// Opens an existing file or block device of at least `need_bytes`.
    pub fn open(path: &Path, need_bytes: u64) -> Result<Store, OpenError> {
        Ok(Store { backing: Backing::File(FileStore::open(path, need_bytes)?), head: None })
    }

    /// Makes and opens a sparse file of `bytes`, a multiple of 4096.
    pub fn create(path: &Path, bytes: u64) -> Result<Store, OpenError> {
        Ok(Store { backing: Backing::File(FileStore::create(path, bytes)?), head: None })
    }

    /// A device of `bytes` (a multiple of 4096) in memory: zeros, lost at exit.
    pub fn memory(bytes: u64) -> Result<Store, OpenError> {
        Ok(Store { backing: Backing::Memory(Arc::new(MemoryStore::new(bytes)?)), head: None })
    }

    /// Makes it behave like a slower device (see [`emulate`]), on all cores together.
    #[must_use]
    pub fn emulating(self, model: Model) -> Store {
        Store { head: Some(Arc::new(Head::new(model))), ..self }
    }

    /// What it emulates, to be named in every report.
    pub fn emulates(&self) -> Option<Model> {
        self.head.as_ref().map(|head| head.model())
    }

    /// Bytes: whole blocks.
    pub fn size_bytes(&self) -> u64 {
        match &self.backing {
            Backing::File(file) => file.size_bytes(),
            Backing::Memory(memory) => memory.size_bytes(),
        }
    }

    /// What holds the bytes.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }
}

/// A core's view of one store.
enum Device {
    /// A file or block device behind the core's ring.
    Uring(Uring),
    /// Memory.
    Memory,
    /// One of these, slowed down.
    Emulated(Box<Emulated>),
}

/// Where an operation went when it was started.
enum Started {
    /// The kernel or the emulation will complete it.
    InFlight,
    /// The ring is full: start it again later.
    Full,
    /// Memory, to be copied when the operation is reported.
    Copy,
}

/// What the devices of one core share while starting operations.
struct Io<'a> {
    ring: &'a mut Ring,
    arenas: &'a Arenas,
}

impl Device {
    fn new(store: &Store, file_index: u32, max_ops: usize) -> Device {
        let plain = match &store.backing {
            Backing::File(_) => Device::Uring(Uring::new(file_index)),
            Backing::Memory(_) => Device::Memory,
        };
        match &store.head {
            None => plain,
            Some(head) => {
                Device::Emulated(Box::new(Emulated::new(plain, Arc::clone(head), max_ops)))
            }
        }
    }

    /// Starts the operation in `slot`, of which `done` bytes are done already.
    fn start(&mut self, io: &mut Io<'_>, slot: u32, op: &DeviceOp, done: u32) -> Started {
        match self {
            Device::Uring(uring) => uring.start(io, slot, op, done),
            Device::Memory => Started::Copy,
            Device::Emulated(emulated) => emulated.below().start(io, slot, op, done),
        }
    }
}

/// Checks an operation against the contract and the device's size.
fn check(op: &DeviceOp, size_bytes: u64) -> Result<(), DeviceError> {
    let block = BLOCK_BYTES as u64;
    assert!(
        op.offset.get().is_multiple_of(block)
            && u64::from(op.len).is_multiple_of(block)
            && (op.kind == Kind::Flush || op.addr.offset.is_multiple_of(block)),
        "device operations are made of whole, aligned blocks"
    );
    assert_eq!(op.len == 0, op.kind == Kind::Flush, "only a flush has no bytes");
    match op.offset.get().checked_add(u64::from(op.len)) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(DeviceError::OutOfRange),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
