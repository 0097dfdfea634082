//! From a configuration to an open pool: devices, identity, tables, pending logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ServeError;
use crate::admin::config::{Config, DeviceConfig, Emulate};
use crate::device::Store;
use crate::device::emulate::Model;
use crate::format::layout::{CATALOG, JOURNALS, NewDevice};
use crate::format::superblock::{COPY_OFFSETS, Role, Superblock};
use crate::format::{FormatError, superblock};
use crate::journal::log::PendingLog;
use crate::journal::recover::{Found, IoError, PoolIo};
use crate::journal::shm;
use crate::pool::stores::StorePool;
use crate::pool::{self, Pool};
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, SliceId};
use crate::volume::catalog::Catalog;

/// Folder of the pending logs in a data directory.
pub const LOG_DIR: &str = "log";

/// An open pool with everything that recovery found.
pub struct Opened {
    /// Identity and geometry.
    pub pool: Pool,
    /// The devices, fast ones first.
    pub stores: Vec<Arc<Store>>,
    /// Their paths.
    pub paths: Vec<PathBuf>,
    /// The volumes.
    pub catalog: Catalog,
    /// Tables of slices 0..64, with their pending logs.
    pub tables: Vec<(Found, PendingLog)>,
}

/// A device of the configuration, open.
struct OpenDevice {
    store: Arc<Store>,
    path: PathBuf,
    role: Role,
}

/// Opens the devices of a configuration, fast ones first: existing ones, and new files where a
/// size is given.
fn open_stores(data_dir: &Path, config: &Config) -> Result<Vec<OpenDevice>, ServeError> {
    let mut devices: Vec<&DeviceConfig> = config.pool.devices.iter().collect();
    devices.sort_by_key(|device| device.role != Role::Fast);
    // A missing file is made for a new pool only; in an old one it is a device that has vanished.
    let new_pool = !data_dir.join(LOG_DIR).exists();
    let mut stores = Vec::new();
    for device in devices {
        let path = data_dir.join(&device.path);
        let size = device.size.map(|size| size.bytes() / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        let store = if new_pool && !path.exists() {
            let size = size.ok_or_else(|| ServeError::NoSize { path: path.clone() })?;
            Store::create(&path, size)
        } else {
            Store::open(&path, size.unwrap_or(0))
        };
        let store = store.map_err(|source| ServeError::Device { path: path.clone(), source })?;
        let store = match device.emulate {
            Some(Emulate::Hdd) => store.emulating(Model::HDD),
            None => store,
        };
        stores.push(OpenDevice { store: Arc::new(store), path, role: device.role });
    }
    Ok(stores)
}

/// The stores as synchronous devices.
pub fn synchronous(stores: &[Arc<Store>]) -> Result<StorePool, ServeError> {
    let what = "memory for synchronous I/O";
    StorePool::new(stores).map_err(|source| ServeError::System { what, source })
}

/// True if the device holds no trace of a pool.
fn is_blank(io: &mut dyn PoolIo, device: DeviceId) -> Result<bool, IoError> {
    for offset in COPY_OFFSETS {
        let mut block = [0; BLOCK_BYTES];
        io.read(device, DeviceOffset::new(offset), &mut block)?;
        if Superblock::decode(&block) != Err(FormatError::Magic) || block.iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens the pool of a configuration; makes it if all devices are blank.
pub fn open(data_dir: &Path, config: &Config) -> Result<Opened, ServeError> {
    let stores = open_stores(data_dir, config)?;
    let plain: Vec<_> = stores.iter().map(|device| Arc::clone(&device.store)).collect();
    let mut io = synchronous(&plain)?;
    let sizes: Vec<_> = plain.iter().map(|store| store.size_bytes()).collect();
    let mut blank = Vec::new();
    for (id, device) in (0..).map(DeviceId::new).zip(&stores) {
        blank.push((is_blank(&mut io, id).map_err(pool::PoolError::Io)?, &device.path));
    }
    if blank.iter().all(|(blank, _)| *blank) {
        let new: Vec<_> = stores
            .iter()
            .map(|device| NewDevice { size_bytes: device.store.size_bytes(), role: device.role })
            .collect();
        pool::create(&mut io, &new, random_uuid)?;
        tracing::info!("made a new pool of {} devices, format {}", new.len(), superblock::VERSION);
    } else if let Some((_, path)) = blank.iter().find(|(blank, _)| *blank) {
        return Err(ServeError::HalfPool { path: (*path).clone() });
    }
    let pool = pool::open(&mut io, &sizes)?;
    let paths = stores.into_iter().map(|device| device.path).collect();
    recover(data_dir, io, pool, plain, paths)
}

fn recover(
    data_dir: &Path,
    mut io: StorePool,
    pool: Pool,
    stores: Vec<Arc<Store>>,
    paths: Vec<PathBuf>,
) -> Result<Opened, ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let logs = data_dir.join(LOG_DIR);
    fs::create_dir_all(&logs).map_err(system("making the folder of pending logs"))?;
    let boot = shm::boot_id().map_err(system("reading the boot id"))?;
    let mut tables = Vec::new();
    for slice in 0..JOURNALS {
        let path = logs.join(format!("slice-{slice:02}"));
        let memory = shm::map_log(&path).map_err(system("mapping a pending log"))?;
        let table = pool::recover_table(&mut io, &pool, SliceId::new(slice), memory, boot);
        let (found, log) = table.map_err(pool::PoolError::Recover)?;
        if found.damaged_copies > 0 {
            tracing::warn!(slice, copies = found.damaged_copies, "repaired metadata from its copy");
        }
        tables.push((found, log));
    }
    let (found, _) = tables.pop().expect("the catalog is the last table");
    assert_eq!(tables.len(), usize::from(CATALOG.get()));
    let catalog = Catalog::open(found, pool.short_id(), pool.incarnation());
    Ok(Opened { pool, stores, paths, catalog, tables })
}

/// A version 4 UUID.
pub fn random_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("Linux has /proc");
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
        *byte = u8::from_str_radix(pair, 16).expect("hexadecimal digits");
    }
    uuid
}

/// The usual text of a UUID.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}
