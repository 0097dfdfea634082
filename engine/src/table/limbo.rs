//! Epoch-based reclamation of places and slots that readers may still use.
//!
//! Every device read is counted in the era in which it started. Something
//! freed in an era may be reused once all reads of that era and the one before
//! have ended. At most two eras are open at a time.

use super::entry::{Place, SlotRef};
use super::fragment::FragRef;
use crate::planted::{Bug, planted};
use crate::units::FragmentSize;

/// Something to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// A block of a fragment's fast slot, which is named too.
    Place(FragRef, Place, SlotRef),
    /// A whole slot.
    Slot(SlotRef, FragmentSize),
    /// Map pages: the first and how many.
    Pages(u32, u32),
}

/// Readers by era, and what waits for them.
#[derive(Debug, Default)]
pub struct Limbo {
    current: usize,
    readers: [u32; 2],
    /// Freed in the era before the current one, and in the current one.
    waiting: [Vec<Freed>; 2],
}

impl Limbo {
    /// A read starts; its era is to be returned with [`Limbo::leave`].
    pub fn enter(&mut self) -> usize {
        self.readers[self.current] += 1;
        self.current
    }

    /// A read that started in `era` has ended.
    pub fn leave(&mut self, era: usize) {
        assert!(self.readers[era] > 0);
        self.readers[era] -= 1;
    }

    /// Something is free as far as records are concerned.
    pub fn push(&mut self, freed: Freed) {
        self.waiting[1].push(freed);
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(Vec::is_empty)
    }

    /// True if a whole slot waits.
    pub fn has_slot(&self) -> bool {
        self.waiting.iter().flatten().any(|freed| matches!(freed, Freed::Slot(..)))
    }

    /// Moves everything that no reader can need any more to `out`.
    pub fn drain(&mut self, out: &mut Vec<Freed>) {
        let ignored = planted(Bug::SlotReusedUnderRead);
        while !self.is_empty() && (ignored || self.readers[1 - self.current] == 0) {
            out.append(&mut self.waiting[0]);
            self.waiting.swap(0, 1);
            self.current = 1 - self.current;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceId;

    #[test]
    fn a_slot_waits_for_the_readers_that_could_see_it() {
        let freed =
            |block| Freed::Slot(SlotRef { device: DeviceId::new(0), block }, FragmentSize::MIN);
        let mut limbo = Limbo::default();
        let mut out = Vec::new();
        let old = limbo.enter();
        limbo.push(freed(1));
        limbo.drain(&mut out);
        assert!(out.is_empty(), "a reader is inside");
        let new = limbo.enter();
        assert_ne!(old, new, "later readers belong to the next era");
        limbo.leave(old);
        limbo.push(freed(2));
        limbo.drain(&mut out);
        assert_eq!(out, [freed(1)], "the new reader started after 1 was freed");
        limbo.leave(new);
        limbo.drain(&mut out);
        assert_eq!(out, [freed(1), freed(2)]);
        assert!(limbo.is_empty());
    }
}
