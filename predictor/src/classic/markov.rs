//! What followed the last miss, or the last two, before.
//!
//! Source: D. Joseph and D. Grunwald, "Prefetching using Markov Predictors", ISCA
//! '97, the Markov predictor: the miss stream is a Markov chain; a table keyed by the miss
//! address holds up to four successors, all of which are fetched, the most probable
//! first. Order 2 keys by the last two misses.
//!
//! Successors are ranked by count and, among equals, by recency (the paper compares
//! both and keeps recency). The chain is per volume, for volumes interleave by
//! chance. The prefetch buffer beside the cache and the accuracy counters that
//! disable single predictions are left out; a score is the observed frequency.
#![forbid(unsafe_code)]

use super::counts::Counts;
use super::request::Requests;
use super::{Rule, Touch, VOLUMES, at};
use crate::ledger::Lru;
use crate::prefetch::{Prediction, Predictions, Settings};

/// Contexts remembered.
const CONTEXTS: usize = 1 << 16;
/// Successors of a context.
const SUCCESSORS: usize = 4;

/// Misses that make a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    One,
    Two,
}

/// The volume and its last misses, the older one first; 0 for it with order 1.
type Context = (u32, u64, u64);

/// The chain of each volume.
#[derive(Clone, Debug)]
pub(super) struct Markov {
    order: Order,
    width: usize,
    requests: Requests,
    /// The last two misses of each volume, the older one first.
    histories: Lru<u32, [Option<u64>; 2]>,
    table: Lru<Context, Counts<SUCCESSORS>>,
}

impl Markov {
    pub fn new(order: Order, settings: &Settings) -> Self {
        Self {
            order,
            width: settings.prefetch_depth.min(SUCCESSORS),
            requests: Requests::new(),
            histories: Lru::new(VOLUMES),
            table: Lru::new(CONTEXTS),
        }
    }

    fn context(&mut self, volume: u32) -> Option<Context> {
        let [older, newer] = *at(&mut self.histories, volume);
        match self.order {
            Order::One => Some((volume, 0, newer?)),
            Order::Two => Some((volume, older?, newer?)),
        }
    }

    fn learn(&mut self, volume: u32, fragment: u64) {
        if let Some(context) = self.context(volume) {
            let successors = at(&mut self.table, context);
            successors.visit();
            successors.add((volume, fragment));
        }
        let history = at(&mut self.histories, volume);
        *history = [history[1], Some(fragment)];
    }
}

impl Rule for Markov {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (step, request) = self.requests.follow(touch);
        if step.fault {
            self.learn(touch.volume, touch.fragment);
        }
        if !request.is_some_and(|r| r.faulted && !r.write) {
            return;
        }
        let Some(context) = self.context(touch.volume) else { return };
        let Some(successors) = self.table.get(&context) else { return };
        let mut ranked = [((0, 0), 0); SUCCESSORS];
        let ranked = &mut ranked[..successors.newest_first().len()];
        ranked.copy_from_slice(successors.newest_first());
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((volume, fragment), count) in ranked.iter().take(self.width) {
            let score = f32::from(*count) / f32::from(successors.visits());
            out.push(Prediction { volume: *volume, fragment: *fragment, score });
        }
    }

    fn used(&mut self, volume: u32, fragment: u64, _late: bool) {
        self.requests.used(volume, fragment);
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    /// Replays with a tier that keeps nothing but what was proposed last.
    fn misses(rule: &mut Markov, fragments: &[u64]) -> Vec<Vec<u64>> {
        let mut driver = Driver::default();
        let mut read = |fragment: &u64| {
            let proposed = driver.read(rule, *fragment);
            driver.evict(rule, *fragment);
            proposed
        };
        fragments.iter().map(&mut read).collect()
    }

    #[test]
    fn successors_by_count_then_recency() {
        let mut rule = Markov::new(Order::One, &Settings::default());
        // After 1 came 7, 8, 7 and 9: 7 twice, then 9 as the newer of two equals.
        let got = misses(&mut rule, &[1, 7, 1, 8, 1, 7, 1, 9, 1]);
        let expected: [&[u64]; 9] = [&[], &[], &[7], &[], &[8, 7], &[1], &[7, 8], &[], &[7, 9, 8]];
        assert_eq!(got, expected);
    }

    #[test]
    fn order_two_tells_contexts_apart() {
        let mut rule = Markov::new(Order::Two, &Settings::default());
        let got = misses(&mut rule, &[1, 2, 3, 5, 2, 4, 1, 2, 5, 2]);
        // (1, 2) was followed by 3 and (5, 2) by 4.
        assert_eq!(got[7], [3]);
        assert_eq!(got[9], [4]);
    }

    #[test]
    fn hits_are_no_part_of_the_chain_but_first_uses_are() {
        let mut rule = Markov::new(Order::One, &Settings::default());
        let mut driver = Driver::default();
        driver.reads(&mut rule, [1, 2, 1, 2, 3]);
        // The second 1 and 2 were hits: the chain is 1, 2, 3.
        driver.evict(&mut rule, 1);
        driver.evict(&mut rule, 2);
        driver.evict(&mut rule, 3);
        assert_eq!(driver.read(&mut rule, 1), [2]);
        assert_eq!(driver.read(&mut rule, 2), [3], "a proposal used is still a would-be miss");
    }

    #[test]
    fn writes_teach_but_do_not_trigger() {
        let mut rule = Markov::new(Order::One, &Settings::default());
        let mut driver = Driver::default();
        driver.read(&mut rule, 1);
        driver.request(&mut rule, true, &[2]);
        driver.evict(&mut rule, 1);
        assert_eq!(driver.read(&mut rule, 1), [2]);
    }
}
