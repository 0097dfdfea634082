//! Opening a table: checkpoint, journal, pending log; then everything on record.
//!
//! Synchronous and idempotent: a crash at any step leaves a state from which
//! the same table is recovered again. `docs/format.md` has the truth table of
//! what is believed when copies disagree. Never truncates silently: a journal
//! block below the watermark that is bad in both copies refuses the pool.

use super::chain::{JournalEnd, write_group};
use super::end_mark::write_end_mark;
use super::io::{IoError, PoolIo};
use super::log::{LogMemory, LogTag, PendingLog, survivors};
use super::parts::{DamagedCopy, TableId};
use super::reader::Reader;
use super::state::State;
use crate::format::checkpoint::Root;
use crate::format::layout::MetaLayout;
use crate::planted::{Bug, planted};
use crate::units::{DeviceId, SliceId};

/// Why a table cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No valid root in any copy.
    #[error("slice {slice}: both checkpoint roots are damaged in both copies")]
    NoRoot {
        /// Which table.
        slice: SliceId,
    },
    /// A checkpoint page is bad in both copies.
    #[error("slice {slice}: page {page} of checkpoint {sequence} is damaged in both copies")]
    Page {
        /// Which table.
        slice: SliceId,
        /// Which checkpoint.
        sequence: u64,
        /// Which page.
        page: u64,
    },
    /// A journal block that a flush acknowledged is bad in both copies.
    #[error("slice {slice}: journal block {seq} was acknowledged and is damaged in both copies")]
    Journal {
        /// Which table.
        slice: SliceId,
        /// Its sequence.
        seq: u64,
    },
    /// Records that no program of ours writes.
    #[error("slice {slice}: a record contradicts the table ({what})")]
    Record {
        /// Which table.
        slice: SliceId,
        /// How.
        what: &'static str,
    },
}

/// A table as found on the medium, before the pending log.
#[derive(Debug)]
pub struct Found {
    /// What the records say.
    pub state: State,
    /// The checkpoint in force.
    pub root: Root,
    /// Where the journal goes on.
    pub end: JournalEnd,
    /// How many journal blocks, pages and roots were good in one copy only.
    pub damaged_copies: u64,
}

/// Reads a table. Writes only if `repair`: over a copy that the other one proves wrong, over a
/// root's position that holds no root in either copy, and over what follows the journal's end.
pub fn read_table(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    repair: bool,
) -> Result<Found, RecoverError> {
    scan_table(io, meta, id, repair, &mut Vec::new())
}

/// As [`read_table`], listing every copy that was wrong, also if the table is refused.
pub fn scan_table(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    repair: bool,
    damaged: &mut Vec<DamagedCopy>,
) -> Result<Found, RecoverError> {
    let mut reader = Reader { io, meta, id, repair, damaged };
    let (root, alone) = reader.root()?;
    let mut state = State::default();
    reader.pages(&root, &mut state)?;
    let (end, ended) = reader.journal(&root, &mut state)?;
    if end.group < root.fuzzy_group {
        return Err(RecoverError::Journal { slice: id.slice, seq: end.next_seq });
    }
    if repair && alone {
        write_older_root(io, meta, id, &root)?;
    }
    // What an end mark covers, the chain does not let through either.
    let left = planted(Bug::TailLeft) || planted(Bug::BrokenChain);
    if repair && !ended && !left {
        write_end_mark(io, meta, id, end.next_seq)?;
    }
    Ok(Found { state, root, end, damaged_copies: damaged.len() as u64 })
}

/// Writes the first, empty checkpoint of a table, at both positions, and the end of its journal.
/// Other blocks of an earlier pool need no erasing: they carry its UUID.
pub fn write_empty_root(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
) -> Result<(), IoError> {
    let root = Root { sequence: 1, start_seq: 1, start_group: 1, ..Root::default() };
    let block = root.encode(id.pool, id.slice);
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.root(id.slice, root.sequence % 2));
        io.write(device, offset, &block)?;
    }
    write_older_root(io, meta, id, &root)?;
    write_end_mark(io, meta, id, root.start_seq)
}

/// Puts a root below the one in force at the other position, durably.
///
/// A newer one may lie there: written to one copy before a crash, and not readable
/// just now. What is not believed today must not be believed later, when its
/// extents and its part of the journal have served others.
fn write_older_root(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    root: &Root,
) -> Result<(), IoError> {
    // Only a forged root in force has sequence 0: the first one has 1.
    let Some(sequence) = root.sequence.checked_sub(1) else { return Ok(()) };
    let block = Root { sequence, ..root.clone() }.encode(id.pool, id.slice);
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.root(id.slice, sequence % 2));
        io.write(device, offset, &block)?;
        io.flush(device)?;
    }
    Ok(())
}

/// Completes a found table with what a dead process left in the pending log:
/// applies it, flushes the data it speaks of and journals it, then starts a new log.
pub fn replay_log(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    id: TableId,
    found: &mut Found,
    memory: LogMemory,
    tag: &LogTag,
    incarnation: u32,
) -> Result<PendingLog, RecoverError> {
    let mut left = survivors(&memory, tag);
    if planted(Bug::HandoverWithoutDrain) {
        left.clear();
    }
    let again = planted(Bug::RecoveryAppliedTwice);
    let is_fresh = |(group, _): &(u64, _)| *group > found.end.group || again;
    let fresh: Vec<_> = left.into_iter().filter(is_fresh).collect();
    if !fresh.is_empty() {
        for device in 0..io.devices() {
            io.flush(DeviceId::new(device))?;
        }
    }
    for (group, records) in fresh {
        if group != found.end.group + 1 && !again {
            return Err(RecoverError::Record { slice: id.slice, what: "pending log has a gap" });
        }
        found
            .state
            .apply(&records, false)
            .map_err(|what| RecoverError::Record { slice: id.slice, what })?;
        write_group(io, meta, id, &mut found.end, &records, incarnation)?;
    }
    Ok(PendingLog::start(memory, tag, found.end.group + 1))
}
