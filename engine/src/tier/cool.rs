//! Cooling: a volume goes to the cold tier because somebody said so.
//!
//! One walk over the fragments that are there, each tried once; what was held
//! or written meanwhile is tried again in a few more walks. So it ends, however
//! much is written at the same time: what is in use then stays.

use super::spill::{is_movable, is_seat_movable};
use crate::format::record::FragmentKey;
use crate::table::Table;
use crate::table::fragment::Fragment;
use crate::table::index::Cursor;
use crate::table::sink::Sink;
use crate::units::{Nanos, SliceId, VolumeId};

/// Walks in all.
const WALKS: u8 = 4;
/// Pause before each but the first: what holds fragments should have ended then.
const PAUSE_NS: u64 = 100_000_000;
/// Fragments that one step visits.
const STEP: usize = 4096;

/// A volume being cooled.
#[derive(Debug)]
pub(crate) struct Cooling {
    pub(super) volume: VolumeId,
    slice: usize,
    cursor: Cursor,
    /// Where the slice's walk ends: what is made behind it does not prolong it.
    end: Option<Cursor>,
    walks: u8,
    next_walk: Nanos,
    /// Something was held or changed: it may move the next time.
    pub(super) again: bool,
}

impl Cooling {
    fn new(volume: VolumeId) -> Self {
        Self {
            volume,
            slice: 0,
            cursor: Cursor::default(),
            end: None,
            walks: 1,
            next_walk: Nanos::new(0),
            again: false,
        }
    }
}

impl Table {
    /// Moves a volume to the cold tier, its clean fast copies and stages gone.
    ///
    /// Begins what can be begun and returns whether it goes on: call it again until
    /// it returns false. What is in use all the time, or finds no cold space, stays.
    pub fn cool<S: Sink>(&mut self, volume: VolumeId, sink: &mut S) -> bool {
        if !self.has_cold() {
            return false;
        }
        if self.tiering.cooling.as_ref().is_none_or(|cooling| cooling.volume != volume) {
            self.tiering.cooling = Some(Cooling::new(volume));
        }
        self.evict_stages_of(volume, sink);
        self.evict_copies_of(volume);
        self.spill_on(false, sink);
        let goes_on = self.cooling_goes_on();
        if !goes_on {
            self.tiering.cooling = None;
        }
        self.settle(sink);
        goes_on
    }

    /// False when the last walk has ended, and all that it began.
    fn cooling_goes_on(&mut self) -> bool {
        let spilling = self.tiering.is_copying() || self.tiering.starved;
        let slices = self.slices.len();
        let Some(cooling) = &self.tiering.cooling else { return false };
        if cooling.slice < slices || spilling {
            return true;
        }
        let held = |f: &Fragment| f.pins > 0 && (f.is_warm() || f.stage.is_some());
        let again = cooling.again || self.here_of(cooling.volume).any(held);
        if !again || cooling.walks == WALKS {
            return false;
        }
        let next = Cooling {
            walks: cooling.walks + 1,
            next_walk: self.now.after(PAUSE_NS),
            ..Cooling::new(cooling.volume)
        };
        self.tiering.cooling = Some(next);
        true
    }

    /// The next fragment of the walk that can move.
    pub(super) fn next_to_cool<S: Sink>(&mut self, sink: &S) -> Option<(SliceId, FragmentKey)> {
        let mut cooling = self.tiering.cooling.take_if(|cooling| self.now >= cooling.next_walk)?;
        let found = self.walk_on(&mut cooling, sink);
        self.tiering.cooling = Some(cooling);
        found
    }

    fn walk_on<S: Sink>(&self, cooling: &mut Cooling, sink: &S) -> Option<(SliceId, FragmentKey)> {
        let cold = self.cold_is_free(sink);
        for _ in 0..STEP {
            let slice = self.slices.get(cooling.slice)?.as_ref().filter(|slice| !slice.failed);
            let end = slice.map(|slice| *cooling.end.get_or_insert(slice.index.end()));
            let found = slice
                .and_then(|slice| Some((slice, slice.index.walk(cooling.cursor)?)))
                .filter(|(_, (.., next))| Some(*next) < end);
            let Some((slice, (key, seat, size, next))) = found else {
                cooling.slice += 1;
                cooling.cursor = Cursor::default();
                cooling.end = None;
                continue;
            };
            cooling.cursor = next;
            if key.volume != cooling.volume {
                continue;
            }
            let room = cold || self.has_cold_slot(slice, size);
            let here = slice.index.find(key).and_then(|at| slice.index.get(at));
            let moves = match here {
                Some(f) => is_movable(f, room, false),
                None => is_seat_movable(seat, size, room),
            };
            let held = here.is_some_and(|fragment| fragment.pins > 0);
            cooling.again |= moves && held;
            if moves && !held {
                return Some((slice.id, key));
            }
        }
        None
    }
}
