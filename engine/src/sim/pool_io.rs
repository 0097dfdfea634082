//! Synchronous access to the simulated disks: making, opening, recovering, examining.

use std::io;

use crate::device::sim::{Rng, SimDisk};
use crate::journal::io::{IoError, PoolIo};
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset};

/// The disks of a pool; the process dies after a number of steps.
pub struct SimPool<'a> {
    /// The disks.
    pub disks: &'a mut Vec<SimDisk>,
    /// Writes and flushes left; `None`: no crash. Reads change nothing, so dying before
    /// each of these is dying between any two steps.
    pub fuel: Option<u64>,
    /// Chooses what an interrupted write leaves.
    pub rng: &'a mut Rng,
}

impl SimPool<'_> {
    fn burn(&mut self, device: DeviceId) -> Result<(), IoError> {
        match &mut self.fuel {
            Some(0) => Err(IoError { device, cause: io::Error::other("simulated crash") }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl PoolIo for SimPool<'_> {
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError> {
        self.disks[usize::from(device.get())].read_run(offset.get() / BLOCK_BYTES as u64, buf);
        Ok(())
    }
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError> {
        let crash = self.burn(device);
        let first = offset.get() / BLOCK_BYTES as u64;
        for (block, bytes) in (first..).zip(buf.chunks_exact(BLOCK_BYTES)) {
            if crash.is_ok() || self.rng.one_in(2) {
                self.disks[usize::from(device.get())].write_block(block, bytes);
            }
        }
        crash
    }
    fn flush(&mut self, device: DeviceId) -> Result<(), IoError> {
        self.burn(device)?;
        self.disks[usize::from(device.get())].flush();
        Ok(())
    }
    fn devices(&self) -> u8 {
        u8::try_from(self.disks.len()).expect("few disks")
    }
}
