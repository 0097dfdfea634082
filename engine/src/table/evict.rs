//! Maps leave memory when the budget is used up and nothing is lost by it.

use super::Table;
use super::fragment::{FragRef, Fragment};
use super::index::Span;
use super::sink::Sink;

/// Fragments looked at for one that may leave.
const PROBES: usize = 512;

impl Table {
    /// Bytes of maps in memory.
    pub fn map_bytes(&self) -> u64 {
        self.slices().map(|slice| slice.index.here_bytes()).sum()
    }

    /// Sends spans away until the budget holds; false if too few can leave now.
    pub(crate) fn shrink_maps<S: Sink>(&mut self, sink: &mut S) -> bool {
        // At most once round: what has just been used stays.
        let here: usize = self.slices().map(|slice| slice.index.here()).sum();
        let mut probes = PROBES.min(here);
        while self.map_bytes() > self.config.map_budget_bytes {
            if probes == 0 || !self.send_one_away(&mut probes) {
                let dirtiest = self.slices().filter(|s| !s.failed).max_by_key(|s| s.dirty.len());
                if let Some(id) = dirtiest.filter(|slice| !slice.dirty.is_empty()).map(|s| s.id) {
                    self.request_snapshot(id, sink);
                }
                return false;
            }
        }
        true
    }

    /// Goes round until a span has left; false if none could in so many probes.
    fn send_one_away(&mut self, probes: &mut usize) -> bool {
        while *probes > 0 {
            *probes -= 1;
            let (at, position) = self.hand;
            let next = self.slices[at].as_mut().and_then(|slice| {
                let (position, fragment) = slice.index.next(position)?;
                Some((position, fragment.reference(position), slice))
            });
            let Some((position, at, slice)) = next else {
                self.hand = ((at + 1) % self.slices.len(), 0);
                continue;
            };
            self.hand.1 = position + 1;
            let fragment = slice.index.held(at);
            if std::mem::take(&mut fragment.referenced) {
                continue;
            }
            let (id, span) = (slice.id, Span::of(fragment.key));
            let (key, idle) = (fragment.key, fragment.pins == 0 && fragment.copies > 0);
            if idle {
                self.evict_copies_in(id, key);
                continue;
            }
            let here: smallvec::SmallVec<[FragRef; 32]> =
                slice.index.seats(span).filter_map(|(key, _)| slice.index.find(key)).collect();
            let may = |at: &FragRef| slice.index.get(*at).is_some_and(Fragment::may_leave);
            let saved = slice.index.seats(span).all(|(_, seat)| seat.page().is_some());
            if saved && here.iter().all(may) {
                here.into_iter().for_each(|at| slice.index.send_away(at));
                return true;
            }
        }
        false
    }
}
