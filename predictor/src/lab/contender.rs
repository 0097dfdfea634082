//! Who is judged.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::classic::Kind;
use crate::prefetch::Predictions;
use crate::rank::Part;

/// A prefetcher, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Nothing is staged ahead.
    None,
    /// A classic rule.
    Classic(Kind),
    /// The readahead of a core.
    CoreReadahead,
    /// The learned ranker.
    Learned,
    /// The same without one of its parts.
    Without(Part),
    /// Who knows the future and chooses among the ranker's candidates.
    OracleCandidates,
    /// Who knows the future.
    Oracle,
}

impl Contender {
    /// All but what is left of the learned ranker without its parts, in the order of reports.
    pub fn usual() -> impl Iterator<Item = Contender> {
        let classic = Kind::ALL.into_iter().map(Self::Classic);
        let learned = [Self::CoreReadahead, Self::Learned];
        let oracles = [Self::OracleCandidates, Self::Oracle];
        [Self::None].into_iter().chain(classic).chain(learned).chain(oracles)
    }

    /// The learned ranker, whole and without each of its parts.
    pub fn ablation() -> impl Iterator<Item = Contender> {
        [Self::Learned].into_iter().chain(Part::ALL.map(Self::Without))
    }

    /// All.
    pub fn all() -> impl Iterator<Item = Contender> {
        Self::usual().chain(Part::ALL.map(Self::Without))
    }

    /// Proposals for one request that it is made for.
    pub fn width(self) -> usize {
        match self {
            Self::Oracle => usize::MAX,
            Self::Classic(Kind::Amp) | Self::Learned | Self::Without(_) => Predictions::CAPACITY,
            Self::Classic(Kind::Leap) => 8,
            _ => 4,
        }
    }

    /// True for those that can be judged as on a server ([`super::Setup::served`]).
    pub fn is_served(self) -> bool {
        matches!(self, Self::None | Self::Learned)
    }

    /// True for those that know the future: no prefetcher can be like them.
    pub fn is_oracle(self) -> bool {
        matches!(self, Self::Oracle | Self::OracleCandidates)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Classic(kind) => kind.fmt(f),
            Self::CoreReadahead => f.pad("readahead-core"),
            Self::Learned => f.pad("learned"),
            Self::Without(Part::Tower) => f.pad("no-lstm"),
            Self::Without(Part::Memory) => f.pad("no-memory"),
            Self::Without(Part::Embeddings) => f.pad("no-embeddings"),
            Self::Without(Part::Ids) => f.pad("no-ids"),
            Self::Without(Part::Wide) => f.pad("lstm-alone"),
            Self::OracleCandidates => f.pad("oracle-candidates"),
            Self::Oracle => f.pad("oracle"),
        }
    }
}

/// No contender has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownContender;

impl fmt::Display for UnknownContender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown prefetcher: choose of")?;
        Contender::all().try_for_each(|contender| write!(f, " {contender}"))
    }
}

impl FromStr for Contender {
    type Err = UnknownContender;

    fn from_str(text: &str) -> Result<Self, UnknownContender> {
        Self::all().find(|contender| contender.to_string() == text).ok_or(UnknownContender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_read_as_they_are_shown() {
        for contender in Contender::all() {
            assert_eq!(contender.to_string().parse(), Ok(contender));
            assert!(UnknownContender.to_string().contains(&contender.to_string()));
        }
        assert_eq!("nobody".parse::<Contender>(), Err(UnknownContender));
    }
}
