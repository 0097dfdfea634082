//! An archive of files in the format "newc", which the kernel unpacks as its first file
//! system (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive under construction.
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    made: BTreeSet<String>,
}

impl Archive {
    /// Empty.
    pub fn new() -> Archive {
        Archive { bytes: Vec::new(), entries: 0, made: BTreeSet::new() }
    }

    /// Adds a directory and those above it, once.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.made.insert(path.to_owned()) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds a file that may be executed, and its directories; a second one of that name is
    /// left out.
    pub fn file(&mut self, path: &str, contents: &[u8]) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        if self.made.insert(path.to_owned()) {
            self.entry(path, PROGRAM, contents);
        }
    }

    /// Adds a copy of a file.
    pub fn copy(&mut self, path: &str, from: &Path) -> std::io::Result<()> {
        let contents = std::fs::read(from)?;
        self.file(path, &contents);
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("a file below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor,
        // rdevminor, namesize, check.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_made_once() {
        let mut archive = Archive::new();
        archive.file("/a/b/c", b"12345");
        archive.file("a/b/d", b"");
        archive.file("a/b/d", b"again");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, c, d and the trailer");
        assert!(bytes.len().is_multiple_of(4) && bytes.starts_with(b"070701000000010000"));
        let file = text.find("a/b/c\0").unwrap();
        assert!(text[file..].contains("12345\0") && text[..file].ends_with("00000000"));
    }
}
