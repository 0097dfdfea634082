//! A buddy allocator over page numbers: the book-keeping of an arena.
//!
//! Invariants: a free run of order `o` starts at a multiple of `2^o`; two free
//! buddies of one order never coexist; all metadata (nine bytes a page) is
//! allocated at construction. It touches no memory of the pages themselves.

/// log2 of pages in the largest run: 16 MiB of 4 KiB pages.
pub const MAX_ORDER: u8 = 12;

const ORDERS: usize = MAX_ORDER as usize + 1;
const NONE: u32 = u32::MAX;
/// Page state: not the first page of any run.
const INNER: u8 = 0xff;
/// Page state: first page of a free run of order `state & !FREE`.
const FREE: u8 = 0x40;
/// Page state: first page of an allocated run of order `state & !USED`.
const USED: u8 = 0x80;

/// Free and allocated power-of-two runs among `pages` pages.
#[derive(Debug)]
pub struct Buddy {
    /// First free run of each order, or [`NONE`].
    heads: [u32; ORDERS],
    /// Bit `o` is set while `heads[o]` is not [`NONE`].
    nonempty: u32,
    state: Vec<u8>,
    next: Vec<u32>,
    prev: Vec<u32>,
    free_pages: u32,
}

impl Buddy {
    /// All of `pages` pages free.
    pub fn new(pages: u32) -> Self {
        assert!(pages > 0 && pages < NONE, "an arena has pages");
        let slots = pages as usize;
        let mut buddy = Buddy {
            heads: [NONE; ORDERS],
            nonempty: 0,
            state: vec![INNER; slots],
            next: vec![NONE; slots],
            prev: vec![NONE; slots],
            free_pages: pages,
        };
        let mut page = 0;
        while page < pages {
            let aligned = if page == 0 { u32::from(MAX_ORDER) } else { page.trailing_zeros() };
            let fits = (pages - page).ilog2();
            let order = aligned.min(fits).min(u32::from(MAX_ORDER));
            buddy.link(page, u8::try_from(order).expect("at most MAX_ORDER"));
            page += 1 << order;
        }
        buddy
    }

    /// Takes a run of `2^order` pages; its first page, or `None` if no run is large enough.
    pub fn alloc(&mut self, order: u8) -> Option<u32> {
        assert!(order <= MAX_ORDER, "runs are at most 16 MiB");
        let candidates = self.nonempty >> order;
        if candidates == 0 {
            return None;
        }
        let mut have = order + u8::try_from(candidates.trailing_zeros()).expect("below 32");
        let page = self.heads[have as usize];
        self.unlink(page, have);
        while have > order {
            have -= 1;
            self.link(page + (1 << have), have);
        }
        self.state[page as usize] = USED | order;
        self.free_pages -= 1 << order;
        Some(page)
    }

    /// Gives a run back and merges it with its free buddies.
    ///
    /// # Panics
    /// Unless exactly this run is allocated now.
    pub fn free(&mut self, page: u32, order: u8) {
        assert!(
            order <= MAX_ORDER && self.state.get(page as usize) == Some(&(USED | order)),
            "freed a run that is not allocated: page {page}, order {order}"
        );
        self.free_pages += 1 << order;
        let (mut page, mut order) = (page, order);
        while order < MAX_ORDER {
            let other = page ^ (1 << order);
            if self.state.get(other as usize) != Some(&(FREE | order)) {
                break;
            }
            self.unlink(other, order);
            self.state[page as usize] = INNER;
            page = page.min(other);
            order += 1;
        }
        self.link(page, order);
    }

    /// Pages in no allocated run.
    pub fn free_pages(&self) -> u32 {
        self.free_pages
    }

    /// Pages of the largest run that [`Buddy::alloc`] would grant; 0 if none.
    pub fn largest_free_pages(&self) -> u32 {
        self.nonempty.checked_ilog2().map_or(0, |order| 1 << order)
    }

    fn link(&mut self, page: u32, order: u8) {
        let head = self.heads[order as usize];
        self.state[page as usize] = FREE | order;
        self.next[page as usize] = head;
        self.prev[page as usize] = NONE;
        if head != NONE {
            self.prev[head as usize] = page;
        }
        self.heads[order as usize] = page;
        self.nonempty |= 1 << order;
    }

    fn unlink(&mut self, page: u32, order: u8) {
        let (next, prev) = (self.next[page as usize], self.prev[page as usize]);
        if next != NONE {
            self.prev[next as usize] = prev;
        }
        if prev == NONE {
            self.heads[order as usize] = next;
            if next == NONE {
                self.nonempty &= !(1 << order);
            }
        } else {
            self.next[prev as usize] = next;
        }
        self.state[page as usize] = INNER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[should_panic(expected = "not allocated")]
    fn double_free_is_caught() {
        let mut buddy = Buddy::new(64);
        let page = buddy.alloc(2).expect("free");
        buddy.free(page, 2);
        buddy.free(page, 2);
    }

    #[test]
    #[should_panic(expected = "not allocated")]
    fn free_of_a_part_is_caught() {
        let mut buddy = Buddy::new(64);
        let page = buddy.alloc(2).expect("free");
        buddy.free(page + 1, 0);
    }

    proptest! {
        /// Against a naive map of used pages: aligned, inside, never overlapping,
        /// refused only when no aligned hole exists, and whole again at the end.
        #[test]
        fn agrees_with_a_page_map(
            pages in 1u32..6000,
            steps in prop::collection::vec((0u8..=MAX_ORDER, any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut buddy = Buddy::new(pages);
            let whole = buddy.largest_free_pages();
            let mut used = vec![false; pages as usize];
            let mut held: Vec<(u32, u8)> = Vec::new();
            for (order, take, pick) in steps {
                let run = 1usize << order;
                if take {
                    match buddy.alloc(order) {
                        Some(page) => {
                            let range = page as usize..page as usize + run;
                            prop_assert_eq!(page as usize % run, 0);
                            prop_assert!(range.end <= used.len());
                            prop_assert!(used[range.clone()].iter().all(|u| !u));
                            used[range].fill(true);
                            held.push((page, order));
                        }
                        None => prop_assert!(used.chunks_exact(run).all(|c| c.contains(&true))),
                    }
                } else if !held.is_empty() {
                    let (page, order) = held.swap_remove(pick.index(held.len()));
                    buddy.free(page, order);
                    used[page as usize..page as usize + (1 << order)].fill(false);
                }
                let free = used.iter().filter(|u| !**u).count();
                prop_assert_eq!(buddy.free_pages() as usize, free);
            }
            for (page, order) in held {
                buddy.free(page, order);
            }
            prop_assert_eq!(buddy.free_pages(), pages);
            prop_assert_eq!(buddy.largest_free_pages(), whole);
        }
    }
}
