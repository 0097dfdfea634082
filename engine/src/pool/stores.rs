//! Stores as the synchronous devices of a pool: opening, recovery, `check`, the catalog.

use std::io;
use std::sync::Arc;

use crate::device::blockio::{BlockIo, StoreIo};
use crate::device::{DeviceError, Store};
use crate::journal::io::{IoError, PoolIo};
use crate::pool::space_map::SpaceMap;
use crate::units::{DeviceId, DeviceOffset};

/// All devices of a pool, in its order.
pub struct StorePool {
    devices: Vec<StoreIo>,
    /// Where failed flushes are told, once cores run.
    space: Option<Arc<SpaceMap>>,
}

impl StorePool {
    /// Fails only for want of memory.
    pub fn new(stores: &[Arc<Store>]) -> io::Result<Self> {
        let open = |store: &Arc<Store>| StoreIo::new(Arc::clone(store));
        Ok(Self { devices: stores.iter().map(open).collect::<Result<_, _>>()?, space: None })
    }

    /// Shares failed flushes with the cores: the kernel tells of one only once, whoever asks.
    #[must_use]
    pub fn sharing_failures(self, space: Arc<SpaceMap>) -> Self {
        Self { space: Some(space), ..self }
    }

    fn device(&mut self, device: DeviceId) -> &mut StoreIo {
        &mut self.devices[usize::from(device.get())]
    }
}

fn named(device: DeviceId) -> impl Fn(DeviceError) -> IoError {
    move |cause| IoError { device, cause: io::Error::other(cause) }
}

impl PoolIo for StorePool {
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError> {
        self.device(device).read_at(offset, buf).map_err(named(device))
    }
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError> {
        self.device(device).write_at(offset, buf).map_err(named(device))
    }
    fn flush(&mut self, device: DeviceId) -> Result<(), IoError> {
        let result = self.device(device).flush();
        let Some(space) = &self.space else { return result.map_err(named(device)) };
        if result.is_err() {
            space.fail_device(device);
        }
        let lost = || Err(DeviceError::Media);
        let result = if space.has_failed(device) { result.and_then(|()| lost()) } else { result };
        result.map_err(named(device))
    }
    fn devices(&self) -> u8 {
        u8::try_from(self.devices.len()).expect("at most 64 devices")
    }
}
