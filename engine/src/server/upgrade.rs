//! `tessera upgrade`: a stopped data directory, taken as a server would take it.

use std::path::Path;

use super::ServeError;
use super::open::{lock, synchronous};
use crate::check::{CheckError, open_stopped};
use crate::pool::upgrade::{Upgrade, upgrade};

/// Why a data directory cannot be upgraded; its pool is as it was, or half way and repeatable.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// It has no pool, or its devices cannot be opened.
    #[error(transparent)]
    Open(#[from] CheckError),
    /// It is in use, a device failed, or the pool is not for this program.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl UpgradeError {
    /// A server, or another command, has the directory.
    pub fn is_in_use(&self) -> bool {
        matches!(
            self,
            UpgradeError::Open(CheckError::InUse { .. })
                | UpgradeError::Serve(ServeError::InUse { .. })
        )
    }
}

/// Brings the pool of a data directory that no server runs on to this program's format version.
pub fn upgrade_stopped(data_dir: &Path) -> Result<Upgrade, UpgradeError> {
    let stores = open_stopped(data_dir)?;
    let _lock = lock(data_dir)?;
    let sizes: Vec<_> = stores.iter().map(|store| store.size_bytes()).collect();
    let mut io = synchronous(&stores)?;
    Ok(upgrade(&mut io, &sizes).map_err(ServeError::from)?)
}
