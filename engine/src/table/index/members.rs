//! Fragments are made, come into memory, leave it and end.

use super::address::{position, seats_of, segment_of};
use super::{FragRef, Fragment, Index, Slot, Span};
use crate::format::record::{FragmentKey, Mapped, Placement};
use crate::table::seat::{Seat, fits};
use crate::table::trim::VolumeUsage;
use crate::units::{FragmentSize, VolumeId};

impl Index {
    /// A seat that recovery found. `None` if its segment has fragments of another size, or it
    /// is taken, or no device has such slots.
    pub fn adopt(
        &mut self,
        key: FragmentKey,
        placement: &Placement,
        mapped: &Mapped,
    ) -> Option<()> {
        let at = position(key, placement.size).filter(|_| fits(placement))?;
        let others = self.seats(Span::of(key)).next().is_some();
        let segment = self.segments.make(segment_of(key), placement.size);
        if segment.size != placement.size || segment.seat(at).is_ok() {
            return None;
        }
        let mut seat = Seat::new(at, placement);
        seat.set_page(mapped.page, mapped.written);
        (seat.present, seat.cold_blocks) = (mapped.present, mapped.cold_blocks);
        segment.add(seat);
        self.live += 1;
        self.map_pages += if others { 0 } else { Span::pages(placement.size) };
        let usage = self.usage.entry(key.volume).or_default();
        usage.fragments += 1;
        usage.count(seat.present, seat.cold_blocks);
        Some(())
    }

    /// Replaces the placement of a fragment that is away.
    pub fn replace_placement(&mut self, key: FragmentKey, placement: &Placement) {
        self.seat_mut(key).expect("a fragment that exists").set_placement(placement);
    }

    /// Adds a fragment with no blocks. The others of its span are here.
    ///
    /// Returns `None` if its segment has fragments of another size, or it exists.
    pub fn insert(&mut self, key: FragmentKey, size: FragmentSize) -> Option<FragRef> {
        assert!(self.is_here(Span::of(key)), "a fragment joins a span that is here");
        let fragment = Fragment::new(key, size, 0);
        let none = Mapped { page: None, written: 0, present: 0, cold_blocks: 0 };
        self.adopt(key, &fragment.placement(), &none)?;
        Some(self.bring(fragment))
    }

    /// A fragment that is away comes into memory.
    pub fn bring(&mut self, mut fragment: Fragment) -> FragRef {
        let (seat, _) = self.seat(fragment.key).expect("a fragment has a seat");
        fragment.accounted = (seat.present.into(), seat.cold_blocks.into());
        self.next_uid = self.next_uid.wrapping_add(1);
        fragment.uid = self.next_uid;
        self.here_bytes += fragment.heap_bytes();
        self.here += 1;
        let key = fragment.key;
        let slot = Slot { fragment: Some(Box::new(fragment)), uid: self.next_uid };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.fragments[index as usize] = slot;
                index
            }
            None => {
                self.fragments.push(slot);
                u32::try_from(self.fragments.len() - 1).expect("fewer than 2^32 fragments")
            }
        };
        let seat = self.seat_mut(key).expect("a fragment has a seat");
        assert!(seat.here().is_none(), "a fragment comes once");
        seat.set_here(Some(index));
        FragRef { index, uid: self.next_uid }
    }

    /// A fragment leaves memory; its map is on the device.
    pub fn send_away(&mut self, at: FragRef) {
        self.account(at);
        let fragment = self.vacate(at);
        let seat = self.seat_mut(fragment.key).expect("a fragment has a seat");
        assert!(seat.page().is_some(), "its map is on the device");
        seat.set_placement(&fragment.placement());
        seat.set_last_use(fragment.last_use);
        seat.stuck = fragment.stuck;
        seat.set_here(None);
    }

    fn vacate(&mut self, at: FragRef) -> Box<Fragment> {
        let slot = &mut self.fragments[at.index as usize];
        let fragment = slot.fragment.take().expect("a live fragment");
        assert!(slot.uid == at.uid && fragment.pins == 0, "fragment in use");
        self.vacant.push(at.index);
        self.here_bytes -= fragment.heap_bytes();
        self.here -= 1;
        fragment
    }

    /// Removes a fragment that nothing holds, and its map page if no other fragment needs it.
    pub fn remove(&mut self, at: FragRef) -> (Box<Fragment>, Option<u32>) {
        self.account(at);
        let fragment = self.vacate(at);
        let page = self.unseat(fragment.key);
        (fragment, page)
    }

    /// Removes a fragment that is away; its placement, and its map page if none else needs it.
    pub fn remove_away(&mut self, key: FragmentKey) -> (Placement, Option<u32>) {
        let (seat, size) = self.seat(key).expect("a fragment that exists");
        assert!(seat.here().is_none(), "a fragment that is away");
        let placement = seat.placement(size);
        (placement, self.unseat(key))
    }

    fn unseat(&mut self, key: FragmentKey) -> Option<u32> {
        let (name, span) = (segment_of(key), Span::of(key));
        let segment = self.segments.get_mut(name).expect("its segment lives");
        let size = segment.size;
        let seat = segment.take(position(key, size).expect("it was found there"));
        let range = seats_of(segment, span);
        let (left, empty) = (&segment.seats[range], segment.seats.is_empty());
        let page = seat.page().filter(|page| left.iter().all(|o| o.page() != Some(*page)));
        if left.is_empty() {
            self.map_pages -= Span::pages(size);
            self.pending.remove(&span);
        }
        if empty {
            self.segments.remove(name);
        }
        self.live -= 1;
        let usage = self.usage.get_mut(&key.volume).expect("it was counted");
        usage.fragments -= 1;
        usage.discount(seat.present, seat.cold_blocks);
        if usage.fragments == 0 {
            self.usage.remove(&key.volume);
        }
        page
    }

    /// Brings the seat's counts up to date with the fragment's.
    pub fn account(&mut self, at: FragRef) {
        let fragment = self.get_mut(at).expect("a fragment that is here");
        let now = (fragment.present, fragment.cold_blocks);
        if std::mem::replace(&mut fragment.accounted, now) == now {
            return;
        }
        let short = |blocks: u32| u16::try_from(blocks).expect("at most 4096");
        let (key, present, cold) = (fragment.key, fragment.present, fragment.cold_blocks);
        let (present, cold) = (short(present), short(cold));
        let seat = self.seat_mut(key).expect("a fragment has a seat");
        let old = (seat.present, seat.cold_blocks);
        if old != (present, cold) {
            (seat.present, seat.cold_blocks) = (present, cold);
            let usage = self.usage.get_mut(&key.volume).expect("it was counted");
            usage.discount(old.0, old.1);
            usage.count(present, cold);
        }
    }

    /// What a volume takes.
    pub fn usage(&self, volume: VolumeId) -> VolumeUsage {
        self.usage.get(&volume).copied().unwrap_or_default()
    }

    /// A fragment that is away cannot be spilled.
    pub fn mark_stuck(&mut self, key: FragmentKey) {
        if let Some(seat) = self.seat_mut(key) {
            seat.stuck = true;
        }
    }
}
