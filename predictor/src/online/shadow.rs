//! What a core believes of the fragments of its clients: near, staged, or neither.
#![forbid(unsafe_code)]

use crate::ledger::Lru;

/// log2 of the fragments that are known to be near; a newcomer takes the place of its rival.
const NEAR_BITS: u32 = 15;

type Fragment = (u32, u64);

/// Tags only.
pub(super) struct Shadow {
    /// With who proposed it, while the stage is unused.
    tier: Lru<Fragment, u16>,
    near: Vec<Option<Fragment>>,
}

fn slot((volume, fragment): Fragment) -> usize {
    let mixed = (fragment ^ u64::from(volume) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> (64 - NEAR_BITS)).expect("few bits")
}

impl Shadow {
    /// Beside the tier.
    pub const BYTES: usize = size_of::<Option<Fragment>>() << NEAR_BITS;

    pub fn new(tier_fragments: usize) -> Shadow {
        Shadow { tier: Lru::new(tier_fragments), near: vec![None; 1 << NEAR_BITS] }
    }

    /// No block of it is on a cold device alone, as far as is known.
    pub fn is_near(&self, volume: u32, fragment: u64) -> bool {
        let of = (volume, fragment);
        self.near[slot(of)] == Some(of)
    }

    /// True if a stage would bring nothing.
    pub fn holds(&self, volume: u32, fragment: u64) -> bool {
        self.is_near(volume, fragment) || self.tier.contains(&(volume, fragment))
    }

    /// A stage has been asked for.
    pub fn stage(&mut self, volume: u32, fragment: u64, sources: u16) {
        self.tier.insert((volume, fragment), sources);
    }

    /// There will be no stage.
    pub fn undo(&mut self, volume: u32, fragment: u64) {
        self.tier.remove(&(volume, fragment));
    }

    /// No block of it is on a cold device alone.
    pub fn near(&mut self, volume: u32, fragment: u64) {
        let of = (volume, fragment);
        self.near[slot(of)] = Some(of);
        self.tier.remove(&of);
    }

    /// It was asked for and is not near; `kept` if a stage is there now. Who proposed it, if
    /// this is the first use of a stage.
    pub fn demand(&mut self, volume: u32, fragment: u64, kept: bool) -> Option<u16> {
        let of = (volume, fragment);
        let near = &mut self.near[slot(of)];
        if *near == Some(of) {
            *near = None;
        }
        let unused = self.tier.get(&of).map(std::mem::take).filter(|sources| *sources != 0);
        if kept {
            self.tier.insert(of, 0);
        } else {
            self.tier.remove(&of);
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_used_once_and_leave_in_order() {
        let mut shadow = Shadow::new(2);
        shadow.stage(0, 1, 4);
        shadow.stage(0, 2, 8);
        assert_eq!(shadow.demand(0, 1, true), Some(4));
        assert_eq!(shadow.demand(0, 1, true), None, "used already");
        shadow.stage(0, 3, 1);
        assert!(!shadow.holds(0, 2) && shadow.holds(0, 1), "2 was the oldest");
        shadow.undo(0, 3);
        assert!(!shadow.holds(0, 3));
        assert_eq!(shadow.demand(0, 9, false), None);
        assert!(!shadow.holds(0, 9), "only its blocks were read");
    }

    #[test]
    fn what_is_near_may_grow_cold() {
        let mut shadow = Shadow::new(2);
        shadow.stage(1, 7, 4);
        shadow.near(1, 7);
        assert!(shadow.holds(1, 7) && !shadow.holds(2, 7));
        assert_eq!(shadow.demand(1, 7, false), None);
        assert!(!shadow.holds(1, 7));
    }
}
