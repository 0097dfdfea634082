//! The mark behind a journal's end: what recovery did not believe there is never believed later.
//!
//! A group that was being written at a crash may be whole in one copy. If
//! recovery reads that copy wrong, the journal ends before the group, and its
//! places serve others. A later recovery that reads it right would bring it
//! back. So before anything is served its first block is written over, in both
//! copies. An end mark is a journal block of group 0, which continues no chain.

use super::io::{IoError, PoolIo};
use super::parts::TableId;
use crate::format::journal_block::{Header, open, seal};
use crate::format::layout::MetaLayout;
use crate::units::{BLOCK_BYTES, Crc};

/// True if a block read from where `next_seq` is to go can never continue the journal: an end
/// mark, or a block of an earlier lap. Zeros are neither: a read that went astray returns them too.
pub(super) fn ends(block: &[u8], meta: &MetaLayout, id: TableId, next_seq: u64) -> bool {
    let ring = u64::from(meta.journal_blocks);
    open(block).is_ok_and(|(header, ..)| {
        let ours = header.pool == id.pool && header.slice == id.slice;
        let here = header.seq % ring == next_seq % ring;
        let mark = header.seq == next_seq && header.group == 0;
        ours && here && (header.seq < next_seq || mark)
    })
}

/// Puts an end mark behind the last block, in both copies, durably. All blocks before are durable.
pub(super) fn write_end_mark(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    next_seq: u64,
) -> Result<(), IoError> {
    let mut block = [0; BLOCK_BYTES];
    let header = Header {
        pool: id.pool,
        slice: id.slice,
        index: 0,
        blocks: 1,
        bytes: 0,
        seq: next_seq,
        group: 0,
        durable: next_seq.wrapping_sub(1),
        prev: Crc::new(0),
        incarnation: 0,
    };
    seal(&mut block, &header);
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.journal(id.slice, next_seq));
        io.write(device, offset, &block)?;
    }
    for (device, _) in meta.copies {
        io.flush(device)?;
    }
    Ok(())
}
