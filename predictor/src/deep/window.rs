//! The crossings whose candidates' outcomes are not known yet.
#![forbid(unsafe_code)]

use super::State;
use super::inputs::{CandidateRows, ContextRows};
use super::layout::CANDIDATES;

/// Crossings kept; the oldest makes room.
const KEPT: usize = 2048;

/// A candidate, and whether it came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub rows: CandidateRows,
    pub came: bool,
}

/// A crossing as it is learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Crossing {
    pub(super) client: u64,
    /// When it was.
    at: u64,
    pub(super) rows: ContextRows,
    /// What the encoder remembered of the client before it.
    pub(super) state: State,
    samples: [Sample; CANDIDATES],
    len: u8,
}

impl Crossing {
    /// Whether each of its candidates came.
    pub fn outcomes(&self) -> impl Iterator<Item = bool> {
        self.samples().iter().map(|sample| sample.came)
    }

    pub(super) fn samples(&self) -> &[Sample] {
        &self.samples[..usize::from(self.len)]
    }
}

/// A candidate of a crossing in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Its serial number, modulo 2^32.
    crossing: u32,
    sample: u8,
}

/// A bounded queue of crossings.
#[derive(Debug)]
pub struct Window {
    ring: Vec<Crossing>,
    /// Serial numbers of the oldest crossing kept, and of the next.
    oldest: u64,
    next: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// Memory of a window, all of it allocated at once.
    pub const BYTES: usize = size_of::<Crossing>() * KEPT;

    /// An empty one.
    pub fn new() -> Window {
        Window { ring: vec![Crossing::default(); KEPT], oldest: 0, next: 0 }
    }

    /// A client crosses at `now`, with this state of it before; times do not decrease. If
    /// nobody has taken the oldest crossing of a full window, it is lost.
    pub fn open(&mut self, client: u64, now: u64, rows: ContextRows, state: State) {
        if self.is_full() {
            self.oldest += 1;
        }
        self.ring[place(self.next)] =
            Crossing { client, at: now, rows, state, ..Crossing::default() };
        self.next += 1;
    }

    /// Adds a candidate to the newest crossing.
    ///
    /// # Panics
    /// If there is no crossing, or it has [`CANDIDATES`] candidates.
    pub fn add(&mut self, rows: CandidateRows) -> Tag {
        assert!(self.oldest < self.next, "a crossing is opened first");
        let newest = &mut self.ring[place(self.next - 1)];
        newest.samples[usize::from(newest.len)] = Sample { rows, came: false };
        newest.len += 1;
        Tag { crossing: low(self.next - 1), sample: newest.len - 1 }
    }

    /// A candidate has come, if the window still has it.
    pub fn came(&mut self, tag: Tag) {
        let age = u64::from(low(self.next).wrapping_sub(tag.crossing));
        if (1..=self.next - self.oldest).contains(&age) {
            let sample = usize::from(tag.sample);
            self.ring[place(self.next - age)].samples[sample].came = true;
        }
    }

    /// Takes the oldest crossing, if it was before `until` or its room is needed: what has
    /// not come by then, has not come.
    pub fn settled(&mut self, until: u64) -> Option<&Crossing> {
        if self.oldest == self.next {
            return None;
        }
        if self.ring[place(self.oldest)].at >= until && !self.is_full() {
            return None;
        }
        self.oldest += 1;
        Some(&self.ring[place(self.oldest - 1)])
    }

    fn is_full(&self) -> bool {
        self.next - self.oldest == KEPT as u64
    }
}

fn place(serial: u64) -> usize {
    usize::try_from(serial % KEPT as u64).expect("a place in the ring")
}

/// A serial number in 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is meant")]
fn low(serial: u64) -> u32 {
    serial as u32
}

#[cfg(test)]
mod tests {
    use super::super::inputs::random;
    use super::*;
    use crate::random::Random;

    #[test]
    fn crossings_leave_in_order_with_their_outcomes() {
        let mut random = Random::new(1);
        let mut window = Window::new();
        let rows = random::context(&mut random);
        window.open(7, 10, rows, State::NONE);
        let (first, second) = (random::candidate(&mut random), random::candidate(&mut random));
        window.add(first);
        let tag = window.add(second);
        window.open(8, 11, rows, State::NONE);
        window.came(tag);
        assert_eq!(window.settled(10), None);
        let settled = *window.settled(11).unwrap();
        assert_eq!((settled.client, settled.rows), (7, rows));
        let samples = [Sample { rows: first, came: false }, Sample { rows: second, came: true }];
        assert_eq!(settled.samples(), samples);
        window.came(tag);
        assert!(window.settled(12).unwrap().samples().is_empty());
        assert_eq!(window.settled(u64::MAX), None);
    }

    #[test]
    fn a_full_window_gives_up_its_oldest() {
        let mut window = Window::new();
        let rows = random::context(&mut Random::new(1));
        for now in 0..=KEPT as u64 {
            window.open(now, now, rows, State::NONE);
        }
        assert_eq!(window.settled(0).unwrap().client, 1, "0 is lost, and 1 in the way");
        assert_eq!(window.settled(0), None);
    }
}
