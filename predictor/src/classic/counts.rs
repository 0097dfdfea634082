//! A bounded count of what followed a context.
//!
//! A follower that finds no place takes one count from the weakest, and its place
//! when nothing is left: frequent followers survive a flood of chance ones. All
//! counts are halved after [`LIMIT`] visits, so that old habits fade.
#![forbid(unsafe_code)]

use super::Key;

/// Visits after which all counts are halved.
const LIMIT: u16 = 256;

/// Followers of one context, the newest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts<const N: usize> {
    items: [(Key, u16); N],
    len: usize,
    /// Times that the context was seen.
    visits: u16,
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self { items: [((0, 0), 0); N], len: 0, visits: 0 }
    }
}

impl<const N: usize> Counts<N> {
    pub fn visits(&self) -> u16 {
        self.visits
    }

    /// Followers and their counts, the newest first.
    pub fn newest_first(&self) -> &[(Key, u16)] {
        &self.items[..self.len]
    }

    /// The context was seen once more.
    pub fn visit(&mut self) {
        self.visits += 1;
        if self.visits < LIMIT {
            return;
        }
        self.visits /= 2;
        let mut kept = 0;
        for i in 0..self.len {
            let (key, count) = self.items[i];
            if count >= 2 {
                self.items[kept] = (key, count / 2);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// A follower was seen.
    pub fn add(&mut self, key: Key) {
        let place = self.newest_first().iter().position(|(k, _)| *k == key);
        let place = match place {
            Some(place) => {
                self.items[place].1 = self.items[place].1.saturating_add(1);
                place
            }
            None if self.len < N => {
                self.items[self.len] = (key, 1);
                self.len += 1;
                self.len - 1
            }
            None => {
                let weakest = (0..N).rev().min_by_key(|i| self.items[*i].1);
                let weakest = weakest.expect("there is room for one at least");
                self.items[weakest].1 -= 1;
                if self.items[weakest].1 > 0 {
                    return;
                }
                self.items[weakest] = (key, 1);
                weakest
            }
        };
        self.items[..=place].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_survive_and_the_oldest_of_the_weak_goes() {
        let mut counts = Counts::<2>::default();
        let added = [1, 1, 2, 3].map(|f| (0, f));
        added.iter().for_each(|key| counts.add(*key));
        assert_eq!(counts.newest_first(), [((0, 3), 1), ((0, 1), 2)], "2 made room");
        counts.add((0, 1));
        assert_eq!(counts.newest_first(), [((0, 1), 3), ((0, 3), 1)]);
    }

    #[test]
    fn counts_are_halved_in_the_end() {
        let mut counts = Counts::<2>::default();
        counts.add((0, 9));
        for _ in 0..LIMIT {
            counts.visit();
            if counts.visits() < 5 {
                counts.add((0, 1));
            }
        }
        assert_eq!(counts.visits(), LIMIT / 2);
        assert_eq!(counts.newest_first(), [((0, 1), 2)]);
    }
}
