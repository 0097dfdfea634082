//! Operations on a file or block device as io_uring entries.
//!
//! FUA is `RWF_DSYNC`, a flush is `fdatasync`. Files are registered with the
//! core's ring and named by index; so is memory, where that was allowed.

use crate::device::{DeviceOp, Io, Kind, Started};
use io_uring::{opcode, squeue, types};

/// A file registered with the core's ring.
pub(super) struct Uring {
    file: types::Fixed,
}

impl Uring {
    pub(super) fn new(file_index: u32) -> Uring {
        Uring { file: types::Fixed(file_index) }
    }

    /// Pushes what is left of `op` after `done` bytes; its completion carries `slot`.
    pub(super) fn start(&self, io: &mut Io<'_>, slot: u32, op: &DeviceOp, done: u32) -> Started {
        if io.ring.room() == 0 {
            return Started::Full;
        }
        let entry = self.entry(io, op, done).user_data(u64::from(slot));
        // SAFETY: `ptr` checked that the memory lies in an arena, which
        // outlives the ring; the file is registered with the ring. Nobody
        // touches the memory until the completion (contract of `DeviceOp`).
        unsafe { io.ring.push(&entry) };
        Started::InFlight
    }

    fn entry(&self, io: &Io<'_>, op: &DeviceOp, done: u32) -> squeue::Entry {
        let (file, len) = (self.file, op.len - done);
        let offset = op.offset.get() + u64::from(done);
        let addr = op.addr.plus(done);
        match (op.kind, io.ring.buffer_index(addr)) {
            (Kind::Flush, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Read, Some(index)) => {
                opcode::ReadFixed::new(file, io.arenas.ptr(addr, len), len, index)
                    .offset(offset)
                    .build()
            }
            (Kind::Read, None) => {
                opcode::Read::new(file, io.arenas.ptr(addr, len), len).offset(offset).build()
            }
            (Kind::Write { fua }, Some(index)) => {
                opcode::WriteFixed::new(file, io.arenas.ptr(addr, len), len, index)
                    .offset(offset)
                    .rw_flags(dsync(fua))
                    .build()
            }
            (Kind::Write { fua }, None) => opcode::Write::new(file, io.arenas.ptr(addr, len), len)
                .offset(offset)
                .rw_flags(dsync(fua))
                .build(),
        }
    }
}

fn dsync(fua: bool) -> i32 {
    if fua { libc::RWF_DSYNC } else { 0 }
}
