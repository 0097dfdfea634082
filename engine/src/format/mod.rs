//! On-disk formats, version 1: pure codecs, no I/O. `docs/format.md` is the
//! reference; a test holds its tables against the structs here.
//!
//! Invariants: little-endian everywhere; every structure carries a CRC-32C
//! over all its other bytes; a decoder never panics on foreign bytes; an
//! encoder's output always decodes to the same value.

pub mod checkpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod golden_tests;
pub mod journal_block;
pub mod layout;
pub mod map_page;
pub mod record;
pub mod superblock;

use crate::units::{BLOCK_BYTES, Crc, crc32c};

/// Why bytes from a medium were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The magic is another: not ours, or never written.
    #[error("not a Tessera structure (magic differs)")]
    Magic,
    /// The CRC does not match the bytes.
    #[error("checksum mismatch")]
    Checksum,
    /// Written by a newer program, or by none.
    #[error("format version {0} is not supported; this program reads up to {max}", max = superblock::VERSION)]
    Version(u32),
    /// Feature bits that this program does not know and must not ignore.
    #[error("unknown incompatible features {0:#x}")]
    Features(u64),
    /// Feature bits that this program does not know and that forbid writing.
    #[error("unknown features {0:#x}: this program may read it, not write to it")]
    ReadOnly(u64),
    /// Of an older version than this program writes.
    #[error("format version {0} is older than this program's: run `tessera upgrade`")]
    Older(u32),
    /// A field is outside its range although the checksum matches.
    #[error("field {0} is out of range")]
    Field(&'static str),
    /// The structure belongs to another pool, slice or place.
    #[error("structure of another {0}")]
    Foreign(&'static str),
}

/// CRC of a block whose own CRC field, at `crc_at`, counts as zero.
pub(crate) fn block_crc(block: &[u8], crc_at: usize) -> Crc {
    assert!(block.len() <= BLOCK_BYTES && crc_at + 4 <= block.len());
    let mut copy = [0u8; BLOCK_BYTES];
    copy[..block.len()].copy_from_slice(block);
    copy[crc_at..crc_at + 4].fill(0);
    crc32c(&copy[..block.len()])
}

#[cfg(test)]
mod tests {
    /// The rows `| offset | size | field |` under the heading of one structure.
    fn documented(heading: &str) -> Vec<(usize, usize, String)> {
        let doc = include_str!("../../../docs/format.md");
        let section = doc.split(&format!("### {heading}\n")).nth(1).expect("heading in format.md");
        section
            .lines()
            .take_while(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let offset = cells.next()?.parse().ok()?;
                let size = cells.next()?.parse().ok()?;
                Some((offset, size, cells.next()?.trim_matches('`').to_owned()))
            })
            .collect()
    }

    macro_rules! check_layout {
        ($heading:literal, $ty:ty, $($field:ident),+ $(,)?) => {
            let rows = documented($heading);
            let mut at = 0;
            let fields = [$((::core::mem::offset_of!($ty, $field), stringify!($field))),+];
            assert_eq!(rows.len(), fields.len(), "{}: rows in docs/format.md", $heading);
            for ((offset, size, name), (actual, field)) in rows.iter().zip(fields) {
                assert_eq!((*offset, name.as_str()), (actual, field), "{}", $heading);
                assert_eq!(*offset, at, "{}: gap before {}", $heading, name);
                at = offset + size;
            }
            assert_eq!(at, size_of::<$ty>(), "{}: total size", $heading);
        };
    }

    #[test]
    fn the_document_matches_the_structs() {
        use super::{checkpoint::*, journal_block::*, map_page::*, superblock::*};
        check_layout!(
            "Superblock",
            RawSuperblock,
            magic,
            version,
            crc,
            pool_uuid,
            device_uuid,
            sequence,
            compat,
            ro_compat,
            incompat,
            incarnation,
            size_bytes,
            device,
            devices,
            role,
            fast_devices,
            slices,
            reserved0,
            journal_blocks,
            extent_bytes,
            extents,
            chunks,
            meta_offset,
            meta_bytes,
            data_offset,
            chunk_bytes,
            reserved,
        );
        check_layout!(
            "Journal block header",
            RawHeader,
            magic,
            crc,
            pool,
            slice,
            index,
            blocks,
            bytes,
            seq,
            group,
            durable,
            prev,
            incarnation,
            reserved,
        );
        check_layout!(
            "Checkpoint root",
            RawRoot,
            magic,
            crc,
            pool,
            slice,
            reserved0,
            extents,
            sequence,
            start_seq,
            start_prev,
            incarnation,
            start_group,
            fuzzy_group,
            pages,
            reserved,
        );
        check_layout!(
            "Checkpoint page header",
            RawPage,
            magic,
            crc,
            pool,
            slice,
            bytes,
            sequence,
            index
        );
        check_layout!(
            "Map page", RawMapPage, magic, crc, pool, slice, reserved0, volume, unit, written,
            places, crcs, reserved,
        );
        use crate::journal::log::{RawHalf, RawLogHeader};
        check_layout!("Pending log header", RawLogHeader, magic, boot, pool, slice, reserved);
        check_layout!("Pending log half", RawHalf, group, bytes);
    }
}
