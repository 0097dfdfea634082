//! The classic prefetchers, as their papers describe them, for the laboratory.
//!
//! Each is a [`Rule`] at fragment granularity, in a module that names its source
//! and what it leaves out. They are baselines: exact rather than fast, and not on
//! the data path of a core, where [`crate::prefetch`] stands.
//!
//! Invariants: a rule is deterministic and all its tables are bounded; it proposes
//! only on the last fragment of a read, as a request is fetched whole; writes are
//! observed but never trigger. A rule does not know the tier: proposals may be
//! resident or lie past the volume's end.
#![forbid(unsafe_code)]

mod amp;
mod cooccurrence;
mod counts;
#[cfg(test)]
mod driver;
mod leap;
mod markov;
mod mithril;
mod next;
mod readahead;
mod request;
mod sarc;
mod sarc_cache;
mod stride;

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use crate::ledger::Lru;
use crate::prefetch::{Prediction, Predictions, Settings};
pub use sarc_cache::SarcCache;

/// A fragment: its volume and its number in it.
type Key = (u32, u64);
/// Volumes of which a rule keeps a position.
const VOLUMES: usize = 64;
/// Score of a proposal by a rule without probabilities.
const SCORE: f32 = 0.5;

/// A demand access to one fragment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Monotonic nanoseconds; 0 where no clock is known.
    pub time_ns: u64,
    /// The volume.
    pub volume: u32,
    /// The fragment's number in it.
    pub fragment: u64,
    /// The request is a write.
    pub write: bool,
    /// It was in the tier, or on its way there.
    pub hit: bool,
    /// The last fragment of its request.
    pub last: bool,
}

/// A prefetcher as the laboratory drives it.
///
/// The driver reports each access in this order: [`Rule::used`] if it is the first
/// use of a proposal, then [`Rule::touch`], then [`Rule::wasted`] for what the
/// access and the new proposals drove out of the tier.
pub trait Rule {
    /// A demand access to one fragment; a request over several fragments calls this
    /// once for each, in ascending order.
    ///
    /// Proposals are appended to `out`, most urgent first; the driver drops those
    /// that are resident.
    fn touch(&mut self, touch: &Touch, out: &mut Predictions);

    /// A proposed fragment is used for the first time; `late`: before its fetch was
    /// complete.
    fn used(&mut self, _volume: u32, _fragment: u64, _late: bool) {}

    /// A proposed fragment left the tier unused.
    fn wasted(&mut self, _volume: u32, _fragment: u64) {}

    /// Whether the fragment, which was just touched, is part of a sequential stream: asked by
    /// a tier that keeps those apart ([`SarcCache`]).
    fn is_sequential(&mut self, _volume: u32, _fragment: u64) -> bool {
        false
    }
}

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The next fragment.
    Next1,
    /// The next two fragments.
    Next2,
    /// The next four fragments.
    Next4,
    /// A doubling window ahead of confirmed sequential streams.
    Readahead,
    /// Streams with two equal deltas.
    Stride,
    /// What followed a fragment before.
    Markov1,
    /// What followed two fragments before.
    Markov2,
    /// The majority among the recent deltas.
    Leap,
    /// Sequential streams with adaptive degree and trigger distance.
    Amp,
    /// Sequential streams with fixed degree, synchronous and asynchronous.
    Sarc,
    /// Fragments with similar time stamps.
    Mithril,
    /// Fragments that several of the recent ones vote for.
    Cooccurrence,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub const ALL: [Kind; 12] = [
        Self::Next1,
        Self::Next2,
        Self::Next4,
        Self::Readahead,
        Self::Stride,
        Self::Markov1,
        Self::Markov2,
        Self::Leap,
        Self::Amp,
        Self::Sarc,
        Self::Mithril,
        Self::Cooccurrence,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Next1 => "next-1",
            Self::Next2 => "next-2",
            Self::Next4 => "next-4",
            Self::Readahead => "readahead",
            Self::Stride => "stride",
            Self::Markov1 => "markov-1",
            Self::Markov2 => "markov-2",
            Self::Leap => "leap",
            Self::Amp => "amp",
            Self::Sarc => "sarc",
            Self::Mithril => "mithril",
            Self::Cooccurrence => "cooccurrence",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No rule has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule; see classic::Kind::ALL")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(UnknownKind)
    }
}

/// A rule that has seen nothing.
///
/// Of the settings, the rules with a fixed or growing window heed
/// `prefetch_depth`, and `stride` the fragment's size as well. `next-N` and `leap`
/// (up to 8) and `amp` (up to 16) have the width of their papers, so the driver
/// must let that many through to judge them fairly. None heeds `stage_threshold`:
/// where a score is a frequency, the driver may apply it.
pub fn build(kind: Kind, settings: &Settings) -> Box<dyn Rule> {
    match kind {
        Kind::Next1 => Box::new(next::Next::new(1)),
        Kind::Next2 => Box::new(next::Next::new(2)),
        Kind::Next4 => Box::new(next::Next::new(4)),
        Kind::Readahead => Box::new(readahead::Readahead::new(settings)),
        Kind::Stride => Box::new(stride::Stride::new(settings)),
        Kind::Markov1 => Box::new(markov::Markov::new(markov::Order::One, settings)),
        Kind::Markov2 => Box::new(markov::Markov::new(markov::Order::Two, settings)),
        Kind::Leap => Box::new(leap::Leap::new()),
        Kind::Amp => Box::new(amp::Amp::new()),
        Kind::Sarc => Box::new(sarc::Sarc::new(settings)),
        Kind::Mithril => Box::new(mithril::Mithril::new()),
        Kind::Cooccurrence => Box::new(cooccurrence::Cooccurrence::new(settings)),
    }
}

/// Proposes `count` fragments from `first` on, up to the end of the numbers.
fn propose_run(out: &mut Predictions, volume: u32, first: u64, count: usize) {
    for fragment in (first..=u64::MAX).take(count) {
        out.push(Prediction { volume, fragment, score: SCORE });
    }
}

/// The value of a key, which becomes the most recently used; made if absent.
fn at<K: Copy + Eq + Hash, V: Default>(map: &mut Lru<K, V>, key: K) -> &mut V {
    if !map.contains(&key) {
        map.insert(key, V::default());
    }
    map.get(&key).expect("just inserted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_shown() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("Leap".parse::<Kind>(), Err(UnknownKind));
    }
}
