//! The journal as a chain of blocks: replayed to its end, and continued at recovery.
//!
//! A group counts only if it is whole and follows the one before. While the
//! pool is served the table itself continues the chain ([`crate::table::commit`]).

use super::end_mark::ends;
use super::io::{IoError, PoolIo};
use super::parts::{TableId, TablePart};
use super::reader::Reader;
use super::recover::RecoverError;
use super::state::State;
use crate::format::checkpoint::Root;
use crate::format::journal_block::{HEADER_BYTES, Header, PAYLOAD_BYTES, open, seal};
use crate::format::layout::MetaLayout;
use crate::planted::{Bug, planted};
use crate::units::{BLOCK_BYTES, Crc};

/// Where the journal goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    /// Sequence of the next block.
    pub next_seq: u64,
    /// CRC of the last block.
    pub prev: Crc,
    /// Incarnation in the last block.
    pub incarnation: u32,
    /// Last durable group.
    pub group: u64,
}

impl Reader<'_> {
    /// Replays complete groups from the root's start on. True if nothing that stands behind the
    /// end can ever be believed.
    pub fn journal(
        &mut self,
        root: &Root,
        state: &mut State,
    ) -> Result<(JournalEnd, bool), RecoverError> {
        let rings = self.rings()?;
        let mut end = JournalEnd {
            next_seq: root.start_seq,
            prev: root.start_prev,
            incarnation: root.incarnation,
            group: root.start_group - 1,
        };
        let ring = u64::from(self.meta.journal_blocks);
        let mut records = Vec::new();
        while end.next_seq - root.start_seq < ring {
            records.clear();
            let Some(next) = self.group(&rings, &end, &mut records)? else { break };
            self.apply(state, &records, next.group <= root.fuzzy_group)?;
            end = next;
        }
        // A watermark at or above the end says that more was acknowledged than can be read.
        let promised = rings.iter().flat_map(|ring| ring.chunks_exact(BLOCK_BYTES)).any(|block| {
            open(block).is_ok_and(|(header, ..)| {
                self.ours(&header) && header.durable.wrapping_add(1) > end.next_seq
            })
        });
        if promised {
            return Err(RecoverError::Journal { slice: self.id.slice, seq: end.next_seq });
        }
        let at = self.position(end.next_seq);
        let ended =
            |ring: &Vec<u8>| ends(&ring[at..at + BLOCK_BYTES], self.meta, self.id, end.next_seq);
        // Behind the end of a full ring stands its beginning.
        let full = end.next_seq - root.start_seq >= ring;
        let ended = full || rings.iter().all(ended);
        Ok((end, ended))
    }

    /// Where a block stands in its ring, in bytes.
    fn position(&self, seq: u64) -> usize {
        let position = usize::try_from(seq % u64::from(self.meta.journal_blocks));
        position.expect("a ring fits in memory") * BLOCK_BYTES
    }

    fn rings(&mut self) -> Result<[Vec<u8>; 2], RecoverError> {
        let bytes = self.meta.journal_blocks as usize * BLOCK_BYTES;
        let mut rings = [vec![0; bytes], vec![0; bytes]];
        let at = self.meta.journal(self.id.slice, 0);
        for (copy, ring) in rings.iter_mut().enumerate() {
            self.read(copy, at, ring)?;
        }
        Ok(rings)
    }

    fn ours(&self, header: &Header) -> bool {
        header.pool == self.id.pool && header.slice == self.id.slice
    }

    /// Reads the group behind `end`; `None` if it is not complete in either copy.
    fn group(
        &mut self,
        rings: &[Vec<u8>; 2],
        end: &JournalEnd,
        records: &mut Vec<u8>,
    ) -> Result<Option<JournalEnd>, RecoverError> {
        let mut next = end.clone();
        let mut repairs = Vec::new();
        loop {
            let seq = next.next_seq;
            let at = self.position(seq);
            let index = seq - end.next_seq;
            let valid = |ring: &'_ Vec<u8>| {
                let (header, crc, payload) = open(&ring[at..at + BLOCK_BYTES]).ok()?;
                let fits = self.ours(&header)
                    && header.seq == seq
                    && u64::from(header.index) == index
                    && (header.prev == next.prev || planted(Bug::BrokenChain))
                    && header.incarnation >= next.incarnation
                    && header.group == end.group + 1;
                fits.then(|| (header, crc, payload.to_vec()))
            };
            let mut found = rings.each_ref().map(valid);
            let written = |at: usize| found[at].as_ref().map(|(header, ..)| header.incarnation);
            // Where both fit, the later one was written by who did not believe the other.
            let newest = usize::from(written(1) > written(0));
            if found[0] != found[1] {
                repairs.push((1 - newest, seq, rings[newest][at..at + BLOCK_BYTES].to_vec()));
            }
            let Some((header, crc, payload)) = found[newest].take() else {
                if planted(Bug::TornGroup) && index > 0 {
                    next.group += 1;
                    break;
                }
                return Ok(None);
            };
            records.extend_from_slice(&payload);
            next.next_seq += 1;
            next.prev = crc;
            next.incarnation = header.incarnation;
            if header.index + 1 == header.blocks {
                next.group = header.group;
                break;
            }
        }
        for (copy, seq, good) in repairs {
            let at = self.meta.journal(self.id.slice, seq);
            self.mend(TablePart::Journal(seq), copy, at, &good)?;
        }
        Ok(Some(next))
    }
}

/// Appends a group to both copies of the journal, durably.
///
/// # Panics
/// If the ring is full: openers leave room for the pending log's two groups.
pub fn write_group(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    end: &mut JournalEnd,
    records: &[u8],
    incarnation: u32,
) -> Result<(), IoError> {
    // Only a group that is whole and durable is part of the chain: a failed one is written over.
    let mut next = end.clone();
    let blocks = u16::try_from(records.len().div_ceil(PAYLOAD_BYTES)).expect("a bounded group");
    let durable = next.next_seq.wrapping_sub(1);
    for (index, payload) in (0u16..).zip(records.chunks(PAYLOAD_BYTES)) {
        let mut block = [0; BLOCK_BYTES];
        block[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let header = Header {
            pool: id.pool,
            slice: id.slice,
            index,
            blocks,
            bytes: u16::try_from(payload.len()).expect("below a block"),
            seq: next.next_seq,
            group: next.group + 1,
            durable,
            prev: next.prev,
            incarnation,
        };
        next.prev = seal(&mut block, &header);
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.journal(id.slice, next.next_seq));
            io.write(device, offset, &block)?;
        }
        next.next_seq += 1;
    }
    next.incarnation = incarnation;
    next.group += 1;
    for copy in 0..2 {
        io.flush(meta.copies[copy].0)?;
    }
    *end = next;
    Ok(())
}
