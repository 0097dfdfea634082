//! Checkpoints: the table written out, so that the journal can be cut.
//!
//! Steps: the maps that have changed go to fresh map pages ([`super::save`]),
//! then the seats of all fragments to fresh extents, while changes continue;
//! every group that they may reflect is committed; devices are flushed; the
//! root that names the seats is written; only then are the old pages, the old
//! extents and the journal behind the start free. A crash before the root
//! leaves the old checkpoint and its whole journal in force. One checkpoint at
//! a time per core.

use super::Table;
use super::commit::Rider;
use super::fragment::Fragment;
use super::index::Cursor;
use super::op::Token;
use super::sink::{Io, IoKind, IoResult, Sink};
use super::slice::{Commit, Slice, Snapshot};
use crate::format::checkpoint::{
    MAX_EXTENTS, PAGE_HEADER_BYTES, PAGE_PAYLOAD_BYTES, Root, seal_page,
};
use crate::format::record::{put_seat, seat_bytes};
use crate::planted::{Bug, planted};
use crate::request::Buf;
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, SliceId};

impl Table {
    /// Wants a checkpoint of the slice; does nothing if one is under way.
    pub(crate) fn request_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let slice = self.slice(id);
        if slice.journal.snapshot != Snapshot::Idle || slice.failed {
            return;
        }
        slice.journal.snapshot = Snapshot::Queued;
        self.snapshots.push_back(id);
        if self.snapshots.len() == 1 {
            self.start_snapshot(id, sink);
        }
    }

    /// Checkpoints every slice whose journal is not empty.
    pub fn checkpoint_all<S: Sink>(&mut self, sink: &mut S) {
        let used = |slice: &&Slice| slice.journal.used() > 0;
        let ids: Vec<_> = self.slices().filter(used).map(|slice| slice.id).collect();
        for id in ids {
            self.request_snapshot(id, sink);
        }
        self.settle(sink);
    }

    /// Checkpoints the slices whose journals are too full to commit to; before serving.
    pub fn checkpoint_full<S: Sink>(&mut self, sink: &mut S) {
        let limit = u64::from(self.config.checkpoint_blocks);
        let ids: Vec<_> =
            self.slices().filter(|slice| slice.journal.used() > limit).map(|s| s.id).collect();
        for id in ids {
            self.request_snapshot(id, sink);
        }
        self.settle(sink);
    }

    /// True while a checkpoint could go on at once: it only lets others have their turn.
    pub(crate) fn is_merging(&self) -> bool {
        self.snapshots.front().is_some_and(|id| {
            let slice = self.slices[usize::from(id.get())].as_ref().expect("a slice of this core");
            slice.journal.snapshot == Snapshot::Merging
        })
    }

    /// True while a checkpoint is under way or waits.
    pub fn is_checkpointing(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Goes on with a checkpoint that found no memory or extent, or whose commit was under way.
    pub(crate) fn resume_snapshot<S: Sink>(&mut self, sink: &mut S) {
        let Some(&id) = self.snapshots.front() else { return };
        match self.slice(id).journal.snapshot {
            Snapshot::Queued => self.start_snapshot(id, sink),
            Snapshot::Merging | Snapshot::Maps(0) => self.write_maps(id, sink),
            Snapshot::Pages(0) => self.write_pages(id, sink),
            _ => {}
        }
    }

    /// The slice has failed: its checkpoint, if it waits for a commit, gives up its turn.
    pub(crate) fn snapshot_failed<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let first = self.snapshots.front() == Some(&id);
        match self.slice(id).journal.snapshot {
            Snapshot::Closing(_) => self.abandon_snapshot(id, sink),
            Snapshot::Queued if first => self.leave_snapshot(id, sink),
            _ => {}
        }
    }

    fn start_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        if self.slice(id).failed {
            return self.leave_snapshot(id, sink);
        }
        // The root's memory is taken now: a checkpoint that could not end for want of it would
        // have used up journal for its closing commit.
        if self.root_buf.is_none() {
            self.root_buf = sink.alloc(BLOCK_BYTES);
        }
        if self.root_buf.is_none() {
            return;
        }
        let slice = self.slice(id);
        let journal = &mut slice.journal;
        // With a commit under way the start of replay would be in the middle of its group.
        if journal.commit != Commit::Idle {
            return;
        }
        journal.next_root = Root {
            sequence: journal.root.sequence + 1,
            start_seq: journal.next_seq,
            start_prev: journal.prev,
            incarnation: journal.prev_incarnation,
            start_group: slice.log.group(),
            ..Root::default()
        };
        if planted(Bug::JournalFreedEarly) {
            journal.tail_seq = journal.next_seq;
        }
        journal.cursor = Cursor::default();
        journal.dirty_left = usize::MAX;
        journal.snapshot = Snapshot::Maps(0);
        self.write_maps(id, sink);
    }

    /// Fills one extent with seats and writes it, or closes if all fragments are out.
    pub(crate) fn write_pages<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let (meta, pool) = (self.config.meta, self.config.pool);
        let slice = self.slice(id);
        // An extent that is not full was the last: what was made since is in the journal.
        let per_extent = u64::from(meta.extent_bytes) / BLOCK_BYTES as u64;
        let cut_short = !slice.journal.next_root.pages.is_multiple_of(per_extent);
        if cut_short || slice.index.walk(slice.journal.cursor).is_none() {
            return self.close_snapshot(id, sink);
        }
        assert!(slice.journal.next_root.extents.len() < MAX_EXTENTS, "a table outgrew its root");
        let Some(buf) = sink.alloc(meta.extent_bytes as usize) else { return };
        let spare = slice.spare_extents.pop();
        let Some(extent) = spare.or_else(|| sink.claim_extent()) else { return sink.free(buf) };
        let pages = fill_extent(slice, &buf, pool, meta.extent_bytes, sink);
        slice.journal.next_root.extents.push(extent);
        slice.journal.next_root.pages += u64::from(pages);
        slice.journal.snapshot = Snapshot::Pages(2);
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.extent(extent));
            sink.io(Io {
                device,
                kind: IoKind::Write { fua: false },
                offset,
                mem: buf.mem(),
                bytes: pages * BLOCK_BYTES_U32,
                token: Token::Checkpoint(id).pack(),
                background: false,
            });
        }
        self.snapshot_buf = Some(buf);
    }

    pub(crate) fn snapshot_written<S: Sink>(
        &mut self,
        id: SliceId,
        result: IoResult,
        sink: &mut S,
    ) {
        let journal = &mut self.slice(id).journal;
        let (left, next) = match journal.snapshot {
            Snapshot::Maps(left) => (left - 1, Snapshot::Maps(left - 1)),
            Snapshot::Pages(left) => (left - 1, Snapshot::Pages(left - 1)),
            Snapshot::Root(left) => (left - 1, Snapshot::Root(left - 1)),
            other => panic!("a checkpoint write ended in {other:?}"),
        };
        journal.snapshot = next;
        if result.is_err() && !self.slice(id).failed {
            self.fail_slice(id, sink);
        }
        if left > 0 {
            return;
        }
        if let Some(buf) = self.snapshot_buf.take() {
            sink.free(buf);
        }
        if self.slice(id).failed {
            return self.abandon_snapshot(id, sink);
        }
        match next {
            Snapshot::Maps(_) => self.write_maps(id, sink),
            Snapshot::Pages(_) => self.write_pages(id, sink),
            _ => self.end_snapshot(id, sink),
        }
    }

    /// All pages are written: whatever they reflect must be durable before the root is.
    fn close_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let slice = self.slice(id);
        let group = slice.group_to_cover(None).unwrap_or(slice.journal.committed);
        slice.journal.next_root.fuzzy_group = group;
        slice.journal.snapshot = Snapshot::Closing(group);
        if group > slice.journal.committed && !planted(Bug::CheckpointBeforeGroups) {
            self.request_commit(id, sink);
        } else {
            self.flush_snapshot(id, sink);
        }
    }

    /// A commit of the slice has ended.
    pub(crate) fn snapshot_committed<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let first = self.snapshots.front() == Some(&id);
        let journal = &self.slice(id).journal;
        match journal.snapshot {
            Snapshot::Closing(group) if journal.committed >= group => self.flush_snapshot(id, sink),
            Snapshot::Closing(_) => self.request_commit(id, sink),
            Snapshot::Queued if first => self.start_snapshot(id, sink),
            _ => {}
        }
    }

    fn flush_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        if planted(Bug::CheckpointBeforeData) {
            return self.write_root(id, sink);
        }
        self.slice(id).journal.snapshot = Snapshot::Flushing(2);
        for copy in 0..2 {
            let (device, _) = self.config.meta.copies[copy];
            self.flush_device(device, Rider::Snapshot(id));
        }
    }

    pub(crate) fn snapshot_flushed<S: Sink>(
        &mut self,
        id: SliceId,
        result: IoResult,
        sink: &mut S,
    ) {
        let Snapshot::Flushing(left) = self.slice(id).journal.snapshot else {
            panic!("a flush ended outside a checkpoint")
        };
        self.slice(id).journal.snapshot = Snapshot::Flushing(left - 1);
        if result.is_err() && !self.slice(id).failed {
            self.fail_slice(id, sink);
        }
        if left > 1 {
            return;
        }
        if self.slice(id).failed {
            return self.abandon_snapshot(id, sink);
        }
        self.write_root(id, sink);
    }

    fn write_root<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let (meta, pool) = (self.config.meta, self.config.pool);
        let buf = self.root_buf.take().expect("a checkpoint starts with memory for its root");
        let journal = &mut self.slice(id).journal;
        let block = journal.next_root.encode(pool, id);
        let which = journal.next_root.sequence % 2;
        let mem = buf.mem();
        sink.bytes_mut(mem, BLOCK_BYTES).copy_from_slice(&block);
        journal.snapshot = Snapshot::Root(2);
        if planted(Bug::ExtentsFreedEarly) {
            journal.root.extents.drain(..).for_each(|extent| sink.release_extent(extent));
        }
        self.snapshot_buf = Some(buf);
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.root(id, which));
            sink.io(Io {
                device,
                kind: IoKind::Write { fua: true },
                offset,
                mem,
                bytes: BLOCK_BYTES_U32,
                token: Token::Checkpoint(id).pack(),
                background: false,
            });
        }
    }

    /// The root is durable: the old checkpoint and the journal before it are free.
    fn end_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        self.counters.checkpoints += 1;
        let journal = &mut self.slice(id).journal;
        let old = std::mem::replace(&mut journal.root, std::mem::take(&mut journal.next_root));
        journal.tail_seq = journal.root.start_seq;
        self.end_maps(id, true);
        let slice = self.slice(id);
        slice.spare_extents.extend(old.extents);
        while slice.missing_extents(0).1 == 0
            && let Some(extent) = slice.spare_extents.pop()
        {
            if slice.missing_extents(0).1 > 0 {
                slice.spare_extents.push(extent);
                break;
            }
            sink.release_extent(extent);
        }
        self.leave_snapshot(id, sink);
        self.shrink_maps(sink);
    }

    pub(crate) fn abandon_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let journal = &mut self.slice(id).journal;
        let root = std::mem::take(&mut journal.next_root);
        // A root whose write failed may still be the one that recovery finds.
        let may_count = matches!(journal.snapshot, Snapshot::Root(_));
        for extent in root.extents.into_iter().filter(|_| !may_count) {
            sink.release_extent(extent);
        }
        self.end_maps(id, false);
        if let Some(buf) = self.root_buf.take() {
            sink.free(buf);
        }
        self.leave_snapshot(id, sink);
    }

    fn leave_snapshot<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let journal = &mut self.slice(id).journal;
        journal.snapshot = Snapshot::Idle;
        let wanted = journal.wanted;
        assert_eq!(self.snapshots.pop_front(), Some(id));
        if let Some(&next) = self.snapshots.front() {
            self.start_snapshot(next, sink);
        }
        // Only now: a commit that finds the journal full asks for, and starts, a checkpoint itself.
        if wanted {
            self.request_commit(id, sink);
        }
        self.kick(id);
        // Pieces of any slice may have waited for the room that the checkpoint makes.
        if self.starved {
            self.kick_all();
        }
    }
}

/// Fills the pages of one extent with seats from the slice's cursor on; returns how many.
fn fill_extent(
    slice: &mut Slice,
    buf: &Buf,
    pool: u64,
    extent_bytes: u32,
    sink: &mut impl super::sink::Sink,
) -> u32 {
    let first = u32::try_from(slice.journal.next_root.pages).expect("at most 2^20 pages");
    let sequence = slice.journal.next_root.sequence;
    let mut pages = 0;
    while pages < extent_bytes / BLOCK_BYTES_U32 {
        let page = sink.bytes_mut(buf.mem().block(pages), BLOCK_BYTES);
        page.fill(0);
        let bytes = fill_page(slice, &mut page[PAGE_HEADER_BYTES..]);
        if bytes == 0 {
            break;
        }
        let bytes = u16::try_from(bytes).expect("below a block");
        seal_page(page, pool, slice.id, sequence, first + pages, bytes);
        pages += 1;
    }
    pages
}

/// Writes seats until the page is full or the fragments are out; returns the bytes used.
fn fill_page(slice: &mut Slice, out: &mut [u8]) -> usize {
    let mut at = 0;
    while let Some((key, seat, size, next)) = slice.index.walk(slice.journal.cursor) {
        if at + seat_bytes() > PAGE_PAYLOAD_BYTES {
            break;
        }
        let here = slice.index.find(key).and_then(|at| slice.index.get(at));
        let placement = here.map_or_else(|| seat.placement(size), Fragment::placement);
        let mut mapped = seat.mapped();
        if let Some(fragment) = here {
            let short = |blocks: u32| u16::try_from(blocks).expect("at most 4096");
            mapped.present = short(fragment.present);
            mapped.cold_blocks = short(fragment.cold_blocks);
        }
        // One that nothing has been recorded of is only being made.
        if here.is_none_or(|fragment| fragment.recorded) {
            at += put_seat(&mut out[at..], key, &placement, &mapped);
        }
        slice.journal.cursor = next;
    }
    at
}
