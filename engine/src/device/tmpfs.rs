//! Files in memory: tmpfs and ramfs.
//!
//! io_uring hands each operation on such a file to a worker thread, which costs two
//! changes of context for a copy that never waits. The core copies itself, with one
//! system call. A file that is cut is an error as on any other file system, which is
//! why it is not mapped. Nothing survives the machine's memory: a flush has nothing to do.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::core::arena::Arenas;
use crate::core::meter::count_syscall;
use crate::device::{DeviceError, DeviceOp, Kind};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC`, linux/magic.h.
const MAGICS: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// The file's data is memory.
pub(super) fn holds(file: impl AsFd) -> io::Result<bool> {
    Ok(MAGICS.contains(&rustix::fs::fstatfs(file)?.f_type.into()))
}

/// Performs an operation at once.
pub(super) fn perform(file: &File, arenas: &Arenas, op: &DeviceOp) -> Result<(), DeviceError> {
    let (len, offset) = (op.len as usize, op.offset.get());
    let done = match op.kind {
        Kind::Flush => return Ok(()),
        Kind::Read => file.read_exact_at(arenas.view_mut(op.addr, len), offset),
        Kind::Write { .. } => file.write_all_at(arenas.view(op.addr, len), offset),
    };
    count_syscall();
    done.map_err(|error| DeviceError::from_io(&error))
}
