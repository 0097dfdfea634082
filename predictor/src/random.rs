//! SplitMix64 (Steele, Lea, Flood, 2014): seeded, to initialise, to shuffle, for samples and
//! synthetic load.
//!
//! Not for secrets.
#![forbid(unsafe_code)]

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Uniform in `-bound..bound`.
    pub fn symmetric(&mut self, bound: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1_u32 << 24) as f32;
        bound * (2.0 * unit - 1.0)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = usize::try_from(self.next() % (i as u64 + 1)).expect("at most i");
            items.swap(i, j);
        }
    }

    /// Standard normal (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Poisson (Knuth, TAOCP 2, 3.4.1); large means are cut into parts, for
    /// e^−mean must not vanish.
    pub fn poisson(&mut self, mean: f64) -> u32 {
        const PART: f64 = 32.0;
        let (mut left, mut count) = (mean.clamp(0.0, 1e5), 0);
        while left > 0.0 {
            let limit = (-left.min(PART)).exp();
            left -= PART;
            let mut product = self.unit();
            while product > limit {
                count += 1;
                product *= self.unit();
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(3);
        let n = 20_000;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let normal: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        let squares: Vec<f64> = normal.iter().map(|x| x * x).collect();
        assert!(mean(&normal).abs() < 0.03 && (mean(&squares) - 1.0).abs() < 0.05);
        for expected in [0.3, 5.0, 100.0] {
            let counts: Vec<f64> = (0..n).map(|_| random.poisson(expected).into()).collect();
            let squares: Vec<f64> = counts.iter().map(|x| (x - expected).powi(2)).collect();
            assert!((mean(&counts) / expected - 1.0).abs() < 0.03);
            assert!((mean(&squares) / expected - 1.0).abs() < 0.06);
        }
        assert_eq!(random.poisson(f64::NAN.max(0.0)), 0);
    }
}
