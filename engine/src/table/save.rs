//! The first step of a checkpoint: every changed map goes to a fresh page.
//!
//! A page is written whole, with all fragments of its span, and never over one
//! that a checkpoint names. Pages are written in runs, to both copies of the
//! metadata zone. The seats name the new page at once; the old one is free when
//! the checkpoint is published.

use super::Table;
use super::fragment::{FragRef, Saved};
use super::index::Span;
use super::maps::Wanted;
use super::op::Token;
use super::pages::EXTENT_PAGES;
use super::sink::{Io, IoKind, Mem, Sink};
use super::slice::{Slice, Snapshot};
use crate::format::map_page::{MapId, PAGE_BLOCKS, encode};
use crate::planted::{Bug, planted};
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, FragmentSize, SliceId};

/// Spans merged in one turn: clients wait for it to end.
const MERGES: usize = 8;

impl Table {
    /// Merges some of what recovery replayed, writes one run of map pages, or goes on to the seats.
    pub(crate) fn write_maps<S: Sink>(&mut self, id: SliceId, sink: &mut S) {
        if !self.merge_replayed(id, sink) {
            return;
        }
        let slice = self.slice(id);
        slice.journal.dirty_left = slice.journal.dirty_left.min(slice.dirty.len());
        let Some(size) = next_unsaved(slice) else {
            slice.journal.snapshot = Snapshot::Pages(0);
            return self.write_pages(id, sink);
        };
        let least = Span::pages(size);
        let Some(buf) = sink.alloc(EXTENT_PAGES as usize * BLOCK_BYTES) else { return };
        let mut run = slice.pages.alloc(least, EXTENT_PAGES);
        if run.is_none()
            && let Some(extent) = sink.claim_extent()
        {
            slice.pages.add(extent);
            run = slice.pages.alloc(least, EXTENT_PAGES);
        }
        let Some((first, room)) = run else { return sink.free(buf) };
        let pool = self.config.pool;
        let slice = self.slice(id);
        let mut used = 0;
        while let Some(size) = next_unsaved(slice)
            && used + Span::pages(size) <= room
        {
            let at = pop_unsaved(slice);
            save(slice, at, pool, first + used, buf.mem().block(used), sink);
            used += Span::pages(size);
        }
        if used < room {
            slice.pages.free(first + used, room - used);
        }
        slice.journal.snapshot = Snapshot::Maps(2);
        let mem = buf.mem();
        self.snapshot_buf = Some(buf);
        for copy in 0..2 {
            let (device, offset) = self.config.meta.place(copy, self.config.meta.page(first));
            sink.io(Io {
                device,
                kind: IoKind::Write { fua: false },
                offset,
                mem,
                bytes: used * BLOCK_BYTES_U32,
                token: Token::Checkpoint(id).pack(),
                background: false,
            });
        }
    }

    /// Merges what recovery replayed: the journal that holds it is to be cut. False if that has
    /// to go on later, or the checkpoint has been given up.
    fn merge_replayed<S: Sink>(&mut self, id: SliceId, sink: &mut S) -> bool {
        if self.slice(id).failed {
            self.abandon_snapshot(id, sink);
            return false;
        }
        self.slice(id).journal.snapshot = Snapshot::Maps(0);
        for _ in 0..MERGES {
            let Some(span) = self.slice(id).index.first_pending() else { return true };
            match self.want(id, span, sink) {
                Wanted::Here => {}
                Wanted::Loading | Wanted::NoRoom => return false,
                Wanted::Lost(_) => {
                    self.fail_slice(id, sink);
                    self.abandon_snapshot(id, sink);
                    return false;
                }
            }
        }
        self.slice(id).journal.snapshot = Snapshot::Merging;
        false
    }

    /// The checkpoint is published, or given up.
    pub(crate) fn end_maps(&mut self, id: SliceId, published: bool) {
        let slice = self.slice(id);
        for at in std::mem::take(&mut slice.journal.written) {
            let Some(fragment) = slice.index.get_mut(at) else { continue };
            if fragment.saved == Saved::Writing {
                // Where it was given up the slice has failed, and the map stays in memory.
                fragment.saved = if published { Saved::Clean } else { Saved::Dirty };
            }
        }
        for (page, count) in std::mem::take(&mut slice.journal.superseded) {
            if published {
                slice.pages.free(page, count);
            }
        }
    }
}

/// Size of the fragments of the next span to write, among those that changed before the start.
fn next_unsaved(slice: &mut Slice) -> Option<FragmentSize> {
    while slice.journal.dirty_left > 0 {
        let at = *slice.dirty.front().expect("so many are left");
        match slice.index.get(at) {
            Some(fragment) if fragment.saved == Saved::Dirty => return Some(fragment.size),
            _ => drop(pop_unsaved(slice)),
        }
    }
    None
}

fn pop_unsaved(slice: &mut Slice) -> FragRef {
    slice.journal.dirty_left -= 1;
    slice.dirty.pop_front().expect("so many are left")
}

/// Writes the map of a fragment's whole span to memory, and names its new place.
fn save(slice: &mut Slice, at: FragRef, pool: u64, page: u32, mem: Mem, sink: &mut impl Sink) {
    let fragment = slice.index.held(at);
    let (span, size) = (Span::of(fragment.key), fragment.size);
    let written = u32::try_from(slice.journal.next_root.sequence & 0xffff_ffff).expect("32 bits");
    let blocks = size.blocks() as usize;
    let mut here: smallvec::SmallVec<[Option<FragRef>; 32]> = Default::default();
    for (key, _) in slice.index.seats(span) {
        let at = (key.start as usize * 16) % PAGE_BLOCKS / blocks;
        here.resize(at, None);
        here.push(slice.index.find(key));
    }
    for number in 0..Span::pages(size) {
        let unit = span.unit + number;
        let id = MapId { pool, slice: slice.id, volume: span.volume, unit, written };
        let out = sink.bytes_mut(mem.block(number), BLOCK_BYTES);
        encode(out, &id, |block| {
            let within = number as usize * PAGE_BLOCKS + block;
            let at = here.get(within / blocks).copied().flatten()?;
            let fragment = slice.index.get(at).expect("all of its span are here");
            fragment.authority(u32::try_from(within % blocks).expect("at most 4096"))
        });
    }
    if let Some((old, _)) = slice.index.page(span) {
        if planted(Bug::MapPageFreedEarly) {
            slice.pages.free(old, Span::pages(size));
        } else {
            slice.journal.superseded.push((old, Span::pages(size)));
        }
    }
    slice.index.set_page(span, page, written);
    for at in here.into_iter().flatten() {
        slice.index.held(at).saved = Saved::Writing;
        slice.journal.written.push(at);
    }
}
