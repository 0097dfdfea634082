//! The device under a measured engine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use engine::admin::Role;
use engine::device::Store;
use engine::device::file::OpenError;
use engine::server::open::OpenDevice;

use super::BenchError;
use crate::command::until_unlocked;

/// Both ends of a device, where owners keep their marks.
const EDGE_BYTES: usize = 1 << 20;

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Memory of this process
    Memory,
    /// A file or block device, through io_uring
    Uring,
}

/// Opens a blank device of `bytes`. A file that does not exist is made and written in full;
/// one that does keeps its size and loses what it holds if `overwrite`.
pub(super) fn open(
    kind: Kind,
    path: Option<&Path>,
    bytes: u64,
    overwrite: bool,
) -> Result<OpenDevice, BenchError> {
    let (store, path) = match (kind, path) {
        (Kind::Memory, None) => (Store::memory(bytes)?, PathBuf::from("memory")),
        (Kind::Uring, Some(path)) => {
            let failed = |source| BenchError::File { path: path.to_owned(), source };
            if !path.exists() {
                make(path, bytes).map_err(failed)?;
            }
            // Locked first: nothing that anybody uses is looked at, let alone cleared.
            let in_use = |error: &OpenError| matches!(error, OpenError::InUse { .. });
            let store = until_unlocked(in_use, || false, || Store::open(path, 0))?;
            let blank = is_blank(path).map_err(failed)?;
            if !blank && !overwrite {
                return Err(BenchError::NotBlank(path.to_owned()));
            }
            if !blank {
                clear(path).map_err(failed)?;
            }
            (store, path.to_owned())
        }
        _ => return Err(BenchError::Path),
    };
    Ok(OpenDevice { store: Arc::new(store), path, role: Role::Fast })
}

/// Bytes of a file or block device.
fn length(file: &mut File) -> io::Result<u64> {
    io::Seek::seek(file, io::SeekFrom::End(0))
}

fn edges(bytes: u64) -> [u64; 2] {
    [0, bytes.saturating_sub(EDGE_BYTES as u64)]
}

fn is_blank(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let bytes = length(&mut file)?;
    let mut edge = vec![0; EDGE_BYTES];
    for at in edges(bytes) {
        let read = file.read_at(&mut edge, at)?;
        if edge[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Zeroes both ends.
fn clear(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = length(&mut file)?;
    for at in edges(bytes) {
        let count = usize::try_from(bytes - at).unwrap_or(EDGE_BYTES).min(EDGE_BYTES);
        file.write_all_at(&vec![0; count], at)?;
    }
    file.sync_all()
}

/// Makes a file whose blocks are allocated and written: a later write changes no metadata.
fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let zeros = vec![0; EDGE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(EDGE_BYTES).min(EDGE_BYTES);
        file.write_all(&zeros[..count])?;
        left -= count as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_contents_is_kept_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let open = |overwrite| open(Kind::Uring, Some(&path), 4 << 20, overwrite);
        drop(open(false).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20, "made");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"precious", (4 << 20) - 8).unwrap();
        assert!(matches!(open(false), Err(BenchError::NotBlank(_))));
        assert!(!is_blank(&path).unwrap());
        drop(open(true).unwrap());
        assert!(is_blank(&path).unwrap());
    }

    #[test]
    fn a_path_belongs_to_a_file() {
        let path = Path::new("/nowhere");
        assert!(matches!(open(Kind::Memory, Some(path), 4096, false), Err(BenchError::Path)));
        assert!(matches!(open(Kind::Uring, None, 4096, false), Err(BenchError::Path)));
    }
}
