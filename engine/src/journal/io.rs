//! Synchronous I/O on a pool's devices: making, opening, recovering and examining it.
//!
//! Not on the data path: what serves clients asks a [`crate::table::sink::Sink`].

use crate::units::{DeviceId, DeviceOffset};

/// Synchronous access to a pool's devices, for the time before and beside the reactor.
pub trait PoolIo {
    /// Fills `buf` from a device.
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError>;
    /// Writes `buf` to a device.
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError>;
    /// Makes everything written to a device durable.
    fn flush(&mut self, device: DeviceId) -> Result<(), IoError>;
    /// Number of devices.
    fn devices(&self) -> u8;
}

/// A device operation failed.
#[derive(Debug, thiserror::Error)]
#[error("device {device}: {cause}")]
pub struct IoError {
    /// Which device.
    pub device: DeviceId,
    /// What the system said.
    pub cause: std::io::Error,
}
