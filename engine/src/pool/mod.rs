//! A pool: its devices, made and opened.
//!
//! Making writes superblocks and empty tables, and is complete only when the
//! last superblock is; opening finds the newest whole superblock of each
//! device, checks that all belong together, and raises the incarnation.
//! Synchronous; runs before the cores do.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod space_map;
pub mod stores;

use crate::format::FormatError;
use crate::format::layout::{JOURNALS, LayoutError, MetaLayout, NewDevice, plan};
use crate::format::superblock::{COPY_OFFSETS, Superblock};
use crate::journal::log::{LogMemory, LogTag, PendingLog};
use crate::journal::recover::{
    Found, IoError, PoolIo, RecoverError, TableId, read_table, replay_log, write_empty_root,
};
use crate::planted::{Bug, planted};
use crate::table::space::DeviceGeometry;
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, SliceId};

/// Why a pool cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The devices do not fit a pool.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A table cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// No whole superblock on a device.
    #[error("device {device} holds no pool: {cause}")]
    NoSuperblock {
        /// Which device.
        device: DeviceId,
        /// What the better copy says.
        cause: FormatError,
    },
    /// Devices of different pools, or in another order than they were made.
    #[error("device {device} does not belong here: it is device {found} of another pool or place")]
    Foreign {
        /// Its position.
        device: DeviceId,
        /// What it says it is.
        found: DeviceId,
    },
    /// Fewer or more devices than the pool has.
    #[error("the pool has {expected} devices, {found} are given")]
    Count {
        /// By its superblock.
        expected: u8,
        /// Given.
        found: u8,
    },
    /// The devices' superblocks contradict each other.
    #[error("device {device} contradicts the others ({what})")]
    Contradiction {
        /// Which.
        device: DeviceId,
        /// How.
        what: &'static str,
    },
    /// A device is smaller than when the pool was made.
    #[error("device {device} has shrunk from {was} to {is} bytes")]
    Shrunk {
        /// Which.
        device: DeviceId,
        /// Then.
        was: u64,
        /// Now.
        is: u64,
    },
}

/// The identity and geometry of an open pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// One superblock per device, in order.
    pub superblocks: Vec<Superblock>,
    /// The metadata zone.
    pub meta: MetaLayout,
}

impl Pool {
    fn of(superblocks: Vec<Superblock>) -> Self {
        let meta = MetaLayout::of(&superblocks);
        Self { superblocks, meta }
    }

    /// The pool's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblocks[0].pool_uuid
    }

    /// The part of the UUID that journals and checkpoints carry.
    pub fn short_id(&self) -> u64 {
        let uuid = self.uuid();
        u64::from_le_bytes(uuid[..8].try_into().expect("eight bytes"))
    }

    /// This opening's number.
    pub fn incarnation(&self) -> u32 {
        u32::try_from(self.superblocks[0].incarnation).expect("fewer than 2^32 openings")
    }

    /// Where chunks lie on each device.
    pub fn devices(&self) -> Vec<DeviceGeometry> {
        self.superblocks.iter().map(DeviceGeometry::of).collect()
    }

    /// Identity of a table of this pool.
    pub fn table(&self, slice: SliceId) -> TableId {
        TableId { pool: self.short_id(), slice }
    }
}

/// Makes a pool on devices of the given sizes and roles.
pub fn create(
    io: &mut dyn PoolIo,
    devices: &[NewDevice],
    mut uuid: impl FnMut() -> [u8; 16],
) -> Result<Pool, PoolError> {
    let mut superblocks = plan(devices)?;
    let pool_uuid = uuid();
    for superblock in &mut superblocks {
        superblock.pool_uuid = pool_uuid;
        superblock.device_uuid = uuid();
        superblock.sequence = 1;
    }
    let pool = Pool::of(superblocks);
    for slice in 0..JOURNALS {
        write_empty_root(io, &pool.meta, pool.table(SliceId::new(slice)))?;
    }
    for copy in 0..2 {
        io.flush(pool.meta.copies[copy].0)?;
    }
    // Device 0 last: without it nothing is a pool.
    for superblock in pool.superblocks.iter().rev() {
        for offset in COPY_OFFSETS {
            io.write(superblock.device, DeviceOffset::new(offset), &superblock.encode())?;
        }
        io.flush(superblock.device)?;
    }
    Ok(pool)
}

/// Reads and checks the superblocks without changing anything.
pub fn inspect(io: &mut dyn PoolIo, sizes: &[u64]) -> Result<Pool, PoolError> {
    let mut superblocks = Vec::new();
    for (at, size_bytes) in (0..io.devices()).zip(sizes) {
        let device = DeviceId::new(at);
        let superblock = newest(io, device)?;
        if superblock.size_bytes > *size_bytes {
            let was = superblock.size_bytes;
            return Err(PoolError::Shrunk { device, was, is: *size_bytes });
        }
        superblocks.push(superblock);
    }
    let Some(first) = superblocks.first().copied() else {
        return Err(PoolError::Count { expected: 1, found: 0 });
    };
    if first.devices != io.devices() {
        return Err(PoolError::Count { expected: first.devices, found: io.devices() });
    }
    for (at, superblock) in (0..io.devices()).zip(&superblocks) {
        let device = DeviceId::new(at);
        if superblock.pool_uuid != first.pool_uuid || superblock.device != device {
            return Err(PoolError::Foreign { device, found: superblock.device });
        }
    }
    check_meta(&superblocks)?;
    Ok(Pool::of(superblocks))
}

/// Both copies of the metadata zone have a place, and room for the zone as device 0 cuts it.
fn check_meta(superblocks: &[Superblock]) -> Result<(), PoolError> {
    for copy in 0..2 {
        if superblocks.iter().all(|superblock| superblock.meta_offset[copy] == 0) {
            let what = "no device has the metadata";
            return Err(PoolError::Contradiction { device: DeviceId::new(0), what });
        }
    }
    let meta = MetaLayout::of(superblocks);
    for (device, _) in meta.copies {
        if superblocks[usize::from(device.get())].meta_bytes != meta.bytes() {
            let what = "size of the metadata";
            return Err(PoolError::Contradiction { device, what });
        }
    }
    Ok(())
}

/// Opens a pool for writing: raises its incarnation on every device.
pub fn open(io: &mut dyn PoolIo, sizes: &[u64]) -> Result<Pool, PoolError> {
    let mut pool = inspect(io, sizes)?;
    let newest = pool.superblocks.iter().map(|sb| sb.incarnation).max().unwrap_or(0);
    for superblock in &mut pool.superblocks {
        superblock.incarnation = newest + 1;
        superblock.sequence += 1;
        let second = superblock.sequence % 2 == 1 && !planted(Bug::SuperblockInPlace);
        let copy = usize::from(second);
        let offset = DeviceOffset::new(COPY_OFFSETS[copy]);
        io.write(superblock.device, offset, &superblock.encode())?;
        io.flush(superblock.device)?;
    }
    Ok(pool)
}

fn newest(io: &mut dyn PoolIo, device: DeviceId) -> Result<Superblock, PoolError> {
    let mut best: Result<Superblock, FormatError> = Err(FormatError::Magic);
    for offset in COPY_OFFSETS {
        let mut block = [0; BLOCK_BYTES];
        io.read(device, DeviceOffset::new(offset), &mut block)?;
        let found = Superblock::decode(&block);
        match (&best, &found) {
            (Ok(old), Ok(new)) if old.sequence >= new.sequence => {}
            (_, Ok(_)) => best = found,
            // A version we cannot read says more than a copy that is not there.
            (Err(FormatError::Magic), Err(_)) => best = found,
            _ => {}
        }
    }
    best.map_err(|cause| PoolError::NoSuperblock { device, cause })
}

/// Recovers one table of an open pool and starts its pending log.
pub fn recover_table(
    io: &mut dyn PoolIo,
    pool: &Pool,
    slice: SliceId,
    memory: LogMemory,
    boot: [u8; 16],
) -> Result<(Found, PendingLog), RecoverError> {
    let (id, tag) = (pool.table(slice), LogTag { boot, pool: pool.uuid(), slice });
    let mut found = read_table(io, &pool.meta, id, true)?;
    let log = replay_log(io, &pool.meta, id, &mut found, memory, &tag, pool.incarnation())?;
    Ok((found, log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::superblock::Role;
    use crate::journal::fuzz::Disks;

    const SIZE: u64 = 1 << 30;

    /// A pool of one fast device, with its superblock changed.
    fn inspected(change: fn(&mut Superblock)) -> Result<Pool, PoolError> {
        let mut disks = Disks::new(1);
        let device = NewDevice { size_bytes: SIZE, role: Role::Fast };
        let pool = create(&mut disks, &[device], || [7; 16]).expect("memory does not fail");
        let mut superblock = pool.superblocks[0];
        change(&mut superblock);
        for offset in COPY_OFFSETS {
            let offset = DeviceOffset::new(offset);
            disks.write(superblock.device, offset, &superblock.encode()).expect("memory");
        }
        inspect(&mut disks, &[SIZE])
    }

    #[test]
    fn superblocks_that_contradict_each_other_are_refused() {
        assert!(inspected(|_| ()).is_ok());
        let changes: [fn(&mut Superblock); 3] =
            [|sb| sb.meta_offset[1] = 0, |sb| sb.extents -= 1, |sb| sb.journal_blocks += 1];
        for change in changes {
            assert!(matches!(inspected(change), Err(PoolError::Contradiction { .. })));
        }
    }
}
