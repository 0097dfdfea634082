//! Candidates whose outcome is not known yet.
#![forbid(unsafe_code)]

use super::features::Features;
use super::key::{Key, slot};
use crate::deep::Tag;

/// log2 of the samples kept; older ones are settled early.
const SAMPLE_BITS: u32 = 14;
const CHAIN_BITS: u32 = 14;
/// No sample: serial numbers count from 1.
const NONE: u64 = 0;

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    key: Key,
    /// Crossing at which it was proposed.
    proposed: u64,
    /// The model that ranked it.
    model: u8,
    features: Features,
    /// Where its outcome belongs in the tower's window, if there is one.
    tag: Tag,
    settled: bool,
    /// The next older sample of the same chain.
    older: u64,
}

/// A bounded queue of samples, found by fragment and by age.
pub(super) struct Samples {
    ring: Vec<Sample>,
    /// Newest sample of each chain of fragments.
    chains: Vec<u64>,
    /// Serial numbers of the oldest sample, and of the next.
    oldest: u64,
    next: u64,
}

impl Samples {
    pub fn new() -> Samples {
        Samples {
            ring: vec![Sample::default(); 1 << SAMPLE_BITS],
            chains: vec![NONE; 1 << CHAIN_BITS],
            oldest: 1,
            next: 1,
        }
    }

    pub const fn bytes() -> usize {
        (size_of::<Sample>() << SAMPLE_BITS) + (size_of::<u64>() << CHAIN_BITS)
    }

    /// Remembers a candidate.
    ///
    /// # Panics
    /// If there is no room: [`Samples::expire`] makes some.
    pub fn push(&mut self, key: Key, now: u64, model: usize, features: &Features, tag: Tag) {
        assert!(self.room() > 0, "the oldest goes first");
        let chain = &mut self.chains[slot(key.get(), 2, CHAIN_BITS)];
        let older = std::mem::replace(chain, self.next);
        let model = u8::try_from(model).expect("few models");
        self.ring[place(self.next)] =
            Sample { key, proposed: now, model, features: *features, tag, settled: false, older };
        self.next += 1;
    }

    /// Samples that can be pushed.
    fn room(&self) -> usize {
        (1 << SAMPLE_BITS) - usize::try_from(self.next - self.oldest).expect("at most all")
    }

    /// Settles the candidates that were this fragment: it has come.
    pub fn came(&mut self, key: Key, mut learn: impl FnMut(usize, &Features, Tag)) {
        let mut serial = self.chains[slot(key.get(), 2, CHAIN_BITS)];
        while serial >= self.oldest {
            let sample = &mut self.ring[place(serial)];
            if sample.key == key && !sample.settled {
                sample.settled = true;
                learn(sample.model.into(), &sample.features, sample.tag);
            }
            serial = sample.older;
        }
    }

    /// The oldest sample if it was proposed before crossing `until`, or if there is room for
    /// fewer than `room`; gone afterwards. `None` inside means that it had come.
    pub fn expire(&mut self, until: u64, room: usize) -> Option<Option<(usize, &Features)>> {
        if self.oldest == self.next {
            return None;
        }
        let sample = &self.ring[place(self.oldest)];
        if sample.proposed >= until && self.room() >= room {
            return None;
        }
        self.oldest += 1;
        Some((!sample.settled).then_some((sample.model.into(), &sample.features)))
    }
}

fn place(serial: u64) -> usize {
    usize::try_from(serial).expect("64 bits") & ((1 << SAMPLE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fragment: u64) -> Key {
        Key::new(0, fragment).unwrap()
    }

    #[test]
    fn samples_come_once_or_expire() {
        let mut samples = Samples::new();
        for (now, fragment) in [(1, 7), (1, 8), (2, 7)] {
            samples.push(key(fragment), now, 0, &Features::default(), Tag::default());
        }
        let mut came = 0;
        samples.came(key(7), |_, _, _| came += 1);
        samples.came(key(7), |_, _, _| came += 1);
        assert_eq!(came, 2, "both of 7, once");
        assert!(samples.expire(1, 0).is_none(), "none is older");
        assert!(samples.expire(2, 0).unwrap().is_none(), "7 had come");
        assert!(samples.expire(2, 0).unwrap().is_some(), "8 had not");
        assert!(samples.expire(2, 0).is_none());
    }

    #[test]
    fn a_full_queue_gives_up_its_oldest() {
        let mut samples = Samples::new();
        for n in 0..3 << SAMPLE_BITS {
            while samples.expire(0, 1).is_some() {}
            samples.push(key(n % 100), 1, 0, &Features::default(), Tag::default());
        }
        let mut came = 0;
        samples.came(key(5), |_, _, _| came += 1);
        assert!(came > 100, "{came}");
    }
}
