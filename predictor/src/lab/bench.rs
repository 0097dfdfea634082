//! One run, request by request.
#![forbid(unsafe_code)]

use super::cold::Cold;
use super::player::Player;
use super::tier::{Evicted, Key, Tier};
use super::verdict::{Device, Verdict};
use super::{LabError, Setup};
use crate::Access;
use crate::classic::Touch;
use crate::ledger::{Lru, Outcome};
use crate::prefetch::Predictions;

/// A tier with its player, and the ghost beside it.
pub(super) struct Bench {
    tier: Tier,
    cold: Cold,
    ghost: Lru<Key, ()>,
    ghost_cold: Cold,
    verdict: Verdict,
    player: Player,
    out: Predictions,
    /// Proposals staged for the current request.
    issued: usize,
    /// The fragment touched last.
    at: Option<Key>,
    /// What the last insertion drove out of the tier.
    driven_out: Evicted,
}

impl Bench {
    pub fn new(setup: &Setup, accesses: &[Access]) -> Result<Bench, LabError> {
        let player = Player::new(setup, accesses)?;
        let fragment_bytes = 1 << setup.settings.fragment_shift;
        Ok(Bench {
            tier: Tier::new(setup.contender, setup.tier_fragments),
            cold: Cold::new(setup.model, fragment_bytes),
            ghost: Lru::new(setup.tier_fragments),
            ghost_cold: Cold::new(setup.model, fragment_bytes),
            verdict: Verdict::default(),
            player,
            out: Predictions::new(),
            issued: 0,
            at: None,
            driven_out: None,
        })
    }

    /// Misses so far, with prefetch and without.
    pub fn misses(&self) -> (u64, u64) {
        (self.verdict.ledger.misses, self.verdict.ghost_misses)
    }

    pub fn request(&mut self, access: &Access, setup: &Setup) {
        self.issued = 0;
        self.cold.begin(access);
        self.ghost_cold.begin(access);
        for fragment in access.fragment..=access.last_fragment {
            let key = (access.volume, fragment);
            self.verdict.crossings += u64::from(self.at != Some(key));
            self.at = Some(key);
            let needs_none = access.write && setup.writes_free;
            let hit = needs_none || self.counts(access, key, setup.late_ns);
            let touch = Touch {
                time_ns: access.time_ns,
                volume: access.volume,
                fragment,
                write: access.write && !setup.writes_trigger,
                hit,
                last: fragment == access.last_fragment,
            };
            self.out.clear();
            self.player.touch(access, &touch, &self.tier, &mut self.out);
            if !hit && self.player.is_sequential(key) {
                self.tier.missed_in_sequence(key);
            }
            self.evicted();
            self.stage(access.time_ns, setup);
        }
        self.cold.end();
        self.ghost_cold.end();
    }

    /// See [`Player::is_due`] and [`Player::teach`].
    pub fn is_due(&mut self) -> bool {
        self.player.is_due()
    }

    pub fn teach(&mut self) -> Result<bool, LabError> {
        self.player.teach()
    }

    pub fn verdict(self, has_clock: bool) -> Verdict {
        let device = Device { with: self.cold.waits(), without: self.ghost_cold.waits() };
        Verdict { device: has_clock.then_some(device), ..self.verdict }
    }

    /// The same demand, where nothing is ever staged.
    fn ghost(&mut self, access: &Access, key: Key) {
        if self.ghost.get(&key).is_some() {
            self.ghost_cold.hit(key, false);
            return;
        }
        self.verdict.ghost_misses += 1;
        self.verdict.ghost_read_misses += u64::from(!access.write);
        self.ghost_cold.miss(key);
        if let Some((evicted, ())) = self.ghost.insert(key, ()) {
            self.ghost_cold.evict(evicted);
        }
    }

    /// A touch that counts; true if the fragment was there, or on its way.
    fn counts(&mut self, access: &Access, key: Key, late_ns: u64) -> bool {
        self.verdict.touches += 1;
        self.ghost(access, key);
        self.demand(access, key, late_ns)
    }

    /// A fragment is asked for; true if it was there, or on its way.
    fn demand(&mut self, access: &Access, key: Key, late_ns: u64) -> bool {
        let Some(staged) = self.tier.demand(key).map(Option::take) else {
            self.verdict.ledger.misses += 1;
            self.verdict.read_misses += u64::from(!access.write);
            self.cold.miss(key);
            self.driven_out = self.tier.miss(key);
            self.player.demand(key, true);
            return false;
        };
        self.cold.hit(key, staged.is_some());
        if let Some(issued_ns) = staged {
            // Without a clock every stage counts as in time.
            let late = access.time_ns > 0 && access.time_ns.saturating_sub(issued_ns) < late_ns;
            self.settle(key, if late { Outcome::Late } else { Outcome::Hit });
        }
        self.player.demand(key, false);
        true
    }

    fn stage(&mut self, now: u64, setup: &Setup) {
        let proposals = self.out;
        // Where writes count as reads nothing acts on the waiting, and without a clock there
        // is none.
        let waiting = if setup.writes_free && now > 0 { self.cold.waiting() } else { 0 };
        for prediction in proposals.as_slice() {
            let key = (prediction.volume, prediction.fragment);
            if self.issued == setup.per_request {
                return;
            }
            if !self.tier.contains(key) && self.player.admit(prediction.score, waiting) {
                self.issued += 1;
                self.verdict.ledger.issued += 1;
                self.cold.stage(key);
                self.driven_out = self.tier.stage(key, now);
                self.evicted();
            }
        }
    }

    /// Reports what was driven out, and what of it was never used.
    fn evicted(&mut self) {
        let Some((key, staged)) = self.driven_out.take() else { return };
        self.cold.evict(key);
        if staged.is_some() {
            self.settle(key, Outcome::Wasted);
        }
    }

    fn settle(&mut self, key: Key, outcome: Outcome) {
        self.verdict.ledger.record(outcome);
        self.player.outcome(key, outcome);
    }
}
