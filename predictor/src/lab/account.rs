//! Which account of a run is kept.
#![forbid(unsafe_code)]

use super::bench::Bench;
use super::served::Served;
use super::verdict::Verdict;
use super::{LabError, Setup};
use crate::Access;

/// Of a tier of whole fragments, or of what runs on a core of a server.
pub(super) enum Account {
    Tier(Box<Bench>),
    Served(Box<Served>),
}

impl Account {
    pub fn new(setup: &Setup, accesses: &[Access]) -> Result<Account, LabError> {
        Ok(if setup.served {
            Account::Served(Box::new(Served::new(setup)?))
        } else {
            Account::Tier(Box::new(Bench::new(setup, accesses)?))
        })
    }

    /// Misses so far, with prefetch and without.
    pub fn misses(&self) -> (u64, u64) {
        match self {
            Account::Tier(bench) => bench.misses(),
            Account::Served(served) => served.misses(),
        }
    }

    pub fn request(&mut self, access: &Access, setup: &Setup) {
        match self {
            Account::Tier(bench) => bench.request(access, setup),
            Account::Served(served) => served.request(access),
        }
    }

    /// Whether there is enough to train on.
    pub fn is_due(&mut self) -> bool {
        match self {
            Account::Tier(bench) => bench.is_due(),
            Account::Served(served) => served.is_due(),
        }
    }

    /// A round of training; true if another model is run now.
    pub fn teach(&mut self) -> Result<bool, LabError> {
        match self {
            Account::Tier(bench) => bench.teach(),
            Account::Served(served) => served.teach(),
        }
    }

    pub fn verdict(self, has_clock: bool) -> Verdict {
        match self {
            Account::Tier(bench) => bench.verdict(has_clock),
            Account::Served(served) => served.verdict(has_clock),
        }
    }
}
