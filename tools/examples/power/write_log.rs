//! The log of a device's writes, as QEMU's `blklogwrites` makes it: the format
//! of dm-log-writes.
//!
//! The superblock's count of entries is of the last flush; the log is read to
//! the end of its file.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::content::SECTOR;
use crate::{PowerError, system};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// An open log.
pub struct WriteLog {
    file: File,
    /// Places of writes' bytes in the file, by first sector and sectors, oldest first.
    places: HashMap<(u64, u64), VecDeque<u64>>,
}

impl WriteLog {
    /// Reads all entries.
    ///
    /// # Errors
    /// If it is not such a log, or holds discards, which change nothing defined.
    pub fn open(path: &Path) -> Result<WriteLog, PowerError> {
        let wrong = |why: String| PowerError::Record { file: path.display().to_string(), why };
        let name = || path.display().to_string();
        let file = File::open(path).map_err(system(name()))?;
        let bytes = file.metadata().map_err(system(name()))?.len();
        let mut sector = [0; SECTOR];
        file.read_exact_at(&mut sector, 0).map_err(system(name()))?;
        if word(&sector, 0) != MAGIC || word(&sector, 1) != 1 {
            return Err(wrong("not a log of writes, version 1".into()));
        }
        if u64::from(u32::from_le_bytes(sector[24..28].try_into().expect("four bytes")))
            != SECTOR as u64
        {
            return Err(wrong("its sectors are not of 512 bytes".into()));
        }
        let mut places: HashMap<_, VecDeque<_>> = HashMap::new();
        let mut at = SECTOR as u64;
        while at + SECTOR as u64 <= bytes {
            file.read_exact_at(&mut sector, at).map_err(system(name()))?;
            let (first, sectors, flags) = (word(&sector, 0), word(&sector, 1), word(&sector, 2));
            at += SECTOR as u64;
            if flags & !(FLUSH | 2) != 0 {
                let what = if flags & DISCARD != 0 { "a discard" } else { "an unknown entry" };
                return Err(wrong(format!("{what} at byte {at}")));
            }
            if sectors > 0 {
                places.entry((first, sectors)).or_default().push_back(at);
                at += sectors * SECTOR as u64;
            }
        }
        Ok(WriteLog { file, places })
    }

    /// Takes the oldest write of exactly this range: where its bytes are.
    pub fn take(&mut self, first: u64, sectors: u64) -> Option<u64> {
        self.places.get_mut(&(first, sectors))?.pop_front()
    }

    /// True if every write was taken.
    pub fn is_empty(&self) -> bool {
        self.places.values().all(VecDeque::is_empty)
    }

    /// Fills `out` with logged bytes.
    pub fn read(&self, place: u64, out: &mut [u8]) -> Result<(), PowerError> {
        self.file.read_exact_at(out, place).map_err(system("reading a log of writes"))
    }
}

fn word(sector: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(sector[8 * index..8 * index + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(words: [u64; 4]) -> Vec<u8> {
        let mut sector: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        sector.resize(SECTOR, 0);
        sector
    }

    #[test]
    fn entries_are_read_past_the_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut bytes = entry([MAGIC, 1, 1, SECTOR as u64]);
        bytes.extend(entry([8, 1, 0, 0]));
        bytes.extend([7; SECTOR]);
        bytes.extend(entry([0, 0, FLUSH, 0]));
        bytes.extend(entry([8, 1, 0, 0]));
        bytes.extend([9; SECTOR]);
        std::fs::write(&path, &bytes).unwrap();
        let mut log = WriteLog::open(&path).unwrap();
        let mut data = [0; SECTOR];
        for expected in [7, 9] {
            let place = log.take(8, 1).unwrap();
            log.read(place, &mut data).unwrap();
            assert_eq!(data, [expected; SECTOR]);
        }
        assert!(log.take(8, 1).is_none() && log.is_empty());
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(WriteLog::open(&path).is_err());
    }
}
