//! From a configuration to an open pool: devices, identity, tables, pending logs.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::ServeError;
use crate::admin::config::{Config, DeviceConfig, Emulate};
use crate::device::emulate::Model;
use crate::device::{Backing, Store};
use crate::format::layout::{CATALOG, JOURNALS, NewDevice, plan};
use crate::format::superblock;
use crate::format::superblock::{COPY_OFFSETS, Role, Superblock};
use crate::journal::io::{IoError, PoolIo};
use crate::journal::log::PendingLog;
use crate::journal::recover::Found;
use crate::journal::shm;
use crate::pool::stores::StorePool;
use crate::pool::{self, Pool};
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset, SliceId};
use crate::volume::catalog::Catalog;

/// Folder of the pending logs in a data directory.
pub const LOG_DIR: &str = "log";
const LOCK_NAME: &str = "lock";
/// Bytes at both ends of a device that must be zero before a pool is made on it: where other
/// owners of a device keep their marks.
const BLANK_BYTES: u64 = 1 << 20;

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
    /// Held for as long as the process uses the data directory.
    pub lock: DirLock,
}

/// The data directory belongs to this process while this lives.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "its open file is the lock")] File);

/// Takes the data directory. The devices' own locks do not do: another configuration in the
/// same directory could name other devices and still map the pending logs.
pub(super) fn lock(data_dir: &Path) -> Result<DirLock, ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let path = data_dir.join(LOCK_NAME);
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(system("making the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { data_dir: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(system("locking the data directory")(source)),
    }
}

/// A device of the configuration, open.
pub struct OpenDevice {
    /// Its bytes.
    pub store: Arc<Store>,
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its tier.
    pub role: Role,
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
        let empty = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        if new_pool && empty && size.is_some() {
            // Left by a start that ended between making the file and giving it its size.
            let what = "replacing an empty device file";
            fs::remove_file(&path).map_err(|source| ServeError::System { what, source })?;
        }
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

/// What a device holds before the pool is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// Nothing at either end.
    Blank,
    /// Superblocks of a pool whose making did not end.
    Unfinished,
    /// A pool, or something that is not ours.
    Other,
}

fn contents(io: &mut dyn PoolIo, device: DeviceId, size: u64) -> Result<Contents, IoError> {
    let mut first = [0; BLOCK_BYTES];
    io.read(device, DeviceOffset::new(COPY_OFFSETS[0]), &mut first)?;
    if let Ok(superblock) = Superblock::decode(&first) {
        let fresh = superblock.sequence == 1 && superblock.incarnation == 0;
        return Ok(if fresh { Contents::Unfinished } else { Contents::Other });
    }
    let mut edge = vec![0; usize::try_from(BLANK_BYTES.min(size)).expect("at most 1 MiB")];
    for offset in [0, size - edge.len() as u64] {
        io.read(device, DeviceOffset::new(offset), &mut edge)?;
        if edge.iter().any(|byte| *byte != 0) {
            return Ok(Contents::Other);
        }
    }
    Ok(Contents::Blank)
}

/// Opens the pool of a configuration; makes it if all devices are blank.
pub fn open(data_dir: &Path, config: &Config) -> Result<Opened, ServeError> {
    let lock = lock(data_dir)?;
    open_pool(data_dir, open_stores(data_dir, config)?, lock)
}

/// Opens the pool on devices that are open, fast ones first; makes it if all are blank.
pub fn open_on(data_dir: &Path, devices: Vec<OpenDevice>) -> Result<Opened, ServeError> {
    let lock = lock(data_dir)?;
    open_pool(data_dir, devices, lock)
}

fn open_pool(
    data_dir: &Path,
    stores: Vec<OpenDevice>,
    lock: DirLock,
) -> Result<Opened, ServeError> {
    let plain: Vec<_> = stores.iter().map(|device| Arc::clone(&device.store)).collect();
    let mut io = synchronous(&plain)?;
    let sizes: Vec<_> = plain.iter().map(|store| store.size_bytes()).collect();
    let mut found = Vec::new();
    for ((id, device), size) in (0..).map(DeviceId::new).zip(&stores).zip(&sizes) {
        found.push((contents(&mut io, id, *size).map_err(pool::PoolError::Io)?, &device.path));
    }
    // Device 0 is written last, so without it no pool was ever complete.
    let unmade = found.iter().all(|(contents, _)| *contents != Contents::Other)
        && found[0].0 == Contents::Blank
        && !data_dir.join(LOG_DIR).exists();
    if unmade {
        make(&mut io, &stores)?;
    } else if let Some((_, path)) = found.iter().find(|(what, _)| *what == Contents::Blank) {
        return Err(ServeError::HalfPool { path: (*path).clone() });
    }
    let pool = pool::open(&mut io, &sizes)?;
    let paths = stores.into_iter().map(|device| device.path).collect();
    recover(data_dir, io, pool, (plain, paths), lock)
}

/// Makes a pool. Files get the blocks of their metadata now: a file system that fills up later
/// must fail clients' writes, never a journal's.
fn make(io: &mut StorePool, stores: &[OpenDevice]) -> Result<(), ServeError> {
    let new: Vec<_> = stores
        .iter()
        .map(|device| NewDevice { size_bytes: device.store.size_bytes(), role: device.role })
        .collect();
    for (superblock, device) in plan(&new).map_err(pool::PoolError::from)?.iter().zip(stores) {
        let Backing::File(file) = device.store.backing() else { continue };
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file.file(), flags, 0, superblock.data_offset) {
            // A block device has its blocks; some file systems cannot promise any.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => {}
            Err(errno) => {
                let what = "allocating the metadata of a device file";
                return Err(ServeError::System { what, source: errno.into() });
            }
        }
    }
    pool::create(io, &new, random_uuid)?;
    tracing::info!("made a new pool of {} devices, format {}", new.len(), superblock::VERSION);
    Ok(())
}

fn recover(
    data_dir: &Path,
    mut io: StorePool,
    pool: Pool,
    (stores, paths): (Vec<Arc<Store>>, Vec<PathBuf>),
    lock: DirLock,
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
    Ok(Opened { pool, stores, paths, catalog, tables, lock })
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
