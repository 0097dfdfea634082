//! Commands under way on a queue, by slot.
//!
//! A slot's number and how often it was used make the CID, so that an answer to a command
//! that is over already is told from one to its successor. Nothing is allocated after the
//! slots are made.

use std::time::Instant;

use super::memory::{Data, Tag};
use crate::CompletionEntry;

/// Bits of a CID that hold the slot's number.
const NUMBER_BITS: u32 = 10;
/// Most commands under way on a queue.
pub const MAX_DEPTH: u16 = 1 << NUMBER_BITS;

/// What the controller asked for and has not been sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub ttag: u16,
    pub at: u32,
    pub left: u32,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub tag: Tag,
    pub data: Data,
    /// Bytes received, or sent and asked for.
    pub moved: u32,
    /// LAST has come.
    pub whole: bool,
    /// A data digest was wrong.
    pub spoilt: bool,
    pub wanted: Option<Wanted>,
    /// Pieces of its data that wait to be sent.
    pub queued: u16,
    /// Its completion came while data of it waited.
    pub held: Option<CompletionEntry>,
    pub since: Instant,
}

impl Slot {
    fn new(tag: Tag, data: Data, since: Instant) -> Slot {
        Slot {
            tag,
            data,
            moved: 0,
            whole: false,
            spoilt: false,
            wanted: None,
            queued: 0,
            held: None,
            since,
        }
    }

    /// The bytes of the command may still be sent.
    pub fn is_sending(&self) -> bool {
        self.queued > 0 || self.wanted.is_some()
    }
}

/// All slots of a queue.
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    uses: Vec<u16>,
    free: Vec<u16>,
}

impl Slots {
    pub fn new(depth: u16) -> Slots {
        assert!((1..=MAX_DEPTH).contains(&depth), "a CID has {NUMBER_BITS} bits for slots");
        Slots {
            slots: vec![None; depth.into()],
            uses: vec![0; depth.into()],
            free: (0..depth).rev().collect(),
        }
    }

    pub fn depth(&self) -> u16 {
        u16::try_from(self.slots.len()).expect("at most 1024")
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a slot for a command: its number and CID.
    pub fn take(&mut self, tag: Tag, data: Data, now: Instant) -> Option<(u16, u16)> {
        let number = self.free.pop()?;
        let uses = &mut self.uses[usize::from(number)];
        *uses = uses.wrapping_add(1);
        let old = self.slots[usize::from(number)].replace(Slot::new(tag, data, now));
        assert!(old.is_none(), "a free slot is empty");
        Some((number, self.cid(number)))
    }

    /// The CID of the command in a slot.
    pub fn cid(&self, number: u16) -> u16 {
        number | self.uses[usize::from(number)] << NUMBER_BITS
    }

    /// The slot of the command of this identifier; `None` if none is under way.
    pub fn find(&self, cid: u16) -> Option<u16> {
        let number = cid & (MAX_DEPTH - 1);
        let busy = self.slots.get(usize::from(number))?.is_some();
        (busy && self.cid(number) == cid).then_some(number)
    }

    pub fn get(&self, number: u16) -> &Slot {
        self.slots[usize::from(number)].as_ref().expect("a busy slot")
    }

    pub fn get_mut(&mut self, number: u16) -> &mut Slot {
        self.slots[usize::from(number)].as_mut().expect("a busy slot")
    }

    /// Frees a slot.
    pub fn release(&mut self, number: u16) -> Slot {
        let slot = self.slots[usize::from(number)].take().expect("a busy slot");
        self.free.push(number);
        slot
    }

    /// Everything under way.
    pub fn busy(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_identifier_finds_nothing() {
        let now = Instant::now();
        let mut slots = Slots::new(2);
        let (first, cid) = slots.take(Tag(1), Data::None, now).unwrap();
        let (second, other) = slots.take(Tag(2), Data::None, now).unwrap();
        assert!(slots.take(Tag(3), Data::None, now).is_none());
        assert_eq!((slots.find(cid), slots.find(other)), (Some(first), Some(second)));
        assert_eq!(slots.release(first).tag, Tag(1));
        assert_eq!(slots.find(cid), None);
        let (again, next) = slots.take(Tag(3), Data::None, now).unwrap();
        assert_eq!(again, first);
        assert_ne!(next, cid);
        assert_eq!((slots.find(cid), slots.find(next)), (None, Some(first)));
        assert_eq!(slots.find(2), None, "beyond the slots");
        assert_eq!(slots.busy().map(|slot| slot.tag).collect::<Vec<_>>(), [Tag(3), Tag(2)]);
    }

    #[test]
    fn uses_wrap_around_without_touching_the_number() {
        let mut slots = Slots::new(MAX_DEPTH);
        for _ in 0..200 {
            let (number, cid) = slots.take(Tag(0), Data::None, Instant::now()).unwrap();
            assert_eq!(cid & (MAX_DEPTH - 1), number);
            assert_eq!(slots.find(cid), Some(number));
            slots.release(number);
        }
    }
}
