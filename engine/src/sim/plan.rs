//! What a run is made of: its seed, how long it is and what may go wrong in it.
//!
//! A seed alone says everything; the rest are limits that shrinking lowers. A
//! run is a pure function of its plan, and a plan prints as the options that
//! bring it back.

use std::fmt;

use super::regime::Regime;
use crate::device::sim::Rng;

/// A class of trouble that a world may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Device operations fail.
    Errors,
    /// A flush fails and loses what it should have made durable.
    FailedFlushes,
    /// Bits rot on the medium, while cores run and while none do.
    Flips,
    /// A read returns other blocks.
    Misreads,
    /// A write goes to other blocks.
    Miswrites,
    /// Operations get stuck for a while and are overtaken.
    Delays,
    /// Devices have room for little.
    Full,
    /// Memory and extents are refused now and then.
    Refusals,
    /// Recovery dies, too.
    Recovery,
    /// Volumes come, go, shrink and grow.
    Volumes,
    /// Fragments are staged, spilled and promoted.
    Tiers,
    /// Devices report flushes that they have not done.
    Lies,
}

const FAULTS: [(Fault, &str); 12] = [
    (Fault::Errors, "errors"),
    (Fault::FailedFlushes, "failed-flushes"),
    (Fault::Flips, "flips"),
    (Fault::Misreads, "misreads"),
    (Fault::Miswrites, "miswrites"),
    (Fault::Delays, "delays"),
    (Fault::Full, "full"),
    (Fault::Refusals, "refusals"),
    (Fault::Recovery, "recovery"),
    (Fault::Volumes, "volumes"),
    (Fault::Tiers, "tiers"),
    (Fault::Lies, "lies"),
];

/// A run to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything that is not fixed here.
    pub seed: u64,
    /// Lives of the process.
    pub lives: u64,
    /// Steps of a life, at most.
    pub steps: u64,
    /// Cores of a life, at most.
    pub cores: u8,
    /// Clients, each connected to one core.
    pub clients: u32,
    /// Requests under way at once, at most.
    pub depth: usize,
    /// What it dwells on.
    pub regime: Regime,
    without: u16,
}

impl Plan {
    /// The plan of a seed: most are short, some are long.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x7e55_e7a5_1a11_0001);
        let regime = Regime::choose(&mut rng);
        let (lives, steps) = match (regime, rng.below(8)) {
            // What it waits for is built up over several lives.
            (Regime::CutGroups, _) => (4 + rng.below(3), 6_000),
            (Regime::SlowRoots, _) => (1 + rng.below(3), 12_000),
            (Regime::SlowFlushes, _) => (4, 2_000),
            (Regime::Crowded, _) => (1 + rng.below(3), 8_000),
            (Regime::Mixed, 0) => (4 + rng.below(4), 6_000),
            (Regime::Mixed, 1..=3) => (2 + rng.below(3), 3_000),
            (Regime::Mixed, _) => (1 + rng.below(3), 4_000),
        };
        let (clients, depth) = (1 + u32::try_from(rng.below(6)).expect("few"), 24);
        Self { seed, lives, steps, cores: 3, clients, depth, regime, without: 0 }
    }

    /// Whether such trouble may occur.
    pub fn allows(&self, fault: Fault) -> bool {
        self.without & 1 << fault as u16 == 0
    }

    /// The classes that are left.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        FAULTS.iter().map(|(fault, _)| *fault).filter(|fault| self.allows(*fault))
    }

    /// Rules a class out.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Self {
        self.without |= 1 << fault as u16;
        self
    }

    /// The same limits with another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Takes an option of the command line, as [`Plan`] prints them; false if there is none such.
    pub fn set(&mut self, option: &str, value: &str) -> bool {
        fn number<T: std::str::FromStr>(value: &str, into: &mut T) -> bool {
            value.parse().map(|value| *into = value).is_ok()
        }
        match option {
            "--lives" => number(value, &mut self.lives),
            "--steps" => number(value, &mut self.steps) && self.steps > 0,
            "--cores" => number(value, &mut self.cores) && self.cores > 0,
            "--clients" => number(value, &mut self.clients) && self.clients > 0,
            "--depth" => number(value, &mut self.depth),
            "--regime" => Regime::named(value).map(|regime| self.regime = regime).is_some(),
            "--without" => value.split(',').all(|name| {
                let found = FAULTS.iter().find(|(_, known)| *known == name);
                found.map(|(fault, _)| *self = self.clone().without(*fault)).is_some()
            }),
            _ => false,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Plan::of(self.seed);
        write!(f, "--seed {}", self.seed)?;
        let mut limit = |name, mine: u64, its: u64| {
            if mine == its { Ok(()) } else { write!(f, " --{name} {mine}") }
        };
        limit("lives", self.lives, usual.lives)?;
        limit("steps", self.steps, usual.steps)?;
        limit("cores", self.cores.into(), usual.cores.into())?;
        limit("clients", self.clients.into(), usual.clients.into())?;
        limit("depth", self.depth as u64, usual.depth as u64)?;
        if self.regime != usual.regime {
            write!(f, " --regime {}", self.regime.name())?;
        }
        let without = FAULTS.iter().filter(|(fault, _)| !self.allows(*fault));
        for (at, (_, name)) in without.enumerate() {
            write!(f, "{}{name}", if at == 0 { " --without " } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_prints_as_the_options_that_bring_it_back() {
        for seed in 0..50 {
            let mut plan = Plan::of(seed).without(Fault::Delays).without(Fault::Lies);
            plan.steps = 17;
            plan.cores = 1;
            plan.regime = Regime::SlowRoots;
            let text = plan.to_string();
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(words[..2], ["--seed", &seed.to_string()]);
            let mut again = Plan::of(seed);
            assert!(words[2..].chunks(2).all(|pair| again.set(pair[0], pair[1])), "{text}");
            assert_eq!(again, plan);
        }
        assert!(!Plan::of(1).set("--without", "sleep"));
        assert!(!Plan::of(1).set("--cores", "0"));
    }
}
