//! Who is judged.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::classic::Kind;
use crate::prefetch::Predictions;

/// A prefetcher, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Nothing is staged ahead.
    None,
    /// A classic rule.
    Classic(Kind),
    /// The readahead of a core.
    CoreReadahead,
    /// The LSTM over deltas alone.
    Lstm,
    /// The wide half of the learned ranker alone.
    Wide,
    /// The learned ranker.
    Learned,
    /// Who knows the future and chooses among the ranker's candidates.
    OracleCandidates,
    /// Who knows the future.
    Oracle,
}

impl Contender {
    /// All, in the order of reports.
    pub fn all() -> impl Iterator<Item = Contender> {
        let classic = Kind::ALL.into_iter().map(Self::Classic);
        let learned = [Self::CoreReadahead, Self::Lstm, Self::Wide, Self::Learned];
        let oracles = [Self::OracleCandidates, Self::Oracle];
        [Self::None].into_iter().chain(classic).chain(learned).chain(oracles)
    }

    /// Proposals for one request that it is made for.
    pub fn width(self) -> usize {
        match self {
            Self::Oracle => usize::MAX,
            Self::Classic(Kind::Amp) | Self::Wide | Self::Learned => Predictions::CAPACITY,
            Self::Classic(Kind::Leap) => 8,
            _ => 4,
        }
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
            Self::Lstm => f.pad("lstm"),
            Self::Wide => f.pad("wide"),
            Self::Learned => f.pad("learned"),
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
