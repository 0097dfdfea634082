//! The fragments that came after something, with fading weights.
#![forbid(unsafe_code)]

use super::key::Key;

/// What a follower's weight keeps when another follows.
const MEMORY: f32 = 0.98;
/// What the weakest follower loses when a newcomer finds no room.
const EROSION: f32 = 0.3;

/// Up to `N` followers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followers<const N: usize> {
    keys: [Key; N],
    weights: [f32; N],
    /// All weight, that of followers without a place included.
    pub total: f32,
}

impl<const N: usize> Default for Followers<N> {
    fn default() -> Self {
        Followers { keys: [Key::default(); N], weights: [0.0; N], total: 0.0 }
    }
}

impl<const N: usize> Followers<N> {
    /// A fragment has followed.
    pub fn count(&mut self, key: Key) {
        self.total = self.total * MEMORY + 1.0;
        let mut weakest = 0;
        let mut found = None;
        for i in 0..N {
            self.weights[i] *= MEMORY;
            if self.weights[i] > 0.0 && self.keys[i] == key {
                found = Some(i);
            }
            if self.weights[i] < self.weights[weakest] {
                weakest = i;
            }
        }
        match found {
            Some(i) => self.weights[i] += 1.0,
            None if self.weights[weakest] < 1.0 => {
                (self.keys[weakest], self.weights[weakest]) = (key, 1.0);
            }
            None => self.weights[weakest] -= EROSION,
        }
    }

    /// Each follower with its share of all weight.
    pub fn shares(&self) -> impl Iterator<Item = (Key, f32)> {
        let total = self.total.max(f32::MIN_POSITIVE);
        let known = self.keys.iter().zip(self.weights).filter(|(_, weight)| *weight > 0.0);
        known.map(move |(key, weight)| (*key, weight / total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_follower_is_worn_down_before_it_goes() {
        let key = |fragment| Key::new(0, fragment).unwrap();
        let keys = |followers: &Followers<2>| -> Vec<u64> {
            followers.shares().map(|(key, _)| key.fragment()).collect()
        };
        let mut followers = Followers::<2>::default();
        [1, 1, 1, 2, 2].into_iter().for_each(|n| followers.count(key(n)));
        followers.count(key(3));
        assert_eq!(keys(&followers), [1, 2], "two visits stand against one");
        for _ in 0..4 {
            followers.count(key(3));
        }
        assert_eq!(keys(&followers), [1, 3]);
    }
}
