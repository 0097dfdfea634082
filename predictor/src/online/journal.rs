//! Why the last stages were made.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::Access;
use crate::rank::{Ranked, source_names};

/// Stages remembered.
const KEPT: usize = 256;

/// Why a fragment was staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// When, in monotonic nanoseconds.
    pub time_ns: u64,
    /// Whose pattern it was.
    pub client: u64,
    /// Volume and fragment that the client came to.
    pub trigger_volume: u32,
    /// Its number in that volume.
    pub trigger: u64,
    /// Volume staged from.
    pub volume: u32,
    /// The fragment staged.
    pub fragment: u64,
    /// Probability that it is read while the tier keeps it.
    pub probability: f32,
    /// What the probability had to reach.
    pub threshold: f32,
    /// Who proposed it, as bits.
    pub source_bits: u16,
}

impl Reason {
    pub(super) fn new(
        client: u64,
        access: &Access,
        trigger: u64,
        ranked: &Ranked,
        threshold: f32,
    ) -> Reason {
        Reason {
            time_ns: access.time_ns,
            client,
            trigger_volume: access.volume,
            trigger,
            volume: ranked.volume,
            fragment: ranked.fragment,
            probability: ranked.probability,
            threshold,
            source_bits: ranked.sources,
        }
    }

    /// Who proposed it.
    pub fn sources(&self) -> impl Iterator<Item = &'static str> {
        source_names(self.source_bits)
    }
}

/// A ring of reasons.
pub(super) struct Journal {
    ring: Vec<Reason>,
    pushed: usize,
}

impl Journal {
    pub const BYTES: usize = KEPT * size_of::<Reason>();

    pub fn new() -> Journal {
        Journal { ring: vec![Reason::default(); KEPT], pushed: 0 }
    }

    pub fn push(&mut self, reason: Reason) {
        self.ring[self.pushed % KEPT] = reason;
        self.pushed += 1;
    }

    pub fn newest(&self, volume: Option<u32>) -> Vec<Reason> {
        let kept = self.pushed.min(KEPT);
        let newest = (1..=kept).map(|back| self.ring[(self.pushed - back) % KEPT]);
        newest.filter(|reason| volume.is_none_or(|volume| volume == reason.volume)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut journal = Journal::new();
        for n in 0..KEPT as u64 + 10 {
            journal.push(Reason {
                fragment: n,
                volume: u32::from(n % 2 == 0),
                ..Reason::default()
            });
        }
        let all = journal.newest(None);
        assert_eq!(
            (all.len(), all[0].fragment, all[KEPT - 1].fragment),
            (KEPT, KEPT as u64 + 9, 10)
        );
        assert_eq!(journal.newest(Some(1)).len(), KEPT / 2);
    }
}
