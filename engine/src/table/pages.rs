//! Map pages of one slice: which are free, in the extents that the slice owns.
//!
//! An extent is 16 pages. Nothing of this is on disk: the seats say which
//! pages are used. A page must be given back only when no checkpoint that
//! recovery could start from names it.

use std::collections::BTreeMap;

/// Pages in an extent.
pub const EXTENT_PAGES: u32 = 16;

/// The map pages of a slice.
#[derive(Debug, Default)]
pub struct Pages {
    /// Used pages, one bit each, by extent.
    extents: BTreeMap<u32, u16>,
    used: u32,
}

fn mask(first: u32, count: u32) -> u16 {
    assert!(count >= 1 && first + count <= EXTENT_PAGES);
    u16::try_from(((1u32 << count) - 1) << first).expect("16 bits")
}

impl Pages {
    /// Marks pages that recovery found in use; false if one is taken or they cross an extent.
    pub fn adopt(&mut self, page: u32, count: u32) -> bool {
        let first = page % EXTENT_PAGES;
        if first + count > EXTENT_PAGES {
            return false;
        }
        let used = self.extents.entry(page / EXTENT_PAGES).or_default();
        let fresh = *used & mask(first, count) == 0;
        if fresh {
            *used |= mask(first, count);
            self.used += count;
        }
        fresh
    }

    /// A run of at least `least` and at most `most` free pages: the first and how many.
    pub fn alloc(&mut self, least: u32, most: u32) -> Option<(u32, u32)> {
        for (extent, used) in &mut self.extents {
            let mut first = 0;
            while first < EXTENT_PAGES {
                let rest = u32::from(*used >> first) | 1 << (EXTENT_PAGES - first);
                let free = rest.trailing_zeros().min(most);
                if free >= least {
                    *used |= mask(first, free);
                    self.used += free;
                    return Some((extent * EXTENT_PAGES + first, free));
                }
                first += rest.trailing_zeros() + 1;
            }
        }
        None
    }

    /// Gives pages back.
    pub fn free(&mut self, page: u32, count: u32) {
        let bits = mask(page % EXTENT_PAGES, count);
        let used = self.extents.get_mut(&(page / EXTENT_PAGES)).expect("an extent of this slice");
        assert!(*used & bits == bits, "map page {page} freed twice");
        *used &= !bits;
        self.used -= count;
    }

    /// Adds an extent, all free.
    pub fn add(&mut self, extent: u32) {
        assert!(self.extents.insert(extent, 0).is_none(), "extent {extent} was given twice");
    }

    /// Takes a wholly free extent out, if that leaves at least `keep` pages.
    pub fn spare(&mut self, keep: u32) -> Option<u32> {
        if self.capacity() < keep + EXTENT_PAGES {
            return None;
        }
        let (extent, _) = self.extents.iter().rev().find(|(_, used)| **used == 0)?;
        let extent = *extent;
        self.extents.remove(&extent);
        Some(extent)
    }

    /// Pages in all extents.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.extents.len()).expect("fewer than 2^28 extents") * EXTENT_PAGES
    }

    /// Used pages.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// The extents of this slice.
    pub fn extents(&self) -> impl Iterator<Item = u32> + '_ {
        self.extents.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_between_used_pages() {
        let mut pages = Pages::default();
        assert_eq!(pages.alloc(1, 4), None);
        pages.add(3);
        assert!(pages.adopt(3 * 16 + 2, 1) && !pages.adopt(3 * 16 + 1, 2));
        assert!(!pages.adopt(3 * 16 + 15, 2));
        assert_eq!(pages.alloc(3, 16), Some((51, 13)));
        assert_eq!(pages.alloc(2, 8), Some((48, 2)));
        assert_eq!((pages.alloc(1, 1), pages.used()), (None, 16));
        pages.free(51, 4);
        assert_eq!(pages.alloc(4, 16), Some((51, 4)));
        pages.add(9);
        assert_eq!((pages.spare(17), pages.spare(16)), (None, Some(9)));
    }
}
