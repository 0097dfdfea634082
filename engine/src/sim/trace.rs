//! The history of a run, kept only when somebody will read it.
//!
//! A run that fails is made again with a trace: runs are exact.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::playground::PER_BLOCK;
use crate::device::sim::SECTOR_BYTES;
use crate::units::VolumeId;
use crate::volume::placement::slice_of;

/// What an event touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touches {
    /// The whole world.
    All,
    /// Sectors of a volume.
    Sectors(VolumeId, std::ops::Range<u64>),
    /// A slice's journal or checkpoint.
    Slice(u16),
    /// Something else.
    Other,
}

struct Event {
    step: u64,
    touches: Touches,
    text: String,
}

/// A history; clones share it.
#[derive(Clone, Default)]
pub struct Trace(Option<Rc<RefCell<Vec<Event>>>>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", self.0.as_ref().map_or(0, |events| events.borrow().len()))
    }
}

/// Blocks of a volume, as sectors.
pub(super) fn sectors_of(blocks: std::ops::Range<u64>) -> std::ops::Range<u64> {
    blocks.start * PER_BLOCK..blocks.end * PER_BLOCK
}

impl Trace {
    /// A trace that keeps what it is told.
    pub fn kept() -> Self {
        Trace(Some(Rc::default()))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of an event; `what` is asked only if somebody listens.
    pub(super) fn tell(&self, step: u64, what: impl FnOnce() -> (Touches, String)) {
        if let Some(events) = &self.0 {
            let (touches, text) = what();
            events.borrow_mut().push(Event { step, touches, text });
        }
    }

    /// Everything, a line for each event.
    pub fn all(&self) -> Vec<String> {
        self.lines(|_| true)
    }

    /// The last `count` events that touch the block with these sectors, or the whole world; if
    /// there are none such sectors, the last events.
    pub fn touching(
        &self,
        sectors: Option<(VolumeId, std::ops::Range<u64>)>,
        count: usize,
    ) -> Vec<String> {
        let lines = self.lines(|touches| match (&sectors, touches) {
            (None, _) | (_, Touches::All) => true,
            (Some((volume, range)), Touches::Sectors(of, touched)) => {
                let block = range.start / PER_BLOCK * PER_BLOCK;
                let end = range.end.next_multiple_of(PER_BLOCK);
                volume == of && touched.start < end && block < touched.end
            }
            (Some((volume, range)), Touches::Slice(slice)) => {
                slice_of(*volume, range.start * SECTOR_BYTES as u64).get() == *slice
            }
            (Some(_), Touches::Other) => false,
        });
        let skip = lines.len().saturating_sub(count);
        lines.into_iter().skip(skip).collect()
    }

    fn lines(&self, wanted: impl Fn(&Touches) -> bool) -> Vec<String> {
        let Some(events) = &self.0 else { return Vec::new() };
        let events = events.borrow();
        let wanted = events.iter().filter(|event| wanted(&event.touches));
        wanted.map(|event| format!("{:>7}  {}", event.step, event.text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_can_be_cut_down_to_a_block() {
        let (one, two) = (VolumeId::new(1), VolumeId::new(2));
        let trace = Trace::kept();
        let tell = |step, touches| trace.tell(step, || (touches, format!("event {step}")));
        tell(1, Touches::Sectors(one, 0..8));
        tell(2, Touches::Sectors(one, 8..16));
        tell(3, Touches::Sectors(two, 0..8));
        tell(4, Touches::All);
        tell(5, Touches::Other);
        let steps = |lines: Vec<String>| {
            let number = |line: &String| line.trim().split(' ').next().map(str::to_owned);
            lines.iter().filter_map(number).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(steps(trace.touching(Some((one, 3..4)), 9)), "1 4");
        assert_eq!(steps(trace.touching(Some((one, 3..9)), 2)), "2 4");
        assert_eq!(steps(trace.touching(None, 2)), "4 5");
        assert_eq!(trace.all().len(), 5);
        Trace::default().tell(1, || unreachable!("nobody listens"));
    }
}
