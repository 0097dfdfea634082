//! Voted co-occurrence.
//!
//! Source: the association of pages within a window of lookahead goes back to
//! J. Griffioen and R. Appleton, "Reducing File System Latency using a Predictive
//! Approach", USENIX Summer 1994 (the probability graph); that several of the
//! recent fragments must agree is the vote of the project's first study of
//! prefetching.
//!
//! For each fragment it is counted which others were touched within the next
//! [`WINDOW`] transitions. A candidate is a fragment that at least [`MIN_VOTES`] of
//! the last [`WINDOW`] fragments remember; it is ranked by the sum of the conditional
//! frequencies, and its score is their mean. Among equals that is proposed first
//! which followed the newest fragment soonest. A fragment of the window is no
//! transition and no candidate: two streams that alternate teach nothing new.
//!
//! It does not weigh distances, and does not look farther than the window.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::counts::Counts;
use super::request::Requests;
use super::{Key, Rule, Touch, at};
use crate::ledger::Lru;
use crate::prefetch::{Prediction, Predictions, Settings};

/// Transitions looked ahead, and fragments that vote.
const WINDOW: usize = 8;
/// Fragments that must remember a candidate.
const MIN_VOTES: u16 = 2;
/// Fragments whose followers are remembered.
const FRAGMENTS: usize = 1 << 15;
/// Followers of one fragment.
const FOLLOWERS: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    key: Key,
    votes: u16,
    weight: f32,
}

/// Counts of followers.
#[derive(Clone, Debug)]
pub(super) struct Cooccurrence {
    depth: usize,
    requests: Requests,
    /// The newest fragments, the newest first.
    window: VecDeque<Key>,
    table: Lru<Key, Counts<FOLLOWERS>>,
    /// Kept for its allocation.
    candidates: Vec<Candidate>,
    /// The request under way made a transition.
    moved: bool,
}

impl Cooccurrence {
    pub fn new(settings: &Settings) -> Self {
        Self {
            depth: settings.prefetch_depth,
            requests: Requests::new(),
            window: VecDeque::with_capacity(WINDOW),
            table: Lru::new(FRAGMENTS),
            candidates: Vec::with_capacity(WINDOW * FOLLOWERS),
            moved: false,
        }
    }

    fn learn(&mut self, key: Key) {
        if self.window.contains(&key) {
            return;
        }
        for earlier in &self.window {
            at(&mut self.table, *earlier).add(key);
        }
        at(&mut self.table, key).visit();
        self.window.truncate(WINDOW - 1);
        self.window.push_front(key);
        self.moved = true;
    }

    fn vote(&mut self) {
        self.candidates.clear();
        for voter in &self.window {
            let Some(counts) = self.table.get(voter) else { continue };
            // The visit under way is not over: who will follow it is the question.
            let visits = f32::from(counts.visits().saturating_sub(1).max(1));
            for (key, count) in counts.newest_first().iter().rev() {
                if self.window.contains(key) {
                    continue;
                }
                let weight = (f32::from(*count) / visits).min(1.0);
                match self.candidates.iter_mut().find(|c| c.key == *key) {
                    Some(candidate) => {
                        candidate.votes += 1;
                        candidate.weight += weight;
                    }
                    None => self.candidates.push(Candidate { key: *key, votes: 1, weight }),
                }
            }
        }
        self.candidates.retain(|candidate| candidate.votes >= MIN_VOTES);
        self.candidates.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    }
}

impl Rule for Cooccurrence {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (_, request) = self.requests.follow(touch);
        self.learn((touch.volume, touch.fragment));
        let Some(request) = request else { return };
        if !std::mem::take(&mut self.moved) || request.write {
            return;
        }
        self.vote();
        for candidate in self.candidates.iter().take(self.depth) {
            let (volume, fragment) = candidate.key;
            let score = candidate.weight / f32::from(candidate.votes);
            out.push(Prediction { volume, fragment, score });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    #[test]
    fn two_votes_are_needed() {
        let mut rule = Cooccurrence::new(&Settings::default());
        let mut driver = Driver::default();
        let first = driver.reads(&mut rule, (1..4).chain(100..108));
        assert!(first.iter().all(Vec::is_empty));
        assert!(driver.read(&mut rule, 1).is_empty(), "only 1 itself remembers 3");
        // 1 and 2 were both followed by 3, 100 and 101; from 102 on all are in the window.
        assert_eq!(driver.read(&mut rule, 2), [3, 100, 101]);
    }

    #[test]
    fn the_more_frequent_comes_first() {
        let mut rule = Cooccurrence::new(&Settings::default());
        let mut driver = Driver::default();
        // 1, 2 are followed by 5 twice and by 6 once, among strangers.
        for (follower, strangers) in [(5, 100..108), (6, 200..208), (5, 300..308)] {
            driver.reads(&mut rule, [1, 2, follower]);
            driver.reads(&mut rule, strangers);
        }
        driver.read(&mut rule, 1);
        assert_eq!(driver.read(&mut rule, 2)[0], 5);
        let five = rule.candidates[0];
        assert_eq!((five.key, five.votes), ((3, 5), 2));
        assert!((five.weight - 4.0 / 3.0).abs() < 1e-6, "two of three visits, twice");
    }

    #[test]
    fn a_fragment_of_the_window_is_no_transition() {
        let mut rule = Cooccurrence::new(&Settings::default());
        let mut driver = Driver::default();
        driver.reads(&mut rule, [1, 2, 1, 2, 1, 2]);
        assert_eq!(rule.window, [(3, 2), (3, 1)]);
        assert_eq!(
            rule.table.get(&(3, 1)).map(|c| c.newest_first().to_vec()),
            Some(vec![((3, 2), 1)])
        );
    }
}
