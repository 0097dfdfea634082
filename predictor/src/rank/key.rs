//! A fragment of a volume in one number, and hashes of small tuples.
#![forbid(unsafe_code)]

/// Bits of a fragment's number: 2^40 fragments of 64 KiB are 64 PiB.
const FRAGMENT_BITS: u32 = 40;

/// Volume (upper 24 bits) and fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// No fragment's.
    pub const NONE: Key = Key(u64::MAX);

    /// `None` beyond 2^24 volumes or 2^40 fragments: nothing is learned there.
    pub fn new(volume: u32, fragment: u64) -> Option<Key> {
        let fits = volume < 1 << (64 - FRAGMENT_BITS) && fragment < 1 << FRAGMENT_BITS;
        fits.then_some(Key(u64::from(volume) << FRAGMENT_BITS | fragment))
    }

    pub fn volume(self) -> u32 {
        u32::try_from(self.0 >> FRAGMENT_BITS).expect("24 bits")
    }

    pub fn fragment(self) -> u64 {
        self.0 & ((1 << FRAGMENT_BITS) - 1)
    }

    /// The fragment `delta` further on in the same volume, if it can exist.
    pub fn step(self, delta: i64) -> Option<Key> {
        Key::new(self.volume(), self.fragment().checked_add_signed(delta)?)
    }

    /// Fragments from `from` to here; `None` between volumes.
    pub fn delta(self, from: Key) -> Option<i64> {
        let same = self.volume() == from.volume();
        same.then(|| self.0.wrapping_sub(from.0).cast_signed())
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

/// A hash of two numbers, with all its bits good.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.wrapping_add(0x7f4a_7c15).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}

/// The upper `bits` of [`mix`].
pub(super) fn slot(a: u64, b: u64, bits: u32) -> usize {
    usize::try_from(mix(a, b) >> (64 - bits)).expect("few bits")
}

/// The whole part of a number that is not negative and small.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn floor(x: f32) -> u16 {
    x as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_within_their_volume() {
        let key = Key::new(3, 5).unwrap();
        assert_eq!((key.volume(), key.fragment()), (3, 5));
        assert_eq!(key.step(-5), Key::new(3, 0));
        assert_eq!(key.step(-6), None);
        assert_eq!(Key::new(3, (1 << 40) - 1).unwrap().step(1), None);
        assert_eq!(Key::new(1 << 24, 0), None);
        assert_eq!(Key::new(3, 2).unwrap().delta(key), Some(-3));
        assert_eq!(Key::new(4, 2).unwrap().delta(key), None);
    }
}
