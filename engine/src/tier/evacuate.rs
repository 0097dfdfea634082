//! Emptying a chunk of the fast tier.
//!
//! A slice that has no slot left needs a whole chunk, from whichever slice of
//! whichever core: single slots that come free here and there help only their
//! own slices. So where space is short, all fragments go that have a slot in
//! the chunk of the coldest one, and until they are gone none of its slots is
//! given out. What is held is tried again for a while.

use super::spill::{is_movable, is_seat_movable};
use crate::format::record::FragmentKey;
use crate::table::Table;
use crate::table::fragment::{FastSlot, Fragment};
use crate::table::seat::Seat;
use crate::table::sink::Sink;
use crate::table::slice::Slice;
use crate::table::space::DeviceGeometry;
use crate::units::{DeviceId, FragmentSize, SliceId};

/// Looks for what is left in a chunk, after which it is given up: another may be easier.
const ROUNDS: u8 = 100;

/// A chunk being emptied.
#[derive(Debug)]
pub(crate) struct Evacuation {
    slice: SliceId,
    device: DeviceId,
    chunk: u32,
    /// Of its fragments.
    size: FragmentSize,
    /// Fragments that have a slot in it and are still to be tried.
    left: Vec<FragmentKey>,
    /// Looks for more of them.
    rounds: u8,
}

/// The chunks that a fragment has fast slots in.
fn chunks<'a>(
    devices: &'a [DeviceGeometry],
    here: Option<&Fragment>,
    seat: &Seat,
    size: FragmentSize,
) -> impl Iterator<Item = (DeviceId, u32)> + 'a {
    let slot = |slot: &Option<FastSlot>| slot.as_ref().map(|slot| slot.slot);
    let slots = match here {
        Some(fragment) => [slot(&fragment.fast[0]), slot(&fragment.fast[1])],
        None => seat.placement(size).fast,
    };
    slots.into_iter().flatten().map(move |slot| {
        let device = &devices[usize::from(slot.device.get())];
        (slot.device, device.locate(slot, size).expect("a slot of this device").0)
    })
}

fn here(slice: &Slice, key: FragmentKey) -> Option<&Fragment> {
    slice.index.find(key).and_then(|at| slice.index.get(at))
}

impl Table {
    /// Begins to empty a chunk in which the fragment has a slot.
    pub(super) fn begin_evacuation(&mut self, id: SliceId, key: FragmentKey) {
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        let (seat, size) = slice.index.seat(key).expect("just seen");
        let found = chunks(&self.config.devices, here(slice, key), seat, size).next();
        let (device, chunk) = found.expect("what moves has a fast slot");
        slice.space[usize::from(device.get())].close(chunk);
        let (left, rounds) = (Vec::new(), ROUNDS);
        let evacuation = Evacuation { slice: id, device, chunk, size, left, rounds };
        self.tiering.evacuation = Some(evacuation);
        self.list_evacuees();
    }

    /// Lists the fragments that have a slot in the chunk.
    fn list_evacuees(&mut self) {
        let Some(evacuation) = &mut self.tiering.evacuation else { return };
        let slice = self.slices[usize::from(evacuation.slice.get())].as_ref().expect("ours");
        let target = (evacuation.device, evacuation.chunk);
        let inside = slice.index.all().filter_map(|(key, seat, size)| {
            let mut all = chunks(&self.config.devices, here(slice, key), seat, size);
            all.any(|chunk| chunk == target).then_some(key)
        });
        evacuation.left.extend(inside);
    }

    /// The next fragment of the chunk that can move.
    pub(super) fn next_to_evacuate<S: Sink>(&mut self, sink: &S) -> Option<(SliceId, FragmentKey)> {
        let room = self.evacuees_find_room(sink);
        let evacuation = self.tiering.evacuation.as_mut()?;
        let id = evacuation.slice;
        let slice = self.slices[usize::from(id.get())].as_ref().expect("ours");
        while let Some(key) = evacuation.left.pop() {
            let Some((seat, size)) = slice.index.seat(key) else { continue };
            let moves = match here(slice, key) {
                Some(fragment) => fragment.pins == 0 && is_movable(fragment, room, true),
                None => is_seat_movable(seat, size, room),
            };
            if moves {
                return Some((id, key));
            }
        }
        None
    }

    fn evacuees_find_room<S: Sink>(&self, sink: &S) -> bool {
        self.tiering.evacuation.as_ref().is_some_and(|evacuation| {
            let slice = self.slices[usize::from(evacuation.slice.get())].as_ref().expect("ours");
            self.cold_is_free(sink) || self.has_cold_slot(slice, evacuation.size)
        })
    }

    /// Looks for what was held or came since, and makes durable what has moved; gives a chunk
    /// up that does not get empty.
    pub(super) fn renew_evacuation<S: Sink>(&mut self, sink: &mut S) {
        let room = self.evacuees_find_room(sink);
        let Some(evacuation) = &mut self.tiering.evacuation else { return };
        let id = evacuation.slice;
        let busy = self.tiering.jobs.iter().flatten().any(|job| job.slice == id);
        if !evacuation.left.is_empty() {
            return;
        }
        evacuation.rounds -= u8::from(!busy);
        if evacuation.rounds == 0 || !room || self.slice(id).failed {
            return self.end_evacuation();
        }
        self.request_commit(id, sink);
        self.list_evacuees();
    }

    /// Leaves the chunk as it is.
    pub(super) fn end_evacuation(&mut self) {
        if let Some(Evacuation { slice, device, .. }) = self.tiering.evacuation.take() {
            self.slice(slice).space[usize::from(device.get())].open_all();
        }
    }

    /// A chunk of a slice is empty: it goes to the core that has asked for one, or to the pool.
    pub(crate) fn chunk_emptied<S: Sink>(&mut self, device: DeviceId, chunk: u32, sink: &mut S) {
        let emptied = |e: &mut Evacuation| (e.device, e.chunk) == (device, chunk);
        self.tiering.evacuation.take_if(emptied);
        self.hand_on(device, chunk, sink);
    }
}
