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
pub mod upgrade;

use crate::format::FormatError;
use crate::format::layout::{JOURNALS, LayoutError, MetaLayout, NewDevice, plan};
use crate::format::superblock::{COPY_OFFSETS, Superblock, VERSION};
use crate::journal::io::{IoError, PoolIo};
use crate::journal::log::{LogMemory, LogTag, PendingLog};
use crate::journal::parts::TableId;
use crate::journal::recover::{Found, RecoverError, read_table, replay_log, write_empty_root};
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
    /// No superblock on a device that this program understands.
    #[error("device {device} holds no pool that can be opened: {cause}")]
    NoSuperblock {
        /// Which device.
        device: DeviceId,
        /// What the better copy says.
        cause: FormatError,
    },
    /// A device that this program must not write to.
    #[error("device {device}: {cause}")]
    NotWritable {
        /// Which device.
        device: DeviceId,
        /// Its version or its features.
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
    writable(&pool, VERSION)?;
    let newest = pool.superblocks.iter().map(|sb| sb.incarnation).max().unwrap_or(0);
    for superblock in &mut pool.superblocks {
        superblock.incarnation = newest + 1;
        rewrite(io, superblock)?;
    }
    Ok(pool)
}

fn writable(pool: &Pool, newest: u32) -> Result<(), PoolError> {
    pool.superblocks.iter().try_for_each(|superblock| {
        let device = superblock.device;
        superblock.writable(newest).map_err(|cause| PoolError::NotWritable { device, cause })
    })
}

/// Writes the next superblock of a device to the copy whose turn it is.
fn rewrite(io: &mut dyn PoolIo, superblock: &mut Superblock) -> Result<(), PoolError> {
    superblock.sequence += 1;
    let second = superblock.sequence % 2 == 1 && !planted(Bug::SuperblockInPlace);
    let offset = DeviceOffset::new(COPY_OFFSETS[usize::from(second)]);
    io.write(superblock.device, offset, &superblock.encode())?;
    io.flush(superblock.device)?;
    Ok(())
}

/// The superblock of a device: of two whole copies, the higher sequence. A whole copy that this
/// program does not understand refuses the device, whatever the other says: its writer was here.
fn newest(io: &mut dyn PoolIo, device: DeviceId) -> Result<Superblock, PoolError> {
    let mut best: Result<Superblock, FormatError> = Err(FormatError::Magic);
    for offset in COPY_OFFSETS {
        let mut block = [0; BLOCK_BYTES];
        io.read(device, DeviceOffset::new(offset), &mut block)?;
        let found = Superblock::decode(&block);
        match (&best, &found) {
            (_, Err(cause @ (FormatError::Version(_) | FormatError::Features(_)))) => {
                return Err(PoolError::NoSuperblock { device, cause: *cause });
            }
            (Ok(old), Ok(new)) if old.sequence >= new.sequence => {}
            (_, Ok(_)) => best = found,
            // A copy that is damaged says more than one that is not there.
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
mod tests;
