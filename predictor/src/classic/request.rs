//! Whole requests and the stream of misses, out of touches.
//!
//! The papers speak of references that miss. In the tier a proposal turns such a
//! reference into a hit, so a *fault* here is a miss or the first use of a proposal:
//! what would have missed without the rule. A *crossing* is a touch of another
//! fragment than the preceding one of its volume; requests are smaller than
//! fragments, and a rule must not count the same fragment for each of them.
#![forbid(unsafe_code)]

use super::{Key, Touch, VOLUMES};
use crate::ledger::Lru;

/// Most fragments of one request that are walked; the rest is skipped.
const MAX_SPAN: u64 = 1024;

/// What one touch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub crossed: bool,
    pub fault: bool,
}

/// A complete request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub volume: u32,
    pub write: bool,
    pub first: u64,
    pub last: u64,
    /// Some touch of it was a crossing.
    pub crossed: bool,
    /// Some touch of it was a fault.
    pub faulted: bool,
    /// Its first fragment that missed.
    pub miss: Option<u64>,
}

impl Request {
    /// Its fragments, up to a bound.
    pub fn span(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..=self.last.min(self.first.saturating_add(MAX_SPAN - 1))
    }
}

/// Follows the touches.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    /// The fragment of each volume's newest touch.
    positions: Lru<u32, u64>,
    /// The proposal whose first use is the touch to come.
    first_use: Option<Key>,
    open: Option<Request>,
}

impl Requests {
    pub fn new() -> Self {
        Self { positions: Lru::new(VOLUMES), first_use: None, open: None }
    }

    /// The next touch is the first use of a proposal.
    pub fn used(&mut self, volume: u32, fragment: u64) {
        self.first_use = Some((volume, fragment));
    }

    /// Takes one touch; returns the request if this completes it.
    pub fn follow(&mut self, touch: &Touch) -> (Step, Option<Request>) {
        let before = self.positions.insert(touch.volume, touch.fragment);
        let fault = !touch.hit || self.first_use == Some((touch.volume, touch.fragment));
        self.first_use = None;
        let crossed = before != Some((touch.volume, touch.fragment));
        let mut request = self.open.take().unwrap_or(Request {
            volume: touch.volume,
            write: touch.write,
            first: touch.fragment,
            last: touch.fragment,
            crossed: false,
            faulted: false,
            miss: None,
        });
        let ascends = touch.volume == request.volume && touch.fragment >= request.last;
        assert!(ascends, "the fragments of a request come in ascending order");
        request.last = touch.fragment;
        request.crossed |= crossed;
        request.faulted |= fault;
        request.miss = request.miss.or((!touch.hit).then_some(touch.fragment));
        if !touch.last {
            self.open = Some(request);
        }
        (Step { crossed, fault }, touch.last.then_some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(fragment: u64, hit: bool, last: bool) -> Touch {
        Touch { time_ns: 0, volume: 1, fragment, write: false, hit, last }
    }

    #[test]
    fn a_request_ends_with_its_last_touch() {
        let mut requests = Requests::new();
        assert_eq!(requests.follow(&touch(4, true, false)).1, None);
        let (step, request) = requests.follow(&touch(5, false, true));
        assert_eq!(step, Step { crossed: true, fault: true });
        let request = request.expect("complete");
        assert_eq!((request.first, request.last, request.miss), (4, 5, Some(5)));
        assert_eq!(request.span().collect::<Vec<_>>(), [4, 5]);
        assert!(!requests.follow(&touch(5, true, true)).0.crossed);
    }

    #[test]
    fn the_first_use_of_a_proposal_is_a_fault() {
        let mut requests = Requests::new();
        requests.used(1, 9);
        assert!(requests.follow(&touch(9, true, true)).0.fault);
        assert!(!requests.follow(&touch(9, true, true)).0.fault);
    }
}
