//! Pseudo-random numbers (SplitMix64), the same for the same seed.

/// A stream of numbers.
pub struct Random(u64);

/// The finaliser of SplitMix64: a bijection that looks random.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Random {
    /// A stream for each list of names.
    pub fn of(names: &[u64]) -> Random {
        Random(names.iter().fold(0x9e37_79b9_7f4a_7c15, |state, name| mix(state ^ mix(*name))))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
