//! From an older format version to the one this program writes.
//!
//! A step leads from one version to the next. It writes only where the older
//! version has nothing, flushes, and may be repeated; then the superblock of
//! each device names the new version, device by device. A cut before the last
//! of them leaves a pool that only an upgrade opens, and that repeats the step.

use serde::Serialize;

use super::{Pool, PoolError, inspect, rewrite, writable};
use crate::format::FormatError;
use crate::format::superblock::VERSION;
use crate::journal::io::PoolIo;

/// What an upgrade found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Upgrade {
    /// The version that was found.
    pub from: u32,
    /// The version that the pool is of now.
    pub to: u32,
    /// Its features that may be ignored.
    pub compat: u64,
    /// Its features that an ignorant program may read but not write.
    pub ro_compat: u64,
}

/// The way from one version to the next.
struct Step {
    from: u32,
    to: u32,
    run: fn(&mut dyn PoolIo, &Pool) -> Result<(), PoolError>,
}

/// Every step there is; version 1 is the first.
const STEPS: [Step; 0] = [];

/// Brings a pool to this program's version.
///
/// # Errors
/// If a device fails, or the pool is of a newer version or has features that this program does
/// not know: then nothing was written.
pub fn upgrade(io: &mut dyn PoolIo, sizes: &[u64]) -> Result<Upgrade, PoolError> {
    let mut pool = inspect(io, sizes)?;
    let from = oldest(&pool);
    climb(io, &mut pool, &STEPS, VERSION)?;
    let all = |bits: fn(&super::Superblock) -> u64| {
        pool.superblocks.iter().fold(0, |all, superblock| all | bits(superblock))
    };
    let (compat, ro_compat) = (all(|sb| sb.compat), all(|sb| sb.ro_compat));
    Ok(Upgrade { from, to: oldest(&pool), compat, ro_compat })
}

/// The version whose step comes next: that of the device which is farthest behind.
fn oldest(pool: &Pool) -> u32 {
    pool.superblocks.iter().map(|superblock| superblock.version).min().expect("a pool has devices")
}

fn climb(
    io: &mut dyn PoolIo,
    pool: &mut Pool,
    steps: &[Step],
    newest: u32,
) -> Result<(), PoolError> {
    loop {
        match writable(pool, newest) {
            Err(PoolError::NotWritable { cause: FormatError::Older(_), .. }) => {}
            end => return end,
        }
        let version = oldest(pool);
        let step = steps.iter().find(|step| step.from == version);
        let step = step.expect("every version since the first has a step");
        assert!(step.to > step.from);
        (step.run)(io, pool)?;
        for superblock in pool.superblocks.iter_mut().filter(|sb| sb.version < step.to) {
            superblock.version = step.to;
            rewrite(io, superblock)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::{Rng, SimDisk};
    use crate::format::fuzz::reseal;
    use crate::format::layout::NewDevice;
    use crate::format::superblock::{COPY_OFFSETS, Role, Superblock};
    use crate::pool::create;
    use crate::sim::shared::SimPool;
    use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset};

    /// Where the made-up steps leave a mark: behind the superblocks, before the metadata.
    const MARK: DeviceOffset = DeviceOffset::new(512 << 10);

    fn mark(io: &mut dyn PoolIo, byte: u8) -> Result<(), PoolError> {
        for device in (0..io.devices()).map(DeviceId::new) {
            io.write(device, MARK, &[byte; BLOCK_BYTES])?;
            io.flush(device)?;
        }
        Ok(())
    }

    const MADE_UP: [Step; 2] = [
        Step { from: 2, to: 3, run: |io, _| mark(io, 3) },
        Step { from: 1, to: 2, run: |io, _| mark(io, 2) },
    ];

    fn made() -> (Vec<SimDisk>, Pool) {
        let mut disks = vec![SimDisk::default(), SimDisk::default()];
        let device = NewDevice { size_bytes: 1 << 30, role: Role::Fast };
        let mut rng = Rng::new(1);
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
        let pool = create(&mut io, &[device; 2], || [7; 16]).expect("made");
        (disks, pool)
    }

    /// The newest superblock of a device, of whatever version.
    fn newest(disk: &SimDisk) -> Superblock {
        let whole = COPY_OFFSETS.into_iter().filter_map(|offset| {
            let mut block = [0; BLOCK_BYTES];
            disk.read_block(offset / BLOCK_BYTES as u64, &mut block);
            let version = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
            let mut known = block;
            known[8..12].copy_from_slice(&VERSION.to_le_bytes());
            let crc = [known[12], known[13], known[14], known[15]];
            reseal(&mut block, 12);
            let is_whole = block[12..16] == crc;
            reseal(&mut known, 12);
            let decoded = Superblock::decode(&known).ok().filter(|_| is_whole);
            decoded.map(|superblock| Superblock { version, ..superblock })
        });
        whole.max_by_key(|superblock| superblock.sequence).expect("one copy is whole")
    }

    #[test]
    fn a_pool_of_this_version_is_left_alone() {
        let (mut disks, _) = made();
        let mut rng = Rng::new(1);
        let mut io = SimPool { disks: &mut disks, fuel: Some(0), rng: &mut rng };
        let done = upgrade(&mut io, &[1 << 30; 2]).expect("no write is needed");
        assert_eq!(done, Upgrade { from: VERSION, to: VERSION, compat: 0, ro_compat: 0 });
    }

    #[test]
    fn steps_are_climbed_in_order_whatever_cuts_them() {
        for fuel in 0..17 {
            let (mut disks, mut pool) = made();
            let mut rng = Rng::new(fuel + 1);
            let mut io = SimPool { disks: &mut disks, fuel: Some(fuel), rng: &mut rng };
            let whole = climb(&mut io, &mut pool, &MADE_UP, 3).is_ok();
            assert_eq!(whole, fuel == 16, "two steps on two devices of two writes and flushes");
            for disk in &mut disks {
                disk.power_cut(&mut rng, &|_| Vec::new());
            }
            pool.superblocks = disks.iter().map(newest).collect();
            let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
            climb(&mut io, &mut pool, &MADE_UP, 3).expect("nothing cuts it now");
            for disk in &disks {
                let mut block = [0; BLOCK_BYTES];
                disk.read_block(MARK.get() / BLOCK_BYTES as u64, &mut block);
                assert_eq!((newest(disk).version, block[0]), (3, 3));
            }
        }
    }
}
