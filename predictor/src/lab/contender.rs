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
    /// The classic readahead, as a core runs it.
    Readahead,
    /// A classic rule.
    Classic(Kind),
    /// The LSTM over deltas alone.
    Lstm,
    /// The learned ranker.
    Learned,
}

impl Contender {
    /// All, in the order of reports.
    pub fn all() -> impl Iterator<Item = Contender> {
        let classic = Kind::ALL.into_iter().map(Self::Classic);
        [Self::None, Self::Readahead].into_iter().chain(classic).chain([Self::Lstm, Self::Learned])
    }

    /// Proposals for one request that it is made for.
    pub fn width(self) -> usize {
        match self {
            Self::Classic(Kind::Amp) | Self::Learned => Predictions::CAPACITY,
            Self::Classic(Kind::Leap) => 8,
            _ => 4,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Readahead => f.pad("readahead"),
            Self::Classic(kind) => kind.fmt(f),
            Self::Lstm => f.pad("lstm"),
            Self::Learned => f.pad("learned"),
        }
    }
}

/// No contender has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown prefetcher: choose none, lstm, learned or a classic rule")]
pub struct UnknownContender;

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
        }
        assert_eq!("nobody".parse::<Contender>(), Err(UnknownContender));
    }
}
