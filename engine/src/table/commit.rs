//! Group commit: flush the data's devices, write the group to both journals,
//! then free what it replaced and answer who waited.
//!
//! One commit per slice at a time. A slice that commits alone writes its group with
//! FUA; several at a time write theirs plainly and share one flush of the journals'
//! devices behind them. Device flushes are shared: they start when the event that
//! asked for them has been handled and no such group is being written, and whoever
//! needs a flush of a device that is being flushed rides on the next one.
//!
//! One core flushes a device for all. A flush that fails may lose what any core has
//! written, and the device tells whoever flushed: were there several, one could
//! take its own success for good before another has looked at its failure.

use super::Table;
use super::op::Token;
use super::sink::{Done, Io, IoKind, IoResult, Met, Sink};
use super::slice::{Commit, Slice, Snapshot, Waiter};
use crate::format::journal_block::{HEADER_BYTES, Header, MAX_GROUP_BLOCKS, PAYLOAD_BYTES, seal};
use crate::format::record::{Record, Records};
use crate::planted::{Bug, planted};
use crate::request::Failure;
use crate::units::{
    BLOCK_BYTES, BLOCK_BYTES_U32, CoreId, DeviceId, DeviceOffset, SliceId, VolumeId,
};

/// Who waits for a device flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rider {
    /// The commit of a slice, whose group is yet to be written.
    Commit(SliceId),
    /// The commit of a slice, whose group is written.
    Group(SliceId),
    /// The checkpoint of a slice.
    Snapshot(SliceId),
    /// A copy job.
    Copy(u32),
    /// Another core.
    Core(CoreId),
}

/// Flushes of one device.
#[derive(Debug, Default)]
pub struct Flusher {
    aboard: Vec<Rider>,
    queued: Vec<Rider>,
    /// A flush failed: the device may have dropped writes it had taken, for good.
    failed: bool,
}

/// A flush of a volume over the slices of this core.
#[derive(Debug)]
pub struct VolumeFlush {
    origin: u64,
    remaining: u32,
    failure: Option<Failure>,
}

impl Table {
    /// Makes every completed change of `volume` (of all if `None`) durable; ends as a part does.
    ///
    /// # Panics
    /// Unless [`Table::can_submit`].
    pub fn flush<S: Sink>(&mut self, volume: Option<VolumeId>, origin: u64, sink: &mut S) {
        let flush = self.begin_flush(origin);
        self.flush_slices(flush, volume, sink);
        self.settle(sink);
    }

    /// Takes a place among the flushes under way.
    pub(crate) fn begin_flush(&mut self, origin: u64) -> u32 {
        let flush = VolumeFlush { origin, remaining: 1, failure: None };
        self.flushes.insert(flush).expect("can_submit was true")
    }

    /// Waits for the groups that cover the volume's completed changes, then answers.
    pub(crate) fn flush_slices<S: Sink>(
        &mut self,
        flush: u32,
        volume: Option<VolumeId>,
        sink: &mut S,
    ) {
        for at in 0..self.slices.len() {
            let Some(slice) = &self.slices[at] else { continue };
            let id = slice.id;
            if slice.failed {
                self.flushes.get_mut(flush).failure = Some(Failure::Device);
            } else if slice.group_to_cover(volume).is_some() {
                if planted(Bug::FlushOfOneSlice) && self.flushes.get_mut(flush).remaining > 1 {
                    break;
                }
                self.flushes.get_mut(flush).remaining += 1;
                self.wait_durable(id, volume, Waiter::Flush(flush), sink);
            }
        }
        self.flush_part_ended(flush, Ok(()), sink);
    }

    fn flush_part_ended<S: Sink>(&mut self, index: u32, result: IoResult, sink: &mut S) {
        let flush = self.flushes.get_mut(index);
        flush.remaining -= 1;
        if let Err(failure) = result {
            flush.failure.get_or_insert(failure);
        }
        if flush.remaining == 0 {
            let flush = self.flushes.remove(index);
            let result = flush.failure.map_or(Ok(()), Err);
            sink.done(Done { origin: flush.origin, met: Met::Near, buf: None, result });
        }
    }

    /// Waits until completed changes are durable; false if they are already.
    pub(crate) fn wait_durable<S: Sink>(
        &mut self,
        id: SliceId,
        volume: Option<VolumeId>,
        waiter: Waiter,
        sink: &mut S,
    ) -> bool {
        let slice = self.slice(id);
        let Some(group) = slice.group_to_cover(volume) else { return false };
        slice.waiters.push((group, waiter));
        self.request_commit(id, sink);
        true
    }

    /// Starts a commit of the current group, or remembers that one is wanted.
    pub(crate) fn request_commit<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let ring = u64::from(self.config.meta.journal_blocks);
        let slice = self.slice(id);
        if slice.failed || slice.log.is_empty() {
            return;
        }
        let journal = &mut slice.journal;
        journal.wanted = true;
        if journal.commit != Commit::Idle {
            return;
        }
        let closing = matches!(journal.snapshot, Snapshot::Closing(_));
        // Behind this group must fit the one that recovery may find in the pending log, and,
        // unless this commit closes a checkpoint, the one that will.
        let groups = if closing { 2 } else { 3 };
        if journal.used() + groups * MAX_GROUP_BLOCKS as u64 > ring {
            return self.request_snapshot(id, sink);
        }
        journal.wanted = false;
        slice.log.begin_commit();
        slice.dirty_volumes.swap(0, 1);
        slice.dirty_volumes[0].clear();
        let devices = std::mem::take(&mut slice.dirty_devices);
        let devices = if planted(Bug::SkippedFlush) { 0 } else { devices };
        slice.journal.commit = Commit::Flushing(devices.count_ones());
        if devices == 0 {
            return self.write_group(id, sink);
        }
        for device in (0..64).filter(|device| devices & (1 << device) != 0) {
            self.flush_device(DeviceId::new(device), Rider::Commit(id));
        }
        if planted(Bug::CrcBeforeData) {
            self.write_group(id, sink);
        }
    }

    /// Flushes a device on behalf of `rider`.
    pub(crate) fn flush_device(&mut self, device: DeviceId, rider: Rider) {
        let flusher = &mut self.flushers[usize::from(device.get())];
        let joins = planted(Bug::FlushJoinedLate) && !flusher.aboard.is_empty();
        let riders = if joins { &mut flusher.aboard } else { &mut flusher.queued };
        riders.push(rider);
        self.flush_wanted = true;
    }

    /// Starts the flushes that have riders. Groups that are being written share one.
    pub(crate) fn start_flushes<S: Sink>(&mut self, sink: &mut S) {
        if !self.flush_wanted || self.groups_out > 0 {
            return;
        }
        self.flush_wanted = false;
        for device in 0..self.flushers.len() {
            self.start_flush(DeviceId::new(u8::try_from(device).expect("at most 64")), sink);
        }
    }

    fn start_flush<S: Sink>(&mut self, device: DeviceId, sink: &mut S) {
        let flusher = &mut self.flushers[usize::from(device.get())];
        if !flusher.aboard.is_empty() || flusher.queued.is_empty() {
            return;
        }
        std::mem::swap(&mut flusher.aboard, &mut flusher.queued);
        let owner = CoreId::new(device.get() % self.config.cores);
        if owner != self.config.core && !planted(Bug::FlushByEachCore) {
            return sink.ask_flush(owner, device);
        }
        sink.io(Io {
            device,
            kind: IoKind::Flush,
            offset: DeviceOffset::new(0),
            mem: super::sink::Mem { arena: 0, byte: 0 },
            bytes: 0,
            token: Token::Flush(device.get()).pack(),
            background: false,
        });
    }

    /// Another core asks for a flush of a device whose flushes are this one's.
    pub fn flush_asked<S: Sink>(&mut self, device: DeviceId, by: CoreId, sink: &mut S) {
        self.flush_device(device, Rider::Core(by));
        self.settle(sink);
    }

    /// The core that was asked for a flush has answered.
    pub fn flushed_elsewhere<S: Sink>(&mut self, device: DeviceId, result: IoResult, sink: &mut S) {
        self.device_flushed(device.get(), result, sink);
        self.settle(sink);
    }

    pub(crate) fn device_flushed<S: Sink>(&mut self, device: u8, result: IoResult, sink: &mut S) {
        let flusher = &mut self.flushers[usize::from(device)];
        let id = DeviceId::new(device);
        flusher.failed |= result.is_err() || sink.has_failed(id);
        if result.is_err() {
            sink.fail_device(id);
        }
        // Once a flush has failed, on any core, a later success says nothing of what was lost.
        let result = if flusher.failed { Err(Failure::Device) } else { result };
        let riders = std::mem::take(&mut flusher.aboard);
        for rider in &riders {
            match *rider {
                Rider::Commit(id) => self.commit_flushed(id, result, sink),
                Rider::Group(id) => self.group_flushed(id, result, sink),
                Rider::Snapshot(id) => self.snapshot_flushed(id, result, sink),
                Rider::Copy(job) => self.copy_flushed(job, result, sink),
                Rider::Core(core) => sink.tell_flushed(core, id, result),
            }
        }
        let flusher = &mut self.flushers[usize::from(device)];
        if flusher.aboard.is_empty() && flusher.queued.is_empty() {
            flusher.queued = riders;
            flusher.queued.clear();
        }
        self.flush_wanted = true;
    }

    fn commit_flushed<S: Sink>(&mut self, id: SliceId, result: IoResult, sink: &mut S) {
        let slice = self.slice(id);
        if slice.failed || planted(Bug::CrcBeforeData) {
            return;
        }
        let Commit::Flushing(left) = slice.journal.commit else {
            panic!("a flush ended outside a commit")
        };
        if result.is_err() {
            return self.fail_slice(id, sink);
        }
        slice.journal.commit = Commit::Flushing(left - 1);
        if left == 1 {
            self.write_group(id, sink);
        }
    }

    /// Builds the group's blocks and writes them to both copies of the journal.
    fn write_group<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        let (pool, incarnation, meta) =
            (self.config.pool, self.config.incarnation, self.config.meta);
        let fua = !self.commits_together();
        let slice = self.slice(id);
        let group = slice.log.group() - 1;
        let records = slice.log.committing();
        let journal = &mut slice.journal;
        let start = journal.next_seq;
        let mem = journal.group_buf.mem();
        let blocks = u16::try_from(records.len().div_ceil(PAYLOAD_BYTES)).expect("at most 15");
        for (index, payload) in (0u16..).zip(records.chunks(PAYLOAD_BYTES)) {
            let block = sink.bytes_mut(mem.block(index.into()), BLOCK_BYTES);
            block[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
            block[HEADER_BYTES + payload.len()..].fill(0);
            let header = Header {
                pool,
                slice: id,
                index,
                blocks,
                bytes: u16::try_from(payload.len()).expect("below a block"),
                seq: journal.next_seq,
                group,
                durable: start.wrapping_sub(1),
                prev: journal.prev,
                incarnation,
            };
            journal.prev = seal(block, &header);
            journal.next_seq += 1;
        }
        journal.prev_incarnation = incarnation;
        let ring = u64::from(meta.journal_blocks);
        let before_wrap = u64::from(blocks).min(ring - start % ring);
        let mut pending = 0;
        for (skip, count) in [(0, before_wrap), (before_wrap, u64::from(blocks) - before_wrap)] {
            if count == 0 {
                continue;
            }
            for copy in 0..2 {
                let (device, offset) = meta.place(copy, meta.journal(id, start + skip));
                let skipped = u32::try_from(skip).expect("at most 15");
                pending += 1;
                sink.io(Io {
                    device,
                    kind: IoKind::Write { fua },
                    offset,
                    mem: mem.block(skipped),
                    bytes: u32::try_from(count).expect("at most 15") * BLOCK_BYTES_U32,
                    token: Token::Journal(id).pack(),
                    background: false,
                });
            }
        }
        journal.commit = Commit::Writing { left: pending, fua };
        self.groups_out += u32::from(!fua);
    }

    /// Other slices commit beside the one that is about to write its group.
    fn commits_together(&self) -> bool {
        let commits = |slice: &&Slice| slice.journal.commit != Commit::Idle && !slice.failed;
        self.slices().filter(commits).nth(1).is_some()
    }

    pub(crate) fn group_written<S: Sink>(&mut self, id: SliceId, result: IoResult, sink: &mut S) {
        let slice = self.slice(id);
        let Commit::Writing { left, fua } = slice.journal.commit else {
            panic!("a journal write ended outside a commit")
        };
        slice.journal.commit = Commit::Writing { left: left - 1, fua };
        if left == 1 {
            self.groups_out -= u32::from(!fua);
        }
        let failed = self.slice(id).failed;
        if result.is_err() && !failed {
            return self.fail_slice(id, sink);
        }
        if left == 1 && !failed {
            if fua || planted(Bug::GroupNotFlushed) {
                self.end_commit(id, sink)
            } else {
                self.flush_group(id)
            }
        }
    }

    fn flush_group(&mut self, id: SliceId) {
        let [first, second] = self.config.meta.copies.map(|(device, _)| device);
        let journal = &mut self.slice(id).journal;
        journal.commit = Commit::Sealing(1 + u32::from(second != first));
        self.flush_device(first, Rider::Group(id));
        if second != first {
            self.flush_device(second, Rider::Group(id));
        }
    }

    fn group_flushed<S: Sink>(&mut self, id: SliceId, result: IoResult, sink: &mut S) {
        let slice = self.slice(id);
        let Commit::Sealing(left) = slice.journal.commit else {
            panic!("a flush ended outside a commit")
        };
        slice.journal.commit = Commit::Sealing(left - 1);
        if slice.failed {
            return;
        }
        match result {
            Err(_) => self.fail_slice(id, sink),
            Ok(()) if left == 1 => self.end_commit(id, sink),
            Ok(()) => {}
        }
    }

    /// The group is durable.
    fn end_commit<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        self.counters.commits += 1;
        let limit = u64::from(self.config.checkpoint_blocks);
        let slice = self.slice(id);
        let group = slice.log.group() - 1;
        clear_marks(slice, group);
        slice.log.end_commit();
        slice.dirty_volumes[1].clear();
        slice.journal.committed = group;
        slice.journal.commit = Commit::Idle;
        while let Some((_, freed)) = slice.deferred.pop_front_if(|(of, _)| *of <= group) {
            slice.limbo.push(freed);
        }
        self.sweep(id);
        let slice = self.slice(id);
        let again = slice.journal.wanted || slice.waiters.iter().any(|(of, _)| *of > group);
        let used = slice.journal.used();
        if !planted(Bug::LostKick) {
            self.kick(id);
        }
        self.answer_waiters(id, Ok(()), sink);
        if again {
            self.request_commit(id, sink);
        }
        self.snapshot_committed(id, sink);
        if used > limit {
            self.request_snapshot(id, sink);
        }
    }

    /// Ends everyone whose group is durable, or everyone if the slice has failed.
    fn answer_waiters<S: Sink>(&mut self, id: SliceId, result: IoResult, sink: &mut S) {
        let mut at = 0;
        while at < self.slice(id).waiters.len() {
            let slice = self.slice(id);
            let (group, waiter) = slice.waiters[at];
            if group > slice.journal.committed && result.is_ok() {
                at += 1;
                continue;
            }
            slice.waiters.swap_remove(at);
            match waiter {
                Waiter::Ask(ask) => {
                    if let Err(failure) = result {
                        self.asks.get_mut(ask).failure = Some(failure);
                    }
                    self.end_ask(ask, sink);
                }
                Waiter::Flush(flush) => self.flush_part_ended(flush, result, sink),
            }
        }
    }

    /// A flush or journal write failed: nothing of this slice is acknowledged any more.
    pub(crate) fn fail_slice<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        tracing::error!(
            slice = id.get(),
            "journal or flush failed: the slice accepts no more writes"
        );
        self.slice(id).failed = true;
        self.answer_waiters(id, Err(Failure::Device), sink);
        self.snapshot_failed(id, sink);
        self.kick(id);
    }
}

/// Blocks written by `group`, unless rewritten since, are now the committed state.
fn clear_marks(slice: &mut Slice, group: u64) {
    let mark = Slice::mark(group);
    let Slice { log, index, .. } = slice;
    for record in Records::new(log.committing()) {
        let (key, first, count) = match record.expect("the log holds our own records") {
            Record::Blocks { key, first, entries } => (key, first, entries.len()),
            Record::Holes { key, first, count } => (key, first, usize::from(count)),
            _ => continue,
        };
        if let Some(at) = index.find(key) {
            let fragment = index.held(at);
            for block in (u32::from(first)..).take(count) {
                fragment.clear_mark(block, mark);
            }
        }
    }
}
