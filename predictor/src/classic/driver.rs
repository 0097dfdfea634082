//! Replays short histories against a rule, with an endless tier, for the tests.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::{Key, Rule, Touch};
use crate::prefetch::Predictions;

/// A tier that nothing leaves unless told.
#[derive(Default)]
pub(super) struct Driver {
    /// Resident fragments; true if proposed and not yet used.
    resident: HashMap<Key, bool>,
    /// Milliseconds since the start; one passes for each request.
    clock_ms: u64,
    /// Proposals count as late when they are used.
    pub late: bool,
}

impl Driver {
    /// One request of volume 3; what the rule proposed.
    pub fn request(&mut self, rule: &mut dyn Rule, write: bool, fragments: &[u64]) -> Vec<u64> {
        self.clock_ms += 1;
        let mut out = Predictions::new();
        for (i, fragment) in fragments.iter().enumerate() {
            let old = self.resident.insert((3, *fragment), false);
            if old == Some(true) {
                rule.used(3, *fragment, self.late);
            }
            let touch = Touch {
                time_ns: self.clock_ms * 1_000_000,
                volume: 3,
                fragment: *fragment,
                write,
                hit: old.is_some(),
                last: i + 1 == fragments.len(),
            };
            rule.touch(&touch, &mut out);
        }
        for proposal in out.as_slice() {
            self.resident.entry((proposal.volume, proposal.fragment)).or_insert(true);
        }
        out.as_slice().iter().map(|p| p.fragment).collect()
    }

    pub fn read(&mut self, rule: &mut dyn Rule, fragment: u64) -> Vec<u64> {
        self.request(rule, false, &[fragment])
    }

    /// Reads of one fragment each; the proposals of each.
    pub fn reads(
        &mut self,
        rule: &mut dyn Rule,
        fragments: impl IntoIterator<Item = u64>,
    ) -> Vec<Vec<u64>> {
        fragments.into_iter().map(|fragment| self.read(rule, fragment)).collect()
    }

    /// A fragment leaves the tier.
    pub fn evict(&mut self, rule: &mut dyn Rule, fragment: u64) {
        if self.resident.remove(&(3, fragment)) == Some(true) {
            rule.wasted(3, fragment);
        }
    }
}

mod tests {
    use super::super::{Kind, build};
    use super::*;
    use crate::prefetch::Settings;

    /// A few walks, jumps and writes, one in eight accesses evicted again.
    fn replay(kind: Kind) -> Vec<Vec<u64>> {
        let mut rule = build(kind, &Settings::default());
        let mut driver = Driver::default();
        let mut walks = [0, 5000, 100_000, u64::MAX - 900];
        let mut random = 88_172_645_463_325_252_u64;
        let mut proposals = Vec::new();
        for _ in 0..4000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let walk = usize::try_from(random % 4).expect("below 4");
            let step = (random >> 8) % 3;
            walks[walk] = walks[walk].checked_add(step).unwrap_or(7);
            let first = walks[walk];
            let wide = (random >> 16).is_multiple_of(8);
            let span: Vec<u64> = (first..=first.saturating_add(u64::from(wide))).collect();
            let write = (random >> 24).is_multiple_of(4);
            let proposed = driver.request(rule.as_mut(), write, &span);
            assert!(!write || proposed.is_empty(), "{kind} proposed on a write");
            if (random >> 32).is_multiple_of(8) {
                proposed.iter().for_each(|f| driver.evict(rule.as_mut(), *f));
                driver.evict(rule.as_mut(), first);
            }
            proposals.push(proposed);
        }
        proposals
    }

    #[test]
    fn every_rule_keeps_the_contract_and_is_deterministic() {
        for kind in Kind::ALL {
            let proposals = replay(kind);
            assert_eq!(proposals, replay(kind), "{kind}");
            // MITHRIL mines only once its table is full.
            let silent = proposals.iter().all(Vec::is_empty);
            assert!(!silent || kind == Kind::Mithril, "{kind} proposes something");
        }
    }
}
