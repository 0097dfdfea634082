//! A file or block device that holds pool data: opening, locking, naming errors.
//!
//! Opened once per process with `O_DIRECT`, locked against every other
//! opener, shared by all cores. The lock lives as long as the value.

use crate::units::BLOCK_BYTES;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path leads nowhere, or the hardware is gone.
    #[error("device {path} has vanished: {source}")]
    Vanished {
        /// The device.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Locked, mounted or claimed.
    #[error("device {path} is in use by another process")]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// Smaller than required.
    #[error("device {path} is too small: {have_bytes} bytes, at least {need_bytes} are needed")]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        have_bytes: u64,
        /// The least size.
        need_bytes: u64,
    },
    /// Something else than a file or block device.
    #[error("{path} is neither a regular file nor a block device")]
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// [`FileStore::create`] found something there.
    #[error("device file {path} exists already")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Not enough memory for a memory device.
    #[error("cannot map a memory device of {bytes} bytes: {source}")]
    Memory {
        /// Its size.
        bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open device {path}: {source}")]
    Io {
        /// The device.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// How long a device may still be held: the kernel ends the rings of a process that has ended
/// in the background, and keeps their files until then.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Tries again while the device is in use, for [`PATIENCE`].
fn patiently<T>(open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let begin = Instant::now();
    loop {
        match open() {
            Err(OpenError::InUse { .. }) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            ended => return ended,
        }
    }
}

/// An open, locked file or block device.
#[derive(Debug)]
pub struct FileStore {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    direct: bool,
}

impl FileStore {
    /// Opens an existing device of at least `need_bytes`.
    pub fn open(path: &Path, need_bytes: u64) -> Result<FileStore, OpenError> {
        let io = |source| named(path, source);
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind { path: path.into() });
        }
        // On a block device O_EXCL excludes file systems and other O_EXCL openers.
        let exclusive = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let mut store = patiently(|| FileStore::open_with(path, exclusive))?;
        store.size_bytes = store.measure(kind.is_block_device()).map_err(io)?;
        if store.size_bytes < need_bytes {
            return Err(OpenError::TooSmall {
                path: path.into(),
                have_bytes: store.size_bytes,
                need_bytes,
            });
        }
        Ok(store)
    }

    /// Makes a sparse file of `bytes` (whole blocks) that does not exist yet, and opens it.
    pub fn create(path: &Path, bytes: u64) -> Result<FileStore, OpenError> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "whole blocks");
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.and_then(|file| file.set_len(bytes)).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => OpenError::Exists { path: path.into() },
            _ => OpenError::Io { path: path.into(), source },
        })?;
        FileStore::open(path, bytes)
    }

    /// Bytes, rounded down to whole blocks.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// False if the file system has no `O_DIRECT` and the page cache is used.
    pub fn direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn open_with(path: &Path, flags: i32) -> Result<FileStore, OpenError> {
        let io = |source| named(path, source);
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let opened = match open(flags | libc::O_DIRECT) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => None,
            other => Some(other.map_err(io)?),
        };
        // Some file systems accept the flag and then refuse the I/O.
        let direct = opened.filter(reads_direct);
        let is_direct = direct.is_some();
        let file = match direct {
            Some(file) => file,
            None => {
                tracing::warn!(
                    "{} has no O_DIRECT: its data goes through the page cache",
                    path.display()
                );
                open(flags).map_err(io)?
            }
        };
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => OpenError::InUse { path: path.into() },
            TryLockError::Error(source) => OpenError::Io { path: path.into(), source },
        })?;
        Ok(FileStore { file, path: path.into(), size_bytes: 0, direct: is_direct })
    }

    fn measure(&self, block_device: bool) -> io::Result<u64> {
        let mut bytes = self.file.metadata()?.len();
        if block_device {
            // SAFETY: BLKGETSIZE64 writes one u64.
            let failed = unsafe { libc::ioctl(self.fd(), BLKGETSIZE64, &raw mut bytes) };
            if failed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(bytes - bytes % BLOCK_BYTES as u64)
    }
}

/// `_IOR(0x12, 114, size_t)`, linux/fs.h.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

#[repr(align(4096))]
struct Page([u8; BLOCK_BYTES]);

fn reads_direct(file: &File) -> bool {
    let mut page = Page([0; BLOCK_BYTES]);
    match file.read_at(&mut page.0, 0) {
        Err(e) => e.raw_os_error() != Some(libc::EINVAL),
        Ok(_) => true,
    }
}

fn named(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_path_buf();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::Vanished { path, source },
        Some(libc::EBUSY) => OpenError::InUse { path },
        _ => OpenError::Io { path, source },
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_device() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        let gone = FileStore::open(&path, 0).expect_err("absent");
        assert!(matches!(gone, OpenError::Vanished { .. }) && gone.to_string().contains("disk"));
        assert!(matches!(FileStore::open(dir.path(), 0), Err(OpenError::Kind { .. })));

        let first = FileStore::create(&path, 1 << 20).expect("made");
        assert_eq!(first.size_bytes(), 1 << 20);
        assert!(matches!(FileStore::open(&path, 0), Err(OpenError::InUse { .. })));
        assert!(matches!(FileStore::create(&path, 4096), Err(OpenError::Exists { .. })));
        drop(first);
        let small = FileStore::open(&path, 2 << 20).expect_err("small");
        assert!(matches!(small, OpenError::TooSmall { have_bytes: 0x10_0000, .. }));
        FileStore::open(&path, 1 << 20).expect("the lock went with its holder");
    }

    #[test]
    fn a_holder_that_is_about_to_let_go_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        let first = FileStore::create(&path, 1 << 20).expect("made");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(5 * PAUSE);
                drop(first);
            });
            FileStore::open(&path, 1 << 20).expect("it let go");
        });
    }

    #[test]
    fn sizes_round_down_to_blocks() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 10_000]).expect("written");
        assert_eq!(FileStore::open(&path, 8192).expect("opens").size_bytes(), 8192);
    }
}
