//! Examining a pool offline: every superblock, table, claim and block map, and
//! on demand every stored block.
//!
//! Writes nothing. [`check`] opens the devices of a
//! stopped data directory under their exclusive locks; [`check_pool`] does the
//! examining, on any devices. Pending logs are applied in memory only: what is
//! examined is what the next start would serve.

#![forbid(unsafe_code)]

mod claims;
mod data;
mod maps;
mod report;
mod tables;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use maps::fragments;
pub use report::{Damage, Place, Report, What};
pub use tables::{Depth, PendingLogs, check_pool};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::admin::config::{Config, ConfigError, DeviceConfig};
use crate::admin::report::Role;
use crate::device::Store;
use crate::device::file::OpenError;
use crate::format::layout::JOURNALS;
use crate::journal::shm::{boot_id, read_log};
use crate::pool::stores::StorePool;

/// Why a data directory cannot be examined at all.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no configuration, hence no pool.
    #[error("{}: no tessera.toml, so no pool", data_dir.display())]
    NoPool {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A server runs on it.
    #[error("device {} is in use: stop the server first", path.display())]
    InUse {
        /// The locked device.
        path: PathBuf,
    },
    /// A device cannot be opened.
    #[error(transparent)]
    Device(OpenError),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Examines the pool of a data directory that no server runs on.
pub fn check(data_dir: &Path, depth: Depth) -> Result<Report, CheckError> {
    let stores = open_stopped(data_dir)?;
    let sizes: Vec<_> = stores.iter().map(|store| store.size_bytes()).collect();
    let logs = read_logs(data_dir)?;
    let system = |source| CheckError::System { what: "memory for reading", source };
    let mut io = StorePool::new(&stores).map_err(system)?;
    Ok(check_pool(&mut io, &sizes, &logs, depth))
}

/// The devices of a stopped data directory, fast ones first, under their exclusive locks.
pub(crate) fn open_stopped(data_dir: &Path) -> Result<Vec<Arc<Store>>, CheckError> {
    let none = || CheckError::NoPool { data_dir: data_dir.to_path_buf() };
    let config = Config::load(data_dir)?.ok_or_else(none)?;
    let mut devices: Vec<&DeviceConfig> = config.pool.devices.iter().collect();
    devices.sort_by_key(|device| device.role != Role::Fast);
    devices.into_iter().map(|device| open(data_dir, device)).collect()
}

fn open(data_dir: &Path, device: &DeviceConfig) -> Result<Arc<Store>, CheckError> {
    let path = data_dir.join(&device.path);
    let need = device.size.map_or(0, |size| size.bytes() / 4096 * 4096);
    match Store::open(&path, need) {
        Ok(store) => Ok(Arc::new(store)),
        Err(OpenError::InUse { path }) => Err(CheckError::InUse { path }),
        Err(error) => Err(CheckError::Device(error)),
    }
}

fn read_logs(data_dir: &Path) -> Result<PendingLogs, CheckError> {
    let system = |what| move |source| CheckError::System { what, source };
    let boot = boot_id().map_err(system("reading the boot id"))?;
    let read = |slice| {
        let path = data_dir.join("log").join(format!("slice-{slice:02}"));
        read_log(&path).map_err(system("reading a pending log"))
    };
    let memory = (0..JOURNALS).map(read).collect::<Result<_, _>>()?;
    Ok(PendingLogs { boot, memory })
}
