//! What is to be asked of a volume, one step after the other.
//!
//! A [`Plan`] is an endless, deterministic sequence of steps over a list of
//! equally long extents. It knows neither time nor who asks.

/// In which order blocks are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Uniformly at random.
    Random,
    /// One after the other, and again from the start.
    Sequential,
}

/// What a load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Bytes of each read and write.
    pub block_bytes: u32,
    /// Share of reads in per cent.
    pub read_percent: u8,
    /// The order.
    pub order: Order,
    /// A flush follows every so many writes; 0 for never.
    pub flush_every: u32,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a block at this byte.
    Read(u64),
    /// Write a block at this byte.
    Write(u64),
    /// Make durable what was written.
    Flush,
}

/// An endless sequence of steps.
#[derive(Clone, Debug)]
pub struct Plan {
    mix: Mix,
    extents: Vec<u64>,
    blocks_per_extent: u64,
    blocks: u64,
    next: u64,
    unflushed: u32,
    random: Random,
}

impl Plan {
    /// A plan over `extents`, each of `extent_bytes` from its byte on.
    ///
    /// # Panics
    /// If there is no room for a single block.
    pub fn new(mix: Mix, extents: Vec<u64>, extent_bytes: u64, seed: u64) -> Plan {
        assert!(mix.read_percent <= 100 && mix.block_bytes > 0);
        let blocks_per_extent = extent_bytes / u64::from(mix.block_bytes);
        let blocks = blocks_per_extent * extents.len() as u64;
        assert!(blocks > 0, "no room for a block");
        let random = Random::new(seed);
        Plan { mix, extents, blocks_per_extent, blocks, next: 0, unflushed: 0, random }
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        if self.mix.flush_every > 0 && self.unflushed == self.mix.flush_every {
            self.unflushed = 0;
            return Step::Flush;
        }
        let block = match self.mix.order {
            Order::Random => self.random.below(self.blocks),
            Order::Sequential => {
                let block = self.next;
                self.next = if block + 1 == self.blocks { 0 } else { block + 1 };
                block
            }
        };
        let at = self.at(block);
        let read = match self.mix.read_percent {
            100 => true,
            0 => false,
            share => self.random.below(100) < u64::from(share),
        };
        if read {
            return Step::Read(at);
        }
        self.unflushed += 1;
        Step::Write(at)
    }

    /// What is asked for.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Different blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The first byte of a block, counted over all extents.
    pub fn at(&self, block: u64) -> u64 {
        let extent = usize::try_from(block / self.blocks_per_extent).expect("64-bit platform");
        let within = block % self.blocks_per_extent;
        self.extents[extent] + within * u64::from(self.mix.block_bytes)
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(product >> 64).expect("below the bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(read_percent: u8, order: Order, flush_every: u32) -> Mix {
        Mix { block_bytes: 4096, read_percent, order, flush_every }
    }

    #[test]
    fn sequential_steps_cross_extents_and_start_again() {
        let extents = vec![0, 1 << 20];
        let mut plan = Plan::new(mix(100, Order::Sequential, 0), extents, 8192, 1);
        let steps: Vec<_> = (0..5).map(|_| plan.step()).collect();
        assert_eq!(steps, [0, 4096, 1 << 20, (1 << 20) + 4096, 0].map(Step::Read));
    }

    #[test]
    fn a_flush_follows_every_so_many_writes() {
        let mut plan = Plan::new(mix(0, Order::Random, 2), vec![0], 1 << 20, 1);
        let steps: Vec<_> = (0..6).map(|_| plan.step() == Step::Flush).collect();
        assert_eq!(steps, [false, false, true, false, false, true]);
    }

    #[test]
    fn random_steps_visit_everything_in_the_shares_asked_for() {
        let mut plan = Plan::new(mix(70, Order::Random, 0), vec![4096, 1 << 20], 16 << 10, 7);
        let mut seen = std::collections::BTreeSet::new();
        let mut reads = 0;
        for _ in 0..10_000 {
            match plan.step() {
                Step::Read(at) => {
                    reads += 1;
                    seen.insert(at);
                }
                Step::Write(at) => drop(seen.insert(at)),
                Step::Flush => panic!("none is asked for"),
            }
        }
        assert!((6700..7300).contains(&reads), "{reads}");
        let all: Vec<_> = (0..plan.blocks()).map(|block| plan.at(block)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }
}
