//! Reads a table's checkpoint from both copies, and mends the one that the other proves wrong.

use super::io::PoolIo;
use super::parts::{DamagedCopy, TableId, TablePart};
use super::recover::RecoverError;
use super::state::State;
use crate::format::checkpoint::{Root, open_page};
use crate::format::layout::MetaLayout;
use crate::table::index::Span;
use crate::units::BLOCK_BYTES;

/// A table that is being read.
pub(super) struct Reader<'a> {
    pub io: &'a mut dyn PoolIo,
    pub meta: &'a MetaLayout,
    pub id: TableId,
    pub repair: bool,
    pub damaged: &'a mut Vec<DamagedCopy>,
}

impl Reader<'_> {
    pub fn read(&mut self, copy: usize, at: u64, buf: &mut [u8]) -> Result<(), RecoverError> {
        let (device, offset) = self.meta.place(copy, at);
        Ok(self.io.read(device, offset, buf)?)
    }

    pub fn mend(
        &mut self,
        part: TablePart,
        copy: usize,
        at: u64,
        good: &[u8],
    ) -> Result<(), RecoverError> {
        let (device, offset) = self.meta.place(copy, at);
        self.damaged.push(DamagedCopy { part, copy, device, offset });
        if self.repair {
            self.io.write(device, offset, good)?;
            self.io.flush(device)?;
        }
        Ok(())
    }

    /// The newest valid root of either position and copy; true if the other position has none.
    pub fn root(&mut self) -> Result<(Root, bool), RecoverError> {
        let mut best: Option<Root> = None;
        let mut alone = false;
        for which in 0..2 {
            let at = self.meta.root(self.id.slice, which);
            let mut blocks = [[0; BLOCK_BYTES]; 2];
            let mut roots = [None, None];
            for copy in 0..2 {
                self.read(copy, at, &mut blocks[copy])?;
                let root = Root::decode(&blocks[copy], self.id.pool, self.id.slice).ok();
                // One that strayed from the other position must not be mended into this one.
                roots[copy] = root.filter(|root| root.sequence % 2 == which);
            }
            let sequence = |root: &Option<Root>| root.as_ref().map(|root| root.sequence);
            let newest = usize::from(sequence(&roots[1]) > sequence(&roots[0]));
            alone |= roots[newest].is_none();
            if roots[0] != roots[1] && roots[newest].is_some() {
                self.mend(TablePart::Root(which), 1 - newest, at, &blocks[newest])?;
            }
            if sequence(&roots[newest]) > sequence(&best) {
                best = roots[newest].take();
            }
        }
        let root = best.ok_or(RecoverError::NoRoot { slice: self.id.slice })?;
        Ok((root, alone))
    }

    pub fn pages(&mut self, root: &Root, state: &mut State) -> Result<(), RecoverError> {
        let per_extent = u64::from(self.meta.extent_bytes) / BLOCK_BYTES as u64;
        let mut copies = [0, 1].map(|_| vec![0; self.meta.extent_bytes as usize]);
        for first in (0..root.pages).step_by(usize::try_from(per_extent).expect("few pages")) {
            let (slice, sequence) = (self.id.slice, root.sequence);
            let damaged = |page| RecoverError::Page { slice, sequence, page };
            let number = usize::try_from(first / per_extent).expect("a root names few extents");
            let extent = root.extents.get(number).filter(|extent| **extent < self.meta.extents);
            let at = self.meta.extent(*extent.ok_or_else(|| damaged(first))?);
            let count = usize::try_from(per_extent.min(root.pages - first)).expect("few pages");
            for (copy, bytes) in copies.iter_mut().enumerate() {
                self.read(copy, at, &mut bytes[..count * BLOCK_BYTES])?;
            }
            for (page, within) in (first..).zip(0..count) {
                let bytes = within * BLOCK_BYTES..(within + 1) * BLOCK_BYTES;
                let both = [&copies[0][bytes.clone()], &copies[1][bytes.clone()]];
                let index = u32::try_from(page).unwrap_or(u32::MAX);
                let pool = self.id.pool;
                let open = |block| open_page(block, pool, slice, sequence, index).ok();
                let at = at + bytes.start as u64;
                let part = TablePart::Page(page);
                let records = match [open(both[0]), open(both[1])] {
                    [Some(records), Some(_)] => records,
                    [Some(records), None] => {
                        self.mend(part, 1, at, both[0])?;
                        records
                    }
                    [None, Some(records)] => {
                        self.mend(part, 0, at, both[1])?;
                        records
                    }
                    [None, None] => return Err(damaged(page)),
                };
                self.apply(state, records, true)?;
            }
        }
        let outside = |page: u32, size| page.saturating_add(Span::pages(size)) > self.meta.pages();
        let mut seats = state.fragments.all();
        if seats.any(|(_, seat, size)| seat.page().is_some_and(|page| outside(page, size))) {
            let what = "a map page outside the zone";
            return Err(RecoverError::Record { slice: self.id.slice, what });
        }
        Ok(())
    }

    pub fn apply(
        &self,
        state: &mut State,
        records: &[u8],
        fuzzy: bool,
    ) -> Result<(), RecoverError> {
        state
            .apply(records, fuzzy)
            .map_err(|what| RecoverError::Record { slice: self.id.slice, what })
    }
}
