//! Pending logs as shared mappings of files, and the boot they belong to.
//!
//! A mapped file keeps the stores of a killed process; a reboot, and only a
//! reboot, may lose them, which is why a log is tagged with the boot id.
//! Called while opening, never on the data path.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memmap2::MmapMut;

use super::log::{LOG_BYTES, LogMemory};

/// Opens or makes a pending log's file and maps it shared.
///
/// Its blocks are allocated here, so that a full file system fails the opening
/// and not a later store. A file of another length holds no log of ours and is
/// emptied. The caller holds the locks of the pool's devices: it alone maps
/// the file.
pub fn map_log(path: &Path) -> io::Result<LogMemory> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() != LOG_BYTES as u64 {
        file.set_len(0)?;
    }
    file.set_len(LOG_BYTES as u64)?;
    allocate(&file)?;
    // SAFETY: the file has its full length and is ours alone while the data
    // directory is locked, so nothing cuts it or changes its bytes under the map.
    let map = unsafe { MmapMut::map_mut(&file)? };
    Ok(LogMemory::Mapped(map))
}

/// A copy of a pending log's file; `None` if there is none, or of another length.
pub fn read_log(path: &Path) -> io::Result<Option<LogMemory>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() == LOG_BYTES => Ok(Some(LogMemory::Heap(bytes.into()))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    parse_uuid(text.trim()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the kernel's boot id is no UUID")
    })
}

fn allocate(file: &File) -> io::Result<()> {
    let len = libc::off_t::try_from(LOG_BYTES).expect("a small file");
    // SAFETY: posix_fallocate takes an open descriptor and touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
    let mut out = [0; 16];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::log::{LogTag, PendingLog, survivors};
    use crate::units::SliceId;

    #[test]
    fn a_log_outlives_its_mapping() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slice-00");
        assert!(read_log(&path).expect("absent is no error").is_none());
        let tag = LogTag { boot: [1; 16], pool: [2; 16], slice: SliceId::new(0) };
        let mut log = PendingLog::start(map_log(&path).expect("mapped"), &tag, 5);
        log.append(|out| {
            out[..4].copy_from_slice(b"abcd");
            4
        });
        drop(log);
        let copy = read_log(&path).expect("readable").expect("a log");
        assert_eq!(survivors(&copy, &tag), [(5, b"abcd".to_vec())]);
        let again = map_log(&path).expect("mapped again");
        assert_eq!(survivors(&again, &tag), [(5, b"abcd".to_vec())]);
    }

    #[test]
    fn a_file_of_another_length_is_emptied() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slice-01");
        std::fs::write(&path, [7; 100]).expect("written");
        assert!(read_log(&path).expect("readable").is_none());
        let map = map_log(&path).expect("mapped");
        let tag = LogTag { boot: [7; 16], pool: [7; 16], slice: SliceId::new(1) };
        assert!(survivors(&map, &tag).is_empty());
    }

    #[test]
    fn boot_ids_are_uuids() {
        assert_eq!(boot_id().expect("this kernel has one"), boot_id().expect("the same"));
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let id = parse_uuid(text).expect("a UUID");
        assert_eq!((id[0], id[15]), (0, 0xff));
        assert_eq!(parse_uuid("00112233"), None);
        assert_eq!(parse_uuid("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }
}
